// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILedger} from "../src/interfaces/ILedger.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {Accounts} from "../src/libraries/Accounts.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {Job, Jobs, JobStatus, Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

contract JobsTest is MarketTest {
    function test_a_posted_job_keeps_its_terms_and_its_escrow() public {
        Terms memory terms = _terms();

        Job memory job = market.getJob(_createJob());

        assertEq(job.escrow, 4.4 ether);
        assertEq(job.requester, REQUESTER);
        assertEq(job.rounds, ROUNDS);
        assertEq(job.slots, SLOTS);
        assertEq(job.segments, segments);
        assertEq(job.stepsPerSegment, STEPS);
        assertEq(job.pricePerShard, terms.pricePerShard);
        assertEq(job.auditFee, terms.auditFee);
        assertEq(job.stakePerLease, terms.stakePerLease);
        assertEq(job.deadline, terms.deadline);
        assertEq(job.baseRoot, _spec()[3]);
        assertEq(job.slotRoot, _spec()[4]);
        assertEq(job.seedBlock, block.number + 8);
    }

    function test_a_job_escrows_exactly_its_price_and_fees() public {
        vm.expectRevert(abi.encodeWithSelector(IMarket.JobWrongEscrow.selector, 4.4 ether + 1, 4.4 ether));
        vm.prank(REQUESTER);
        market.createJob{value: 4.4 ether + 1}(_spec(), _terms());
    }

    function test_a_schedule_outside_the_limits_is_refused() public {
        uint64[4][10] memory schedules = [
            [uint64(0), 1, 2, 2],
            [uint64(1025), 1, 2, 2],
            [uint64(1), 0, 2, 2],
            [uint64(1), 257, 2, 2],
            [uint64(1024), 65, 2, 2],
            [uint64(1), 1, 1, 2],
            [uint64(1), 1, 257, 2],
            [uint64(1), 1, 2, 1],
            [uint64(1), 1, 2, 1_048_577],
            [type(uint64).max, type(uint64).max, 2, 2]
        ];
        for (uint256 i = 0; i < schedules.length; ++i) {
            uint64[4] memory s = schedules[i];
            bytes32[8] memory spec = _spec();
            spec[5] = bytes32(abi.encodePacked(s[0], s[1], s[2], s[3]));
            vm.expectRevert(abi.encodeWithSelector(Jobs.JobInvalidSchedule.selector, s[0], s[1], s[2], s[3]));
            market.createJob(spec, _terms());
        }
    }

    function test_samples_outside_the_limits_are_refused() public {
        uint16[3] memory counts = [uint16(0), 9, 17];
        for (uint256 i = 0; i < counts.length; ++i) {
            samples = counts[i];
            segments = i == 2 ? 20 : 8;
            vm.expectRevert(abi.encodeWithSelector(Jobs.JobInvalidSamples.selector, counts[i], segments));
            market.createJob(_spec(), _terms());
        }
    }

    function test_a_lease_time_that_outlasts_half_the_window_is_refused() public {
        Terms memory terms = _terms();
        terms.leaseTime = 1_001;

        vm.expectRevert(abi.encodeWithSelector(IMarket.JobLeaseTimeTooLong.selector, 1_001, 1_000));
        market.createJob(_spec(), terms);
    }

    function test_a_deadline_in_the_past_is_refused() public {
        Terms memory terms = _terms();
        terms.deadline = uint64(block.timestamp);

        vm.expectRevert(
            abi.encodeWithSelector(IMarket.JobDeadlinePassed.selector, block.timestamp, block.timestamp)
        );
        market.createJob(_spec(), terms);
    }

    function test_the_seed_comes_from_the_seed_blocks_header() public {
        uint256 jobId = _createJob();
        bytes memory header = _mine(market.getJob(jobId).seedBlock, MIX_HASH);

        market.drawSeed(jobId, header);

        assertEq(bytes8(market.jobSeed(jobId)), bytes8(Draw.entropy(Purpose.JobSeed, jobId, MIX_HASH)));
        assertEq(uint256(market.jobStatus(jobId)), uint256(JobStatus.Open));
    }

    function test_a_seed_is_drawn_once() public {
        uint256 jobId = _openJob();
        bytes memory header = _header(market.getJob(jobId).seedBlock, MIX_HASH);

        _expectJobStatus(jobId, JobStatus.Open, JobStatus.Funded);
        market.drawSeed(jobId, header);
    }

    function test_a_job_without_its_seed_has_none() public {
        uint256 jobId = _createJob();

        _expectJobStatus(jobId, JobStatus.Funded, JobStatus.Open);
        market.jobSeed(jobId);
    }

    function test_shards_can_be_claimed_once_the_job_is_seeded() public {
        uint256 jobId = _createJob();

        _expectJobStatus(jobId, JobStatus.Funded, JobStatus.Open);
        vm.prank(PROVIDER);
        market.claim(jobId, 0, 0);
    }

    function test_a_claim_locks_stake_and_holds_the_shard() public {
        uint256 jobId = _openJob();

        uint256 leaseId = _claim(PROVIDER, jobId, 0, 1);

        assertStatus(leaseId, LeaseStatus.Leased);
        assertEq(market.shard(jobId, 0, 1), leaseId);
        assertEq(market.contribution(jobId, 0, 1), 0);
        assertEq(_locked(PROVIDER), STAKE);
        assertEq(market.getLease(leaseId).deadline, block.timestamp + 600);
        assertEq(market.getJob(jobId).active, 1);
    }

    function test_a_shard_under_a_lease_cannot_be_claimed() public {
        uint256 jobId = _openJob();
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0);

        vm.expectRevert(abi.encodeWithSelector(IMarket.JobShardTaken.selector, jobId, 0, 0, leaseId));
        vm.prank(RIVAL);
        market.claim(jobId, 0, 0);
    }

    function test_a_claim_needs_free_stake() public {
        uint256 jobId = _openJob();

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 0, STAKE));
        vm.prank(STRANGER);
        market.claim(jobId, 0, 0);
    }

    function test_a_shard_outside_the_schedule_cannot_be_claimed() public {
        uint256 jobId = _openJob();

        vm.expectRevert(abi.encodeWithSelector(Jobs.JobHasNoShard.selector, ROUNDS, 0));
        market.claim(jobId, ROUNDS, 0);
        vm.expectRevert(abi.encodeWithSelector(Jobs.JobHasNoShard.selector, 0, SLOTS));
        market.claim(jobId, 0, SLOTS);
    }

    function test_a_round_opens_when_every_shard_before_it_is_attested() public {
        uint256 jobId = _openJob();
        uint256 first = _claim(PROVIDER, jobId, 0, 0);
        uint256 second = _claim(RIVAL, jobId, 0, 1);
        _commit(first);
        _commit(second);
        _attest(first);
        assertEq(market.attestedCount(jobId, 0), 1);

        vm.expectRevert(abi.encodeWithSelector(IMarket.JobRoundNotOpen.selector, jobId, 1, 0));
        vm.prank(PROVIDER);
        market.claim(jobId, 1, 0);

        _attest(second);
        assertEq(market.attestedCount(jobId, 0), 2);
        assertEq(market.attestedCount(jobId, 1), 0);
        _claim(PROVIDER, jobId, 1, 0);
    }

    function test_nothing_can_be_claimed_after_the_deadline() public {
        uint256 jobId = _openJob();
        vm.warp(uint256(market.getJob(jobId).deadline) + 1);

        _expectJobStatus(jobId, JobStatus.Ended, JobStatus.Open);
        vm.prank(PROVIDER);
        market.claim(jobId, 0, 0);
    }

    function test_a_job_whose_seed_is_lost_is_refunded_in_full() public {
        uint256 jobId = _createJob();
        vm.roll(uint256(market.getJob(jobId).seedBlock) + 257);

        vm.prank(STRANGER);
        market.closeJob(jobId);

        assertEq(market.creditOf(REQUESTER), 4.4 ether);
        assertEq(uint256(market.jobStatus(jobId)), uint256(JobStatus.Closed));
    }

    function test_an_ended_job_refunds_what_it_did_not_spend_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Settled);
        uint256 jobId = market.getLease(leaseId).jobId;
        vm.warp(uint256(market.getJob(jobId).deadline) + 1);

        market.closeJob(jobId);

        assertEq(market.creditOf(REQUESTER), 3.3 ether);
        _expectJobStatus(jobId, JobStatus.Closed, JobStatus.Ended);
        market.closeJob(jobId);
    }

    function test_a_job_stays_open_until_its_deadline() public {
        uint256 jobId = _openJob();

        _expectJobStatus(jobId, JobStatus.Open, JobStatus.Ended);
        vm.prank(REQUESTER);
        market.closeJob(jobId);
    }

    function test_a_job_with_an_active_lease_is_not_closed() public {
        uint256 leaseId = _claimFirst();
        vm.warp(block.timestamp + 20_000);

        vm.expectRevert(abi.encodeWithSelector(IMarket.JobHasActiveLeases.selector, 1, 1));
        market.closeJob(1);

        market.expire(leaseId);
        market.closeJob(1);
        assertEq(market.creditOf(REQUESTER), 4.4 ether);
    }

    function _expectJobStatus(uint256 jobId, JobStatus current, JobStatus required) private {
        vm.expectRevert(
            abi.encodeWithSelector(ILedger.JobInUnexpectedStatus.selector, jobId, current, required)
        );
    }
}
