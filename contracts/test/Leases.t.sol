// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IClosing, IMarket} from "../src/interfaces/IMarket.sol";
import {IOperators} from "../src/interfaces/IOperators.sol";
import {Accounts} from "../src/libraries/Accounts.sol";
import {Jobs, JobStatus} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

contract LeasesTest is LeaseStates {
    function test_a_claim_locks_stake_and_holds_its_range_of_shards() public {
        slots = quorum = 8;
        uint256 jobId = _openJob();

        uint256 leaseId = _claim(PROVIDER, jobId, 0, 3, 4);

        (uint256 taken,,) = market.getRound(jobId, 0);
        assertStatus(leaseId, LeaseStatus.Leased);
        assertEq(taken, 0x78);
        assertEq(market.getJob(jobId).active, 4);
        assertEq(market.getLease(leaseId).clock, block.timestamp + 600);
        assertAccount(PROVIDER, DEPOSIT, 4 * STAKE, 0);
    }

    function test_leases_are_numbered_within_their_job() public {
        (uint256 first, uint256 second) = (_openJob(), _openJob());

        assertEq(_claim(PROVIDER, second, 0, 0, 1), second * 1_000_000 + 1);
        assertEq(_claim(PROVIDER, second, 0, 1, 1), second * 1_000_000 + 2);
        assertEq(_claim(RIVAL, first, 0, 0, 1), first * 1_000_000 + 1);
    }

    function test_a_range_that_overlaps_a_lease_cannot_be_claimed() public {
        slots = quorum = 8;
        uint256 jobId = _openJob();
        _claim(PROVIDER, jobId, 0, 3, 2);
        uint256[3][3] memory ranges = [[uint256(2), 2, 8], [uint256(4), 1, 16], [uint256(2), 4, 24]];

        for (uint256 i = 0; i < ranges.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IMarket.JobShardsTaken.selector, jobId, 0, ranges[i][2]));
            vm.prank(_worker(RIVAL));
            market.claim(jobId, RIVAL, 0, ranges[i][0], ranges[i][1]);
        }

        _claim(RIVAL, jobId, 0, 1, 2);
        _claim(RIVAL, jobId, 0, 5, 1);
    }

    function test_a_range_outside_the_slots_cannot_be_claimed() public {
        uint256 jobId = _openJob();
        uint256[2][5] memory ranges =
            [[uint256(0), 0], [uint256(0), 3], [uint256(1), 2], [uint256(2), 1], [type(uint256).max, 2]];

        for (uint256 i = 0; i < ranges.length; ++i) {
            (uint256 first, uint256 count) = (ranges[i][0], ranges[i][1]);
            vm.expectRevert(abi.encodeWithSelector(Jobs.JobHasNoShards.selector, 0, first, count));
            vm.prank(_worker(PROVIDER));
            market.claim(jobId, PROVIDER, 0, first, count);
        }
    }

    function test_all_slots_of_the_widest_round_are_one_lease() public {
        (slots, quorum) = (256, 256);
        vm.deal(REQUESTER, 1_000 ether);
        vm.deal(_owner(PROVIDER), 2_000 ether);
        _stake(PROVIDER, 256 * uint256(STAKE));
        vm.deal(_owner(AUDITOR), 2_000 ether);
        vm.deal(_owner(COLLEAGUE), 2_000 ether);
        _buyTickets(AUDITOR, 256);
        _buyTickets(COLLEAGUE, 256);
        uint256 jobId = _openJob();

        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 256);
        _finishAudit(leaseId);

        (uint256 taken, uint256 attested,) = market.getRound(jobId, 0);
        assertEq(taken, type(uint256).max);
        assertEq(attested, type(uint256).max);
        assertEq(market.getJob(jobId).round, 1);
    }

    function test_a_claim_needs_free_stake_for_every_shard() public {
        slots = quorum = 8;
        uint256 jobId = _openJob();

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, DEPOSIT, 5 * STAKE));
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 5);
    }

    function test_only_a_worker_claims_for_an_operator() public {
        uint256 jobId = _openJob();
        address[3] memory others = [_owner(PROVIDER), _worker(RIVAL), STRANGER];

        for (uint256 i = 0; i < others.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, PROVIDER, others[i])
            );
            vm.prank(others[i]);
            market.claim(jobId, PROVIDER, 0, 0, 1);
        }
    }

    function test_a_lease_of_several_shards_is_paid_for_each_and_audited_once() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _finishAudit(leaseId);
        uint256 auditor = _auditorOf(leaseId);
        assertAccount(auditor, DEPOSIT, 2 * STAKE, 0);

        _settle(leaseId);

        assertAccount(PROVIDER, DEPOSIT, 0, 2 ether);
        assertAccount(auditor, DEPOSIT, 0, FEE);
        assertEq(market.getJob(1).escrow, 4.4 ether - 2 ether - FEE);
    }

    function test_the_price_rises_from_its_floor_to_all_of_it_and_is_fixed_by_the_claim() public {
        (floorBps, rampTime) = (4_000, 1_000);
        uint256 jobId = _openJob();
        uint256 start = block.timestamp;
        assertEq(market.priceNow(jobId), 0.4 ether);

        vm.warp(start + 500);
        assertEq(market.priceNow(jobId), 0.7 ether);
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 1);
        vm.warp(start + 1_000);
        assertEq(market.priceNow(jobId), 1 ether);

        _finishAudit(leaseId);
        _settle(leaseId);
        assertAccount(PROVIDER, DEPOSIT, 0, 0.7 ether);
    }

    function test_the_ramp_begins_anew_in_every_round() public {
        (floorBps, rampTime) = (4_000, 1_000);
        uint256 jobId = _openJob();
        _passTime(400);
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 2));

        assertEq(market.priceNow(jobId), 0.4 ether);
    }

    function test_what_the_ramp_saved_is_refunded() public {
        (floorBps, rampTime) = (4_000, 1_000);
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 1);
        _finishAudit(leaseId);
        _settle(leaseId);
        vm.warp(uint256(market.getJob(1).deadline) + 1);

        market.refund(1);

        assertEq(market.creditOf(REQUESTER, asset), 4.4 ether - 0.4 ether - FEE);
    }

    function test_a_commitment_keeps_the_root_and_fixes_its_draw() public {
        uint256 leaseId = _claimFirst();
        bytes32 root = works[leaseId].root();

        vm.expectEmit(address(market));
        emit IMarket.TraceCommitted(leaseId, root, "manifest", block.number + 8);
        _commit(leaseId);

        Lease memory lease = market.getLease(leaseId);
        assertEq(lease.root, root);
        assertEq(lease.clock, block.number + 8);
        assertEq(lease.tickets, 2 * TICKETS);
    }

    function test_only_a_worker_of_the_lessee_commits_once() public {
        uint256 leaseId = _claimFirst();
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, PROVIDER, _worker(RIVAL))
        );
        vm.prank(_worker(RIVAL));
        market.commit(leaseId, "root", "manifest");

        _commit(leaseId);
        _expectStatus(leaseId, LeaseStatus.Committed, LeaseStatus.Leased);
        vm.prank(_worker(PROVIDER));
        market.commit(leaseId, "root", "manifest");
    }

    function test_a_root_of_zeros_is_refused() public {
        uint256 leaseId = _claimFirst();

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseZeroRoot.selector, leaseId));
        vm.prank(_worker(PROVIDER));
        market.commit(leaseId, 0, "manifest");
    }

    function test_a_commitment_in_the_last_second_counts_and_one_later_does_not() public {
        uint256 jobId = _openJob();
        uint256 early = _claim(PROVIDER, jobId, 0, 0, 1);
        uint256 late = _claim(PROVIDER, jobId, 0, 1, 1);
        _toDeadline(early);
        _commit(early);
        assertStatus(early, LeaseStatus.Committed);

        _passTime(1);
        _expectStatus(late, LeaseStatus.Expired, LeaseStatus.Leased);
        vm.prank(_worker(PROVIDER));
        market.commit(late, "root", "manifest");
    }

    function test_a_commitment_is_withdrawn_for_a_fee_until_half_way_to_its_draw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        vm.roll(block.number + 4);

        vm.prank(_worker(PROVIDER));
        market.withdrawCommitment(leaseId);

        (uint256 taken,,) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Withdrawn);
        assertEq(taken, 0);
        assertAccount(PROVIDER, DEPOSIT - 0.12 ether, 0, 0);
        assertEq(market.burnable(asset), 0.12 ether);
    }

    function test_nothing_is_withdrawn_after_half_way_to_the_draw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        vm.roll(block.number + 5);

        vm.expectRevert(
            abi.encodeWithSelector(
                IClosing.LeaseDrawTooNear.selector, leaseId, block.number, block.number - 1
            )
        );
        vm.prank(_worker(PROVIDER));
        market.withdrawCommitment(leaseId);
    }

    function test_a_commitment_whose_segments_were_drawn_is_never_withdrawn() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        _decline(leaseId);
        assertStatus(leaseId, LeaseStatus.Committed);

        vm.expectRevert(abi.encodeWithSelector(IClosing.LeaseDrawTooNear.selector, leaseId, block.number, 0));
        vm.prank(_worker(PROVIDER));
        market.withdrawCommitment(leaseId);
    }

    function test_only_a_worker_of_the_lessee_withdraws_a_commitment() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);

        vm.expectRevert(abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, PROVIDER, STRANGER));
        vm.prank(STRANGER);
        market.withdrawCommitment(leaseId);
    }

    function test_an_expired_lease_costs_a_fee_of_which_half_waits_for_who_rescues_its_shards() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _passDeadline(leaseId);

        vm.prank(STRANGER);
        market.expire(leaseId);

        (uint256 taken,, uint256 abandoned) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Lapsed);
        assertEq(taken, 0);
        assertEq(abandoned, 3);
        assertAccount(PROVIDER, DEPOSIT - 0.12 ether, 0, 0);
        assertEq(market.burnable(asset), 0.06 ether);
    }

    function test_who_rescues_an_abandoned_shard_earns_its_bounty_once() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _passDeadline(leaseId);
        market.expire(leaseId);

        uint256 rescuing = _claim(RIVAL, 1, 0, 1, 1);
        assertAccount(RIVAL, DEPOSIT, STAKE, 0.03 ether);

        _finishAudit(rescuing);
        _settle(rescuing);
        assertAccount(RIVAL, DEPOSIT, 0, 1.03 ether);
        (,, uint256 abandoned) = market.getRound(1, 0);
        assertEq(abandoned, 1);
    }

    function test_abandoning_and_rescuing_ones_own_shard_costs_half_the_fee_each_time() public {
        uint256 jobId = _openJob();
        for (uint256 i = 1; i <= 3; ++i) {
            uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 1);
            _passDeadline(leaseId);
            market.expire(leaseId);

            assertAccount(PROVIDER, DEPOSIT - i * 0.06 ether, 0, (i - 1) * 0.03 ether);
        }
    }

    function test_a_bounty_that_nobody_can_earn_any_more_is_burned() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Lapsed);
        assertEq(market.burnable(asset), 0.03 ether);
        vm.prank(REQUESTER);
        market.cancelJob(1);

        market.refund(1);

        assertEq(market.burnable(asset), 0.06 ether);
        assertEq(market.creditOf(REQUESTER, asset), 4.4 ether);
        assertStatus(leaseId, LeaseStatus.Lapsed);
    }

    function test_a_lease_that_expires_when_its_job_is_over_leaves_no_bounty() public {
        uint256 leaseId = _claimFirst();
        vm.prank(REQUESTER);
        market.cancelJob(1);
        _passDeadline(leaseId);

        market.expire(leaseId);

        (,, uint256 abandoned) = market.getRound(1, 0);
        assertEq(abandoned, 0);
        assertEq(market.burnable(asset), 0.06 ether);
    }

    function test_a_lease_expires_once_and_not_before_its_deadline() public {
        uint256 leaseId = _claimFirst();
        _toDeadline(leaseId);
        _expectStatus(leaseId, LeaseStatus.Leased, LeaseStatus.Expired);
        market.expire(leaseId);

        _passTime(1);
        market.expire(leaseId);
        _expectStatus(leaseId, LeaseStatus.Lapsed, LeaseStatus.Expired);
        market.expire(leaseId);
    }

    function test_a_lease_is_settled_once_and_not_before_its_window_is_over() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        _toDeadline(leaseId);
        _expectStatus(leaseId, LeaseStatus.Attested, LeaseStatus.Final);
        market.settle(leaseId);

        _passTime(1);
        vm.expectEmit(address(market));
        emit IMarket.LeaseSettled(leaseId, price, FEE);
        market.settle(leaseId);
        _expectStatus(leaseId, LeaseStatus.Settled, LeaseStatus.Final);
        market.settle(leaseId);
    }

    function test_a_lease_outlives_its_jobs_deadline() public {
        uint256 jobId = _openJob();
        vm.warp(market.getJob(jobId).deadline);
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 1);
        _passTime(1);
        assertJobStatus(jobId, JobStatus.Ended);

        _finishAudit(leaseId);
        _settle(leaseId);

        assertAccount(PROVIDER, DEPOSIT, 0, price);
    }
}
