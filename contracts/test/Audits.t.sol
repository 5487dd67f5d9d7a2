// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits, RecordOpening} from "../src/interfaces/IAudits.sol";
import {IClosing} from "../src/interfaces/IMarket.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {Draw} from "../src/libraries/Draw.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";
import {Work} from "./Traces.sol";

/// @notice Draws, and undoes the draw when it does not like the auditor.
contract ChoosyDrawer {
    error Unwelcome(uint256 auditor);

    function draw(IAudits market, uint256 leaseId, bytes calldata header, uint256 auditor, uint256 welcome)
        external
    {
        market.draw(leaseId, header);
        if (auditor != welcome) revert Unwelcome(auditor);
    }
}

contract AuditsTest is LeaseStates {
    function test_a_draw_picks_segments_of_all_shards_of_the_lease() public {
        (slots, quorum, samples) = (4, 4, 8);
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 4);
        _commit(leaseId);

        _draw(leaseId);

        uint256[] memory expected = _expectedSegments(leaseId, MIX_HASH);
        assertEq(keccak256(abi.encode(market.drawnSegments(leaseId))), keccak256(abi.encode(expected)));
        assertEq(market.getLease(leaseId).clock, block.timestamp + 100);
    }

    function test_nothing_is_drawn_before_the_draw() public {
        assertEq(market.drawnSegments(_leaseIn(LeaseStatus.Committed)).length, 0);
    }

    function test_a_draw_waits_for_its_block() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 drawBlock = market.getLease(leaseId).clock;
        bytes memory header = _mine(drawBlock, MIX_HASH);
        vm.roll(drawBlock);

        vm.expectRevert(
            abi.encodeWithSelector(Draw.DrawWrongHeader.selector, drawBlock, bytes32(0), keccak256(header))
        );
        market.draw(leaseId, header);
    }

    function test_a_lease_is_drawn_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);

        _expectStatus(leaseId, LeaseStatus.Drawn, LeaseStatus.Committed);
        market.draw(leaseId, "");
    }

    function test_attack_a_draw_that_is_reverted_comes_out_the_same_for_anyone() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 drawBlock = market.getLease(leaseId).clock;
        bytes memory header = _mine(drawBlock, MIX_HASH);
        uint256 auditor = _expectedAuditor(leaseId, MIX_HASH);
        ChoosyDrawer drawer = new ChoosyDrawer();
        vm.expectRevert(abi.encodeWithSelector(ChoosyDrawer.Unwelcome.selector, auditor));
        drawer.draw(market, leaseId, header, auditor, PROVIDER);

        vm.roll(drawBlock + 256);
        vm.setBlockhash(drawBlock, keccak256(header));
        vm.prank(STRANGER);
        market.draw(leaseId, header);

        assertEq(_auditorOf(leaseId), auditor);
    }

    function test_attack_an_unwelcome_draw_that_is_waited_out_costs_the_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Undrawn);
        _expectStatus(leaseId, LeaseStatus.Undrawn, LeaseStatus.Committed);
        market.draw(leaseId, "");

        vm.expectEmit(address(market));
        emit IAudits.LeaseSlashed(leaseId, LeaseStatus.Undrawn, STAKE, 0);
        vm.prank(STRANGER);
        market.slash(leaseId);

        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertEq(market.burnable(asset), STAKE);
    }

    function test_only_a_draw_that_lapsed_is_slashed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        vm.roll(uint256(market.getLease(leaseId).clock) + 256);

        vm.expectRevert(
            abi.encodeWithSelector(IClosing.LeaseNotSlashable.selector, leaseId, LeaseStatus.Committed)
        );
        market.slash(leaseId);
    }

    function test_an_auditor_attests_by_opening_the_drawn_records_in_the_order_of_the_draw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256 auditor = _auditorOf(leaseId);

        vm.expectEmit(address(market));
        emit IAudits.ShardsAttested(leaseId, auditor, block.timestamp + 2_000);
        _attest(leaseId);

        (, uint256 attested,) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Attested);
        assertEq(attested, 1);
        assertAccount(auditor, DEPOSIT, STAKE, 0);
    }

    function test_records_in_another_order_are_refused() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256[] memory drawn = market.drawnSegments(leaseId);
        uint256 position = drawn[0] + 1;
        (drawn[0], drawn[1]) = (drawn[1], drawn[0]);

        _expectAttestRefused(leaseId, works[leaseId].openings(drawn), position);
    }

    function testFuzz_any_lease_is_attested_by_its_own_records(uint256 shards, uint64 length, uint16 drawn)
        public
    {
        (slots, quorum) = (4, 4);
        shards = clamp(shards, 1, 4);
        segments = uint64(clamp(length, 2, 9));
        samples = uint16(clamp(drawn, 1, segments));
        price = 0.1 ether;
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, shards);

        _finishAudit(leaseId);

        assertStatus(leaseId, LeaseStatus.Attested);
    }

    function test_attack_an_auditor_that_did_not_recompute_cannot_attest() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        RecordOpening[] memory openings = works[leaseId].openings(market.drawnSegments(leaseId));
        uint256 position = market.drawnSegments(leaseId)[1] + 1;
        openings[1].gradientRoot = "a guess"; // everything else is published

        _expectAttestRefused(leaseId, openings, position);
    }

    function test_each_part_of_an_opening_is_checked() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256[] memory drawn = market.drawnSegments(leaseId);
        for (uint256 part = 0; part < 4; ++part) {
            RecordOpening[] memory openings = works[leaseId].openings(drawn);
            if (part == 0) openings[0].stateRoot = "other";
            if (part == 1) openings[0].metricsRoot = "other";
            if (part == 2) openings[0].branch[1] = "other";
            if (part == 3) openings[0].branch = new bytes32[](0);
            _expectAttestRefused(leaseId, openings, drawn[0] + 1);
        }
    }

    function test_attack_an_honest_audit_of_a_false_trace_is_no_attestation() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256[] memory drawn = market.drawnSegments(leaseId);

        _expectAttestRefused(leaseId, _truth(leaseId).openings(drawn), drawn[0] + 1);
    }

    function test_attack_a_copied_commitment_does_not_pass_the_audit_of_another_slot() public {
        uint256 jobId = _openJob();
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0, 1);
        uint256 copied = _claim(RIVAL, jobId, 0, 1, 1);
        Work memory own = works[copied]; // what slot 1's data and seed give
        works[copied] = works[leaseId];
        _commit(copied);
        _draw(copied);
        uint256[] memory drawn = market.drawnSegments(copied);

        _expectAttestRefused(copied, own.openings(drawn), drawn[0] + 1);
    }

    function test_every_drawn_record_is_opened_and_no_more() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address key = _auditorKey(leaseId);
        for (uint256 count = 0; count <= 4; ++count) {
            if (count == samples) continue;
            vm.expectRevert(abi.encodeWithSelector(IAudits.AuditWrongCount.selector, leaseId, count, samples));
            vm.prank(key);
            market.attest(leaseId, new RecordOpening[](count));
        }
    }

    function test_a_trace_of_one_shard_does_not_stand_for_a_lease_of_two() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        works[leaseId].shards = 1;
        _commit(leaseId);
        _draw(leaseId);
        uint256[] memory drawn = market.drawnSegments(leaseId);
        uint256 first = Commitments.positionOf(drawn[0] / segments, drawn[0] % segments + 1, segments);

        _expectAttestRefused(leaseId, works[leaseId].openings(drawn), first);
    }

    function test_only_the_drawn_auditor_attests_accuses_declines_and_reports() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256 auditor = _auditorOf(leaseId);
        uint256 other = AUDITOR + COLLEAGUE - auditor;
        RecordOpening[] memory openings = works[leaseId].openings(market.drawnSegments(leaseId));
        address[4] memory others = [_worker(other), _owner(auditor), _worker(PROVIDER), STRANGER];

        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory refusal =
                abi.encodeWithSelector(IAudits.LeaseNotAuditor.selector, leaseId, auditor, others[i]);
            vm.expectRevert(refusal);
            vm.prank(others[i]);
            market.attest(leaseId, openings);
            vm.expectRevert(refusal);
            vm.prank(others[i]);
            market.accuse(leaseId, 0, 1);
            vm.expectRevert(refusal);
            vm.prank(others[i]);
            market.decline(leaseId);
            vm.expectRevert(refusal);
            vm.prank(others[i]);
            market.report(leaseId);
        }
    }

    function test_an_attestation_in_the_last_second_counts_and_one_later_does_not() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        RecordOpening[] memory openings = works[leaseId].openings(market.drawnSegments(leaseId));
        address key = _auditorKey(leaseId);
        _passDeadline(leaseId);
        _expectStatus(leaseId, LeaseStatus.AuditorSilent, LeaseStatus.Drawn);
        vm.prank(key);
        market.attest(leaseId, openings);

        vm.warp(block.timestamp - 1);
        _attest(leaseId);
        assertStatus(leaseId, LeaseStatus.Attested);
    }

    function test_a_draw_and_its_attestation_are_one_transaction() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        bytes memory header = _mine(market.getLease(leaseId).clock, MIX_HASH);
        uint256[] memory drawn = _expectedSegments(leaseId, MIX_HASH);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IAudits.draw, (leaseId, header));
        calls[1] = abi.encodeCall(IAudits.attest, (leaseId, works[leaseId].openings(drawn)));
        address key = _worker(_expectedAuditor(leaseId, MIX_HASH));

        vm.prank(key);
        market.multicall(calls);

        assertStatus(leaseId, LeaseStatus.Attested);
    }

    function test_a_redraw_after_a_rejected_accusation_draws_other_segments() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        bytes32 drawn = keccak256(abi.encode(market.drawnSegments(leaseId)));
        _answer(1);
        _rule(1, false);
        assertEq(market.drawnSegments(leaseId).length, 0);

        _draw(leaseId, "other mix hash"); // what was opened can be copied

        assertTrue(keccak256(abi.encode(market.drawnSegments(leaseId))) != drawn, "they are drawn anew");
        _attest(leaseId);
    }

    function _expectAttestRefused(uint256 leaseId, RecordOpening[] memory openings, uint256 position)
        private
    {
        address key = _auditorKey(leaseId);
        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditInvalidOpening.selector, leaseId, position));
        vm.prank(key);
        market.attest(leaseId, openings);
    }
}
