// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits, RecordOpening} from "../src/interfaces/IAudits.sol";
import {ILedger} from "../src/interfaces/ILedger.sol";
import {Outcome, Trace} from "../src/libraries/Commitments.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Made} from "./Traces.sol";
import {MarketTest} from "./MarketTest.sol";

contract AuditsTest is MarketTest {
    function test_a_draw_picks_segments_and_an_auditor_and_locks_its_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);

        Lease memory lease = market.getLease(leaseId);
        bytes32 segmentSeed = Draw.entropy(Purpose.Segments, leaseId, MIX_HASH);
        bytes32 ticketSeed = Draw.entropy(Purpose.Ticket, leaseId, MIX_HASH);
        (address owner,) = market.getTicket(Draw.number(ticketSeed, 0) % 8);
        assertEq(lease.segments, Draw.segments(segmentSeed, segments, samples));
        assertEq(lease.auditor, owner);
        assertEq(_auditorLocked(owner), STAKE);
        assertEq(lease.deadline, block.timestamp + 100);
        assertEq(market.drawnSegments(leaseId).length, samples);
    }

    function test_a_draw_waits_for_its_block() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 drawBlock = market.getLease(leaseId).drawBlock;
        bytes memory header = _header(drawBlock, MIX_HASH);
        vm.roll(drawBlock);

        vm.expectRevert(
            abi.encodeWithSelector(Draw.DrawWrongHeader.selector, drawBlock, bytes32(0), keccak256(header))
        );
        market.draw(leaseId, header);
    }

    function test_a_lease_is_drawn_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        bytes memory header = _header(market.getLease(leaseId).drawBlock, MIX_HASH);

        _expectStatus(leaseId, LeaseStatus.Drawn, LeaseStatus.Committed);
        market.draw(leaseId, header);
    }

    function test_only_the_drawn_auditor_commits_and_reveals() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address auditor = _auditorOf(leaseId);

        vm.expectRevert(abi.encodeWithSelector(ILedger.LeaseNotAuditor.selector, leaseId, auditor, STRANGER));
        vm.prank(STRANGER);
        market.commitAudit(leaseId, "audit");

        _commitAudit(leaseId, made[leaseId]);
        _open(leaseId);
        vm.expectRevert(abi.encodeWithSelector(ILedger.LeaseNotAuditor.selector, leaseId, auditor, STRANGER));
        this.revealAs(STRANGER, leaseId);
    }

    function test_the_provider_opens_the_drawn_records_as_committed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditCommitted);
        uint16[] memory drawn = market.drawnSegments(leaseId);
        Outcome[] memory outcomes = made[leaseId].outcomes(drawn);

        vm.expectEmit();
        emit IAudits.RecordsOpened(leaseId, outcomes, block.timestamp + 300);
        _open(leaseId);

        assertStatus(leaseId, LeaseStatus.Opened);
    }

    function test_only_the_provider_opens() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditCommitted);
        RecordOpening[] memory openings = made[leaseId].openings(market.drawnSegments(leaseId));
        Trace memory trace = made[leaseId].trace();

        vm.expectRevert(abi.encodeWithSelector(ILedger.LeaseNotProvider.selector, leaseId, PROVIDER, RIVAL));
        vm.prank(RIVAL);
        market.open(leaseId, trace, openings);
    }

    function test_records_of_another_trace_are_refused() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditCommitted);
        Made memory other = _truth(leaseId);
        RecordOpening[] memory openings = other.openings(market.drawnSegments(leaseId));
        (Trace memory trace, Trace memory otherTrace) = (made[leaseId].trace(), other.trace());
        uint256 recordIndex = uint256(market.drawnSegments(leaseId)[0]) + 1;

        vm.expectRevert(
            abi.encodeWithSelector(
                IAudits.AuditWrongTrace.selector,
                leaseId,
                keccak256(abi.encode(otherTrace)),
                keccak256(abi.encode(trace))
            )
        );
        vm.prank(PROVIDER);
        market.open(leaseId, otherTrace, openings);

        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditInvalidOpening.selector, leaseId, recordIndex));
        vm.prank(PROVIDER);
        market.open(leaseId, trace, openings);
    }

    function test_records_that_were_not_drawn_are_refused() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditCommitted);
        uint16[] memory drawn = market.drawnSegments(leaseId);
        uint256 recordIndex = uint256(drawn[0]) + 1;
        drawn[0] = drawn[1];
        RecordOpening[] memory openings = made[leaseId].openings(drawn);
        Trace memory trace = made[leaseId].trace();

        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditInvalidOpening.selector, leaseId, recordIndex));
        vm.prank(PROVIDER);
        market.open(leaseId, trace, openings);
    }

    function test_every_drawn_record_is_opened_and_revealed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditCommitted);
        Trace memory trace = made[leaseId].trace();

        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditWrongCount.selector, leaseId, 0, samples));
        vm.prank(PROVIDER);
        market.open(leaseId, trace, new RecordOpening[](0));

        _open(leaseId);
        address auditor = _auditorOf(leaseId);
        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditWrongCount.selector, leaseId, 0, samples));
        vm.prank(auditor);
        market.reveal(leaseId, trace, new bytes32[](2), 0, new Outcome[](0), SALT);
    }

    function test_an_equal_audit_attests_the_shard_and_earns_its_fee() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Opened);
        address auditor = _auditorOf(leaseId);
        bytes32 contribution = made[leaseId].bases[segments];

        vm.expectEmit();
        emit IAudits.ShardAttested(leaseId, auditor, contribution);
        _reveal(leaseId, made[leaseId]);

        assertStatus(leaseId, LeaseStatus.Attested);
        assertEq(market.creditOf(auditor), FEE);
        assertEq(_auditorLocked(auditor), STAKE);
        assertEq(market.attestedCount(1, 0), 1);
        assertEq(market.getJob(1).escrow, 4.3 ether);
        assertEq(market.contribution(1, 0, 0), leaseId);
    }

    function test_a_different_audit_of_any_drawn_segment_is_a_mismatch_at_its_record() public {
        for (uint256 j = 0; j < samples; ++j) {
            uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
            uint256 segment = market.drawnSegments(leaseId)[j];
            Made memory audited = made[leaseId];
            bytes32 claimed = audited.record(segment + 1);
            audited.metrics[segment] = "other metrics";
            _commitAudit(leaseId, audited);
            _open(leaseId);
            address auditor = _auditorOf(leaseId);

            vm.expectEmit();
            emit IAudits.AuditMismatched(leaseId, auditor, segment + 1, claimed, audited.record(segment + 1));
            _reveal(leaseId, audited);

            assertStatus(leaseId, LeaseStatus.Mismatched);
            assertEq(market.attestedCount(market.getLease(leaseId).jobId, 0), 0);
        }
    }

    function test_a_different_base_is_a_mismatch_at_record_0() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        Made memory audited = made[leaseId];
        bytes32 claimed = audited.bases[0];
        audited.bases[0] = "true base";
        _commitAudit(leaseId, audited);
        _open(leaseId);
        address auditor = _auditorOf(leaseId);

        vm.expectEmit();
        emit IAudits.AuditMismatched(leaseId, auditor, 0, claimed, "true base");
        _reveal(leaseId, audited);
    }

    function test_an_audit_is_revealed_as_it_was_committed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        Made memory audited = _truth(leaseId);
        _commitAudit(leaseId, audited);
        _open(leaseId);
        address auditor = _auditorOf(leaseId);
        uint16[] memory drawn = market.drawnSegments(leaseId);
        bytes32[] memory records = made[leaseId].claims(drawn);
        bytes32 committed = keccak256(abi.encode(_audit(leaseId, auditor, audited), records));
        bytes32 given = keccak256(abi.encode(_audit(leaseId, auditor, made[leaseId]), records));

        vm.expectRevert(
            abi.encodeWithSelector(IAudits.AuditNotAsCommitted.selector, leaseId, given, committed)
        );
        this.revealAs(auditor, leaseId);
    }

    function test_an_auditor_cannot_replace_the_records_that_were_opened() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Opened);
        Trace memory trace = made[leaseId].trace();
        uint16[] memory drawn = market.drawnSegments(leaseId);
        Outcome[] memory outcomes = made[leaseId].outcomes(drawn);
        bytes32 base = made[leaseId].bases[0];
        bytes32[] memory claimed = new bytes32[](2);
        address auditor = _auditorOf(leaseId);

        vm.expectPartialRevert(IAudits.AuditNotAsCommitted.selector);
        vm.prank(auditor);
        market.reveal(leaseId, trace, claimed, base, outcomes, SALT);
    }

    function test_an_unanswered_mismatch_costs_the_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Forfeited);
        _requireSlashed(leaseId, LeaseStatus.Forfeited, 1.5 ether);
    }

    function test_a_provider_that_does_not_open_loses_its_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.ProviderSilent);
        _requireSlashed(leaseId, LeaseStatus.ProviderSilent, 1.5 ether);
    }

    function test_a_commitment_that_was_not_drawn_loses_its_whole_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Undrawn);
        _requireSlashed(leaseId, LeaseStatus.Undrawn, 0);
    }

    function test_only_the_silent_are_slashed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Mismatched);
        vm.warp(market.getLease(leaseId).deadline);

        vm.expectRevert(
            abi.encodeWithSelector(IAudits.LeaseNotSlashable.selector, leaseId, LeaseStatus.Mismatched)
        );
        market.slash(leaseId);

        vm.warp(block.timestamp + 1);
        market.slash(leaseId);
        vm.expectRevert(
            abi.encodeWithSelector(IAudits.LeaseNotSlashable.selector, leaseId, LeaseStatus.Slashed)
        );
        market.slash(leaseId);
    }

    /// @notice `_reveal` of the honest audit, as a call, so that an expected revert covers all of it.
    function revealAs(address auditor, uint256 leaseId) external {
        _revealAs(auditor, leaseId, made[leaseId]);
    }

    function _requireSlashed(uint256 leaseId, LeaseStatus reason, uint256 toAuditor) private {
        address auditor = _auditorOf(leaseId);
        uint256 burned = address(0).balance;

        vm.expectEmit();
        emit IAudits.LeaseSlashed(leaseId, PROVIDER, reason, STAKE, toAuditor);
        vm.prank(STRANGER);
        market.slash(leaseId);

        assertStatus(leaseId, LeaseStatus.Slashed);
        assertEq(_staked(PROVIDER), 15 ether);
        assertEq(_locked(PROVIDER), 0);
        assertEq(market.creditOf(auditor), toAuditor);
        assertEq(_auditorLocked(auditor), 0);
        assertEq(address(0).balance - burned, STAKE - toAuditor);
        assertEq(market.shard(1, 0, 0), 0);
    }

    function _expectStatus(uint256 leaseId, LeaseStatus current, LeaseStatus required) private {
        vm.expectRevert(
            abi.encodeWithSelector(ILedger.LeaseInUnexpectedStatus.selector, leaseId, current, required)
        );
    }
}
