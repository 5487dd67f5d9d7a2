// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Draw} from "./Draw.sol";

uint256 constant MAX_SHARDS = 1 << 16; // of a job: so that a shard's number fits 16 bits

using Jobs for Job global;
using Jobs for Terms global;

/// @notice Where a job is in its life. Only `Closed` is stored; the rest follows from blocks and the clock.
enum JobStatus {
    None, // never created
    Funded, // escrowed, and its seed not drawn yet
    SeedLost, // not drawn while the chain knew the seed block's hash
    Open, // shards can be claimed
    Ended, // past its deadline
    Closed // what was not spent is refunded
}

/// @notice What the requester offers and demands, fixed when it posts the job.
struct Terms {
    uint96 pricePerShard; // wei, to the provider
    uint96 auditFee; // wei for each shard, to the auditor
    uint96 stakePerLease; // wei, of the provider and again of the auditor
    uint96 poisonValue; // wei: what a false result might be worth to somebody
    uint32 leaseTime; // seconds from claim to commit
    uint16 samples; // segments drawn for an audit
    uint64 deadline; // seconds since the epoch: the last moment to claim
}

/// @notice Spec leaf 5: four big-endian u64.
struct Schedule {
    uint256 rounds;
    uint256 slots;
    uint256 segments; // of a shard
    uint256 stepsPerSegment;
}

/// @notice A posted job. Fields are ordered so that a transaction touches few storage slots.
struct Job {
    uint96 escrow; // wei not spent yet
    uint64 seed;
    uint32 round; // the first round with a shard that is not attested
    uint32 attested; // shards of `round` that are
    uint32 active; // leases that can still cost or earn
    //
    uint96 pricePerShard;
    uint96 stakePerLease;
    uint32 leaseTime;
    uint32 slots;
    //
    uint96 auditFee;
    uint64 deadline;
    uint32 rounds;
    uint16 segments;
    uint16 samples;
    bool seeded;
    bool closed;
    //
    address requester;
    uint40 seedBlock;
    uint32 stepsPerSegment;
    //
    bytes32 specHash;
    bytes32 baseRoot; // spec leaf 3: every slot's base in round 0
    bytes32 slotRoot; // spec leaf 4: every slot's own state before its first shard
}

/// @notice Rules of a job.
library Jobs {
    using SafeCast for uint256;

    error JobInvalidSchedule(uint256 rounds, uint256 slots, uint256 segments, uint256 stepsPerSegment);
    error JobInvalidSamples(uint256 samples, uint256 segments);
    error JobStakeTooLow(uint256 stake, uint256 required);
    error JobHasNoShard(uint256 round, uint256 slot);

    uint256 internal constant MAX_ROUNDS = 1024;
    uint256 internal constant MAX_SLOTS = 256;
    uint256 internal constant MIN_SEGMENTS = 2;
    uint256 internal constant MAX_SEGMENTS = 256;
    uint256 internal constant MIN_STEPS = 2; // of a segment: one alone would show its gradient in its poststate
    uint256 internal constant MAX_STEPS = 1 << 20;
    uint256 internal constant MAX_SAMPLES = 16;

    function decodeSchedule(bytes32 leaf) internal pure returns (Schedule memory) {
        uint256 word = uint256(leaf);
        uint256 mask = type(uint64).max;
        return Schedule(word >> 192, (word >> 128) & mask, (word >> 64) & mask, word & mask);
    }

    function requireValid(Schedule memory schedule) internal pure {
        (uint256 rounds, uint256 slots) = (schedule.rounds, schedule.slots);
        (uint256 segments, uint256 steps) = (schedule.segments, schedule.stepsPerSegment);
        bool valid = rounds > 0 && rounds <= MAX_ROUNDS && slots > 0 && slots <= MAX_SLOTS
            && rounds * slots <= MAX_SHARDS && segments >= MIN_SEGMENTS && segments <= MAX_SEGMENTS
            && steps >= MIN_STEPS && steps <= MAX_STEPS;
        if (!valid) revert JobInvalidSchedule(rounds, slots, segments, steps);
    }

    /// @notice Refuse terms under which one lie pays.
    /// @dev A lie is caught with probability q = (1 - r) m / n, r = 1/3 being the share of the tickets that may
    /// collude. It then costs the price R and the stake S, and gains R and the poison value V otherwise:
    /// S + R >= (R + V) / q = 3 n (R + V) / 2 m.
    function requireDeterrent(Terms calldata terms, uint256 segments) internal pure {
        uint256 samples = terms.samples;
        if (samples == 0 || samples > MAX_SAMPLES || samples > segments) {
            revert JobInvalidSamples(samples, segments);
        }
        uint256 gain = uint256(terms.pricePerShard) + terms.poisonValue;
        uint256 loss = (3 * segments * gain + 2 * samples - 1) / (2 * samples); // rounded up
        if (terms.stakePerLease + uint256(terms.pricePerShard) < loss) {
            revert JobStakeTooLow(terms.stakePerLease, loss - terms.pricePerShard);
        }
    }

    /// @notice Write down a job whose escrow, schedule and terms were checked.
    function post(
        Job storage self,
        bytes32 specHash,
        bytes32[8] calldata specLeaves,
        Schedule memory schedule,
        Terms calldata terms
    ) internal {
        self.escrow = msg.value.toUint96();
        self.pricePerShard = terms.pricePerShard;
        self.stakePerLease = terms.stakePerLease;
        self.leaseTime = terms.leaseTime;
        self.slots = schedule.slots.toUint32();
        self.auditFee = terms.auditFee;
        self.deadline = terms.deadline;
        self.rounds = schedule.rounds.toUint32();
        self.segments = schedule.segments.toUint16();
        self.samples = terms.samples;
        self.requester = msg.sender;
        self.stepsPerSegment = schedule.stepsPerSegment.toUint32();
        self.specHash = specHash;
        self.baseRoot = specLeaves[3];
        self.slotRoot = specLeaves[4];
    }

    function status(Job storage self) internal view returns (JobStatus) {
        if (self.rounds == 0) return JobStatus.None;
        if (self.closed) return JobStatus.Closed;
        if (!self.seeded && block.number > self.seedBlock + Draw.HASH_WINDOW) return JobStatus.SeedLost;
        if (block.timestamp > self.deadline) return JobStatus.Ended;
        return self.seeded ? JobStatus.Open : JobStatus.Funded;
    }

    /// @notice The number of the shard of `slot` in `round`.
    function shardAt(Job storage self, uint256 round, uint256 slot) internal view returns (uint256) {
        uint256 slots = self.slots;
        if (round >= self.rounds || slot >= slots) revert JobHasNoShard(round, slot);
        return round * slots + slot;
    }

    /// @notice Count one more attested shard of the current round, and go to the next round when it is the last.
    function countAttested(Job storage self) internal {
        uint32 attested = self.attested + 1;
        bool complete = attested == self.slots;
        self.attested = complete ? 0 : attested;
        if (complete) ++self.round;
    }
}
