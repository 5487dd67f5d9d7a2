// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits} from "../src/interfaces/IAudits.sol";
import {ILedger} from "../src/interfaces/ILedger.sol";
import {IMarket, StateOpening} from "../src/interfaces/IMarket.sol";
import {IStakes} from "../src/interfaces/IStakes.sol";
import {Accounts} from "../src/libraries/Accounts.sol";
import {Draw} from "../src/libraries/Draw.sol";
import {Jobs, Terms} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Made, Traces} from "./Traces.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Market, MarketTest} from "./MarketTest.sol";

/// @notice Draws, and undoes the draw when it does not like the auditor.
contract ChoosyDrawer {
    error Unwelcome(address auditor);

    function draw(Market market, uint256 leaseId, bytes calldata header, address welcome) external {
        market.draw(leaseId, header);
        address auditor = market.getLease(leaseId).auditor;
        if (auditor != welcome) revert Unwelcome(auditor);
    }
}

/// @notice Withdraws again while it is being paid.
contract Reentrant {
    Market private immutable MARKET;
    bool private again = true;

    constructor(Market market) payable {
        MARKET = market;
        market.stake{value: msg.value}();
        market.unstake(msg.value);
    }

    function withdraw() external {
        MARKET.withdraw();
    }

    receive() external payable {
        if (again) {
            again = false;
            MARKET.withdraw();
        }
    }
}

