// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Job, JobStatus} from "../libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../libraries/Leases.sol";

/// @notice What is known of jobs, shards and leases.
interface ILedger {
    error JobInUnexpectedStatus(uint256 jobId, JobStatus current, JobStatus required);
    error LeaseInUnexpectedStatus(uint256 leaseId, LeaseStatus current, LeaseStatus required);
    error LeaseNotProvider(uint256 leaseId, address provider, address caller);
    error LeaseNotAuditor(uint256 leaseId, address auditor, address caller);

    /// @return The stored facts of a job; see `jobStatus` for what the clock makes of them.
    function getJob(uint256 jobId) external view returns (Job memory);

    /// @return The stored facts of a lease; see `status` for what the clock makes of them.
    function getLease(uint256 leaseId) external view returns (Lease memory);

    /// @return The job's status now.
    function jobStatus(uint256 jobId) external view returns (JobStatus);

    /// @return The lease's status now.
    function status(uint256 leaseId) external view returns (LeaseStatus);

    /// @return The seed of an open job.
    function jobSeed(uint256 jobId) external view returns (uint64);

    /// @return leaseId The lease that the shard is under or was attested by; zero while it can be claimed.
    function shard(uint256 jobId, uint256 round, uint256 slot) external view returns (uint256 leaseId);

    /// @return leaseId The lease that the shard was attested by; zero until it is.
    function contribution(uint256 jobId, uint256 round, uint256 slot) external view returns (uint256 leaseId);

    /// @return How many shards of a round are attested.
    function attestedCount(uint256 jobId, uint256 round) external view returns (uint256);

    /// @return slotRoot The slot's own state that its next shard begins with.
    function slotState(uint256 jobId, uint256 slot) external view returns (bytes32 slotRoot);

    /// @return The segments last drawn for a lease, ascending.
    function drawnSegments(uint256 leaseId) external view returns (uint16[] memory);
}
