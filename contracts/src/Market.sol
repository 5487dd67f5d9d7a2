// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {Annex} from "./Annex.sol";
import {Assets} from "./Assets.sol";
import {Audits} from "./Audits.sol";
import {Closing} from "./Closing.sol";
import {Deployment} from "./Deployment.sol";
import {IAssets} from "./interfaces/IAssets.sol";
import {Asset, Config} from "./interfaces/IDeployment.sol";

/// @notice A market that pays for training it can check. It has no owner and cannot be changed.
/// @dev `multicall` batches what takes no ether: commits, settlements, a draw with its attestation.
contract Market is Audits, Closing, Multicall {
    address private immutable ANNEX; // the rest of this contract's code

    constructor(Config memory constants, Asset[] memory assets) Deployment(constants) Assets(assets) {
        ANNEX = address(new Annex(constants, assets));
    }

    receive() external payable {
        revert IAssets.AssetWrongPayment(msg.value, 0);
    }

    /// @notice Run what this contract's own code lacks.
    fallback() external payable {
        address annex = ANNEX;
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, 0, calldatasize())
            let success := delegatecall(gas(), annex, free, calldatasize(), 0, 0)
            returndatacopy(free, 0, returndatasize())
            if iszero(success) { revert(free, returndatasize()) }
            return(free, returndatasize())
        }
    }
}
