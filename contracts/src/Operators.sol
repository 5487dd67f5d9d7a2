// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "./Assets.sol";
import {IOperators} from "./interfaces/IOperators.sol";
import {Account, Role} from "./libraries/Accounts.sol";

/// @notice Keeps operators: their keys, stakes, earnings and tickets.
abstract contract Operators is Assets {
    struct Operator {
        address owner;
        address proposed; // owner, until it accepts
        address payout;
    }

    /// @notice One unit of an auditor's stake: what a draw picks.
    struct Ticket {
        uint32 operator;
        bool leaving;
    }

    // Written by the half of the code that a detector does not look at: see Market.
    // slither-disable-start uninitialized-state,constable-states,unused-state
    uint32 internal _operatorCount; // numbers begin at 1
    mapping(uint256 operator => Operator) internal _operators;
    mapping(uint256 operator => mapping(address worker => bool)) internal _workers;
    mapping(uint256 operator => mapping(Role role => mapping(uint256 asset => Account))) internal _accounts;
    mapping(uint256 asset => Ticket[]) internal _tickets; // append-only: a draw's candidates cannot move
    // slither-disable-end uninitialized-state,constable-states,unused-state

    function _isWorker(uint256 operator, address worker) internal view returns (bool) {
        return _workers[operator][worker];
    }

    function _account(uint256 operator, Role role, uint256 asset) internal view returns (Account storage) {
        return _accounts[operator][role][asset];
    }

    function _requireWorker(uint256 operator) internal view {
        if (!_isWorker(operator, msg.sender)) revert IOperators.OperatorNotWorker(operator, msg.sender);
    }
}
