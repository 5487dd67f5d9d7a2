// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @notice How a segment ended.
struct Outcome {
    bytes32 stateRoot; // after it
    bytes32 gradientRoot; // of its last step
    bytes32 metricsRoot; // of its last step
}

/// @notice Leaves and trees, as docs/protocol.md defines them: SHA-256, big-endian.
library Commitments {
    // A leaf's domain: the letters TSTN, then its role.
    bytes32 private constant RECORD = hex"5453544e03";
    bytes32 private constant OUTCOME = hex"5453544e04";
    bytes32 private constant SPEC = hex"5453544e05";

    uint256 internal constant SPEC_LEAVES = 8;

    /// @notice SHA-256 of both, as `sha256(abi.encode(left, right))` at half its gas.
    function hashNode(bytes32 left, bytes32 right) internal view returns (bytes32 node) {
        assembly ("memory-safe") {
            mstore(0x00, left)
            mstore(0x20, right)
            // The precompile fails only for want of gas.
            if iszero(staticcall(gas(), 0x02, 0x00, 0x40, 0x00, 0x20)) { revert(0, 0) }
            node := mload(0x00)
        }
    }

    /// @notice The root over the spec's eight values.
    function hashSpec(bytes32[8] calldata values) internal view returns (bytes32) {
        // slither-disable-next-line uninitialized-local
        bytes32[8] memory nodes;
        for (uint256 i = 0; i < SPEC_LEAVES; ++i) {
            nodes[i] = sha256(abi.encode(SPEC, i, values[i]));
        }
        for (uint256 width = SPEC_LEAVES / 2; width > 0; width /= 2) {
            for (uint256 i = 0; i < width; ++i) {
                nodes[i] = hashNode(nodes[2 * i], nodes[2 * i + 1]);
            }
        }
        return nodes[0];
    }

    function hashOutcome(bytes32 gradientRoot, bytes32 metricsRoot) internal pure returns (bytes32) {
        return sha256(abi.encode(OUTCOME, gradientRoot, metricsRoot));
    }

    /// @notice Record `index`: its state, and how the segment before it ended (zero for record 0).
    function hashRecord(uint256 index, bytes32 stateRoot, bytes32 outcome) internal pure returns (bytes32) {
        return sha256(abi.encode(RECORD, index, stateRoot, outcome));
    }

    /// @notice Record `segment + 1`: what segment `segment` led to.
    function hashRecordAfter(uint256 segment, Outcome memory outcome) internal pure returns (bytes32) {
        return
            hashRecord(segment + 1, outcome.stateRoot, hashOutcome(outcome.gradientRoot, outcome.metricsRoot));
    }

    /// @notice The depth of the tree over a lease's records: the shards' trees, each of `segments` + 1 records.
    function leaseDepth(uint256 shards, uint256 segments) internal pure returns (uint256) {
        return treeDepth(shards) + treeDepth(segments + 1);
    }

    /// @notice Where record `index` of the lease's `shard`-th shard stands in that tree.
    function positionOf(uint256 shard, uint256 index, uint256 segments) internal pure returns (uint256) {
        return (shard << treeDepth(segments + 1)) + index;
    }

    /// @notice The shard and the index of the record that stands at `position`.
    function recordAt(uint256 position, uint256 segments)
        internal
        pure
        returns (uint256 shard, uint256 index)
    {
        uint256 height = treeDepth(segments + 1);
        return (position >> height, position & ((1 << height) - 1));
    }

    /// @notice The depth of the tree over `count` leaves.
    function treeDepth(uint256 count) internal pure returns (uint256) {
        return Math.log2(count, Math.Rounding.Ceil);
    }

    /// @notice Whether `leaf` stands at `index` of the tree of that `depth` with that `root`.
    function isValidBranch(
        bytes32 leaf,
        bytes32[] calldata branch,
        uint256 index,
        uint256 depth,
        bytes32 root
    ) internal view returns (bool) {
        // A longer branch would prove an inner node, a larger index would alias a smaller one.
        if (branch.length != depth || index >> depth != 0) return false;
        bytes32 node = leaf;
        for (uint256 level = 0; level < depth; ++level) {
            bool isRight = (index >> level) & 1 == 1;
            node = isRight ? hashNode(branch[level], node) : hashNode(node, branch[level]);
        }
        return node == root;
    }
}
