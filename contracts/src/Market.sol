// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Audits} from "./Audits.sol";
import {Deployment} from "./Deployment.sol";
import {Config} from "./interfaces/IDeployment.sol";
import {IMarket, StateOpening} from "./interfaces/IMarket.sol";
import {Commitments, Trace} from "./libraries/Commitments.sol";
import {Draw, Purpose} from "./libraries/Draw.sol";
import {Job, Jobs, JobStatus, Schedule, Terms} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice A market that pays for training it can check. It has no owner and cannot be changed.
contract Market is IMarket, Audits {
    using SafeCast for uint256;

    uint256 private constant CALLER_SHARE_BPS = 1_000; // of an expiry fee, to whoever closes the lease

    constructor(Config memory constants) Deployment(constants) {}

    /// @inheritdoc IMarket
    function createJob(bytes32[8] calldata specLeaves, Terms calldata terms)
        external
        payable
        returns (uint256 jobId)
    {
        Schedule memory schedule = Jobs.decodeSchedule(specLeaves[5]);
        Jobs.requireValid(schedule);
        terms.requireDeterrent(schedule.segments);
        if (terms.leaseTime > MAX_LEASE_TIME) revert JobLeaseTimeTooLong(terms.leaseTime, MAX_LEASE_TIME);
        if (terms.deadline <= block.timestamp) revert JobDeadlinePassed(terms.deadline, block.timestamp);
        uint256 shards = schedule.rounds * schedule.slots;
        uint256 cost = shards * (uint256(terms.pricePerShard) + terms.auditFee);
        if (msg.value != cost) revert JobWrongEscrow(msg.value, cost);

        jobId = ++_jobCount;
        Job storage job = _jobs[jobId];
        job.post(Commitments.hashSpec(specLeaves), specLeaves, schedule, terms);
        job.seedBlock = (block.number + DRAW_DISTANCE).toUint40();
        emit JobCreated(jobId, msg.sender, job.specHash, specLeaves, terms);
    }

    /// @inheritdoc IMarket
    function drawSeed(uint256 jobId, bytes calldata header) external {
        Job storage job = _requireJob(jobId, JobStatus.Funded);
        bytes32 mixHash = Draw.readMixHash(header, job.seedBlock);

        uint64 seed = uint64(bytes8(Draw.entropy(Purpose.JobSeed, jobId, mixHash)));
        job.seed = seed;
        job.seeded = true;
        emit JobSeeded(jobId, seed);
    }

    /// @inheritdoc IMarket
    function claim(uint256 jobId, uint256 round, uint256 slot) external returns (uint256 leaseId) {
        Job storage job = _requireJob(jobId, JobStatus.Open);
        uint256 shardId = job.shardAt(round, slot);
        if (round > job.round) revert JobRoundNotOpen(jobId, round, job.round);
        uint256 holder = _shards[jobId][shardId];
        if (holder != 0) revert JobShardTaken(jobId, round, slot, holder);

        leaseId = ++_leaseCount;
        _shards[jobId][shardId] = leaseId.toUint32();
        ++job.active;
        _providers[msg.sender].lock(job.stakePerLease);
        Lease storage lease = _leases[leaseId];
        lease.provider = msg.sender;
        lease.jobId = jobId.toUint32();
        lease.shard = shardId.toUint16();
        uint256 deadline = lease.enter(LeaseStatus.Leased, job.leaseTime);
        emit ShardClaimed(leaseId, jobId, msg.sender, round, slot, deadline);
    }

    /// @inheritdoc IMarket
    function commit(
        uint256 leaseId,
        bytes32 traceRoot,
        StateOpening calldata first,
        StateOpening calldata last,
        bytes32 manifest
    ) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Leased);
        _requireProvider(leaseId, lease);
        Job storage job = _jobs[lease.jobId];
        _requireStart(leaseId, lease, job, first);
        uint256 segments = job.segments;
        _requireOpening(leaseId, traceRoot, first, 0, segments);
        _requireOpening(leaseId, traceRoot, last, segments, segments);

        uint256 drawBlock = block.number + DRAW_DISTANCE;
        lease.stored = LeaseStatus.Committed;
        lease.drawBlock = drawBlock.toUint40();
        lease.tickets = _tickets.length.toUint32();
        Trace memory trace = Trace(traceRoot, first.baseRoot, last.baseRoot, last.slotRoot);
        lease.trace = keccak256(abi.encode(trace));
        emit TraceCommitted(
            leaseId, traceRoot, first.baseRoot, last.baseRoot, last.slotRoot, manifest, drawBlock
        );
    }

    /// @inheritdoc IMarket
    function withdrawCommitment(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Committed);
        _requireProvider(leaseId, lease);
        // A redraw was drawn before: its provider has seen which segments it must answer for.
        uint256 limit = lease.redrawn ? 0 : lease.drawBlock - (DRAW_DISTANCE + 1) / 2;
        if (block.number > limit) revert LeaseDrawTooNear(leaseId, block.number, limit);

        uint256 fee = _share(_jobs[lease.jobId].stakePerLease, WITHDRAW_FEE_BPS);
        _reopen(lease, LeaseStatus.Withdrawn, fee);
        emit CommitmentWithdrawn(leaseId, msg.sender, fee);
        _burn(fee);
    }

    /// @inheritdoc IMarket
    function expire(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Expired);
        uint256 fee = _share(_jobs[lease.jobId].stakePerLease, EXPIRY_FEE_BPS);
        uint256 toCaller = _share(fee, CALLER_SHARE_BPS);

        _reopen(lease, LeaseStatus.Lapsed, fee);
        creditOf[msg.sender] += toCaller;
        emit LeaseExpired(leaseId, lease.provider, fee);
        _burn(fee - toCaller);
    }

    /// @inheritdoc IMarket
    function settle(uint256 leaseId) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Final);
        Job storage job = _jobs[lease.jobId];
        address provider = lease.provider;
        uint96 price = job.pricePerShard;

        lease.stored = LeaseStatus.Settled;
        job.escrow -= price;
        --job.active;
        _providers[provider].unlock(job.stakePerLease, 0);
        _auditors[lease.auditor].unlock(job.stakePerLease, 0);
        creditOf[provider] += price;
        emit LeaseSettled(leaseId, provider, price);
    }

    /// @inheritdoc IMarket
    function closeJob(uint256 jobId) external {
        Job storage job = _jobs[jobId];
        if (job.status() != JobStatus.SeedLost) _requireJob(jobId, JobStatus.Ended);
        if (job.active != 0) revert JobHasActiveLeases(jobId, job.active);

        uint96 refund = job.escrow;
        job.escrow = 0;
        job.closed = true;
        creditOf[job.requester] += refund;
        emit JobClosed(jobId, refund);
    }

    /// @notice Require that record 0 is where the slot stands, and that no segment came before it.
    function _requireStart(uint256 leaseId, Lease storage lease, Job storage job, StateOpening calldata first)
        private
        view
    {
        uint256 round = lease.shard / job.slots;
        bytes32 slotRoot = _slotRootBefore(lease.jobId, round, lease.shard % job.slots);
        _requireEqual(leaseId, first.slotRoot, slotRoot);
        if (round == 0) _requireEqual(leaseId, first.baseRoot, job.baseRoot);
        _requireEqual(leaseId, first.outcome, 0);
    }

    function _requireEqual(uint256 leaseId, bytes32 given, bytes32 required) private pure {
        if (given != required) revert LeaseWrongStart(leaseId, given, required);
    }

    function _requireOpening(
        uint256 leaseId,
        bytes32 traceRoot,
        StateOpening calldata opening,
        uint256 index,
        uint256 segments
    ) private view {
        bytes32 stateRoot = Commitments.hashNode(opening.baseRoot, opening.slotRoot);
        bytes32 record = Commitments.hashRecord(index, stateRoot, opening.outcome);
        if (!Commitments.isValidBranch(record, opening.branch, index, segments + 1, traceRoot)) {
            revert LeaseInvalidOpening(leaseId, index);
        }
    }
}
