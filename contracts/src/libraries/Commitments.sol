// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Draw} from "./Draw.sol";

/// @notice How a segment ended.
struct Outcome {
    bytes32 stateRoot; // after it
    bytes32 gradientRoot; // of its last step
    bytes32 metricsRoot; // of its last step
}

/// @notice What a provider commits to: its trace's root, and what the market uses of the first and last states.
/// @dev The contract keeps the keccak256 of it; whoever acts on it supplies it again, from `TraceCommitted`.
struct Trace {
    bytes32 root;
    bytes32 firstBaseRoot;
    bytes32 lastBaseRoot;
    bytes32 lastSlotRoot;
}

/// @notice Leaves and trees, as docs/protocol.md defines them: SHA-256, big-endian.
library Commitments {
    // A leaf's domain: the letters TSTN, then its role.
    bytes32 private constant RECORD = hex"5453544e03";
    bytes32 private constant OUTCOME = hex"5453544e04";
    bytes32 private constant SPEC = hex"5453544e05";
    bytes32 private constant AUDIT = hex"5453544e0a";

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

    /// @notice What an auditor commits to before the records are opened. It binds the chain, the contract, the
    /// lease and the auditor, so that nobody else can reveal it.
    /// @param segments The drawn segments, bit i for segment i; `outcomes` has one for each, ascending.
    function hashAudit(
        uint256 leaseId,
        address auditor,
        bytes32 salt,
        bytes32 baseRoot,
        uint256 segments,
        Outcome[] calldata outcomes
    ) internal view returns (bytes32) {
        bytes memory preimage = abi.encode(
            AUDIT, block.chainid, address(this), leaseId, auditor, salt, baseRoot
        );
        for (uint256 j = 0; j < outcomes.length; ++j) {
            preimage = bytes.concat(preimage, abi.encode(Draw.first(segments), outcomes[j]));
            segments &= segments - 1;
        }
        return sha256(preimage);
    }

    /// @notice The depth of the tree over `count` leaves.
    function treeDepth(uint256 count) internal pure returns (uint256) {
        return Math.log2(count, Math.Rounding.Ceil);
    }

    /// @notice Whether `leaf` stands at `index` of the tree of `count` leaves with that `root`.
    function isValidBranch(
        bytes32 leaf,
        bytes32[] calldata branch,
        uint256 index,
        uint256 count,
        bytes32 root
    ) internal view returns (bool) {
        // A longer branch would prove an inner node, a larger index would alias a smaller one.
        if (branch.length != treeDepth(count) || index >> branch.length != 0) return false;
        bytes32 node = leaf;
        for (uint256 depth = 0; depth < branch.length; ++depth) {
            bool isRight = (index >> depth) & 1 == 1;
            node = isRight ? hashNode(branch[depth], node) : hashNode(node, branch[depth]);
        }
        return node == root;
    }
}