/// @notice One test for each attack: who tries it, and what it costs them.
contract AttacksTest is MarketTest {
    using SafeCast for uint256;

    function test_attack_a_broken_chain_of_states_is_not_a_commitment() public {
        uint256 jobId = _openJob();
        uint256 first = _claim(PROVIDER, jobId, 0, 0);
        uint256 other = _claim(RIVAL, jobId, 0, 1);
        _commit(first);
        _commit(other);
        _attest(first);
        _attest(other);
        uint256 leaseId = _claim(PROVIDER, jobId, 1, 0);
        bytes32 required = made[first].slots[segments];

        // It begins with the other slot's state.
        made[leaseId] = Traces.make(leaseId, segments, "base", made[other].slots[segments]);
        _expectCommitRefused(leaseId, made[other].slots[segments], required);
        // It begins with the state that the job began with.
        made[leaseId] = Traces.make(leaseId, segments, "base", _spec()[4]);
        _expectCommitRefused(leaseId, _spec()[4], required);
    }

    function test_attack_a_trace_from_another_initial_state_than_the_specs_is_refused() public {
        uint256 leaseId = _claimFirst();
        made[leaseId] = Traces.make(leaseId, segments, "trained before", _spec()[4]);

        _expectCommitRefused(leaseId, "trained before", _spec()[3]);
    }

    function testFuzz_attack_terms_under_which_one_lie_pays_are_refused(
        uint64 reward,
        uint64 poison,
        uint256 count,
        uint256 drawn
    ) public {
        segments = uint64(clamp(count, 2, 256));
        samples = uint16(clamp(drawn, 1, segments < 16 ? segments : 16));
        price = reward;
        // Caught with q = 2 m / 3 n, a lie loses R + S; else it gains R + V.
        uint256 required =
            (3 * uint256(segments) * (uint256(reward) + poison) + 2 * samples - 1) / (2 * samples) - reward;
        Terms memory terms = _terms();
        terms.poisonValue = poison;
        vm.deal(address(this), 1_000 ether);

        if (required > 0) {
            terms.stakePerLease = (required - 1).toUint96();
            vm.expectRevert(abi.encodeWithSelector(Jobs.JobStakeTooLow.selector, required - 1, required));
            market.createJob{value: _escrow()}(_spec(), terms);
        }
        terms.stakePerLease = required.toUint96();
        market.createJob{value: _escrow()}(_spec(), terms);
    }

    function test_attack_one_lie_and_the_rest_free_loses_on_average() public view {
        uint256 caught = 0;
        uint256 liar = 3; // the segment of the lie
        for (uint256 leaseId = 0; leaseId < 500; ++leaseId) {
            uint256 chosen = Draw.segments(keccak256(abi.encode(leaseId)), segments, samples);
            if ((chosen >> liar) & 1 == 1) ++caught;
        }
        // Two thirds of the auditors are honest. What the caught lose is at least what the others gain.
        uint256 loss = caught * 2 * (STAKE + price);
        uint256 gain = 500 * 3 * uint256(price);
        assertTrue(loss > gain * 9 / 10, "a lie does not pay, within the error of 500 draws");
    }

    function test_attack_another_batch_or_data_order_is_a_mismatch_and_costs_the_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        // The auditor's batches are those of the job's seed: its gradients are not the provider's.
        Made memory honest = _truth(leaseId);
        _commitAudit(leaseId, honest);
        _open(leaseId);
        _reveal(leaseId, honest);
        _passDeadline(leaseId);

        market.slash(leaseId);

        assertEq(_staked(PROVIDER), 15 ether);
        assertEq(market.creditOf(PROVIDER), 0);
    }

    function test_attack_a_copied_commitment_cannot_be_placed_on_anothers_lease() public {
        uint256 jobId = _openJob();
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0);
        uint256 rivals = _claim(RIVAL, jobId, 0, 1);
        made[rivals] = made[leaseId];
        _commit(leaseId);
        _commit(rivals); // on its own lease it can: the slots begin alike

        // But a copy of slot 0's work is not slot 1's work, whose audit has other batches.
        _draw(rivals);
        Made memory honest = _truth(rivals);
        _commitAudit(rivals, honest);
        _open(rivals);
        _reveal(rivals, honest);
        assertStatus(rivals, LeaseStatus.Mismatched);
    }

    function test_attack_a_copied_audit_cannot_be_revealed_by_the_copier() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address auditor = _auditorOf(leaseId);
        address other = auditor == AUDITOR ? COLLEAGUE : AUDITOR;
        bytes32 copied = _audit(leaseId, other, made[leaseId]);
        vm.prank(auditor);
        market.commitAudit(leaseId, copied);
        _open(leaseId);

        vm.expectPartialRevert(IAudits.AuditNotAsCommitted.selector);
        this.revealAs(auditor, leaseId);
    }

    function test_attack_a_lazy_auditor_cannot_copy_what_is_opened() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address auditor = _auditorOf(leaseId);
        vm.prank(auditor);
        market.commitAudit(leaseId, "a guess");
        _open(leaseId);

        vm.expectPartialRevert(IAudits.AuditNotAsCommitted.selector);
        this.revealAs(auditor, leaseId);

        _passDeadline(leaseId);
        market.replaceAuditor(leaseId);
        assertEq(_auditorStaked(auditor), 11 ether);
    }

    function test_attack_nothing_is_withdrawn_after_the_draw_is_known() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 limit = uint256(market.getLease(leaseId).drawBlock) - 4;
        vm.roll(limit + 1);

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseDrawTooNear.selector, leaseId, limit + 1, limit));
        vm.prank(PROVIDER);
        market.withdrawCommitment(leaseId);
        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 15 ether, 20 ether));
        vm.prank(PROVIDER);
        market.unstake(20 ether);
    }

    function test_attack_a_commitment_whose_segments_are_known_is_not_withdrawn_before_a_redraw() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        market.replaceAuditor(leaseId);

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseDrawTooNear.selector, leaseId, block.number, 0));
        vm.prank(PROVIDER);
        market.withdrawCommitment(leaseId);
    }

    function test_attack_a_draw_that_is_reverted_comes_out_the_same_for_anyone() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Committed);
        uint256 drawBlock = market.getLease(leaseId).drawBlock;
        bytes memory header = _mine(drawBlock, MIX_HASH);
        ChoosyDrawer drawer = new ChoosyDrawer();
        vm.expectPartialRevert(ChoosyDrawer.Unwelcome.selector);
        drawer.draw(market, leaseId, header, STRANGER);

        vm.roll(drawBlock + 256);
        vm.setBlockhash(drawBlock, keccak256(header));
        vm.prank(STRANGER);
        market.draw(leaseId, header);

        Lease memory late = market.getLease(leaseId);
        (address auditor, uint256 drawn) = _expectedDraw(leaseId, MIX_HASH);
        assertEq(late.auditor, auditor);
        assertEq(late.segments, drawn);
    }

    function test_attack_an_unwelcome_draw_that_is_waited_out_costs_the_stake() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Undrawn);
        bytes memory header = _header(market.getLease(leaseId).drawBlock, MIX_HASH);

        vm.expectRevert(
            abi.encodeWithSelector(
                ILedger.LeaseInUnexpectedStatus.selector, leaseId, LeaseStatus.Undrawn, LeaseStatus.Committed
            )
        );
        market.draw(leaseId, header);
        market.slash(leaseId);

        assertEq(_staked(PROVIDER), 15 ether);
    }

    function test_attack_a_reentrant_withdrawal_gets_nothing_more() public {
        Reentrant thief = new Reentrant{value: 1 ether}(market);
        uint256 held = address(market).balance;

        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesPaymentFailed.selector, address(thief), 1 ether));
        thief.withdraw();

        assertEq(address(market).balance, held);
        assertEq(market.creditOf(address(thief)), 1 ether);
    }

    function test_attack_slashing_oneself_loses_most_of_the_stake() public {
        // Both auditors belong to the provider.
        uint256 before = PROVIDER.balance + AUDITOR.balance + COLLEAGUE.balance;
        uint256 leaseId = _leaseIn(LeaseStatus.Forfeited);

        market.slash(leaseId);
        vm.prank(PROVIDER);
        market.unstake(15 ether);
        _withdrawAll(AUDITOR, 0);
        _withdrawAll(COLLEAGUE, 4);
        vm.prank(PROVIDER);
        market.withdraw();

        uint256 lost = before + 20 ether + 32 ether - (PROVIDER.balance + AUDITOR.balance + COLLEAGUE.balance);
        assertEq(lost, uint256(STAKE) * 7 / 10);
    }

    function test_attack_claiming_and_abandoning_costs_a_fee_each_time_and_blocks_nothing() public {
        uint256 jobId = _openJob();
        for (uint256 i = 1; i <= 3; ++i) {
            uint256 leaseId = _claim(PROVIDER, jobId, 0, 0);
            _passDeadline(leaseId);
            vm.prank(STRANGER);
            market.expire(leaseId);
            assertEq(_staked(PROVIDER), 20 ether - i * 0.05 ether);
        }

        uint256 next = _claim(RIVAL, jobId, 0, 0);
        _commit(next);
        _attest(next);
        assertStatus(next, LeaseStatus.Attested);
    }

    function test_attack_a_last_second_move_counts_and_one_later_does_not() public {
        uint256 leaseId = _claimFirst();
        vm.warp(market.getLease(leaseId).deadline);
        _commit(leaseId);
        _draw(leaseId);
        vm.warp(market.getLease(leaseId).deadline);
        _commitAudit(leaseId, made[leaseId]);
        vm.warp(market.getLease(leaseId).deadline);
        _open(leaseId);
        address auditor = _auditorOf(leaseId);
        vm.warp(uint256(market.getLease(leaseId).deadline) + 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                ILedger.LeaseInUnexpectedStatus.selector,
                leaseId,
                LeaseStatus.RevealMissed,
                LeaseStatus.Opened
            )
        );
        this.revealAs(auditor, leaseId);
    }

    function test_attack_a_job_of_another_schedule_than_its_spec_is_another_spec() public {
        bytes32[8] memory spec = _spec();
        uint256 first = _createJob();
        spec[5] = bytes32(abi.encodePacked(ROUNDS, SLOTS, segments, STEPS + 1));

        vm.prank(REQUESTER);
        uint256 second = market.createJob{value: _escrow()}(spec, _terms());

        assertTrue(
            market.getJob(first).specHash != market.getJob(second).specHash, "the spec hash binds every leaf"
        );
    }

    /// @notice `_reveal` of the honest audit, as a call, so that an expected revert covers all of it.
    function revealAs(address auditor, uint256 leaseId) external {
        _revealAs(auditor, leaseId, made[leaseId]);
    }

    function _expectCommitRefused(uint256 leaseId, bytes32 given, bytes32 required) private {
        Made memory mine = made[leaseId];
        StateOpening memory first = mine.stateOpening(0);
        StateOpening memory last = mine.stateOpening(segments);
        bytes32 root = mine.root();

        vm.expectRevert(abi.encodeWithSelector(IMarket.LeaseWrongStart.selector, leaseId, given, required));
        vm.prank(PROVIDER);
        market.commit(leaseId, root, first, last, "manifest");
    }

    function _expectedDraw(uint256 leaseId, bytes32 mixHash) private view returns (address, uint256) {
        bytes32 domain = hex"5453544e0b";
        bytes32 segmentSeed = sha256(abi.encode(domain, 2, leaseId, mixHash));
        bytes32 ticketSeed = sha256(abi.encode(domain, 3, leaseId, mixHash));
        (address owner,) = market.getTicket(Draw.number(ticketSeed, 0) % 8);
        return (owner, Draw.segments(segmentSeed, segments, samples));
    }

    function _withdrawAll(address auditor, uint256 firstTicketId) private {
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(auditor);
            market.retireTicket(firstTicketId + i);
        }
        vm.prank(auditor);
        market.withdraw();
    }
}
