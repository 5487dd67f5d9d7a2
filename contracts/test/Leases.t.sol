// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILedger} from "../src/interfaces/ILedger.sol";
import {IMarket, StateOpening} from "../src/interfaces/IMarket.sol";
import {Trace} from "../src/libraries/Commitments.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Made} from "./Traces.sol";
import {MarketTest} from "./MarketTest.sol";

contract LeasesTest is MarketTest {
    function test_a_commitment_keeps_the_trace_and_fixes_its_draw() public {
        uint256 leaseId = _claimFirst();
        Trace memory trace = made[leaseId].trace();

        _commit(leaseId);

        Lease memory lease = market.getLease(leaseId);
        assertStatus(leaseId, LeaseStatus.Committed);
        assertEq(lease.trace, keccak256(abi.encode(trace)));
        assertEq(lease.drawBlock, block.number + 8);
        assertEq(lease.tickets, 8);
    }

    function test_a_commitment_announces_all_that_later_calls_supply_again() public {
        uint256 leaseId = _claimFirst();
        Trace memory trace = made[leaseId].trace();

        vm.expectEmit();
        emit IMarket.TraceCommitted(
            leaseId,
            trace.root,
            trace.firstBaseRoot,
            trace.lastBaseRoot,
            trace.lastSlotRoot,
            "manifest",
            block.number + 8
        );
        _commit(leaseId);
    }

    function test_only_the_lessee_commits() public {
        uint256 leaseId = _claimFirst();
        Made memory mine = made[leaseId];
        StateOpening memory first = mine.stateOpening(0);
        StateOpening memory last = mine.stateOpening(segments);
        bytes32 root = mine.root();

        vm.expectRevert(abi.encodeWithSelector(ILedger.LeaseNotProvider.selector, leaseId, PROVIDER, RIVAL));
        vm.prank(RIVAL);
        market.commit(leaseId, root, first, last, "manifest");
    }

    function test_a_trace_is_committed_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        Made memory mine = made[leaseId];
        StateOpening memory first = mine.stateOpening(0);
        StateOpening memory last = mine.stateOpening(segments);
        bytes32 root = mine.root();

        _expectStatus(leaseId, LeaseStatus.Committed, LeaseStatus.Leased);
        vm.prank(PROVIDER);
        market.commit(leaseId, root, first, last, "manifest");
    }

    function test_the_first_and_last_record_are_those_of_the_trace() public {
        uint256 leaseId = _claimFirst();
        Made memory mine = made[leaseId];
        StateOpening memory first = mine.stateOpening(0);
        StateOpening memory last = mine.stateOpening(segments);
        StateOpening memory earlier = mine.stateOpening(segments - 1);
        bytes32 root = mine.root();

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseInvalidOpening.selector, leaseId, segments));
        vm.prank(PROVIDER);
        market.commit(leaseId, root, first, earlier, "manifest");

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseInvalidOpening.selector, leaseId, 0));
        vm.prank(PROVIDER);
        market.commit(leaseId, bytes32(uint256(root) ^ 1), first, last, "manifest");
    }

    function test_a_first_record_with_an_outcome_is_refused() public {
        uint256 leaseId = _claimFirst();
        Made memory mine = made[leaseId];
        StateOpening memory first = mine.stateOpening(0);
        StateOpening memory last = mine.stateOpening(segments);
        bytes32 root = mine.root();
        first.outcome = "outcome";

        vm.expectRevert(
            abi.encodeWithSelector(IMarket.LeaseWrongStart.selector, leaseId, first.outcome, bytes32(0))
        );
        vm.prank(PROVIDER);
        market.commit(leaseId, root, first, last, "manifest");
    }

    function test_a_commitment_is_withdrawn_for_a_fee_until_half_way_to_its_draw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        vm.roll(block.number + 4);
        uint256 burned = address(0).balance;

        vm.prank(PROVIDER);
        market.withdrawCommitment(leaseId);

        assertStatus(leaseId, LeaseStatus.Withdrawn);
        assertEq(market.shard(1, 0, 0), 0);
        assertEq(_locked(PROVIDER), 0);
        assertEq(_staked(PROVIDER), 19.9 ether);
        assertEq(address(0).balance - burned, 0.1 ether);
    }

    function test_only_the_lessee_withdraws_a_commitment() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);

        vm.expectRevert(
            abi.encodeWithSelector(ILedger.LeaseNotProvider.selector, leaseId, PROVIDER, STRANGER)
        );
        vm.prank(STRANGER);
        market.withdrawCommitment(leaseId);
    }

    function test_an_expired_lease_costs_a_fee_and_reopens_its_shard() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Expired);
        uint256 burned = address(0).balance;

        vm.prank(STRANGER);
        market.expire(leaseId);

        assertStatus(leaseId, LeaseStatus.Lapsed);
        assertEq(_staked(PROVIDER), 19.95 ether);
        assertEq(_locked(PROVIDER), 0);
        assertEq(market.creditOf(STRANGER), 0.005 ether);
        assertEq(address(0).balance - burned, 0.045 ether);
        assertEq(_claim(RIVAL, 1, 0, 0), leaseId + 1);
    }

    function test_a_lease_expires_once_and_not_before_its_deadline() public {
        uint256 leaseId = _claimFirst();
        vm.warp(market.getLease(leaseId).deadline);

        _expectStatus(leaseId, LeaseStatus.Leased, LeaseStatus.Expired);
        market.expire(leaseId);

        vm.warp(block.timestamp + 1);
        market.expire(leaseId);
        _expectStatus(leaseId, LeaseStatus.Lapsed, LeaseStatus.Expired);
        market.expire(leaseId);
    }

    function test_a_final_shard_pays_its_provider_and_frees_both_stakes() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Final);
        address auditor = _auditorOf(leaseId);
        assertEq(_auditorLocked(auditor), STAKE);

        vm.prank(STRANGER);
        market.settle(leaseId);

        assertStatus(leaseId, LeaseStatus.Settled);
        assertEq(market.creditOf(PROVIDER), 1 ether);
        assertEq(market.creditOf(auditor), FEE);
        assertEq(_locked(PROVIDER), 0);
        assertEq(_auditorLocked(auditor), 0);
        assertEq(market.getJob(1).escrow, 3.3 ether);
        assertEq(market.contribution(1, 0, 0), leaseId);
    }

    function test_a_shard_is_settled_once_and_not_before_the_window_is_over() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        vm.warp(market.getLease(leaseId).deadline);

        _expectStatus(leaseId, LeaseStatus.Attested, LeaseStatus.Final);
        market.settle(leaseId);

        vm.warp(block.timestamp + 1);
        market.settle(leaseId);
        _expectStatus(leaseId, LeaseStatus.Settled, LeaseStatus.Final);
        market.settle(leaseId);
    }

    function test_a_slot_goes_on_from_its_last_attested_state() public {
        uint256 jobId = _openJob();
        bytes32 initial = market.slotState(jobId, 0);
        uint256 first = _claim(PROVIDER, jobId, 0, 0);
        uint256 second = _claim(RIVAL, jobId, 0, 1);
        _commit(first);
        _commit(second);
        assertEq(market.slotState(jobId, 0), initial);

        _attest(first);
        assertEq(market.slotState(jobId, 0), made[first].slots[segments]);
        _attest(second);
        assertEq(market.slotState(jobId, 0), made[first].slots[segments]);

        uint256 next = _claim(RIVAL, jobId, 1, 0);
        _commit(next);
        _attest(next);
        assertEq(market.slotState(jobId, 0), made[next].slots[segments]);
        assertEq(market.slotState(jobId, 1), made[second].slots[segments]);
    }

    function test_a_whole_job_is_done_paid_and_closed() public {
        uint256 jobId = _openJob();
        for (uint256 round = 0; round < ROUNDS; ++round) {
            for (uint256 slot = 0; slot < SLOTS; ++slot) {
                uint256 leaseId = _claim(PROVIDER, jobId, round, slot);
                _commit(leaseId);
                _attest(leaseId);
            }
        }
        vm.warp(block.timestamp + 20_000);
        for (uint256 leaseId = 1; leaseId <= 4; ++leaseId) {
            market.settle(leaseId);
        }
        market.closeJob(jobId);

        assertEq(market.creditOf(PROVIDER), 4 ether);
        assertEq(market.creditOf(AUDITOR) + market.creditOf(COLLEAGUE), 0.4 ether);
        assertEq(market.creditOf(REQUESTER), 0);
    }

    function _expectStatus(uint256 leaseId, LeaseStatus current, LeaseStatus required) private {
        vm.expectRevert(
            abi.encodeWithSelector(ILedger.LeaseInUnexpectedStatus.selector, leaseId, current, required)
        );
    }
}
