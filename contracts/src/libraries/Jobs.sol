// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Draw} from "./Draw.sol";
import {StakeRule} from "./StakeRule.sol";

uint256 constant MAX_SHARDS = 1 << 16; // of a job

using Jobs for Job global;
using Jobs for Terms global;

/// @notice Where a job is in its life. What follows from blocks and the clock is not stored.
enum JobStatus {
    None, // never created
    Funded, // escrowed, and its seed not drawn yet
    SeedLost, // not drawn while the chain knew the seed block's hash
    Open, // shards can be claimed
    Ended, // past its deadline
    Complete, // every round is closed
    Cancelled // by its requester
}

/// @notice What the requester offers and demands, fixed when it posts the job. Amounts are base units.
struct Terms {
    uint8 asset; // in which everything is paid
    uint80 pricePerShard; // to the provider: the most, at the end of a ramp
    uint16 floorBps; // of the price: the least, at the beginning of a ramp
    uint32 rampTime; // seconds from the opening of a round to the full price
    uint80 auditFee; // to the auditor of a lease; escrowed for each shard
    uint80 stakePerShard; // of the provider and again of the auditor
    uint80 poisonValue; // what a false result might be worth to somebody
    uint32 leaseTime; // seconds from claim to commit
    uint32 roundTime; // seconds until a round may close without all its slots; zero: never
    uint16 quorum; // attested slots without which no round closes; `slots` where `roundTime` is zero
    uint16 samples; // segments drawn for an audit
    uint40 deadline; // seconds of the market's time: the last moment to claim
}

/// @notice Spec leaf 5: four big-endian u64.
struct Schedule {
    uint256 rounds;
    uint256 slots;
    uint256 segments; // of a shard
    uint256 stepsPerSegment;
}

/// @notice A posted job. The first slot is all that a lease changes.
struct Job {
    uint96 escrow; // not spent yet
    uint24 leases; // ever claimed
    uint24 active; // shards under leases that can still cost or earn
    uint16 round; // the first that is not closed
    uint40 openedAt; // when `round` opened, in the market's time
    uint8 asset;
    bool seeded;
    bool cancelled;
    //
    uint80 pricePerShard;
    uint80 stakePerShard;
    uint80 auditFee;
    uint16 floorBps;
    //
    uint32 leaseTime;
    uint32 rampTime;
    uint32 roundTime;
    uint40 deadline;
    uint40 seedBlock;
    uint16 rounds;
    uint16 slots;
    uint16 quorum;
    uint16 segments;
    uint8 samples;
    //
    address requester;
    uint64 seed;
    uint32 stepsPerSegment;
    //
    bytes32 specHash;
}

