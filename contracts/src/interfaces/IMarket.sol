// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Terms} from "../libraries/Jobs.sol";

/// @notice The first or last record of a trace, with its branch to the trace root.
struct StateOpening {
    bytes32 baseRoot;
    bytes32 slotRoot;
    bytes32 outcome; // zero in record 0
    bytes32[] branch;
}

/// @notice Jobs, leases and pay.
interface IMarket {
    event JobCreated(
        uint256 indexed jobId, address indexed requester, bytes32 specHash, bytes32[8] specLeaves, Terms terms
    );
    event JobSeeded(uint256 indexed jobId, uint64 seed);
    event JobClosed(uint256 indexed jobId, uint256 refund);
    event ShardClaimed(
        uint256 indexed leaseId,
        uint256 indexed jobId,
        address indexed provider,
        uint256 round,
        uint256 slot,
        uint256 deadline
    );
    event TraceCommitted(
        uint256 indexed leaseId,
        bytes32 traceRoot,
        bytes32 firstBaseRoot,
        bytes32 lastBaseRoot,
        bytes32 lastSlotRoot,
        bytes32 manifest,
        uint256 drawBlock
    );
    event CommitmentWithdrawn(uint256 indexed leaseId, address indexed provider, uint256 fee);
    event LeaseExpired(uint256 indexed leaseId, address indexed provider, uint256 fee);
    event LeaseSettled(uint256 indexed leaseId, address indexed provider, uint256 amount);

    error JobWrongEscrow(uint256 paid, uint256 required);
    error JobLeaseTimeTooLong(uint256 leaseTime, uint256 limit);
    error JobDeadlinePassed(uint256 deadline, uint256 time);
    error JobHasActiveLeases(uint256 jobId, uint256 active);
    error JobRoundNotOpen(uint256 jobId, uint256 round, uint256 current);
    error JobShardTaken(uint256 jobId, uint256 round, uint256 slot, uint256 leaseId);
    error LeaseWrongStart(uint256 leaseId, bytes32 given, bytes32 required);
    error LeaseInvalidOpening(uint256 leaseId, uint256 recordIndex);
    error LeaseDrawTooNear(uint256 leaseId, uint256 blockNumber, uint256 limit);

    /// @notice Post a job and escrow, exactly, the price and the audit fee of all its shards.
    /// @param specLeaves The eight values of the spec; see docs/protocol.md section 5.
    function createJob(bytes32[8] calldata specLeaves, Terms calldata terms)
        external
        payable
        returns (uint256 jobId);

    /// @notice Draw the job's seed from the `header` of its seed block, which opens it.
    function drawSeed(uint256 jobId, bytes calldata header) external;

    /// @notice Lease a shard, whose round must be the job's current one, against the caller's free stake.
    function claim(uint256 jobId, uint256 round, uint256 slot) external returns (uint256 leaseId);

    /// @notice Commit to a trace by its root, with its first and last record opened.
    /// @param manifest Digest of the blob that lists the records and where their states are.
    function commit(
        uint256 leaseId,
        bytes32 traceRoot,
        StateOpening calldata first,
        StateOpening calldata last,
        bytes32 manifest
    ) external;

    /// @notice Take a commitment back for a fee, until half-way to its first draw.
    function withdrawCommitment(uint256 leaseId) external;

    /// @notice Close a lease that was not committed in time, for a fee of which the caller gets a share.
    function expire(uint256 leaseId) external;

    /// @notice Pay the provider of a final shard and unlock both stakes.
    function settle(uint256 leaseId) external;

    /// @notice Refund what a job did not spend, once it has ended and none of its leases is active, or its seed
    /// is lost.
    function closeJob(uint256 jobId) external;
}
