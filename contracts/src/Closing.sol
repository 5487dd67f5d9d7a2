// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ledger} from "./Ledger.sol";
import {ILedger} from "./interfaces/ILedger.sol";
import {IClosing, IMarket} from "./interfaces/IMarket.sol";
import {Bits} from "./libraries/Bits.sol";
import {Job, Jobs, JobStatus} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice The ways out: of a job, a round, a lease and an audit.
abstract contract Closing is IClosing, Ledger {
    uint256 private constant MAX_SILENCES = 3; // in a row

    /// @inheritdoc IClosing
    function cancelJob(uint256 jobId) external {
        Job storage job = _jobs[jobId];
        if (job.requester != msg.sender) revert JobNotRequester(jobId, job.requester, msg.sender);
        JobStatus current = job.status(_now());
        if (Jobs.isOver(current)) revert ILedger.JobInUnexpectedStatus(jobId, current, JobStatus.Open);

        job.cancelled = true;
        emit JobCancelled(jobId);
    }

    /// @inheritdoc IClosing
    function refund(uint256 jobId) external {
        Job storage job = _jobs[jobId];
        if (!Jobs.isOver(job.status(_now()))) revert JobNotOver(jobId);
        _burnBounties(jobId, job);
        uint256 amount = job.escrow - job.reserved();
        if (amount == 0) revert JobNothingToRefund(jobId);

        job.escrow -= uint96(amount); // INVARIANT: at most the escrow
        _owe(job.asset, job.requester, amount);
        emit JobRefunded(jobId, amount);
    }

    /// @inheritdoc IClosing
    function closeRound(uint256 jobId) external {
        Job storage job = _jobs[jobId];
        uint256 round = job.round;
        if (round >= job.rounds || !job.seeded) revert IMarket.JobRoundNotOpen(jobId, round, round);
        uint256 attested = Bits.count(_rounds[jobId][round].attested);
        if (job.roundTime == 0) revert JobRoundNotComplete(jobId, round, attested, job.slots);
        if (attested < job.quorum) revert JobRoundNotComplete(jobId, round, attested, job.quorum);
        uint256 earliest = uint256(job.openedAt) + job.roundTime;
        if (_now() <= earliest) revert JobRoundTooEarly(jobId, round, _now(), earliest);

        _closeRound(jobId, job);
    }

    /// @inheritdoc IClosing
    function withdrawCommitment(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Committed);
        _requireWorker(lease.operator);
        // A redraw was drawn before: its provider has seen which segments it must answer for.
        uint256 limit = lease.redraws > 0 ? 0 : lease.clock - (DRAW_DISTANCE + 1) / 2;
        if (block.number > limit) revert LeaseDrawTooNear(leaseId, block.number, limit);

        Job storage job = _jobOf(leaseId);
        uint256 fee = _share(_stakeOf(lease, job), WITHDRAW_FEE_BPS);
        _reopen(leaseId, lease, LeaseStatus.Withdrawn, fee);
        _forfeit(job.asset, fee);
        emit CommitmentWithdrawn(leaseId, fee);
    }

    /// @inheritdoc IClosing
    function expire(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Expired);
        Job storage job = _jobOf(leaseId);
        uint256 fee = lease.count() * _share(job.stakePerShard, EXPIRY_FEE_BPS);
        _reopen(leaseId, lease, LeaseStatus.Lapsed, fee);

        Round storage shards = _roundOf(leaseId, lease);
        uint256 left = 0; // bounties for those who rescue the shards, while they can be claimed
        if (lease.round == job.round && !Jobs.isOver(job.status(_now()))) {
            uint256 abandoned = shards.abandoned;
            left = Bits.count(lease.mask() & ~abandoned) * _bountyOf(job);
            shards.abandoned = abandoned | lease.mask();
        }
        _forfeit(job.asset, fee - left);
        emit LeaseExpired(leaseId, fee);
    }

    /// @inheritdoc IClosing
    function decline(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Drawn);
        _requireAuditor(leaseId, lease);
        uint256 limit = uint256(lease.clock) - AUDIT_TIME + DECLINE_TIME;
        if (_now() > limit) revert AuditTooLate(leaseId, _now(), limit);

        uint256 auditor = _dismissAuditor(leaseId, lease, 0);
        emit AuditDeclined(leaseId, auditor, _redraw(leaseId, lease));
    }

    /// @inheritdoc IClosing
    function replaceAuditor(uint256 leaseId) external {
        Lease storage lease = _leases[leaseId];
        LeaseStatus current = lease.status(_now());
        if (current != LeaseStatus.AuditorSilent) revert LeaseAuditorNotSilent(leaseId, current);

        Job storage job = _jobOf(leaseId);
        uint256 locked = _stakeOf(lease, job);
        uint256 loss = _share(locked, SILENCE_FEE_BPS);
        uint256 auditor = _dismissAuditor(leaseId, lease, loss);
        _forfeit(job.asset, loss);
        uint256 drawBlock = 0;
        if (++lease.silences == MAX_SILENCES) _void(leaseId, lease, _share(locked, VOID_FEE_BPS));
        else drawBlock = _redraw(leaseId, lease);
        emit AuditorReplaced(leaseId, auditor, loss, drawBlock);
    }

    /// @inheritdoc IClosing
    function slash(uint256 leaseId) external {
        Lease storage lease = _leases[leaseId];
        LeaseStatus current = lease.status(_now());
        if (current != LeaseStatus.Undrawn) revert LeaseNotSlashable(leaseId, current);
        _burnStake(leaseId, lease, current);
    }
}
