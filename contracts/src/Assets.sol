// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Clock} from "./Clock.sol";
import {IAssets} from "./interfaces/IAssets.sol";
import {Asset, IDeployment} from "./interfaces/IDeployment.sol";

/// @notice Takes money in, owes it and pays it out. Every transfer is in this file.
abstract contract Assets is Clock, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    Asset[] internal _assets; // fixed at deployment
    mapping(uint256 asset => uint256) internal _burnable;
    mapping(address account => mapping(uint256 asset => uint256)) internal _credit;

    constructor(Asset[] memory assets) {
        if (assets.length == 0) revert IDeployment.DeploymentNeedsAsset();
        for (uint256 i = 0; i < assets.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                if (assets[i].token == assets[j].token) {
                    revert IDeployment.DeploymentDuplicateAsset(assets[i].token);
                }
            }
            _assets.push(assets[i]);
        }
    }

    function _getAsset(uint256 asset) internal view returns (Asset memory) {
        if (asset >= _assets.length) revert IAssets.AssetUnknown(asset, _assets.length);
        return _assets[asset];
    }

    /// @notice Take exactly `amount` from the caller.
    /// @dev A token that takes a fee, or says that it moved what it did not, is refused.
    function _receive(uint256 asset, uint256 amount) internal nonReentrant {
        address token = _getAsset(asset).token;
        uint256 value = token == address(0) ? amount : 0;
        if (msg.value != value) revert IAssets.AssetWrongPayment(msg.value, value);
        if (token == address(0)) return;

        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != amount) revert IAssets.AssetWrongTransfer(token, received, amount);
    }

    /// @notice Owe `account` `amount` more.
    function _owe(uint256 asset, address account, uint256 amount) internal {
        _credit[account][asset] += amount;
    }

    /// @notice Give `amount` up, so that no fee or slashed stake enriches anybody.
    function _forfeit(uint256 asset, uint256 amount) internal {
        if (amount > 0) _burnable[asset] += amount;
    }

    /// @notice Send `amount` to `account`. The last thing a function does.
    function _pay(uint256 asset, address account, uint256 amount) internal nonReentrant {
        address token = _getAsset(asset).token;
        if (token != address(0)) return IERC20(token).safeTransfer(account, amount);
        bool sent;
        assembly ("memory-safe") {
            sent := call(gas(), account, amount, 0, 0, 0, 0) // what the payee returns is not copied
        }
        if (!sent) revert IAssets.AssetPaymentFailed(account, amount);
    }
}
