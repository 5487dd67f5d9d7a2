// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Commitments} from "../src/libraries/Commitments.sol";
import {RecordOpening, StateOpening} from "../src/interfaces/IAudits.sol";
import {Trees} from "./Trees.sol";

using Traces for Work global;

/// @notice Made-up training of a lease's shards: whoever computes with the same label gets the same.
struct Work {
    uint256 label;
    uint256 shards;
    uint256 segments; // of a shard
}

/// @notice What a provider and an auditor compute from a lease's work.
library Traces {
    function stateRoot(Work memory self, uint256 shard, uint256 index) internal pure returns (bytes32) {
        return keccak256(abi.encode("state", self.label, shard, index));
    }

    function gradientRoot(Work memory self, uint256 shard, uint256 segment) internal pure returns (bytes32) {
        return keccak256(abi.encode("gradient", self.label, shard, segment));
    }

    function metricsRoot(Work memory self, uint256 shard, uint256 segment) internal pure returns (bytes32) {
        return keccak256(abi.encode("metrics", self.label, shard, segment));
    }

    function outcome(Work memory self, uint256 shard, uint256 index) internal pure returns (bytes32) {
        if (index == 0) return 0;
        return
            Commitments.hashOutcome(gradientRoot(self, shard, index - 1), metricsRoot(self, shard, index - 1));
    }

    function record(Work memory self, uint256 shard, uint256 index) internal pure returns (bytes32) {
        return Commitments.hashRecord(index, stateRoot(self, shard, index), outcome(self, shard, index));
    }

    /// @notice The root over the shards' trace roots.
    function root(Work memory self) internal view returns (bytes32) {
        return Trees.root(_traceRoots(self));
    }

    /// @notice From a record to its trace's root, and on to the lease's.
    function branch(Work memory self, uint256 shard, uint256 index) internal view returns (bytes32[] memory) {
        bytes32[] memory low = Trees.branch(_records(self, shard), index);
        if (self.shards == 1) return low;
        bytes32[] memory high = Trees.branch(_traceRoots(self), shard);
        bytes32[] memory siblings = new bytes32[](low.length + high.length);
        for (uint256 level = 0; level < siblings.length; ++level) {
            siblings[level] = level < low.length ? low[level] : high[level - low.length];
        }
        return siblings;
    }

    function stateOpening(Work memory self, uint256 shard, uint256 index)
        internal
        view
        returns (StateOpening memory)
    {
        return StateOpening(
            stateRoot(self, shard, index), outcome(self, shard, index), branch(self, shard, index)
        );
    }

    /// @notice Record `index`, which is not a shard's first, opened.
    function opening(Work memory self, uint256 shard, uint256 index)
        internal
        view
        returns (RecordOpening memory)
    {
        return RecordOpening(
            stateRoot(self, shard, index),
            gradientRoot(self, shard, index - 1),
            metricsRoot(self, shard, index - 1),
            branch(self, shard, index)
        );
    }

    /// @notice The records that the drawn `segments` lead to, opened in their order.
    function openings(Work memory self, uint256[] memory segments)
        internal
        view
        returns (RecordOpening[] memory list)
    {
        list = new RecordOpening[](segments.length);
        for (uint256 j = 0; j < segments.length; ++j) {
            list[j] = opening(self, segments[j] / self.segments, segments[j] % self.segments + 1);
        }
    }

    function _records(Work memory self, uint256 shard) private pure returns (bytes32[] memory list) {
        list = new bytes32[](self.segments + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = record(self, shard, i);
        }
    }

    function _traceRoots(Work memory self) private view returns (bytes32[] memory list) {
        list = new bytes32[](self.shards);
        for (uint256 shard = 0; shard < list.length; ++shard) {
            list[shard] = Trees.root(_records(self, shard));
        }
    }
}
