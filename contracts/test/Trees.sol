// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Commitments} from "../src/libraries/Commitments.sol";

/// @notice Whole trees over leaves, which a contract never has.
library Trees {
    function root(bytes32[] memory leaves) internal view returns (bytes32) {
        bytes32[] memory layer = _pad(leaves);
        while (layer.length > 1) layer = _parents(layer);
        return layer[0];
    }

    function branch(bytes32[] memory leaves, uint256 index)
        internal
        view
        returns (bytes32[] memory siblings)
    {
        bytes32[] memory layer = _pad(leaves);
        siblings = new bytes32[](Commitments.treeDepth(leaves.length));
        for (uint256 depth = 0; depth < siblings.length; ++depth) {
            siblings[depth] = layer[index ^ 1];
            layer = _parents(layer);
            index /= 2;
        }
    }

    /// @notice The leaves, then zeros up to a power of two.
    function _pad(bytes32[] memory leaves) private pure returns (bytes32[] memory layer) {
        layer = new bytes32[](2 ** Commitments.treeDepth(leaves.length));
        for (uint256 i = 0; i < leaves.length; ++i) {
            layer[i] = leaves[i];
        }
    }

    function _parents(bytes32[] memory layer) private view returns (bytes32[] memory list) {
        list = new bytes32[](layer.length / 2);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = Commitments.hashNode(layer[2 * i], layer[2 * i + 1]);
        }
    }
}
