// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IClosing, IMarket} from "../src/interfaces/IMarket.sol";
import {JobStatus} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

/// @notice When a round closes, and who is in its set.
contract RoundsTest is LeaseStates {
    function test_a_round_closes_when_all_its_slots_are_attested() public {
        uint256 jobId = _openJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 1));
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, jobId, 1, 0));
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 1, 0, 1);
        uint256 last = _claim(RIVAL, jobId, 0, 1, 1);
        _commit(last);
        _draw(last);

        vm.expectEmit(address(market));
        emit IMarket.RoundClosed(jobId, 0, 3);
        _attest(last);

        assertEq(market.getJob(jobId).round, 1);
        assertEq(market.getJob(jobId).openedAt, block.timestamp);
        _claim(PROVIDER, jobId, 1, 0, 1);
    }

    function test_a_round_without_a_round_time_closes_by_completeness_alone() public {
        uint256 jobId = _openJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 1));
        _passTime(5_000);

        vm.expectRevert(abi.encodeWithSelector(IClosing.JobRoundNotComplete.selector, jobId, 0, 1, 2));
        market.closeRound(jobId);
    }

    function test_a_round_closes_by_time_with_its_quorum() public {
        uint256 jobId = _openQuorumJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 1));
        _finishAudit(_claim(RIVAL, jobId, 0, 2, 1));
        vm.warp(uint256(market.getJob(jobId).openedAt) + 700 + 1);

        vm.expectEmit(address(market));
        emit IMarket.RoundClosed(jobId, 0, 5);
        vm.prank(STRANGER);
        market.closeRound(jobId);

        (, uint256 attested,) = market.getRound(jobId, 0);
        assertEq(attested, 5);
        _claim(PROVIDER, jobId, 1, 1, 1);
    }

    function test_a_round_does_not_close_before_its_time() public {
        uint256 jobId = _openQuorumJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 2));
        uint256 earliest = uint256(market.getJob(jobId).openedAt) + 700;
        vm.warp(earliest);

        vm.expectRevert(
            abi.encodeWithSelector(IClosing.JobRoundTooEarly.selector, jobId, 0, earliest, earliest)
        );
        market.closeRound(jobId);
    }

    function test_a_round_does_not_close_below_its_quorum() public {
        uint256 jobId = _openQuorumJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 1));
        _passTime(5_000);

        vm.expectRevert(abi.encodeWithSelector(IClosing.JobRoundNotComplete.selector, jobId, 0, 1, 2));
        market.closeRound(jobId);
    }

    function test_only_rounds_that_exist_and_are_open_close() public {
        uint256 jobId = _createJob();
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, jobId, 0, 0));
        market.closeRound(jobId);
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, 99, 0, 0));
        market.closeRound(99);

        _seed(jobId);
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 2));
        _finishAudit(_claim(PROVIDER, jobId, 1, 0, 2));
        assertJobStatus(jobId, JobStatus.Complete);
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, jobId, 2, 2));
        market.closeRound(jobId);
    }

    function test_a_lease_that_is_late_is_paid_but_not_in_the_set() public {
        uint256 jobId = _openQuorumJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 2));
        uint256 late = _claim(RIVAL, jobId, 0, 2, 1);
        _commit(late);
        _passTime(701);
        market.closeRound(jobId);

        _draw(late);
        _attest(late);
        _settle(late);

        (, uint256 attested,) = market.getRound(jobId, 0);
        assertEq(attested, 3);
        assertAccount(RIVAL, DEPOSIT, 0, price);
        (bool found,) = market.lastAttested(jobId, 2, 1);
        assertTrue(!found, "its slot goes on without it");
    }

    function test_a_slash_before_the_close_takes_a_lease_out_of_the_set_and_reopens_its_shards() public {
        uint256 jobId = _openJob();
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 1);
        _finishAudit(leaseId);

        _slashAttested(leaseId);

        (uint256 taken, uint256 attested,) = market.getRound(jobId, 0);
        assertEq(taken | attested, 0);
        _finishAudit(_claim(RIVAL, jobId, 0, 0, 2));
        assertEq(market.getJob(jobId).round, 1);
    }

    function test_a_slash_after_the_close_changes_no_set_and_unpays_nobody() public {
        uint256 jobId = _openJob();
        uint256 slashed = _claim(PROVIDER, jobId, 0, 0, 1);
        uint256 honest = _claim(RIVAL, jobId, 0, 1, 1);
        _finishAudit(slashed);
        _finishAudit(honest);

        _slashAttested(slashed);
        _settle(honest);

        (, uint256 attested,) = market.getRound(jobId, 0);
        assertEq(attested, 3);
        assertEq(market.getJob(jobId).round, 1);
        assertAccount(RIVAL, DEPOSIT, 0, price);
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, jobId, 0, 1));
        vm.prank(_worker(RIVAL));
        market.claim(jobId, RIVAL, 0, 0, 1);
    }

    function test_a_slot_goes_on_from_the_last_round_whose_set_has_it() public {
        uint256 jobId = _openQuorumJob();
        (bool found, uint256 last) = market.lastAttested(jobId, 0, 0);
        assertTrue(!found, "it begins with the spec's");

        _closeWith(jobId, 0, 0, 2); // slots 0 and 1
        _closeWith(jobId, 1, 1, 2); // slots 1 and 2

        (found, last) = market.lastAttested(jobId, 0, 2);
        assertTrue(found && last == 0, "slot 0 was last in round 0");
        (found, last) = market.lastAttested(jobId, 1, 2);
        assertTrue(found && last == 1, "slot 1 was last in round 1");
        (found, last) = market.lastAttested(jobId, 1, 1);
        assertTrue(found && last == 0, "before round 1 it was round 0");
        (found,) = market.lastAttested(jobId, 2, 1);
        assertTrue(!found, "slot 2 was not in round 0");
    }

    function test_what_is_abandoned_when_its_round_closes_is_no_bounty_any_more() public {
        uint256 jobId = _openQuorumJob();
        uint256 abandoned = _claim(RIVAL, jobId, 0, 2, 1);
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 2));
        _passTime(701);
        market.expire(abandoned);
        assertEq(market.burnable(asset), 0.03 ether);

        market.closeRound(jobId);

        (,, uint256 left) = market.getRound(jobId, 0);
        assertEq(left, 0);
        assertEq(market.burnable(asset), 0.06 ether);
    }

    function test_an_expired_lease_of_a_closed_round_leaves_no_bounty() public {
        uint256 jobId = _openQuorumJob();
        uint256 abandoned = _claim(RIVAL, jobId, 0, 2, 1);
        _closeWith(jobId, 0, 0, 2);

        market.expire(abandoned);

        (uint256 taken,, uint256 left) = market.getRound(jobId, 0);
        assertEq(left, 0);
        assertEq(taken, 3);
        assertEq(market.burnable(asset), 0.06 ether);
        assertStatus(abandoned, LeaseStatus.Lapsed);
    }

    /// @notice A job of two rounds of three slots, which close by time with two.
    function _openQuorumJob() private returns (uint256) {
        (slots, quorum, roundTime) = (3, 2, 700);
        return _openJob();
    }

    function _closeWith(uint256 jobId, uint256 round, uint256 first, uint256 count) private {
        _finishAudit(_claim(PROVIDER, jobId, round, first, count));
        _passTime(701);
        market.closeRound(jobId);
    }

    function _slashAttested(uint256 leaseId) private {
        uint256 challengeId = _challenge(leaseId, 0, 1);
        _passTime(401);
        market.resolve(challengeId);
        assertStatus(leaseId, LeaseStatus.Slashed);
    }
}
