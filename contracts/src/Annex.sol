// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "./Assets.sol";
import {Deployment} from "./Deployment.sol";
import {Desk} from "./Desk.sol";
import {Disputes} from "./Disputes.sol";
import {Guardian} from "./Guardian.sol";
import {Panels} from "./Panels.sol";
import {Views} from "./Views.sol";
import {Asset, Config} from "./interfaces/IDeployment.sol";

/// @notice The part of the market's code that is not on the way of an honest lease.
/// @dev `Market` runs it over its own storage, at an address that is fixed when it is deployed. By itself it holds
/// nothing and serves nobody: it is two contracts only because 24,576 bytes are not enough for one.
contract Annex is Guardian, Desk, Views, Panels, Disputes {
    constructor(Config memory constants, Asset[] memory assets) Deployment(constants) Assets(assets) {}
}
