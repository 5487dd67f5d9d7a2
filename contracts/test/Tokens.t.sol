// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IAssets} from "../src/interfaces/IAssets.sol";
import {Asset} from "../src/interfaces/IDeployment.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";
import {FalseToken, GoodToken, HookedToken, LyingToken, SilentToken, TaxedToken} from "./Tokens.sol";

interface Mintable {
    function mint(address account, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
    function balanceOf(address account) external view returns (uint256);
}

/// @notice Jobs in tokens: well-made ones, old ones, and hostile ones.
contract TokensTest is MarketTest {
    uint8 private constant GOOD = 1;
    uint8 private constant SILENT = 2;
    uint8 private constant TAXED = 3;
    uint8 private constant LYING = 4;
    uint8 private constant FALSE = 5;
    uint8 private constant HOOKED = 6;

    function _assets() internal override returns (Asset[] memory assets) {
        assets = new Asset[](7);
        assets[0] = Asset(address(0), TICKET_STAKE);
        assets[GOOD] = Asset(address(new GoodToken()), TICKET_STAKE);
        assets[SILENT] = Asset(address(new SilentToken()), TICKET_STAKE);
        assets[TAXED] = Asset(address(new TaxedToken()), TICKET_STAKE);
        assets[LYING] = Asset(address(new LyingToken()), TICKET_STAKE);
        assets[FALSE] = Asset(address(new FalseToken()), TICKET_STAKE);
        assets[HOOKED] = Asset(address(new HookedToken()), TICKET_STAKE);
    }

    function _token() private view returns (Mintable) {
        return Mintable(market.getAsset(asset).token);
    }

    /// @notice Pay in `kind` from here on: everybody has plenty of it, and lets the market take it.
    function _use(uint8 kind) private {
        asset = kind;
        _fund(REQUESTER);
        for (uint256 operator = PROVIDER; operator <= COLLEAGUE; ++operator) {
            _fund(_owner(operator));
        }
    }

    function _fund(address account) private {
        Mintable token = _token();
        token.mint(account, WEALTH);
        vm.prank(account);
        token.approve(address(market), type(uint256).max);
    }

    function _stakeAll() private {
        _stake(PROVIDER, DEPOSIT);
        _buyTickets(AUDITOR, TICKETS);
    }

    function _settleOneLease() private returns (uint256 leaseId) {
        _stakeAll();
        leaseId = _claimFirst();
        _finishAudit(leaseId);
        _settle(leaseId);
    }

    function test_a_job_in_a_token_is_paid_in_it_and_in_no_other() public {
        _use(GOOD);

        _settleOneLease();
        market.payOut(PROVIDER, Role.Provider, GOOD);

        assertEq(_token().balanceOf(_payout(PROVIDER)), price);
        assertEq(market.getAccount(AUDITOR, Role.Auditor, GOOD).earned, FEE);
        assertEq(market.getAccount(PROVIDER, Role.Provider, 0).earned, 0);
        assertEq(_payout(PROVIDER).balance, 0);
    }

    function test_a_token_whose_calls_return_nothing_is_handled() public {
        _use(SILENT);

        _settleOneLease();
        market.payOut(PROVIDER, Role.Provider, SILENT);

        assertEq(_token().balanceOf(_payout(PROVIDER)), price);
    }

    function test_stake_in_one_asset_does_not_answer_for_a_job_in_another() public {
        _use(GOOD);
        uint256 jobId = _openJob(); // every operator has ether at stake, and nobody this token

        vm.expectRevert(abi.encodeWithSignature("AccountLacksFreeStake(uint256,uint256)", 0, STAKE));
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 1);
    }

    function test_attack_a_token_that_takes_a_fee_is_refused() public {
        _use(TAXED);
        uint256 stake = 1 ether;

        vm.expectRevert(
            abi.encodeWithSelector(
                IAssets.AssetWrongTransfer.selector, address(_token()), stake * 99 / 100, stake
            )
        );
        vm.prank(_owner(PROVIDER));
        market.stake(PROVIDER, TAXED, stake);
    }

    function test_attack_a_token_that_says_it_moved_what_it_did_not_is_refused() public {
        asset = LYING;
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());

