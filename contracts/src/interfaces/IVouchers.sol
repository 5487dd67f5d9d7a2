// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What a payer signs (EIP-712): all that it owes `payee` since the beginning. A later one replaces it.
struct Voucher {
    address payee;
    address token; // zero: ether
    uint256 cumulative; // base units
}

/// @notice Pay by signature: one transaction for any number of leases; see `Vouchers`.
interface IVouchers {
    event VoucherPaid(address indexed payee, address indexed token, uint256 amount);
    event VoucherFundsThawing(address indexed token, uint256 amount, uint256 until);

    error VoucherRedeemed(uint256 cumulative, uint256 paid);
    error VoucherInvalidSignature(address payer);
    error VoucherNotPayer(address caller, address payer);
    error VoucherFundsNotThawed(uint256 until, uint256 time);
    error VoucherPaymentFailed(address account, uint256 amount);

    /// @notice Send the payee what its voucher says, less what it had before; anyone may.
    function redeem(Voucher calldata voucher, bytes calldata signature) external;

    /// @notice As the payer: announce that `amount` will be taken back, in place of what was announced before. Until
    /// the time is over, vouchers come first.
    function thaw(address token, uint216 amount) external;

    /// @notice As the payer: take back what has thawed.
    function withdraw(address token, address to) external;

    /// @return The digest that the payer signs.
    function hashVoucher(Voucher calldata voucher) external view returns (bytes32);

    /// @return Base units of `token` that `payee` has had.
    function paidTo(address payee, address token) external view returns (uint256);

    function payer() external view returns (address);
}