/// @notice Rules of a job.
library Jobs {
    using SafeCast for uint256;

    error JobInvalidSchedule(uint256 rounds, uint256 slots, uint256 segments, uint256 stepsPerSegment);
    error JobInvalidPrice(uint256 price, uint256 floorBps);
    error JobInvalidQuorum(uint256 quorum, uint256 slots, uint256 roundTime, uint256 leaseTime);
    error JobHasNoShards(uint256 round, uint256 first, uint256 count);

    uint256 internal constant BPS = 10_000;
    uint256 internal constant MAX_ROUNDS = 1024;
    uint256 internal constant MAX_SLOTS = 256;
    uint256 internal constant MIN_SEGMENTS = 2;
    uint256 internal constant MAX_SEGMENTS = 256;
    uint256 internal constant MIN_STEPS = 2; // of a segment: one alone would show its gradient in its poststate
    uint256 internal constant MAX_STEPS = 1 << 20;

    function decodeSchedule(bytes32 leaf) internal pure returns (Schedule memory) {
        uint256 word = uint256(leaf);
        uint256 mask = type(uint64).max;
        return Schedule(word >> 192, (word >> 128) & mask, (word >> 64) & mask, word & mask);
    }

    function requireValid(Terms calldata terms, Schedule memory schedule) internal pure {
        (uint256 rounds, uint256 slots) = (schedule.rounds, schedule.slots);
        (uint256 segments, uint256 steps) = (schedule.segments, schedule.stepsPerSegment);
        bool valid = rounds > 0 && rounds <= MAX_ROUNDS && slots > 0 && slots <= MAX_SLOTS
            && rounds * slots <= MAX_SHARDS && segments >= MIN_SEGMENTS && segments <= MAX_SEGMENTS
            && steps >= MIN_STEPS && steps <= MAX_STEPS;
        if (!valid) revert JobInvalidSchedule(rounds, slots, segments, steps);

        if (terms.pricePerShard == 0 || terms.floorBps > BPS) {
            revert JobInvalidPrice(terms.pricePerShard, terms.floorBps);
        }
        (uint256 quorum, uint256 roundTime) = (terms.quorum, terms.roundTime);
        // A round that may close by time must leave a lease its time.
        bool closes = roundTime == 0 ? quorum == slots : roundTime >= terms.leaseTime;
        if (quorum == 0 || quorum > slots || !closes) {
            revert JobInvalidQuorum(quorum, slots, roundTime, terms.leaseTime);
        }
        StakeRule.requireDeterrent(
            terms.stakePerShard, terms.pricePerShard, terms.poisonValue, segments, terms.samples
        );
    }

    /// @notice What a requester pays in: the full price and the audit fee of every shard.
    function escrowOf(Terms calldata terms, Schedule memory schedule) internal pure returns (uint256) {
        return schedule.rounds * schedule.slots * (uint256(terms.pricePerShard) + terms.auditFee);
    }

    /// @notice Write down a job whose escrow, schedule and terms were checked.
    function post(
        Job storage self,
        address requester,
        uint256 escrow,
        bytes32 specHash,
        Schedule memory schedule,
        Terms calldata terms
    ) internal {
        self.escrow = escrow.toUint96();
        self.asset = terms.asset;
        self.pricePerShard = terms.pricePerShard;
        self.stakePerShard = terms.stakePerShard;
        self.auditFee = terms.auditFee;
        self.floorBps = terms.floorBps;
        self.leaseTime = terms.leaseTime;
        self.rampTime = terms.rampTime;
        self.roundTime = terms.roundTime;
        self.deadline = terms.deadline;
        self.rounds = schedule.rounds.toUint16();
        self.slots = schedule.slots.toUint16();
        self.quorum = terms.quorum;
        self.segments = schedule.segments.toUint16();
        self.samples = uint256(terms.samples).toUint8();
        self.requester = requester;
        self.stepsPerSegment = schedule.stepsPerSegment.toUint32();
        self.specHash = specHash;
    }

    function status(Job storage self, uint256 time) internal view returns (JobStatus) {
        if (self.rounds == 0) return JobStatus.None;
        if (self.cancelled) return JobStatus.Cancelled;
        if (self.round == self.rounds) return JobStatus.Complete;
        if (!self.seeded && block.number > self.seedBlock + Draw.HASH_WINDOW) return JobStatus.SeedLost;
        if (time > self.deadline) return JobStatus.Ended;
        return self.seeded ? JobStatus.Open : JobStatus.Funded;
    }

    /// @notice Whether nothing more can be claimed, ever.
    function isOver(JobStatus current) internal pure returns (bool) {
        return current == JobStatus.SeedLost || current >= JobStatus.Ended;
    }

    /// @notice What a claim at `time` fixes as pay: bps of the price, from the floor to all of it over the ramp.
    function priceBpsAt(Job storage self, uint256 time) internal view returns (uint256) {
        uint256 elapsed = time - self.openedAt;
        (uint256 floor, uint256 ramp) = (self.floorBps, self.rampTime);
        return elapsed >= ramp ? BPS : floor + (BPS - floor) * elapsed / ramp;
    }

    /// @notice The most that the leases still active can cost.
    function reserved(Job storage self) internal view returns (uint256) {
        return uint256(self.active) * (uint256(self.pricePerShard) + self.auditFee);
    }

    /// @notice The bits of `count` slots from `first`, which the job has.
    function maskOf(Job storage self, uint256 round, uint256 first, uint256 count)
        internal
        view
        returns (uint256)
    {
        uint256 slots = self.slots;
        bool valid = count > 0 && count <= slots && first <= slots - count && round < self.rounds;
        if (!valid) revert JobHasNoShards(round, first, count);
        return (type(uint256).max >> (MAX_SLOTS - count)) << first;
    }
}
