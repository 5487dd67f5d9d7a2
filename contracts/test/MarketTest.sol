// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RecordOpening, StateOpening} from "../src/interfaces/IAudits.sol";
import {ILedger} from "../src/interfaces/ILedger.sol";
import {ChallengeStatus} from "../src/libraries/Challenges.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {JobStatus, Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {Headers} from "./Headers.sol";
import {Market, People} from "./People.sol";
import {Work} from "./Traces.sol";

/// @notice Every step of a lease's life, by its people.
abstract contract MarketTest is People {
    mapping(uint256 leaseId => Work) internal works; // what the provider of a lease commits to

    // Steps of a job

    function _createJob() internal returns (uint256) {
        return _postJob(_terms());
    }

    function _postJob(Terms memory terms) internal returns (uint256) {
        (uint256 value, bytes32[8] memory spec) = (_value(_escrow()), _spec());
        vm.prank(REQUESTER);
        return market.createJob{value: value}(REQUESTER, spec, terms);
    }

    /// @notice Mine past block `number`, whose header has `mixHash`.
    function _mine(uint256 number, bytes32 mixHash) internal virtual returns (bytes memory header) {
        header = Headers.encode(number, mixHash);
        if (block.number <= number) vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
    }

    function _seed(uint256 jobId) internal {
        bytes memory header = _mine(market.getJob(jobId).seedBlock, MIX_HASH);
        market.drawSeed(jobId, header);
    }

    function _openJob() internal returns (uint256 jobId) {
        jobId = _createJob();
        _seed(jobId);
    }

    // Steps of a lease

    function _claim(uint256 operator, uint256 jobId, uint256 round, uint256 first, uint256 count)
        internal
        returns (uint256 leaseId)
    {
        vm.prank(_worker(operator));
        leaseId = market.claim(jobId, operator, round, first, count);
        works[leaseId] = Work(leaseId, count, market.getJob(jobId).segments);
    }

    function _claimFirst() internal returns (uint256) {
        return _claim(PROVIDER, _openJob(), 0, 0, 1);
    }

    function _commit(uint256 leaseId) internal {
        bytes32 root = works[leaseId].root();
        vm.prank(_worker(market.getLease(leaseId).operator));
        market.commit(leaseId, root, "manifest");
    }

    function _draw(uint256 leaseId) internal {
        _draw(leaseId, MIX_HASH);
    }

    function _draw(uint256 leaseId, bytes32 mixHash) internal {
        bytes memory header = _mine(market.getLease(leaseId).clock, mixHash);
        vm.prank(STRANGER);
        market.draw(leaseId, header);
    }

    /// @notice As the drawn auditor: attest what the provider did.
    function _attest(uint256 leaseId) internal {
        _attestAs(_auditorKey(leaseId), leaseId, works[leaseId]);
    }

    /// @notice As `caller`: attest `recomputed`.
    function _attestAs(address caller, uint256 leaseId, Work memory recomputed) internal {
        RecordOpening[] memory openings = recomputed.openings(market.drawnSegments(leaseId));
        vm.prank(caller);
        market.attest(leaseId, openings);
    }

    /// @notice Bring a leased shard to an honest audit's end.
    function _finishAudit(uint256 leaseId) internal {
        _commit(leaseId);
        _draw(leaseId);
        _attest(leaseId);
    }

    function _settle(uint256 leaseId) internal {
        if (market.status(leaseId) == LeaseStatus.Attested) _passDeadline(leaseId);
        vm.prank(STRANGER);
        market.settle(leaseId);
    }

    /// @notice What an honest recomputation gives where the provider's trace is false.
    function _truth(uint256 leaseId) internal view returns (Work memory honest) {
        honest = works[leaseId];
        honest.label = uint256(keccak256("truth"));
    }

    function _decline(uint256 leaseId) internal {
        vm.prank(_auditorKey(leaseId));
        market.decline(leaseId);
    }

    function _report(uint256 leaseId) internal {
        vm.prank(_auditorKey(leaseId));
        market.report(leaseId);
    }

    function _drawPanel(uint256 leaseId, bytes32 mixHash) internal returns (uint32[] memory members) {
        bytes memory header = _mine(market.getLease(leaseId).clock, mixHash);
        vm.prank(STRANGER);
        market.drawPanel(leaseId, header);
        (members,,) = market.getPanel(leaseId);
    }

    function _vote(uint256 leaseId, uint256 operator, bool available) internal {
        vm.prank(_worker(operator));
        market.vote(leaseId, operator, available);
    }

    /// @notice Report, let the grace period pass, and draw the panel.
    function _convenePanel(uint256 leaseId) internal returns (uint32[] memory) {
        _report(leaseId);
        _passDeadline(leaseId);
        market.convene(leaseId);
        return _drawPanel(leaseId, MIX_HASH);
    }

    // Steps of a challenge

    function _accuse(uint256 leaseId, uint256 shard, uint256 index) internal returns (uint256) {
        vm.prank(_auditorKey(leaseId));
        return market.accuse(leaseId, shard, index);
    }

    function _challenge(uint256 leaseId, uint256 shard, uint256 index) internal returns (uint256) {
        uint256 value = _value(_bond(leaseId));
        vm.prank(CHALLENGER);
        return market.challenge{value: value}(leaseId, shard, index);
    }

    function _bond(uint256 leaseId) internal view returns (uint256) {
        return _stakeOf(leaseId) * market.config().bondBps / 10_000;
    }

    /// @notice As the provider: open the accused record as it was committed.
    function _answer(uint256 challengeId) internal {
        uint256 leaseId = market.getChallenge(challengeId).leaseId;
        (StateOpening memory before, RecordOpening memory opened) = _openingsFor(challengeId);
        vm.prank(_worker(market.getLease(leaseId).operator));
        market.answer(challengeId, before, opened);
    }

    function _openingsFor(uint256 challengeId)
        internal
        view
        returns (StateOpening memory before, RecordOpening memory opened)
    {
        Work memory work = works[market.getChallenge(challengeId).leaseId];
        uint256 height = Commitments.treeDepth(work.segments + 1);
        uint256 position = market.getChallenge(challengeId).position;
        (uint256 shard, uint256 index) = (position >> height, position % (1 << height));
        before = work.stateOpening(shard, index == 0 ? 0 : index - 1);
        if (index > 0) opened = work.opening(shard, index);
    }

    function _rule(uint256 challengeId, bool upheld) internal {
        vm.prank(JUDGE);
        market.rule(challengeId, upheld);
    }

    // Time

    function _passTime(uint256 duration) internal {
        vm.warp(block.timestamp + duration);
    }

    /// @notice Go to the last moment of what the lease's clock ends.
    function _toDeadline(uint256 leaseId) internal {
        _passTime(market.getLease(leaseId).clock - market.time());
    }

    function _passDeadline(uint256 leaseId) internal {
        _toDeadline(leaseId);
        _passTime(1);
    }

    /// @notice Let the chain forget the block that draws for the lease.
    function _passDrawBlock(uint256 leaseId) internal {
        vm.roll(uint256(market.getLease(leaseId).clock) + 257);
    }

    // Views

    /// @notice What provider and auditor each lock for a lease.
    function _stakeOf(uint256 leaseId) internal view returns (uint256) {
        return (uint256(market.getLease(leaseId).extra) + 1) * STAKE;
    }

    function _auditorOf(uint256 leaseId) internal view returns (uint256) {
        return market.getLease(leaseId).auditor;
    }

    function _auditorKey(uint256 leaseId) internal view returns (address) {
        return _worker(_auditorOf(leaseId));
    }

    /// @notice The segments that a first draw by `mixHash` picks.
    function _expectedSegments(uint256 leaseId, bytes32 mixHash) internal view returns (uint256[] memory) {
        uint256 seed = uint48(uint256(Draw.entropy(Purpose.Segments, leaseId, mixHash)));
        return Draw.segments(seed, works[leaseId].shards * works[leaseId].segments, samples);
    }

    /// @notice The operator of the first candidate among the tickets, whom a draw by `mixHash` picks if it can.
    function _expectedAuditor(uint256 leaseId, bytes32 mixHash) internal view returns (uint256 auditor) {
        bytes32 seed = Draw.entropy(Purpose.Ticket, leaseId, mixHash);
        (auditor,) = market.getTicket(asset, Draw.number(seed, 0) % market.getLease(leaseId).tickets);
    }

    function assertStatus(uint256 leaseId, LeaseStatus expected) internal view {
        assertEq(uint256(market.status(leaseId)), uint256(expected));
    }

    function assertJobStatus(uint256 jobId, JobStatus expected) internal view {
        assertEq(uint256(market.jobStatus(jobId)), uint256(expected));
    }

    function assertChallenge(uint256 challengeId, ChallengeStatus expected) internal view {
        assertEq(uint256(market.challengeStatus(challengeId)), uint256(expected));
    }

    function _expectStatus(uint256 leaseId, LeaseStatus current, LeaseStatus required) internal {
        vm.expectRevert(
            abi.encodeWithSelector(ILedger.LeaseInUnexpectedStatus.selector, leaseId, current, required)
        );
    }

    function _expectJobStatus(uint256 jobId, JobStatus current, JobStatus required) internal {
        vm.expectRevert(
            abi.encodeWithSelector(ILedger.JobInUnexpectedStatus.selector, jobId, current, required)
        );
    }
}
