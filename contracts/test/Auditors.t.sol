// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IClosing} from "../src/interfaces/IMarket.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

/// @notice Who can be drawn to audit, and what becomes of those who are and stay silent.
contract AuditorsTest is LeaseStates {
    function test_the_first_eligible_ticket_is_drawn_and_its_stake_locked() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);

        uint256 auditor = _expectedAuditor(leaseId, MIX_HASH);
        assertEq(_auditorOf(leaseId), auditor);
        assertAccount(auditor, DEPOSIT, STAKE, 0);
    }

    function test_a_leaving_ticket_is_passed_over() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        bytes32 seed = Draw.entropy(Purpose.Ticket, leaseId, "mix 4");
        (uint256 first, uint256 second) = (Draw.number(seed, 0) % 8, Draw.number(seed, 1) % 8);
        (uint256 passed,) = market.getTicket(asset, first);
        (uint256 next,) = market.getTicket(asset, second);
        assertTrue(passed != next, "the second candidate is another auditor's");
        vm.prank(_owner(passed));
        market.retireTicket(passed, asset, first); // its owner still has three, and stake enough

        _draw(leaseId, "mix 4");

        assertEq(_auditorOf(leaseId), next);
    }

    function test_an_auditor_without_free_stake_is_passed_over() public {
        // Each auditor's 24 ether answer for four shards: eight draws use up both, whatever their order.
        slots = quorum = 4;
        for (uint256 i = 0; i < 2; ++i) {
            uint256 jobId = _openJob();
            for (uint256 slot = 0; slot < slots; ++slot) {
                uint256 leaseId = _claim(i == 0 ? PROVIDER : RIVAL, jobId, 0, slot, 1);
                _commit(leaseId);
                _draw(leaseId, bytes32(leaseId));
            }
        }

        assertAccount(AUDITOR, DEPOSIT, DEPOSIT, 0);
        assertAccount(COLLEAGUE, DEPOSIT, DEPOSIT, 0);
    }

    function test_a_providers_own_tickets_are_passed_over() public {
        _buyTickets(PROVIDER, 24);
        for (uint256 i = 0; i < 4; ++i) {
            uint256 auditor = _auditorOf(_leaseIn(LeaseStatus.Drawn));
            assertTrue(auditor == AUDITOR || auditor == COLLEAGUE, "nobody audits itself");
        }
    }

    function test_a_providers_stake_as_an_auditor_is_apart() public {
        _buyTickets(PROVIDER, 4);
        _leaseIn(LeaseStatus.Committed);

        assertEq(market.getAccount(PROVIDER, Role.Auditor, asset).locked, 0);
        assertAccount(PROVIDER, DEPOSIT, STAKE, 0);
    }

    function test_a_ticket_bought_after_the_commitment_does_not_count() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 late = _register();
        _buyTickets(late, 100);

        _draw(leaseId);

        assertTrue(_auditorOf(leaseId) != late, "the list was fixed at the commitment");
    }

    function test_a_draw_without_an_eligible_ticket_voids_the_lease_at_no_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        for (uint256 ticketId = 0; ticketId < 2 * TICKETS; ++ticketId) {
            uint256 operator = ticketId < TICKETS ? AUDITOR : COLLEAGUE;
            vm.prank(_owner(operator));
            market.retireTicket(operator, asset, ticketId);
        }

        _draw(leaseId);

        (uint256 taken,,) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Voided);
        assertEq(taken, 0);
        assertAccount(PROVIDER, DEPOSIT, 0, 0);
    }

    function test_a_draw_without_any_ticket_voids_the_lease_at_no_cost() public {
        market = _deploy(_config(), _assets());
        _register();
        _stake(PROVIDER, DEPOSIT);
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);

        _draw(leaseId);

        assertStatus(leaseId, LeaseStatus.Voided);
        assertAccount(PROVIDER, DEPOSIT, 0, 0);
    }

    function test_a_silent_auditor_pays_a_fee_and_the_segments_stay() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        uint256 auditor = _auditorOf(leaseId);
        bytes32 drawn = keccak256(abi.encode(market.drawnSegments(leaseId)));

        vm.expectEmit(address(market));
        emit IClosing.AuditorReplaced(leaseId, auditor, 0.21 ether, block.number + 8);
        market.replaceAuditor(leaseId);

        assertAccount(auditor, DEPOSIT - 0.21 ether, 0, 0);
        assertEq(market.burnable(asset), 0.21 ether);
        _draw(leaseId, "other mix hash");
        assertEq(keccak256(abi.encode(market.drawnSegments(leaseId))), drawn);
    }

    function test_three_silent_auditors_in_a_row_void_the_lease_for_a_fee() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voided);

        (uint256 taken,,) = market.getRound(1, 0);
        assertEq(taken, 0);
        assertAccount(PROVIDER, DEPOSIT - 0.3 ether, 0, 0);
        uint256 left = uint256(_account(AUDITOR).staked) + _account(COLLEAGUE).staked;
        assertEq(left, 2 * DEPOSIT - 3 * 0.21 ether);
        assertEq(market.burnable(asset), 0.3 ether + 3 * 0.21 ether);
        assertEq(_auditorOf(leaseId), 0);
    }

    function test_silent_auditors_are_counted_in_a_row_only() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        _silenceAuditors(leaseId, 2);
        _draw(leaseId, "speaks");
        uint256 challengeId = _accuse(leaseId, 0, 1); // it was wrong, but it spoke
        _answer(challengeId);
        _rule(challengeId, false);

        _silenceAuditors(leaseId, 2);

        assertStatus(leaseId, LeaseStatus.Committed);
        _silenceAuditors(leaseId, 1);
        assertStatus(leaseId, LeaseStatus.Voided);
    }

    function test_an_auditor_in_time_is_not_replaced() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        _toDeadline(leaseId);

        vm.expectRevert(
            abi.encodeWithSelector(IClosing.LeaseAuditorNotSilent.selector, leaseId, LeaseStatus.Drawn)
        );
        market.replaceAuditor(leaseId);
    }

    function test_an_auditor_declines_early_at_no_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        uint256 auditor = _auditorOf(leaseId);
        _passTime(20);

        vm.expectEmit(address(market));
        emit IClosing.AuditDeclined(leaseId, auditor, block.number + 8);
        _decline(leaseId);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertAccount(auditor, DEPOSIT, 0, 0);
        assertEq(market.getLease(leaseId).silences, 0);
    }

    function test_an_auditor_that_declines_late_is_refused() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address key = _auditorKey(leaseId);
        _passTime(21);

        vm.expectRevert(
            abi.encodeWithSelector(
                IClosing.AuditTooLate.selector, leaseId, block.timestamp, block.timestamp - 1
            )
        );
        vm.prank(key);
        market.decline(leaseId);
    }

    function test_a_lease_is_void_after_too_many_redraws_whatever_they_were_for() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        for (uint256 i = 0; i < 15; ++i) {
            _decline(leaseId);
            _draw(leaseId, bytes32(i));
        }
        assertStatus(leaseId, LeaseStatus.Drawn);

        _decline(leaseId);

        assertStatus(leaseId, LeaseStatus.Voided);
        assertAccount(PROVIDER, DEPOSIT, 0, 0);
    }
}
