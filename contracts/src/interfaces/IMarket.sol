// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Terms} from "../libraries/Jobs.sol";
import {LeaseStatus} from "../libraries/Leases.sol";

/// @notice Jobs, rounds, leases and pay.
interface IMarket {
    event JobCreated(
        uint256 indexed jobId, address indexed requester, bytes32 specHash, bytes32[8] specLeaves, Terms terms
    );
    event JobSeeded(uint256 indexed jobId, uint64 seed);
    event RoundClosed(uint256 indexed jobId, uint256 round, uint256 attested);
    event ShardsClaimed(
        uint256 indexed leaseId,
        uint256 indexed jobId,
        uint256 indexed operator,
        uint256 round,
        uint256 first,
        uint256 count,
        uint256 priceBps,
        uint256 bounty,
        uint256 deadline
    );
    event TraceCommitted(uint256 indexed leaseId, bytes32 root, bytes32 manifest, uint256 drawBlock);
    event LeaseSettled(uint256 indexed leaseId, uint256 pay, uint256 fee);

    error JobLeaseTimeTooLong(uint256 leaseTime, uint256 limit);
    error JobDeadlinePassed(uint256 deadline, uint256 time);
    error JobNeedsRequester();
    error JobRoundNotOpen(uint256 jobId, uint256 round, uint256 current);
    error JobShardsTaken(uint256 jobId, uint256 round, uint256 taken);
    error JobTooManyLeases(uint256 jobId);
    error LeaseZeroRoot(uint256 leaseId);

    /// @notice Post a job for `requester` and escrow, exactly, the full price and the audit fee of all its shards.
    /// @param requester Who gets refunds and may cancel; the caller pays.
    /// @param specLeaves The eight values of the spec; see docs/protocol.md section 5.
    function createJob(address requester, bytes32[8] calldata specLeaves, Terms calldata terms)
        external
        payable
        returns (uint256 jobId);

    /// @notice Draw the job's seed from the `header` of its seed block, which opens it.
    function drawSeed(uint256 jobId, bytes calldata header) external;

    /// @notice Lease `count` slots from `first` of the job's current round, against the operator's free stake.
    /// @dev Slots that somebody abandoned earn the claimer a share of the fee that this cost.
    function claim(uint256 jobId, uint256 operator, uint256 round, uint256 first, uint256 count)
        external
        returns (uint256 leaseId);

    /// @notice Commit to the traces of all shards of a lease by the root over them.
    /// @param manifest Digest of the blob that lists the records and where their states are.
    function commit(uint256 leaseId, bytes32 root, bytes32 manifest) external;

    /// @notice Pay provider and auditor of a final lease and unlock their stakes.
    function settle(uint256 leaseId) external;
}

/// @notice The ways out: of a job, a round, a lease and an audit.
interface IClosing {
    event JobCancelled(uint256 indexed jobId);
    event JobRefunded(uint256 indexed jobId, uint256 amount);
    event CommitmentWithdrawn(uint256 indexed leaseId, uint256 fee);
    event LeaseExpired(uint256 indexed leaseId, uint256 fee);
    event AuditDeclined(uint256 indexed leaseId, uint256 indexed auditor, uint256 drawBlock);
    event AuditorReplaced(uint256 indexed leaseId, uint256 indexed auditor, uint256 loss, uint256 drawBlock);

    error JobNotRequester(uint256 jobId, address requester, address caller);
    error JobNotOver(uint256 jobId);
    error JobNothingToRefund(uint256 jobId);
    error JobRoundNotComplete(uint256 jobId, uint256 round, uint256 attested, uint256 required);
    error JobRoundTooEarly(uint256 jobId, uint256 round, uint256 time, uint256 earliest);
    error LeaseDrawTooNear(uint256 leaseId, uint256 blockNumber, uint256 limit);
    error LeaseNotSlashable(uint256 leaseId, LeaseStatus current);
    error LeaseAuditorNotSilent(uint256 leaseId, LeaseStatus current);
    error AuditTooLate(uint256 leaseId, uint256 time, uint256 deadline);

    /// @notice Let nothing more be claimed. Work that is leased is paid as agreed; the rest is refunded.
    function cancelJob(uint256 jobId) external;

    /// @notice Credit the requester of a job that is over with what its active leases cannot cost any more.
    function refund(uint256 jobId) external;

    /// @notice Close the job's current round by time: its set is what is attested now.
    function closeRound(uint256 jobId) external;

    /// @notice Take a commitment back for a fee, until half-way to its first draw.
    function withdrawCommitment(uint256 leaseId) external;

    /// @notice Close a lease that was not committed in time, for a fee.
    function expire(uint256 leaseId) external;

    /// @notice Give a drawn audit up early, at no cost.
    function decline(uint256 leaseId) external;

    /// @notice Send away an auditor that is silent and fix a block for the next draw. The third in a row voids the
    /// lease for a fee from its provider.
    function replaceAuditor(uint256 leaseId) external;

    /// @notice Take the stake of a provider that let its draw lapse.
    function slash(uint256 leaseId) external;
}
