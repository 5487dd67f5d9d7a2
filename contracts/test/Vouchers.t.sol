// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVouchers, Voucher} from "../src/interfaces/IVouchers.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {MarketTest} from "./MarketTest.sol";
import {GoodToken} from "./Tokens.sol";

/// @notice A fleet that is paid by cumulative vouchers.
contract VouchersTest is MarketTest {
    uint256 private constant PAYER_KEY = 0xf1ee7;
    uint256 private constant THAW_TIME = 1_000;
    address private constant MEMBER = address(0x4001);

    IVouchers private vouchers;

    function setUp() public override {
        super.setUp();
        vouchers = _deployVouchers();
        vm.deal(address(vouchers), 10 ether);
    }

    function _deployVouchers() private returns (IVouchers) {
        bytes memory arguments = abi.encode(vm.addr(PAYER_KEY), THAW_TIME);
        return IVouchers(vm.deployCode("src/Vouchers.sol:Vouchers", arguments));
    }

    function _sign(uint256 key, Voucher memory voucher) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, vouchers.hashVoucher(voucher));
        return abi.encodePacked(r, s, v);
    }

    function _redeem(uint256 cumulative) private {
        Voucher memory voucher = Voucher(MEMBER, address(0), cumulative);
        bytes memory signature = _sign(PAYER_KEY, voucher);
        vouchers.redeem(voucher, signature);
    }

    function test_a_voucher_pays_what_it_adds_to_the_ones_before() public {
        _redeem(2 ether);
        _redeem(5 ether);

        assertEq(MEMBER.balance, 5 ether);
        assertEq(vouchers.paidTo(MEMBER, address(0)), 5 ether);
    }

    function test_an_operators_earnings_reach_its_fleet() public {
        vm.prank(_owner(PROVIDER));
        market.setPayout(PROVIDER, address(vouchers));
        uint256 leaseId = _claimFirst();
        _finishAudit(leaseId);
        _settle(leaseId);
        market.payOut(PROVIDER, Role.Provider, 0);

        _redeem(10 ether + price);

        assertEq(MEMBER.balance, 10 ether + price);
    }

    function test_attack_a_voucher_is_not_redeemed_twice_nor_an_older_one_after_it() public {
        _redeem(2 ether);
        Voucher memory older = Voucher(MEMBER, address(0), 1 ether);
        Voucher memory same = Voucher(MEMBER, address(0), 2 ether);
        (bytes memory first, bytes memory second) = (_sign(PAYER_KEY, older), _sign(PAYER_KEY, same));

        vm.expectRevert(abi.encodeWithSelector(IVouchers.VoucherRedeemed.selector, 1 ether, 2 ether));
        vouchers.redeem(older, first);
        vm.expectRevert(abi.encodeWithSelector(IVouchers.VoucherRedeemed.selector, 2 ether, 2 ether));
        vouchers.redeem(same, second);
    }

    function test_attack_a_voucher_by_another_key_for_another_payee_or_contract_is_refused() public {
        Voucher memory voucher = Voucher(MEMBER, address(0), 1 ether);
        bytes memory forged = _sign(PAYER_KEY + 1, voucher);
        bytes memory signature = _sign(PAYER_KEY, voucher);
        bytes memory refused =
            abi.encodeWithSelector(IVouchers.VoucherInvalidSignature.selector, vm.addr(PAYER_KEY));

        vm.expectRevert(refused);
        vouchers.redeem(voucher, forged);
        voucher.payee = STRANGER;
        vm.expectRevert(refused);
        vouchers.redeem(voucher, signature);
        voucher.payee = MEMBER;
        IVouchers other = _deployVouchers();
        vm.expectRevert(refused);
        other.redeem(voucher, signature);
    }

    function test_attack_a_voucher_of_another_chain_is_refused() public {
        Voucher memory voucher = Voucher(MEMBER, address(0), 1 ether);
        bytes memory signature = _sign(PAYER_KEY, voucher);

        vm.chainId(block.chainid + 1);

        vm.expectPartialRevert(IVouchers.VoucherInvalidSignature.selector);
        vouchers.redeem(voucher, signature);
    }

    function test_the_payer_takes_money_back_only_after_its_members_had_time() public {
        address payer = vm.addr(PAYER_KEY);
        vm.prank(payer);
        vouchers.thaw(address(0), 8 ether);

        vm.expectPartialRevert(IVouchers.VoucherFundsNotThawed.selector);
        vm.prank(payer);
        vouchers.withdraw(address(0), payer);
        _redeem(1 ether);
        _passTime(THAW_TIME + 1);
        vm.prank(payer);
        vouchers.withdraw(address(0), payer);

        assertEq(payer.balance, 8 ether);
        vm.expectPartialRevert(IVouchers.VoucherFundsNotThawed.selector);
        vm.prank(payer);
        vouchers.withdraw(address(0), payer);
    }

    function test_only_the_payer_takes_money_back() public {
        vm.expectRevert(
            abi.encodeWithSelector(IVouchers.VoucherNotPayer.selector, address(this), vm.addr(PAYER_KEY))
        );
        vouchers.thaw(address(0), 1);
        vm.expectPartialRevert(IVouchers.VoucherNotPayer.selector);
        vouchers.withdraw(address(0), STRANGER);
    }

    function test_a_voucher_pays_in_a_token() public {
        GoodToken token = new GoodToken();
        token.mint(address(vouchers), 3 ether);
        Voucher memory voucher = Voucher(MEMBER, address(token), 2 ether);
        bytes memory signature = _sign(PAYER_KEY, voucher);

        vouchers.redeem(voucher, signature);

        assertEq(token.balanceOf(MEMBER), 2 ether);
    }

    function test_a_payee_that_refuses_ether_keeps_its_claim() public {
        Voucher memory voucher = Voucher(address(market), address(0), 1 ether);
        bytes memory signature = _sign(PAYER_KEY, voucher);

        vm.expectRevert(
            abi.encodeWithSelector(IVouchers.VoucherPaymentFailed.selector, address(market), 1 ether)
        );
        vouchers.redeem(voucher, signature);

        assertEq(vouchers.paidTo(address(market), address(0)), 0);
    }
}
