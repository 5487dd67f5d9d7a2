// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IVouchers, Voucher} from "./interfaces/IVouchers.sol";

/// @notice A payout address that splits what an operator earns among its fleet, by cumulative vouchers.
/// @dev One contract for each payer, so that all it holds is that payer's, however it came.
contract Vouchers is IVouchers, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    bytes32 private constant VOUCHER_TYPE =
        keccak256("Voucher(address payee,address token,uint256 cumulative)");

    address private immutable PAYER;
    uint256 private immutable THAW_TIME; // seconds

    mapping(address token => Thawing) private _thawing;
    /// @inheritdoc IVouchers
    mapping(address payee => mapping(address token => uint256)) public paidTo;

    /// @notice What the payer is taking back.
    struct Thawing {
        uint216 amount;
        uint40 until;
    }

    constructor(address payer_, uint256 thawTime) EIP712("Touchstone Vouchers", "1") {
        PAYER = payer_;
        THAW_TIME = thawTime;
    }

    receive() external payable {}

    /// @inheritdoc IVouchers
    function redeem(Voucher calldata voucher, bytes calldata signature) external nonReentrant {
        uint256 paid = paidTo[voucher.payee][voucher.token];
        if (voucher.cumulative <= paid) revert VoucherRedeemed(voucher.cumulative, paid);
        if (!SignatureChecker.isValidSignatureNowCalldata(PAYER, hashVoucher(voucher), signature)) {
            revert VoucherInvalidSignature(PAYER);
        }

        paidTo[voucher.payee][voucher.token] = voucher.cumulative;
        uint256 amount = voucher.cumulative - paid;
        emit VoucherPaid(voucher.payee, voucher.token, amount);
        _send(voucher.token, voucher.payee, amount);
    }

    /// @inheritdoc IVouchers
    function thaw(address token, uint216 amount) external {
        _requirePayer();
        uint40 until = uint40(block.timestamp + THAW_TIME);
        _thawing[token] = Thawing(amount, until);
        emit VoucherFundsThawing(token, amount, until);
    }

    /// @inheritdoc IVouchers
    function withdraw(address token, address to) external nonReentrant {
        _requirePayer();
        Thawing memory thawing = _thawing[token];
        if (thawing.amount == 0 || block.timestamp <= thawing.until) {
            revert VoucherFundsNotThawed(thawing.until, block.timestamp);
        }
        delete _thawing[token];
        _send(token, to, thawing.amount);
    }

    /// @inheritdoc IVouchers
    function payer() external view returns (address) {
        return PAYER;
    }

    /// @inheritdoc IVouchers
    function hashVoucher(Voucher calldata voucher) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPE, voucher)));
    }

    function _requirePayer() private view {
        if (msg.sender != PAYER) revert VoucherNotPayer(msg.sender, PAYER);
    }

    function _send(address token, address account, uint256 amount) private {
        if (token != address(0)) return IERC20(token).safeTransfer(account, amount);
        (bool sent,) = account.call{value: amount}("");
        if (!sent) revert VoucherPaymentFailed(account, amount);
    }
}
