// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Asset} from "./IDeployment.sol";

/// @notice The money: what comes in, what is owed, what is burned. Everything is paid by pull.
interface IAssets {
    event CreditWithdrawn(address indexed account, uint256 asset, uint256 amount);
    event Burned(uint256 asset, uint256 amount);

    error AssetUnknown(uint256 asset, uint256 count);
    error AssetWrongPayment(uint256 paid, uint256 required);
    error AssetWrongTransfer(address token, uint256 received, uint256 required);
    error AssetPaymentFailed(address account, uint256 amount);
    error AssetNoCredit(address account, uint256 asset);
    error AssetNothingToBurn(uint256 asset);

    /// @notice Use an ERC-2612 signature, so that a call after it in a `multicall` finds its allowance.
    /// @dev Whoever sees the signature may have used it before: a permit that fails is passed over, and the
    /// transfer that needs it says what is missing.
    function permit(
        uint256 asset,
        address owner,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Send the caller its credit, to `to`.
    function withdraw(uint256 asset, address to) external;

    /// @notice Destroy the fees and stakes that nobody is to have.
    function burn(uint256 asset) external;

    /// @return Base units of `asset` that `account` can withdraw.
    function creditOf(address account, uint256 asset) external view returns (uint256);

    /// @return Base units of `asset` that `burn` will destroy.
    function burnable(uint256 asset) external view returns (uint256);

    function getAsset(uint256 asset) external view returns (Asset memory);

    function assetCount() external view returns (uint256);
}
