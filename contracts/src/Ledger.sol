// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stakes} from "./Stakes.sol";
import {ILedger} from "./interfaces/ILedger.sol";
import {Draw} from "./libraries/Draw.sol";
import {Job, JobStatus, MAX_SHARDS} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Stores jobs, leases and which lease each shard is under.
abstract contract Ledger is ILedger, Stakes {
    mapping(uint256 jobId => Job) internal _jobs;
    mapping(uint256 leaseId => Lease) internal _leases;
    // The lease that a shard is under or was attested by; zero while the shard is open.
    mapping(uint256 jobId => uint32[MAX_SHARDS]) internal _shards;
    uint32 internal _jobCount; // ids begin at 1
    uint32 internal _leaseCount; // ids begin at 1

    /// @inheritdoc ILedger
    function getJob(uint256 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc ILedger
    function getLease(uint256 leaseId) external view returns (Lease memory) {
        return _leases[leaseId];
    }

    /// @inheritdoc ILedger
    function jobStatus(uint256 jobId) external view returns (JobStatus) {
        return _jobs[jobId].status();
    }

    /// @inheritdoc ILedger
    function status(uint256 leaseId) external view returns (LeaseStatus) {
        return _leases[leaseId].status();
    }

    /// @inheritdoc ILedger
    function jobSeed(uint256 jobId) external view returns (uint64) {
        Job storage job = _jobs[jobId];
        if (!job.seeded) revert JobInUnexpectedStatus(jobId, job.status(), JobStatus.Open);
        return job.seed;
    }

    /// @inheritdoc ILedger
    function shard(uint256 jobId, uint256 round, uint256 slot) public view returns (uint256 leaseId) {
        return _shards[jobId][_jobs[jobId].shardAt(round, slot)];
    }

    /// @inheritdoc ILedger
    function contribution(uint256 jobId, uint256 round, uint256 slot) public view returns (uint256 leaseId) {
        leaseId = shard(jobId, round, slot);
        return _leases[leaseId].isAttested() ? leaseId : 0;
    }

    /// @inheritdoc ILedger
    function attestedCount(uint256 jobId, uint256 round) external view returns (uint256) {
        Job storage job = _jobs[jobId];
        if (round > job.round) return 0;
        return round == job.round ? job.attested : job.slots;
    }

    /// @inheritdoc ILedger
    function slotState(uint256 jobId, uint256 slot) external view returns (bytes32 slotRoot) {
        Job storage job = _jobs[jobId];
        uint256 round = job.round;
        bool isAhead = round < job.rounds && contribution(jobId, round, slot) != 0;
        return _slotRootBefore(jobId, isAhead ? round + 1 : round, slot);
    }

    /// @inheritdoc ILedger
    function drawnSegments(uint256 leaseId) external view returns (uint16[] memory) {
        return Draw.toList(_leases[leaseId].segments);
    }

    /// @notice The slot's own state that its shard of `round` begins with.
    function _slotRootBefore(uint256 jobId, uint256 round, uint256 slot) internal view returns (bytes32) {
        // INVARIANT: a round opens when every shard of the one before it is attested.
        return round == 0 ? _jobs[jobId].slotRoot : _leases[shard(jobId, round - 1, slot)].audit;
    }

    function _requireJob(uint256 jobId, JobStatus required) internal view returns (Job storage job) {
        job = _jobs[jobId];
        JobStatus current = job.status();
        if (current != required) revert JobInUnexpectedStatus(jobId, current, required);
    }

    function _requireLease(uint256 leaseId, LeaseStatus required)
        internal
        view
        returns (Lease storage lease)
    {
        lease = _leases[leaseId];
        LeaseStatus current = lease.status();
        if (current != required) revert LeaseInUnexpectedStatus(leaseId, current, required);
    }

    function _requireProvider(uint256 leaseId, Lease storage lease) internal view {
        if (lease.provider != msg.sender) revert LeaseNotProvider(leaseId, lease.provider, msg.sender);
    }

    function _requireAuditor(uint256 leaseId, Lease storage lease) internal view {
        if (lease.auditor != msg.sender) revert LeaseNotAuditor(leaseId, lease.auditor, msg.sender);
    }

    /// @notice End a lease without a result: its provider loses `fee` of the stake, and its shard opens again.
    function _reopen(Lease storage lease, LeaseStatus last, uint256 fee) internal {
        Job storage job = _jobs[lease.jobId];
        lease.stored = last;
        --job.active;
        _shards[lease.jobId][lease.shard] = 0;
        _providers[lease.provider].unlock(job.stakePerLease, fee);
    }
}
