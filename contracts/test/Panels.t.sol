// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits, IPanels} from "../src/interfaces/IAudits.sol";
import {IOperators} from "../src/interfaces/IOperators.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

/// @notice Twelve operators have a ticket each: whoever is not drawn to audit may sit on the panel.
contract PanelsTest is LeaseStates {
    uint256 private constant SEAT_FEE = 0.03 ether; // a seventh of the silence fee
    uint256 private constant REPORT_FEE = 0.21 ether;

    uint256 private firstJuror;

    function setUp() public override {
        super.setUp();
        _retireTickets(AUDITOR, 0, TICKETS);
        _retireTickets(COLLEAGUE, TICKETS, TICKETS);
        firstJuror = market.operatorCount() + 1;
        for (uint256 i = 0; i < 12; ++i) {
            _buyTickets(_register(), 1);
        }
    }

    function test_a_panel_has_seven_members_that_lock_a_seats_fee() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);

        uint32[] memory members = _members(leaseId);
        assertEq(members.length, 7);
        for (uint256 k = 0; k < 7; ++k) {
            assertAccount(members[k], TICKET_STAKE, SEAT_FEE, 0);
            assertTrue(members[k] != _auditorOf(leaseId), "the reporter does not judge its own report");
            for (uint256 j = 0; j < k; ++j) {
                assertTrue(members[j] != members[k], "a ticket has one seat");
            }
        }
    }

    function test_five_of_seven_burn_the_whole_stake_and_enrich_nobody() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 reporter = _auditorOf(leaseId);
        _voteAll(leaseId, 5);
        _passDeadline(leaseId);

        vm.expectEmit(address(market));
        emit IAudits.LeaseSlashed(leaseId, LeaseStatus.Voted, STAKE, 0);
        market.closeVote(leaseId);

        assertStatus(leaseId, LeaseStatus.Slashed);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(reporter, TICKET_STAKE, 0, 0);
        assertEq(market.burnable(asset), STAKE);
        _assertEachMember(leaseId, TICKET_STAKE, 0);
    }

    function test_with_four_of_seven_the_reporter_pays_those_who_voted() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 reporter = _auditorOf(leaseId);
        _voteAll(leaseId, 4);
        _passDeadline(leaseId);

        vm.expectEmit(address(market));
        emit IPanels.ReportRejected(leaseId, reporter, REPORT_FEE);
        market.closeVote(leaseId);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertAccount(PROVIDER, DEPOSIT, STAKE, 0);
        assertAccount(reporter, TICKET_STAKE - REPORT_FEE, 0, 0);
        assertEq(market.burnable(asset), 0);
        _assertEachMember(leaseId, TICKET_STAKE, REPORT_FEE / 7);
    }

    function test_after_a_vain_report_another_auditor_gets_the_same_segments() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        bytes32 drawn = keccak256(abi.encode(market.drawnSegments(leaseId)));
        uint256 reporter = _auditorOf(leaseId);
        _voteAll(leaseId, 0);
        _passDeadline(leaseId);
        market.closeVote(leaseId);

        _draw(leaseId, "again");
        _attest(leaseId);

        assertEq(keccak256(abi.encode(market.drawnSegments(leaseId))), drawn);
        assertTrue(_auditorOf(leaseId) != reporter, "who lost stake cannot cover the lease");
    }

    function test_a_silent_panelist_loses_its_seats_fee_to_those_who_voted() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint32[] memory members = _members(leaseId);
        for (uint256 k = 0; k < 5; ++k) {
            _vote(leaseId, members[k], false);
        }
        _passDeadline(leaseId);

        market.closeVote(leaseId);

        assertStatus(leaseId, LeaseStatus.Slashed);
        for (uint256 k = 0; k < 7; ++k) {
            bool spoke = k < 5;
            uint256 left = spoke ? TICKET_STAKE : TICKET_STAKE - SEAT_FEE;
            assertAccount(members[k], left, 0, spoke ? 2 * SEAT_FEE / 5 : 0);
        }
    }

    function test_a_panel_that_is_silent_costs_its_members_alone() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voted);
        uint256 reporter = _auditorOf(leaseId);

        market.closeVote(leaseId);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertAccount(PROVIDER, DEPOSIT, STAKE, 0);
        assertAccount(reporter, TICKET_STAKE, 0, 0);
        assertEq(market.burnable(asset), 7 * SEAT_FEE);
        _assertEachMember(leaseId, TICKET_STAKE - SEAT_FEE, 0);
    }

    function testFuzz_whatever_the_votes_neither_side_of_a_report_profits(uint8 voted, uint8 missing) public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 reporter = _auditorOf(leaseId);
        uint32[] memory members = _members(leaseId);
        for (uint256 k = 0; k < 7; ++k) {
            if ((voted >> k) & 1 == 1) _vote(leaseId, members[k], (missing >> k) & 1 == 0);
        }
        _passDeadline(leaseId);

        market.closeVote(leaseId);

        uint256 held = market.burnable(asset) + _account(PROVIDER).staked + _account(reporter).staked;
        assertEq(uint256(_account(PROVIDER).earned) + _account(reporter).earned, 0);
        for (uint256 k = 0; k < 7; ++k) {
            held += uint256(_account(members[k]).staked) + _account(members[k]).earned;
        }
        assertEq(held, DEPOSIT + 8 * uint256(TICKET_STAKE));
    }

    function test_a_panel_is_convened_only_after_the_grace_period() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Reported);
        _toDeadline(leaseId);
        vm.expectRevert(
            abi.encodeWithSelector(IPanels.LeaseCannotConvene.selector, leaseId, LeaseStatus.Reported)
        );
        market.convene(leaseId);

        _passTime(1);
        vm.expectEmit(address(market));
        emit IPanels.PanelConvened(leaseId, block.number + 8);
        market.convene(leaseId);
        _expectStatus(leaseId, LeaseStatus.Convened, LeaseStatus.Drawn);
        vm.prank(_worker(PROVIDER));
        market.attest(leaseId, works[leaseId].openings(new uint256[](0)));
    }

    function test_in_the_grace_period_the_auditor_may_still_attest() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Reported);
        _toDeadline(leaseId); // the provider published again

        _attest(leaseId);

        assertStatus(leaseId, LeaseStatus.Attested);
    }

    function test_in_the_grace_period_the_auditor_may_still_accuse() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Reported);

        _accuse(leaseId, 0, 3);

        assertStatus(leaseId, LeaseStatus.Accused);
    }

    function test_a_report_comes_before_the_audits_end_and_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        address key = _auditorKey(leaseId);
        _expectStatus(leaseId, LeaseStatus.AuditorSilent, LeaseStatus.Drawn);
        vm.prank(key);
        market.report(leaseId);

        vm.warp(block.timestamp - 1);
        _report(leaseId);
        _expectStatus(leaseId, LeaseStatus.Reported, LeaseStatus.Drawn);
        vm.prank(key);
        market.report(leaseId);
    }

    function test_a_panel_whose_block_is_forgotten_is_convened_again() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Unconvened);
        _expectStatus(leaseId, LeaseStatus.Unconvened, LeaseStatus.Convened);
        market.drawPanel(leaseId, "");

        market.convene(leaseId);

        assertEq(_drawPanel(leaseId, "another").length, 7);
    }

    function test_neither_the_providers_nor_leaving_tickets_sit_on_the_panel() public {
        _buyTickets(PROVIDER, 24);
        uint256 leaseId = _leaseIn(LeaseStatus.Convened);
        uint256 leaving = _auditorOf(leaseId) == firstJuror ? firstJuror + 1 : firstJuror;
        _retireTickets(leaving, 8 + leaving - firstJuror, 1);

        uint32[] memory members = _drawPanel(leaseId, MIX_HASH);

        for (uint256 k = 0; k < members.length; ++k) {
            assertTrue(members[k] != PROVIDER && members[k] != leaving, "it is passed over");
        }
    }

    function test_a_report_that_no_panel_can_judge_is_dropped_at_no_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Convened);
        uint256 reporter = _auditorOf(leaseId);
        for (uint256 i = 0; i < 12; ++i) {
            if (firstJuror + i != reporter) _retireTickets(firstJuror + i, 8 + i, 1);
        }

        _drawPanel(leaseId, MIX_HASH);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertAccount(reporter, TICKET_STAKE, 0, 0);
    }

    function test_only_members_vote_and_once() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 reporter = _auditorOf(leaseId);
        uint256 member = _members(leaseId)[0];
        vm.expectRevert(abi.encodeWithSelector(IPanels.PanelNotMember.selector, leaseId, reporter));
        vm.prank(_worker(reporter));
        market.vote(leaseId, reporter, false);
        vm.expectRevert(
            abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, member, _worker(reporter))
        );
        vm.prank(_worker(reporter));
        market.vote(leaseId, member, false);

        _vote(leaseId, member, true);
        vm.expectRevert(abi.encodeWithSelector(IPanels.PanelVotedAlready.selector, leaseId, member));
        vm.prank(_worker(member));
        market.vote(leaseId, member, false);
    }

    function test_a_vote_is_counted_after_its_time_and_not_before() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 member = _members(leaseId)[0];
        _voteAll(leaseId, 7);
        _toDeadline(leaseId);
        _expectStatus(leaseId, LeaseStatus.Voting, LeaseStatus.Voted);
        market.closeVote(leaseId);

        _passTime(1);
        _expectStatus(leaseId, LeaseStatus.Voted, LeaseStatus.Voting);
        vm.prank(_worker(member));
        market.vote(leaseId, member, true);
        market.closeVote(leaseId);
        _expectStatus(leaseId, LeaseStatus.Slashed, LeaseStatus.Voted);
        market.closeVote(leaseId);
    }

    function test_an_operator_votes_with_all_its_seats_and_smaller_panels_need_the_same_share() public {
        market = _deploy(_config(), _assets());
        for (uint256 operator = PROVIDER; operator <= COLLEAGUE; ++operator) {
            _register();
        }
        _stake(PROVIDER, DEPOSIT);
        _buyTickets(AUDITOR, 4);
        _buyTickets(COLLEAGUE, 4);
        uint256 leaseId = _leaseIn(LeaseStatus.Voting);
        uint256 other = AUDITOR + COLLEAGUE - _auditorOf(leaseId);
        assertEq(_members(leaseId).length, 4);
        assertAccount(other, DEPOSIT, 4 * SEAT_FEE, 0);

        vm.expectEmit(address(market));
        emit IPanels.PanelVoted(leaseId, other, false, 4);
        _vote(leaseId, other, false);
        _passDeadline(leaseId);
        market.closeVote(leaseId);

        assertStatus(leaseId, LeaseStatus.Slashed);
    }

    function _members(uint256 leaseId) private view returns (uint32[] memory members) {
        (members,,) = market.getPanel(leaseId);
    }

    /// @notice All vote, `missing` of them that something cannot be fetched.
    function _voteAll(uint256 leaseId, uint256 missing) private {
        uint32[] memory members = _members(leaseId);
        for (uint256 k = 0; k < members.length; ++k) {
            _vote(leaseId, members[k], k >= missing);
        }
    }

    function _assertEachMember(uint256 leaseId, uint256 staked, uint256 earned) private view {
        uint32[] memory members = _members(leaseId);
        for (uint256 k = 0; k < members.length; ++k) {
            assertAccount(members[k], staked, 0, earned);
        }
    }

    function _retireTickets(uint256 operator, uint256 first, uint256 count) private {
        for (uint256 i = 0; i < count; ++i) {
            vm.prank(_owner(operator));
            market.retireTicket(operator, asset, first + i);
        }
    }
}
