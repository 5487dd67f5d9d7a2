// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssets} from "../src/interfaces/IAssets.sol";
import {IClosing, IMarket} from "../src/interfaces/IMarket.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {Job, Jobs, JobStatus, Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {StakeRule} from "../src/libraries/StakeRule.sol";
import {LeaseStates} from "./LeaseStates.sol";

contract JobsTest is LeaseStates {
    function test_a_posted_job_keeps_its_terms_and_its_escrow() public {
        Terms memory terms = _terms();

        Job memory job = market.getJob(_createJob());

        assertEq(job.escrow, 4.4 ether);
        assertEq(job.requester, REQUESTER);
        assertEq(job.rounds, rounds);
        assertEq(job.slots, slots);
        assertEq(job.segments, segments);
        assertEq(job.stepsPerSegment, STEPS);
        assertEq(job.samples, samples);
        assertEq(job.pricePerShard, terms.pricePerShard);
        assertEq(job.auditFee, terms.auditFee);
        assertEq(job.stakePerShard, terms.stakePerShard);
        assertEq(job.deadline, terms.deadline);
        assertEq(job.seedBlock, block.number + 8);
    }

    function test_a_job_may_be_paid_for_by_another_than_its_requester() public {
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());
        vm.prank(STRANGER);
        uint256 jobId = market.createJob{value: 4.4 ether}(REQUESTER, spec, terms);
        vm.prank(REQUESTER);
        market.cancelJob(jobId);

        market.refund(jobId);

        assertEq(market.creditOf(REQUESTER, asset), 4.4 ether);
    }

    function test_a_job_without_a_requester_is_refused() public {
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());

        vm.expectRevert(IMarket.JobNeedsRequester.selector);
        market.createJob(address(0), spec, terms);
    }

    function test_a_job_escrows_exactly_its_price_and_fees() public {
        (bytes32[8] memory spec, Terms memory terms) = (_spec(), _terms());

        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, 4.4 ether + 1, 4.4 ether));
        vm.prank(REQUESTER);
        market.createJob{value: 4.4 ether + 1}(REQUESTER, spec, terms);
    }

    function test_a_job_in_an_asset_that_is_not_listed_is_refused() public {
        Terms memory terms = _terms();
        terms.asset = 1;

        _expectRefused(terms, abi.encodeWithSelector(IAssets.AssetUnknown.selector, 1, 1));
    }

    function test_a_job_of_another_schedule_than_its_spec_is_another_spec() public {
        uint256 first = _createJob();
        segments = 7;

        uint256 second = _createJob();

        assertTrue(
            market.getJob(first).specHash != market.getJob(second).specHash, "the spec hash binds every leaf"
        );
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
        Terms memory terms = _terms();
        for (uint256 i = 0; i < schedules.length; ++i) {
            uint64[4] memory s = schedules[i];
            bytes32[8] memory spec = _spec();
            spec[5] = bytes32(abi.encodePacked(s[0], s[1], s[2], s[3]));
            vm.expectRevert(abi.encodeWithSelector(Jobs.JobInvalidSchedule.selector, s[0], s[1], s[2], s[3]));
            market.createJob(REQUESTER, spec, terms);
        }
    }

    function test_samples_outside_the_limits_are_refused() public {
        uint16[3] memory counts = [uint16(0), 9, 17];
        for (uint256 i = 0; i < counts.length; ++i) {
            samples = counts[i];
            segments = i == 2 ? 20 : 8;
            _expectRefused(
                _terms(), abi.encodeWithSelector(StakeRule.JobInvalidSamples.selector, counts[i], segments)
            );
        }
    }

    function test_a_price_of_nothing_and_a_floor_above_the_price_are_refused() public {
        Terms memory terms = _terms();
        terms.pricePerShard = 0;
        _expectRefused(terms, abi.encodeWithSelector(Jobs.JobInvalidPrice.selector, 0, 10_000));

        terms = _terms();
        terms.floorBps = 10_001;
        _expectRefused(terms, abi.encodeWithSelector(Jobs.JobInvalidPrice.selector, price, 10_001));
    }

    function test_a_quorum_that_no_round_can_close_by_is_refused() public {
        // quorum, round time
        uint16[2][4] memory pairs = [[uint16(0), 600], [uint16(3), 600], [uint16(1), 599], [uint16(1), 0]];
        for (uint256 i = 0; i < pairs.length; ++i) {
            Terms memory terms = _terms();
            (terms.quorum, terms.roundTime) = (pairs[i][0], pairs[i][1]);
            _expectRefused(
                terms,
                abi.encodeWithSelector(
                    Jobs.JobInvalidQuorum.selector, terms.quorum, slots, terms.roundTime, terms.leaseTime
                )
            );
        }
    }

    function test_a_stake_below_the_rule_is_refused() public {
        Terms memory terms = _terms();
        uint256 required = StakeRule.minimumStake(price, 0, segments, samples);
        terms.stakePerShard = uint80(required - 1);

        _expectRefused(
            terms, abi.encodeWithSelector(StakeRule.JobStakeTooLow.selector, required - 1, required)
        );
        terms.stakePerShard = uint80(required);
        _postJob(terms);
    }

    function test_a_lease_time_that_outlasts_half_the_window_is_refused() public {
        Terms memory terms = _terms();
        terms.leaseTime = 1_001;

        _expectRefused(terms, abi.encodeWithSelector(IMarket.JobLeaseTimeTooLong.selector, 1_001, 1_000));
    }

    function test_a_deadline_in_the_past_is_refused() public {
        Terms memory terms = _terms();
        terms.deadline = uint40(block.timestamp);

        _expectRefused(
            terms,
            abi.encodeWithSelector(IMarket.JobDeadlinePassed.selector, block.timestamp, block.timestamp)
        );
    }

    function test_the_seed_comes_from_the_seed_blocks_header() public {
        uint256 jobId = _createJob();
        bytes memory header = _mine(market.getJob(jobId).seedBlock, MIX_HASH);

        market.drawSeed(jobId, header);

        bytes32 entropy = Draw.entropy(Purpose.JobSeed, jobId, MIX_HASH);
        assertEq(market.getJob(jobId).seed, uint256(entropy) >> 192);
        assertJobStatus(jobId, JobStatus.Open);
    }

    function test_a_seed_is_drawn_once() public {
        uint256 jobId = _openJob();
        bytes memory header = _mine(market.getJob(jobId).seedBlock, MIX_HASH);

        _expectJobStatus(jobId, JobStatus.Open, JobStatus.Funded);
        market.drawSeed(jobId, header);
    }

    function test_shards_can_be_claimed_once_the_job_is_seeded() public {
        uint256 jobId = _createJob();

        _expectJobStatus(jobId, JobStatus.Funded, JobStatus.Open);
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 1);
    }

    function test_nothing_can_be_claimed_after_the_deadline() public {
        uint256 jobId = _openJob();
        vm.warp(uint256(market.getJob(jobId).deadline) + 1);

        _expectJobStatus(jobId, JobStatus.Ended, JobStatus.Open);
        vm.prank(_worker(PROVIDER));
        market.claim(jobId, PROVIDER, 0, 0, 1);
    }

    function test_a_job_whose_seed_is_lost_is_refunded_in_full() public {
        uint256 jobId = _createJob();
        vm.roll(uint256(market.getJob(jobId).seedBlock) + 257);
        assertJobStatus(jobId, JobStatus.SeedLost);

        vm.prank(STRANGER);
        market.refund(jobId);

        assertEq(market.creditOf(REQUESTER, asset), 4.4 ether);
    }

    function test_a_running_job_is_not_refunded() public {
        uint256 jobId = _openJob();

        vm.expectRevert(abi.encodeWithSelector(IClosing.JobNotOver.selector, jobId));
        vm.prank(REQUESTER);
        market.refund(jobId);
    }

    function test_an_ended_job_refunds_what_it_did_not_spend_once() public {
        _leaseIn(LeaseStatus.Settled);
        vm.warp(uint256(market.getJob(1).deadline) + 1);

        market.refund(1);

        assertEq(market.creditOf(REQUESTER, asset), 3.3 ether);
        assertEq(market.getJob(1).escrow, 0);
        vm.expectRevert(abi.encodeWithSelector(IClosing.JobNothingToRefund.selector, 1));
        market.refund(1);
    }

    function test_a_refund_leaves_what_active_leases_can_still_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        vm.prank(REQUESTER);
        market.cancelJob(1);

        market.refund(1);
        assertEq(market.creditOf(REQUESTER, asset), 3.3 ether);

        _settle(leaseId);
        assertEq(market.getJob(1).escrow, 0);
        assertAccount(PROVIDER, DEPOSIT, 0, price);
    }

    function test_only_the_requester_cancels_and_only_a_running_job() public {
        uint256 jobId = _openJob();
        vm.expectRevert(abi.encodeWithSelector(IClosing.JobNotRequester.selector, jobId, REQUESTER, STRANGER));
        vm.prank(STRANGER);
        market.cancelJob(jobId);

        vm.prank(REQUESTER);
        market.cancelJob(jobId);
        assertJobStatus(jobId, JobStatus.Cancelled);
        _expectJobStatus(jobId, JobStatus.Cancelled, JobStatus.Open);
        vm.prank(REQUESTER);
        market.cancelJob(jobId);
    }

    function test_a_cancelled_job_lets_nothing_more_be_claimed_and_pays_what_was() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Leased);
        vm.prank(REQUESTER);
        market.cancelJob(1);

        _expectJobStatus(1, JobStatus.Cancelled, JobStatus.Open);
        vm.prank(_worker(RIVAL));
        market.claim(1, RIVAL, 0, 1, 1);

        _finishAudit(leaseId);
        _settle(leaseId);
        assertAccount(PROVIDER, DEPOSIT, 0, price);
    }

    function test_a_whole_job_is_done_paid_and_complete() public {
        uint256 jobId = _openJob();
        for (uint256 round = 0; round < rounds; ++round) {
            for (uint256 slot = 0; slot < slots; ++slot) {
                _finishAudit(_claim(PROVIDER, jobId, round, slot, 1));
            }
        }
        _passTime(3_000);
        for (uint256 k = 1; k <= 4; ++k) {
            market.settle(jobId * 1_000_000 + k);
        }

        assertJobStatus(jobId, JobStatus.Complete);
        assertEq(market.getJob(jobId).escrow, 0);
        assertAccount(PROVIDER, DEPOSIT, 0, 4 ether);
        uint256 fees = _account(AUDITOR).earned + _account(COLLEAGUE).earned;
        assertEq(fees, 4 * uint256(FEE));
    }

    function _expectRefused(Terms memory terms, bytes memory refusal) private {
        (uint256 value, bytes32[8] memory spec) = (_escrow(), _spec());
        vm.deal(address(this), value);
        vm.expectRevert(refusal);
        market.createJob{value: value}(REQUESTER, spec, terms);
    }
}
