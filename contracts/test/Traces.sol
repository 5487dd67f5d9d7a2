// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Commitments, Outcome, Trace} from "../src/libraries/Commitments.sol";
import {RecordOpening} from "../src/interfaces/IAudits.sol";
import {StateOpening} from "../src/interfaces/IMarket.sol";

using Traces for Made global;

/// @notice A made-up trace: record i has state (bases[i], slots[i]); segment i ends in record i + 1.
struct Made {
    bytes32[] bases;
    bytes32[] slots;
    bytes32[] gradients; // of segment i
    bytes32[] metrics; // of segment i
}

/// @notice What a provider and an auditor compute from a trace.
library Traces {
    /// @notice The one trace that leads from (`base`, `slot`) under `label`, as training would.
    function make(uint256 label, uint256 segments, bytes32 base, bytes32 slot)
        internal
        pure
        returns (Made memory made)
    {
        made.bases = _hashes("base", label, segments + 1);
        made.slots = _hashes("slot", label, segments + 1);
        made.gradients = _hashes("gradient", label, segments);
        made.metrics = _hashes("metrics", label, segments);
        (made.bases[0], made.slots[0]) = (base, slot);
    }

    function segmentCount(Made memory self) internal pure returns (uint256) {
        return self.gradients.length;
    }

    function stateRoot(Made memory self, uint256 index) internal view returns (bytes32) {
        return Commitments.hashNode(self.bases[index], self.slots[index]);
    }

    function outcome(Made memory self, uint256 index) internal pure returns (bytes32) {
        if (index == 0) return 0;
        return Commitments.hashOutcome(self.gradients[index - 1], self.metrics[index - 1]);
    }

    function record(Made memory self, uint256 index) internal view returns (bytes32) {
        return Commitments.hashRecord(index, self.stateRoot(index), self.outcome(index));
    }

    function root(Made memory self) internal view returns (bytes32) {
        bytes32[] memory layer = _leaves(self);
        while (layer.length > 1) layer = _parents(layer);
        return layer[0];
    }

    function trace(Made memory self) internal view returns (Trace memory) {
        uint256 last = self.segmentCount();
        return Trace(self.root(), self.bases[0], self.bases[last], self.slots[last]);
    }

    function branch(Made memory self, uint256 index) internal view returns (bytes32[] memory siblings) {
        bytes32[] memory layer = _leaves(self);
        siblings = new bytes32[](Commitments.treeDepth(self.bases.length));
        for (uint256 depth = 0; depth < siblings.length; ++depth) {
            siblings[depth] = layer[index ^ 1];
            layer = _parents(layer);
            index /= 2;
        }
    }

    function stateOpening(Made memory self, uint256 index) internal view returns (StateOpening memory) {
        return StateOpening(self.bases[index], self.slots[index], self.outcome(index), self.branch(index));
    }

    /// @notice The records after `segments`, opened.
    function openings(Made memory self, uint16[] memory segments)
        internal
        view
        returns (RecordOpening[] memory list)
    {
        list = new RecordOpening[](segments.length);
        for (uint256 j = 0; j < segments.length; ++j) {
            uint256 i = segments[j];
            list[j] =
                RecordOpening(self.stateRoot(i + 1), self.gradients[i], self.metrics[i], self.branch(i + 1));
        }
    }

    /// @notice What a recomputation of `segments` gives.
    function outcomes(Made memory self, uint16[] memory segments)
        internal
        view
        returns (Outcome[] memory list)
    {
        list = new Outcome[](segments.length);
        for (uint256 j = 0; j < segments.length; ++j) {
            uint256 i = segments[j];
            list[j] = Outcome(self.stateRoot(i + 1), self.gradients[i], self.metrics[i]);
        }
    }

    /// @notice The hashed records after `segments`.
    function claims(Made memory self, uint16[] memory segments)
        internal
        view
        returns (bytes32[] memory list)
    {
        list = new bytes32[](segments.length);
        for (uint256 j = 0; j < segments.length; ++j) {
            list[j] = self.record(segments[j] + 1);
        }
    }

    function _hashes(string memory what, uint256 label, uint256 count)
        private
        pure
        returns (bytes32[] memory list)
    {
        list = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = keccak256(abi.encode(what, label, i));
        }
    }

    /// @notice The records, then zeros up to a power of two.
    function _leaves(Made memory self) private view returns (bytes32[] memory list) {
        list = new bytes32[](2 ** Commitments.treeDepth(self.bases.length));
        for (uint256 i = 0; i < self.bases.length; ++i) {
            list[i] = self.record(i);
        }
    }

    function _parents(bytes32[] memory layer) private view returns (bytes32[] memory list) {
        list = new bytes32[](layer.length / 2);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = Commitments.hashNode(layer[2 * i], layer[2 * i + 1]);
        }
    }
}
