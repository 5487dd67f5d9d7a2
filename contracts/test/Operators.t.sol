// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssets} from "../src/interfaces/IAssets.sol";
import {IOperators} from "../src/interfaces/IOperators.sol";
import {Accounts, Role} from "../src/libraries/Accounts.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

/// @notice An owner that takes no ether.
contract Wall {
    function run(address target, bytes calldata data) external {
        // forge-lint: disable-next-line(unchecked-call)
        (bool success, bytes memory result) = target.call(data);
        if (success) return;
        assembly ("memory-safe") {
            revert(add(result, 32), mload(result))
        }
    }
}

contract OperatorsTest is LeaseStates {
    address private constant COLD = address(0x2001);
    address private constant HOT = address(0x2002);

    function test_who_registers_owns_works_and_is_paid_where_it_says() public {
        uint256 operator = market.operatorCount() + 1;
        vm.expectEmit(address(market));
        emit IOperators.OperatorRegistered(operator, COLD, HOT);
        vm.prank(COLD);
        market.register(HOT);

        (address owner, address payout) = market.getOperator(operator);
        assertEq(owner, COLD);
        assertEq(payout, HOT);
        assertTrue(market.isWorker(operator, COLD), "the owner is a worker");
    }

    function test_an_operator_is_paid_somewhere() public {
        vm.expectRevert(IOperators.OperatorNeedsPayout.selector);
        market.register(address(0));
        vm.expectRevert(IOperators.OperatorNeedsPayout.selector);
        vm.prank(_owner(PROVIDER));
        market.setPayout(PROVIDER, address(0));
    }

    function test_a_worker_acts_until_it_is_dismissed() public {
        uint256 jobId = _openJob();
        vm.prank(_owner(PROVIDER));
        market.setWorker(PROVIDER, HOT, true);
        vm.prank(HOT);
        market.claim(jobId, PROVIDER, 0, 0, 1);

        vm.prank(_owner(PROVIDER));
        market.setWorker(PROVIDER, HOT, false);

        vm.expectRevert(abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, PROVIDER, HOT));
        vm.prank(HOT);
        market.claim(jobId, PROVIDER, 0, 1, 1);
    }

    function test_attack_a_stolen_hot_key_moves_no_money() public {
        address thief = _worker(AUDITOR);
        bytes[7] memory calls = [
            abi.encodeCall(IOperators.setWorker, (AUDITOR, STRANGER, true)),
            abi.encodeCall(IOperators.setPayout, (AUDITOR, thief)),
            abi.encodeCall(IOperators.proposeOwner, (AUDITOR, thief)),
            abi.encodeCall(IOperators.thaw, (AUDITOR, asset, 1)),
            abi.encodeCall(IOperators.withdrawStake, (AUDITOR, Role.Auditor, asset)),
            abi.encodeCall(IOperators.withdrawStake, (AUDITOR, Role.Provider, asset)),
            abi.encodeCall(IOperators.retireTicket, (AUDITOR, asset, 0))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(thief);
            (bool success, bytes memory result) = address(market).call(calls[i]);
            assertTrue(!success, "a worker owns nothing");
            bytes memory refusal =
                abi.encodeWithSelector(IOperators.OperatorNotOwner.selector, AUDITOR, _owner(AUDITOR), thief);
            assertEq(keccak256(result), keccak256(refusal));
        }
    }

    function test_an_operator_changes_hands_when_the_next_owner_accepts() public {
        vm.prank(_owner(PROVIDER));
        market.proposeOwner(PROVIDER, COLD);
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.OperatorNotOwner.selector, PROVIDER, COLD, STRANGER)
        );
        vm.prank(STRANGER);
        market.acceptOwner(PROVIDER);

        vm.prank(COLD);
        market.acceptOwner(PROVIDER);

        (address owner,) = market.getOperator(PROVIDER);
        assertEq(owner, COLD);
        vm.expectRevert(
            abi.encodeWithSelector(
                IOperators.OperatorNotOwner.selector, PROVIDER, address(0), _owner(PROVIDER)
            )
        );
        vm.prank(_owner(PROVIDER));
        market.acceptOwner(PROVIDER);
    }

    function test_an_operator_that_was_never_offered_cannot_be_taken() public {
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.OperatorNotOwner.selector, PROVIDER, address(0), STRANGER)
        );
        vm.prank(STRANGER);
        market.acceptOwner(PROVIDER);
    }

    function testFuzz_stake_that_thawed_comes_back_in_full(uint80 amount) public {
        amount = uint80(clamp(amount, 1, 900 ether));
        uint256 operator = _register();
        uint256 before = _owner(operator).balance;
        vm.prank(_owner(operator));
        market.stake{value: amount}(operator, asset, amount);
        vm.prank(_owner(operator));
        market.thaw(operator, asset, amount);
        _passTime(2_701);

        vm.prank(_owner(operator));
        market.withdrawStake(operator, Role.Provider, asset);

        assertEq(_owner(operator).balance, before);
        assertEq(address(market).balance, 4 * DEPOSIT);
    }

    function test_stake_that_thaws_leaves_after_its_time_and_not_before() public {
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 10 ether);
        assertEq(_account(PROVIDER).thawing, 10 ether);
        uint256 until = block.timestamp + 2_700;
        vm.warp(until);
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.OperatorStakeThawing.selector, PROVIDER, until, until)
        );
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);

        _passTime(1);
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);
        assertAccount(PROVIDER, DEPOSIT - 10 ether, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IOperators.OperatorNothingThawing.selector, PROVIDER));
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);
    }

    function test_thawing_more_starts_the_clock_anew() public {
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 1 ether);
        _passTime(2_701);
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 1 ether);

        assertEq(_account(PROVIDER).thawing, 2 ether);
        vm.expectPartialRevert(IOperators.OperatorStakeThawing.selector);
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);
    }

    function test_stake_thaws_once() public {
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, DEPOSIT);

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 0, 1));
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 1);
    }

    function test_stake_that_answers_for_a_lease_thaws_but_stays_until_the_lease_is_over() public {
        uint256 leaseId = _claimFirst();
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, DEPOSIT);
        _passTime(2_701);
        vm.expectRevert(
            abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, DEPOSIT - STAKE, DEPOSIT)
        );
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);

        market.expire(leaseId);
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);

        assertEq(_owner(PROVIDER).balance, WEALTH - 0.06 ether);
    }

    function test_attack_stake_that_was_thawed_before_a_slash_is_slashed() public {
        uint256 leaseId = _claimFirst();
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, DEPOSIT);
        _bringTo(leaseId, LeaseStatus.Slashed);

        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertEq(_account(PROVIDER).thawing, DEPOSIT - STAKE);
    }

    function test_what_thaws_answers_for_no_new_lease() public {
        uint256 jobId = _openJob();
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, DEPOSIT);

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 0, STAKE));
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 1);
    }

    function test_nothing_is_staked_thawed_or_bought_by_zeros() public {
        vm.expectRevert(IOperators.OperatorZeroAmount.selector);
        market.stake(PROVIDER, asset, 0);
        vm.expectRevert(IOperators.OperatorZeroAmount.selector);
        market.buyTickets(AUDITOR, asset, 0);
        vm.expectRevert(IOperators.OperatorZeroAmount.selector);
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 0);
    }

    function test_nobody_stakes_for_an_operator_that_does_not_exist() public {
        bytes memory refusal = abi.encodeWithSelector(IOperators.OperatorUnknown.selector, 99);
        vm.expectRevert(refusal);
        vm.prank(STRANGER);
        market.stake{value: 1}(99, asset, 1);
        vm.expectRevert(refusal);
        vm.prank(STRANGER);
        market.buyTickets{value: TICKET_STAKE}(99, asset, 1);
    }

    function test_anyone_pays_an_operators_earnings_out_to_where_it_says() public {
        _leaseIn(LeaseStatus.Settled);

        vm.expectEmit(address(market));
        emit IOperators.EarningsPaid(PROVIDER, Role.Provider, asset, price, _payout(PROVIDER));
        vm.prank(STRANGER);
        market.payOut(PROVIDER, Role.Provider, asset);

        assertEq(_payout(PROVIDER).balance, price);
        vm.expectRevert(abi.encodeWithSelector(IOperators.OperatorNothingEarned.selector, PROVIDER));
        market.payOut(PROVIDER, Role.Provider, asset);
    }

    function test_tickets_are_listed_in_order_under_their_buyer() public view {
        (uint256 operator, bool leaving) = market.getTicket(asset, TICKETS);
        assertEq(market.ticketCount(asset), 2 * TICKETS);
        assertEq(operator, COLLEAGUE);
        assertTrue(!leaving, "a new ticket is not leaving");
    }

    function test_tickets_cost_exactly_their_stake() public {
        vm.expectRevert(
            abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, 13 ether, 2 * TICKET_STAKE)
        );
        vm.prank(_owner(AUDITOR));
        market.buyTickets{value: 13 ether}(AUDITOR, asset, 2);
    }

    function test_a_retired_ticket_keeps_its_place_and_thaws_its_stake() public {
        _retire(COLLEAGUE, TICKETS);

        (, bool leaving) = market.getTicket(asset, TICKETS);
        assertTrue(leaving, "it is leaving");
        assertEq(market.ticketCount(asset), 2 * TICKETS);
        assertAccount(COLLEAGUE, DEPOSIT, 0, 0);
        assertEq(_account(COLLEAGUE).thawing, TICKET_STAKE);
        assertEq(_account(COLLEAGUE).thawedAt, block.timestamp + 2_700);
    }

    function test_a_ticket_is_retired_once_and_by_its_owner() public {
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.TicketNotOwned.selector, TICKETS, COLLEAGUE, AUDITOR)
        );
        _retire(AUDITOR, TICKETS);

        _retire(COLLEAGUE, TICKETS);
        vm.expectRevert(abi.encodeWithSelector(IOperators.TicketLeaving.selector, TICKETS));
        _retire(COLLEAGUE, TICKETS);
    }

    function test_the_stake_of_retired_tickets_answers_for_the_audit_it_is_locked_for() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256 auditor = _auditorOf(leaseId);
        for (uint256 i = 0; i < TICKETS; ++i) {
            _retire(auditor, (auditor == AUDITOR ? 0 : TICKETS) + i);
        }
        _passTime(2_701);
        vm.expectRevert(
            abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, DEPOSIT - STAKE, DEPOSIT)
        );
        vm.prank(_owner(auditor));
        market.withdrawStake(auditor, Role.Auditor, asset);

        market.replaceAuditor(leaseId);
        vm.prank(_owner(auditor));
        market.withdrawStake(auditor, Role.Auditor, asset);

        assertEq(_owner(auditor).balance, WEALTH - 0.21 ether);
    }

    function test_what_slashing_took_of_a_ticket_does_not_thaw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        uint256 auditor = _auditorOf(leaseId);
        market.replaceAuditor(leaseId);
        uint256 left = DEPOSIT - 0.21 ether;

        for (uint256 i = 0; i < TICKETS; ++i) {
            _retire(auditor, (auditor == AUDITOR ? 0 : TICKETS) + i);
        }

        assertAccount(auditor, left, 0, 0);
        assertEq(_account(auditor).thawing, left);
    }

    function test_a_refused_payment_takes_nothing() public {
        Wall wall = new Wall();
        vm.prank(_owner(PROVIDER));
        market.setPayout(PROVIDER, address(wall));
        _leaseIn(LeaseStatus.Settled);

        vm.expectRevert(
            abi.encodeWithSelector(IAssets.AssetPaymentFailed.selector, address(wall), uint256(price))
        );
        market.payOut(PROVIDER, Role.Provider, asset);

        assertAccount(PROVIDER, DEPOSIT, 0, price);
    }

    function test_a_credit_goes_where_its_holder_says() public {
        uint256 jobId = _openJob();
        vm.prank(REQUESTER);
        market.cancelJob(jobId);
        market.refund(jobId);
        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetNoCredit.selector, STRANGER, asset));
        vm.prank(STRANGER);
        market.withdraw(asset, STRANGER);

        vm.prank(REQUESTER);
        market.withdraw(asset, COLD);

        assertEq(COLD.balance, 4.4 ether);
        assertEq(market.creditOf(REQUESTER, asset), 0);
    }

    function test_what_is_forfeited_is_destroyed_by_anyone_once() public {
        _leaseIn(LeaseStatus.Withdrawn);
        uint256 held = address(market).balance;
        uint256 burned = address(0xdead).balance;

        vm.prank(STRANGER);
        market.burn(asset);

        assertEq(address(0xdead).balance - burned, 0.12 ether);
        assertEq(held - address(market).balance, 0.12 ether);
        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetNothingToBurn.selector, asset));
        market.burn(asset);
    }

    function test_ether_sent_without_a_call_is_refused() public {
        vm.prank(STRANGER);
        (bool success, bytes memory result) = address(market).call{value: 1}("");

        assertTrue(!success, "nobody would own it");
        assertEq(
            keccak256(result), keccak256(abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, 1, 0))
        );
    }

    function _retire(uint256 operator, uint256 ticketId) private {
        vm.prank(_owner(operator));
        market.retireTicket(operator, asset, ticketId);
    }
}
