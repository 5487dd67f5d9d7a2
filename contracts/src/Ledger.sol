// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Operators} from "./Operators.sol";
import {RecordOpening, IAudits} from "./interfaces/IAudits.sol";
import {ILedger} from "./interfaces/ILedger.sol";
import {IMarket} from "./interfaces/IMarket.sol";
import {Account, Role} from "./libraries/Accounts.sol";
import {Bits} from "./libraries/Bits.sol";
import {Commitments, Outcome} from "./libraries/Commitments.sol";
import {Draw} from "./libraries/Draw.sol";
import {Job, JobStatus} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Stores jobs, rounds and leases, and moves leases between what several contracts do.
abstract contract Ledger is Operators {
    /// @notice The slots of a round; bit s is slot s.
    struct Round {
        uint256 taken; // under a lease or attested
        uint256 attested; // once the round is closed: its set
        uint256 abandoned; // their last lease expired, and left a bounty
    }

    uint256 internal constant LEASES_PER_JOB = 1_000_000;
    uint256 private constant MAX_REDRAWS = 16; // then the lease is void, whatever they were for
    uint256 private constant BOUNTY_BPS = 5_000; // of an expiry fee, to whoever rescues the shard

    // Written by the half of the code that a detector does not look at: see Market.
    // slither-disable-start uninitialized-state,constable-states,unused-state
    mapping(uint256 jobId => Job) internal _jobs;
    mapping(uint256 leaseId => Lease) internal _leases;
    mapping(uint256 jobId => mapping(uint256 round => Round)) internal _rounds;
    uint256 internal _jobCount; // numbers begin at 1
    // slither-disable-end uninitialized-state,constable-states,unused-state

    function _jobOf(uint256 leaseId) internal view returns (Job storage) {
        return _jobs[leaseId / LEASES_PER_JOB];
    }

    function _roundOf(uint256 leaseId, Lease storage lease) internal view returns (Round storage) {
        return _rounds[leaseId / LEASES_PER_JOB][lease.round];
    }

    function _segmentsOf(Lease storage lease, Job storage job) internal view returns (uint256[] memory) {
        return Draw.segments(lease.seed, lease.count() * job.segments, job.samples);
    }

    /// @notice What provider and auditor each have locked for a lease.
    function _stakeOf(Lease storage lease, Job storage job) internal view returns (uint256) {
        return lease.count() * job.stakePerShard;
    }

    function _provider(Lease storage lease, Job storage job) internal view returns (Account storage) {
        return _account(lease.operator, Role.Provider, job.asset);
    }

    function _auditor(Lease storage lease, Job storage job) internal view returns (Account storage) {
        return _account(lease.auditor, Role.Auditor, job.asset);
    }

    /// @notice What claiming an abandoned shard earns: a share of the fee that it cost to abandon it.
    function _bountyOf(Job storage job) internal view returns (uint256) {
        return _share(_share(job.stakePerShard, EXPIRY_FEE_BPS), BOUNTY_BPS);
    }

    function _requireJob(uint256 jobId, JobStatus required) internal view returns (Job storage job) {
        job = _jobs[jobId];
        JobStatus current = job.status(_now());
        if (current != required) revert ILedger.JobInUnexpectedStatus(jobId, current, required);
    }

    function _requireLease(uint256 leaseId, LeaseStatus required)
        internal
        view
        returns (Lease storage lease)
    {
        lease = _leases[leaseId];
        LeaseStatus current = lease.status(_now());
        if (current != required) revert ILedger.LeaseInUnexpectedStatus(leaseId, current, required);
    }

    /// @notice End a lease without a result: its provider loses `loss` of the stake, and its shards open again.
    function _reopen(uint256 leaseId, Lease storage lease, LeaseStatus last, uint256 loss) internal {
        Job storage job = _jobOf(leaseId);
        lease.stored = last;
        job.active -= uint24(lease.count()); // INVARIANT: counted in when it was claimed
        _roundOf(leaseId, lease).taken &= ~lease.mask();
        _provider(lease, job).unlock(_stakeOf(lease, job), loss);
    }

    // Rounds

    /// @notice Count an attested lease in its round, unless that is closed, and close the round it completes.
    function _countAttested(uint256 leaseId, Lease storage lease, Job storage job) internal {
        uint256 round = job.round;
        if (lease.round != round) return; // too late to be in the set, and paid all the same
        Round storage shards = _roundOf(leaseId, lease);
        uint256 attested = shards.attested | lease.mask();
        shards.attested = attested;
        if (attested == job.maskOf(round, 0, job.slots)) _closeRound(leaseId / LEASES_PER_JOB, job);
    }

    /// @notice Take a lease that is slashed out of its round's set, unless that is closed.
    function _uncountAttested(uint256 leaseId, Lease storage lease, Job storage job) internal {
        if (lease.round == job.round) _roundOf(leaseId, lease).attested &= ~lease.mask();
    }

    function _closeRound(uint256 jobId, Job storage job) internal {
        uint256 round = job.round;
        _burnBounties(jobId, job);
        job.round = uint16(round + 1); // INVARIANT: at most MAX_ROUNDS
        job.openedAt = uint40(_now());
        emit IMarket.RoundClosed(jobId, round, _rounds[jobId][round].attested);
    }

    /// @notice Give up the bounties of the current round, whose shards nobody will claim any more.
    function _burnBounties(uint256 jobId, Job storage job) internal {
        uint256 left = _takeBounty(job, _rounds[jobId][job.round], type(uint256).max);
        _forfeit(job.asset, left);
    }

    /// @notice Take the bounties of the shards in `mask` from where they lie.
    function _takeBounty(Job storage job, Round storage shards, uint256 mask) internal returns (uint256) {
        uint256 abandoned = shards.abandoned;
        uint256 rescued = abandoned & mask;
        if (rescued == 0) return 0;
        shards.abandoned = abandoned ^ rescued;
        return Bits.count(rescued) * _bountyOf(job);
    }

    // Audits

    /// @notice A drawn lease whose auditor is the caller's operator, in time or within a report's grace period.
    function _requireAudited(uint256 leaseId) internal view returns (Lease storage lease) {
        lease = _leases[leaseId];
        LeaseStatus current = lease.status(_now());
        if (current != LeaseStatus.Drawn && current != LeaseStatus.Reported) {
            revert ILedger.LeaseInUnexpectedStatus(leaseId, current, LeaseStatus.Drawn);
        }
        _requireAuditor(leaseId, lease);
    }

    function _requireAuditor(uint256 leaseId, Lease storage lease) internal view {
        if (!_isWorker(lease.auditor, msg.sender)) {
            revert IAudits.LeaseNotAuditor(leaseId, lease.auditor, msg.sender);
        }
    }

    /// @notice Require that `opening` is record `index` (not 0) of the lease's `shard`-th shard.
    function _requireRecord(
        uint256 leaseId,
        Lease storage lease,
        uint256 segments,
        uint256 shard,
        uint256 index,
        RecordOpening calldata opening
    ) internal view {
        bytes32 record = Commitments.hashRecordAfter(
            index - 1, Outcome(opening.stateRoot, opening.gradientRoot, opening.metricsRoot)
        );
        uint256 position = Commitments.positionOf(shard, index, segments);
        uint256 depth = Commitments.leaseDepth(lease.count(), segments);
        if (!Commitments.isValidBranch(record, opening.branch, position, depth, lease.root)) {
            revert IAudits.AuditInvalidOpening(leaseId, position);
        }
    }

    /// @notice Unlock the auditor's stake less `loss`, and leave the lease without an auditor.
    function _dismissAuditor(uint256 leaseId, Lease storage lease, uint256 loss)
        internal
        returns (uint256 auditor)
    {
        Job storage job = _jobOf(leaseId);
        auditor = lease.auditor;
        _auditor(lease, job).unlock(_stakeOf(lease, job), loss);
        lease.auditor = 0;
    }

    /// @notice Fix a block for another draw, or void the lease at no cost after too many.
    /// @return drawBlock Zero where it is void.
    function _redraw(uint256 leaseId, Lease storage lease) internal returns (uint256 drawBlock) {
        if (++lease.redraws == MAX_REDRAWS) {
            _void(leaseId, lease, 0);
            return 0;
        }
        drawBlock = block.number + DRAW_DISTANCE;
        lease.await(LeaseStatus.Committed, drawBlock);
    }

    /// @notice Give the shards up without a result, for a fee from their provider.
    function _void(uint256 leaseId, Lease storage lease, uint256 fee) internal {
        _reopen(leaseId, lease, LeaseStatus.Voided, fee);
        _forfeit(_jobOf(leaseId).asset, fee);
        emit IAudits.LeaseVoided(leaseId, fee);
    }

    /// @notice Take the provider's whole stake, and give none of it to anybody.
    function _burnStake(uint256 leaseId, Lease storage lease, LeaseStatus reason) internal {
        Job storage job = _jobOf(leaseId);
        uint256 amount = _stakeOf(lease, job);
        _reopen(leaseId, lease, LeaseStatus.Slashed, amount);
        _forfeit(job.asset, amount);
        emit IAudits.LeaseSlashed(leaseId, reason, amount, 0);
    }

    /// @notice The operator of a ticket; zero if it is leaving, lacks free stake or is the provider's own.
    function _eligible(Lease storage lease, uint256 asset, uint256 stakeNeeded, uint256 ticketId)
        internal
        view
        returns (uint256)
    {
        Ticket storage ticket = _tickets[asset][ticketId];
        uint256 operator = ticket.operator;
        bool passed = ticket.leaving || operator == lease.operator
            || _account(operator, Role.Auditor, asset).free() < stakeNeeded;
        return passed ? 0 : operator;
    }
}
