// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Job, JobStatus} from "../libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../libraries/Leases.sol";

/// @notice What is known of jobs, rounds and leases.
/// @dev A lease's number is its job's times `LEASES_PER_JOB`, plus its place among the job's leases, from 1.
interface ILedger {
    error JobInUnexpectedStatus(uint256 jobId, JobStatus current, JobStatus required);
    error LeaseInUnexpectedStatus(uint256 leaseId, LeaseStatus current, LeaseStatus required);

    /// @return The stored facts of a job; see `jobStatus` for what the clock makes of them.
    function getJob(uint256 jobId) external view returns (Job memory);

    /// @return The stored facts of a lease; see `status` for what the clock makes of them.
    function getLease(uint256 leaseId) external view returns (Lease memory);

    /// @return The job's status now.
    function jobStatus(uint256 jobId) external view returns (JobStatus);

    /// @return The lease's status now.
    function status(uint256 leaseId) external view returns (LeaseStatus);

    /// @return What a shard of the job would pay if it were claimed now, in base units.
    function priceNow(uint256 jobId) external view returns (uint256);

    /// @return taken The slots of a round that are under a lease or attested, bit s for slot s.
    /// @return attested Those whose shards are attested; once the round is closed, its set.
    /// @return abandoned Those whose last lease expired: claiming one earns a bounty.
    function getRound(uint256 jobId, uint256 round)
        external
        view
        returns (uint256 taken, uint256 attested, uint256 abandoned);

    /// @notice The last round before `round` whose set has `slot`: from its shard's last state the slot goes on.
    /// @return found False where there is none: the slot begins with the spec's.
    function lastAttested(uint256 jobId, uint256 slot, uint256 round)
        external
        view
        returns (bool found, uint256 lastRound);

    /// @return The segments last drawn for a lease, in the order of the draw; segment i of the lease's j-th shard is
    /// number j times the job's segments, plus i.
    function drawnSegments(uint256 leaseId) external view returns (uint256[] memory);
}
