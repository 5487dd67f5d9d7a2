// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IClock} from "../src/interfaces/IClock.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice The guardian's pause: no new work, no clock, no exit closed, and an end.
contract PauseTest is MarketTest {
    uint256 private constant LIMIT = 500;
    uint256 private constant INTERVAL = 2_000;

    function _pause() private {
        vm.prank(GUARDIAN);
        market.pause();
    }

    function test_a_pause_stops_new_jobs_and_claims_and_names_its_end() public {
        uint256 jobId = _openJob();
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());
        _pause();
        bytes memory paused = abi.encodeWithSelector(IClock.ClockPaused.selector, block.timestamp + LIMIT);

        vm.expectRevert(paused);
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 1);
        uint256 escrow = _escrow();
        vm.expectRevert(paused);
        vm.prank(REQUESTER);
        market.createJob{value: escrow}(REQUESTER, spec, terms);
    }

    function test_clocks_stand_still_during_a_pause_and_go_on_after_it() public {
        uint256 leaseId = _claimFirst();
        _toDeadline(leaseId);
        uint256 before = market.time();

        _pause();
        _passTime(LIMIT - 1);
        assertEq(market.time(), before);
        assertStatus(leaseId, LeaseStatus.Leased);
        _passTime(1);
        assertStatus(leaseId, LeaseStatus.Leased);
        assertEq(market.pausedUntil(), 0);
        _passTime(1);

        assertEq(market.time(), before + 1);
        assertStatus(leaseId, LeaseStatus.Expired);
    }

    function test_work_and_exits_go_on_during_a_pause() public {
        uint256 leaseId = _claimFirst();
        uint256 settled = _claim(RIVAL, 1, 0, 1, 1);
        _finishAudit(settled);
        _passDeadline(settled);
        uint256 late = leaseId; // its time is over too
        _pause();

        market.settle(settled);
        market.payOut(RIVAL, Role.Provider, 0);
        market.expire(late);
        vm.prank(REQUESTER);
        market.cancelJob(1);
        market.refund(1);
        vm.prank(REQUESTER);
        market.withdraw(0, REQUESTER);

        assertEq(_payout(RIVAL).balance, price);
    }

    function test_a_pause_can_be_ended_early() public {
        uint256 before = market.time();
        _pause();
        _passTime(100);

        vm.prank(GUARDIAN);
        market.unpause();
        _passTime(7);

        assertEq(market.time(), before + 7);
        vm.expectRevert(IClock.ClockNotPaused.selector);
        vm.prank(GUARDIAN);
        market.unpause();
    }

    function test_attack_pauses_cannot_follow_each_other_so_no_exit_is_closed_for_ever() public {
        _pause();
        uint256 earliest = block.timestamp + LIMIT + INTERVAL;
        _passTime(LIMIT + INTERVAL - 1);

        vm.expectRevert(abi.encodeWithSelector(IClock.ClockPauseTooSoon.selector, block.timestamp, earliest));
        _pause();
        _passTime(1);
        _pause();

        assertEq(market.time(), block.timestamp - LIMIT);
    }

    function test_attack_a_pause_cannot_be_stretched_while_it_lasts() public {
        _pause();
        _passTime(LIMIT / 2);

        vm.expectPartialRevert(IClock.ClockPauseTooSoon.selector);
        _pause();
    }

    function test_only_the_guardian_pauses() public {
        vm.expectRevert(abi.encodeWithSelector(IClock.ClockNotGuardian.selector, STRANGER, GUARDIAN));
        vm.prank(STRANGER);
        market.pause();
        _pause();
        vm.expectRevert(abi.encodeWithSelector(IClock.ClockNotGuardian.selector, STRANGER, GUARDIAN));
        vm.prank(STRANGER);
        market.unpause();
    }

    function test_the_price_does_not_rise_during_a_pause() public {
        (floorBps, rampTime) = (5_000, 1_000);
        uint256 jobId = _openJob();
        _passTime(100);
        uint256 before = market.priceNow(jobId);

        _pause();
        _passTime(LIMIT);

        assertEq(market.priceNow(jobId), before);
    }
}
