// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Ledger} from "./Ledger.sol";
import {IMarket} from "./interfaces/IMarket.sol";
import {Bits} from "./libraries/Bits.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Draw, Purpose} from "./libraries/Draw.sol";
import {Job, Jobs, JobStatus, Schedule, Terms} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Posts jobs, closes rounds, and leases, commits and pays shards.
abstract contract Leasing is IMarket, Ledger {
    using SafeCast for uint256;

    // Jobs

    /// @inheritdoc IMarket
    function createJob(address requester, bytes32[8] calldata specLeaves, Terms calldata terms)
        external
        payable
        returns (uint256 jobId)
    {
        _requireRunning();
        if (requester == address(0)) revert JobNeedsRequester();
        Schedule memory schedule = Jobs.decodeSchedule(specLeaves[5]);
        terms.requireValid(schedule);
        if (terms.leaseTime > MAX_LEASE_TIME) revert JobLeaseTimeTooLong(terms.leaseTime, MAX_LEASE_TIME);
        uint256 present = _now();
        if (terms.deadline <= present) revert JobDeadlinePassed(terms.deadline, present);

        jobId = ++_jobCount;
        Job storage job = _jobs[jobId];
        uint256 escrow = terms.escrowOf(schedule);
        job.post(requester, escrow, Commitments.hashSpec(specLeaves), schedule, terms);
        job.seedBlock = (block.number + DRAW_DISTANCE).toUint40();
        emit JobCreated(jobId, requester, job.specHash, specLeaves, terms);
        _receive(terms.asset, escrow);
    }

    /// @inheritdoc IMarket
    function drawSeed(uint256 jobId, bytes calldata header) external {
        Job storage job = _requireJob(jobId, JobStatus.Funded);
        bytes32 mixHash = Draw.readMixHash(header, job.seedBlock);

        uint64 seed = uint64(bytes8(Draw.entropy(Purpose.JobSeed, jobId, mixHash)));
        job.seed = seed;
        job.seeded = true;
        job.openedAt = _now().toUint40();
        emit JobSeeded(jobId, seed);
    }

    // Leases

    /// @inheritdoc IMarket
    function claim(uint256 jobId, uint256 operator, uint256 round, uint256 first, uint256 count)
        external
        returns (uint256 leaseId)
    {
        _requireRunning();
        _requireWorker(operator);
        Job storage job = _requireJob(jobId, JobStatus.Open);
        if (round != job.round) revert JobRoundNotOpen(jobId, round, job.round);
        uint256 mask = job.maskOf(round, first, count);
        Round storage shards = _rounds[jobId][round];
        uint256 taken = shards.taken;
        if (taken & mask != 0) revert JobShardsTaken(jobId, round, taken & mask);

        shards.taken = taken | mask;
        uint256 number = ++job.leases;
        if (number >= LEASES_PER_JOB) revert JobTooManyLeases(jobId);
        leaseId = jobId * LEASES_PER_JOB + number;
        job.active += uint24(count); // INVARIANT: at most MAX_SHARDS
        Lease storage lease = _leases[leaseId];
        lease.operator = operator.toUint32();
        lease.round = uint16(round);
        lease.first = uint8(first);
        lease.extra = uint8(count - 1);
        uint256 present = _now();
        uint256 priceBps = job.priceBpsAt(present);
        lease.priceBps = uint16(priceBps);
        uint256 deadline = lease.enter(LeaseStatus.Leased, present, job.leaseTime);
        _provider(lease, job).lock(_stakeOf(lease, job));
        uint256 bounty = _takeBounty(job, shards, mask);
        if (bounty > 0) _provider(lease, job).earn(bounty);
        emit ShardsClaimed(leaseId, jobId, operator, round, first, count, priceBps, bounty, deadline);
    }

    /// @inheritdoc IMarket
    function commit(uint256 leaseId, bytes32 root, bytes32 manifest) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Leased);
        _requireWorker(lease.operator);
        if (root == 0) revert LeaseZeroRoot(leaseId);

        uint256 drawBlock = block.number + DRAW_DISTANCE;
        lease.await(LeaseStatus.Committed, drawBlock);
        lease.tickets = _tickets[_jobOf(leaseId).asset].length.toUint24();
        lease.root = root;
        emit TraceCommitted(leaseId, root, manifest, drawBlock);
    }

    /// @inheritdoc IMarket
    function settle(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Final);
        Job storage job = _jobOf(leaseId);
        uint256 count = lease.count();
        uint256 pay = count * _share(job.pricePerShard, lease.priceBps);
        uint256 fee = job.auditFee;
        uint256 locked = _stakeOf(lease, job);

        lease.stored = LeaseStatus.Settled;
        job.escrow -= uint96(pay + fee); // INVARIANT: reserved when it was claimed
        job.active -= uint24(count);
        _provider(lease, job).unlock(locked, 0);
        _provider(lease, job).earn(pay);
        _auditor(lease, job).unlock(locked, 0);
        _auditor(lease, job).earn(fee);
        emit LeaseSettled(leaseId, pay, fee);
    }
}