        vm.expectRevert(
            abi.encodeWithSelector(IAssets.AssetWrongTransfer.selector, address(_token()), 0, _escrow())
        );
        vm.prank(REQUESTER);
        market.createJob(REQUESTER, spec, terms);
    }

    function test_attack_a_token_that_answers_false_is_refused() public {
        _use(FALSE);

        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(_token()))
        );
        vm.prank(_owner(PROVIDER));
        market.stake(PROVIDER, FALSE, 1 ether);
    }

    function test_ether_sent_along_with_a_token_is_refused() public {
        _use(GOOD);

        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, 1, 0));
        vm.prank(_owner(PROVIDER));
        market.stake{value: 1}(PROVIDER, GOOD, 1 ether);
    }

    function test_attack_a_token_that_calls_back_cannot_take_anything_out() public {
        _use(HOOKED);
        uint256 jobId = _openJob();
        vm.prank(REQUESTER);
        market.cancelJob(jobId);
        market.refund(jobId);
        HookedToken token = HookedToken(address(_token()));
        token.setHook(address(market), abi.encodeCall(IAssets.burn, (HOOKED)));
        uint256 leaseId = _forfeitSomething();

        vm.prank(REQUESTER);
        market.withdraw(HOOKED, REQUESTER);

        assertTrue(!token.reentered(), "nothing moves while something moves");
        assertEq(
            bytes32(bytes4(token.failure())),
            bytes32(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        assertStatus(leaseId, LeaseStatus.Lapsed);
    }

    /// @notice Leave something to burn.
    function _forfeitSomething() private returns (uint256 leaseId) {
        _stakeAll();
        leaseId = _claimFirst();
        _passDeadline(leaseId);
        market.expire(leaseId);
        assertTrue(market.burnable(asset) > 0, "something is burnable");
    }

    function test_an_unknown_asset_is_refused() public {
        asset = 7;
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());

        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetUnknown.selector, 7, 7));
        vm.prank(REQUESTER);
        market.createJob(REQUESTER, spec, terms);
    }

    function test_burned_tokens_leave_the_market_for_ever() public {
        _use(GOOD);
        _forfeitSomething();
        uint256 amount = market.burnable(GOOD);

        market.burn(GOOD);

        assertEq(_token().balanceOf(address(0xdead)), amount);
        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetNothingToBurn.selector, GOOD));
        market.burn(GOOD);
    }

    // Permits

    function _permit(uint256 key, uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        GoodToken token = GoodToken(address(_token()));
        bytes32 kind =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        address owner = vm.addr(key);
        bytes32 fields = keccak256(
            abi.encode(kind, owner, address(market), amount, token.nonces(owner), type(uint256).max)
        );
        return vm.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), fields)));
    }

    function test_a_permit_and_the_call_that_needs_it_are_one_transaction() public {
        asset = GOOD;
        address giver = vm.addr(77);
        _token().mint(giver, 5 ether);
        (uint8 v, bytes32 r, bytes32 s) = _permit(77, 5 ether);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IAssets.permit, (GOOD, giver, 5 ether, type(uint256).max, v, r, s));
        calls[1] = abi.encodeCall(market.stake, (PROVIDER, GOOD, 5 ether));

        vm.prank(giver);
        market.multicall(calls);

        assertEq(market.getAccount(PROVIDER, Role.Provider, GOOD).staked, 5 ether);
    }

    function test_attack_a_permit_that_somebody_used_before_does_not_block_its_owner() public {
        asset = GOOD;
        address giver = vm.addr(77);
        _token().mint(giver, 5 ether);
        (uint8 v, bytes32 r, bytes32 s) = _permit(77, 5 ether);
        bytes memory permit =
            abi.encodeCall(IAssets.permit, (GOOD, giver, 5 ether, type(uint256).max, v, r, s));
        vm.prank(STRANGER);
        GoodToken(address(_token())).permit(giver, address(market), 5 ether, type(uint256).max, v, r, s);
        bytes[] memory calls = new bytes[](2);
        (calls[0], calls[1]) = (permit, abi.encodeCall(market.stake, (PROVIDER, GOOD, 5 ether)));

        vm.prank(giver);
        market.multicall(calls);

        assertEq(market.getAccount(PROVIDER, Role.Provider, GOOD).staked, 5 ether);
    }

    // Ether

    function test_ether_that_nobody_asked_for_is_refused() public {
        vm.prank(STRANGER);
        (bool sent, bytes memory reason) = address(market).call{value: 1}("");

        assertTrue(!sent, "no gifts");
        assertEq(bytes32(bytes4(reason)), bytes32(IAssets.AssetWrongPayment.selector));
    }

    function test_attack_ether_is_not_counted_twice_in_a_batch() public {
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(market.stake, (PROVIDER, 0, 1 ether));
        calls[1] = calls[0];

        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, 0, 1 ether));
        vm.prank(STRANGER);
        market.multicall(calls);
    }

    function test_a_payout_address_that_refuses_ether_keeps_its_pay_and_can_be_changed() public {
        _settleOneLease();
        address refuses = address(new LyingToken()); // takes no ether
        vm.prank(_owner(PROVIDER));
        market.setPayout(PROVIDER, refuses);

        vm.expectPartialRevert(IAssets.AssetPaymentFailed.selector);
        market.payOut(PROVIDER, Role.Provider, 0);
        vm.prank(_owner(PROVIDER));
        market.setPayout(PROVIDER, STRANGER);
        market.payOut(PROVIDER, Role.Provider, 0);

        assertEq(STRANGER.balance, WEALTH + price);
    }
}
