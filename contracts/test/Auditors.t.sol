// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits} from "../src/interfaces/IAudits.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice Who can be drawn to audit, and what becomes of those who are and stay silent.
contract AuditorsTest is MarketTest {
    function test_a_leaving_ticket_is_passed_over() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        bytes32 seed = Draw.entropy(Purpose.Ticket, leaseId, "mix 1");
        (uint256 first, uint256 second) = (Draw.number(seed, 0) % 8, Draw.number(seed, 1) % 8);
        (address owner,) = market.getTicket(first);
        (address next,) = market.getTicket(second);
        assertTrue(owner != next, "the second candidate is another auditor's");
        vm.prank(owner);
        market.retireTicket(first); // its owner still has three, and stake enough

        _draw(leaseId, "mix 1");

        assertEq(_auditorOf(leaseId), next);
    }

    function test_an_auditor_without_free_stake_is_passed_over() public {
        // Each auditor's 16 ether answer for three leases of 5: six draws use up both, whatever their order.
        for (uint256 i = 0; i < 3; ++i) {
            uint256 jobId = _openJob();
            for (uint256 slot = 0; slot < SLOTS; ++slot) {
                uint256 leaseId = _claim(slot == 0 ? PROVIDER : RIVAL, jobId, 0, slot);
                _commit(leaseId);
                _draw(leaseId);
            }
        }

        assertEq(_auditorLocked(AUDITOR), 15 ether);
        assertEq(_auditorLocked(COLLEAGUE), 15 ether);
    }

    function test_a_providers_own_tickets_are_passed_over() public {
        _buyTickets(PROVIDER, 24);
        for (uint256 i = 0; i < 4; ++i) {
            uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
            address auditor = _auditorOf(leaseId);
            assertTrue(auditor == AUDITOR || auditor == COLLEAGUE, "nobody audits itself");
        }
    }

    function test_a_ticket_bought_after_the_commitment_does_not_count() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        _buyTickets(STRANGER, 100);

        _draw(leaseId);

        assertTrue(_auditorOf(leaseId) != STRANGER, "the list was fixed at the commitment");
    }

    function test_a_draw_without_an_eligible_ticket_voids_the_lease_at_no_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        _retireAll(AUDITOR, 0);
        _retireAll(COLLEAGUE, 4);

        _draw(leaseId);

        assertStatus(leaseId, LeaseStatus.Voided);
        assertEq(_staked(PROVIDER), 20 ether);
        assertEq(_locked(PROVIDER), 0);
        assertEq(market.shard(1, 0, 0), 0);
    }

    function test_a_draw_without_any_ticket_voids_the_lease_at_no_cost() public {
        market = _deploy(_config());
        _stake(PROVIDER, STAKE);
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);

        _draw(leaseId);

        assertStatus(leaseId, LeaseStatus.Voided);
    }

    function test_an_auditor_silent_before_the_opening_pays_a_fee_and_the_segments_stay() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        address auditor = _auditorOf(leaseId);
        uint256 drawn = market.getLease(leaseId).segments;

        market.replaceAuditor(leaseId);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertEq(_auditorStaked(auditor), 15.85 ether);
        assertEq(_auditorLocked(auditor), 0);
        assertEq(market.getLease(leaseId).drawBlock, block.number + 8);
        _draw(leaseId, "other mix hash");
        assertEq(market.getLease(leaseId).segments, drawn);
    }

    function test_three_silent_auditors_in_a_row_void_the_lease_for_a_fee() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voided);

        assertStatus(leaseId, LeaseStatus.Voided);
        assertEq(_staked(PROVIDER), 19.75 ether);
        assertEq(_locked(PROVIDER), 0);
        assertEq(_auditorStaked(AUDITOR) + _auditorStaked(COLLEAGUE), 32 ether - 0.45 ether);
        assertEq(market.shard(1, 0, 0), 0);
    }

    function test_silent_auditors_are_counted_in_a_row_only() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        for (uint256 i = 0; i < 5; ++i) {
            if (i > 0) _draw(leaseId, bytes32(i));
            if (i == 2) {
                _commitAudit(leaseId, made[leaseId]); // the third speaks, and is silent after the opening
                _open(leaseId);
            }
            _passDeadline(leaseId);
            market.replaceAuditor(leaseId);
        }

        assertStatus(leaseId, LeaseStatus.Committed);
        assertEq(market.getLease(leaseId).silences, 2);
    }

    function test_an_auditor_silent_after_the_opening_loses_its_stake_and_segments_are_drawn_anew() public {
        uint256 leaseId = _leaseIn(LeaseStatus.RevealMissed);
        address auditor = _auditorOf(leaseId);
        uint256 burned = address(0).balance;

        market.replaceAuditor(leaseId);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertEq(_auditorStaked(auditor), 11 ether);
        assertEq(_auditorLocked(auditor), 0);
        assertEq(address(0).balance - burned, STAKE);
        assertEq(market.getLease(leaseId).segments, 0);
        _attest(leaseId);
        assertStatus(leaseId, LeaseStatus.Attested);
    }

    function test_an_auditor_in_time_is_not_replaced() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        vm.warp(market.getLease(leaseId).deadline);

        vm.expectRevert(
            abi.encodeWithSelector(IAudits.LeaseAuditorNotSilent.selector, leaseId, LeaseStatus.Drawn)
        );
        market.replaceAuditor(leaseId);
    }

    function _retireAll(address auditor, uint256 firstTicketId) private {
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(auditor);
            market.retireTicket(firstTicketId + i);
        }
    }
}
