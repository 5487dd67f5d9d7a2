// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice What an entropy is drawn for, so that no draw says anything about another.
enum Purpose {
    None,
    JobSeed,
    Segments,
    Ticket,
    Panel
}

/// @notice Draws from the header of a block that was fixed before anyone could know it.
/// @dev The caller only carries the header, so it cannot change the draw; reading prevrandao here instead would
/// let it revert the ones it dislikes.
library Draw {
    error DrawWrongHeader(uint256 blockNumber, bytes32 expected, bytes32 actual);

    bytes32 private constant DRAW = hex"5453544e0b"; // TSTN, role 11

    uint256 private constant MIX_HASH_ITEM = 13;
    uint256 private constant FIXED_ITEMS = 7; // five hashes, an address and the logs' bloom filter of 256 bytes
    uint256 private constant FIXED_ITEMS_SIZE = 5 * 33 + 21 + 259;
    uint256 private constant SHORT_STRING = 0x80; // RLP: plus the length, up to 55
    uint256 private constant LONG_STRING = 0xb7; // RLP: plus the length of the length that follows
    uint256 private constant LONG_LIST = 0xf7; // RLP: the same of a list

    uint256 internal constant HASH_WINDOW = 256; // blocks for which the chain knows a block's hash

    /// @notice The mixHash of block `blockNumber`, which `header` must be.
    function readMixHash(bytes calldata header, uint256 blockNumber) internal view returns (bytes32) {
        bytes32 expected = blockhash(blockNumber); // zero before that block is past, and when it is forgotten
        bytes32 actual = keccak256(header);
        if (actual != expected) revert DrawWrongHeader(blockNumber, expected, actual);

        // Behind its hash stands a well-formed header: a list of more than 55 bytes, whose items are strings.
        uint256 offset = 1 + uint8(header[0]) - LONG_LIST + FIXED_ITEMS_SIZE;
        for (uint256 item = FIXED_ITEMS; item < MIX_HASH_ITEM; ++item) {
            offset += _itemSize(header, offset);
        }
        return bytes32(header[offset + 1:offset + 33]);
    }

    /// @param id The job for its seed, the lease otherwise.
    function entropy(Purpose purpose, uint256 id, bytes32 mixHash) internal pure returns (bytes32) {
        return sha256(abi.encode(DRAW, uint256(purpose), id, mixHash));
    }

    /// @notice The `k`-th number of a seed.
    function number(bytes32 seed, uint256 k) internal pure returns (uint256) {
        return uint256(sha256(abi.encode(seed, k)));
    }

    /// @notice Choose `samples` of `count` segments, each subset as likely, in no order (R. Floyd's method).
    /// @param seed What is stored of a draw.
    function segments(uint256 seed, uint256 count, uint256 samples)
        internal
        pure
        returns (uint256[] memory chosen)
    {
        chosen = new uint256[](samples);
        for (uint256 j = 0; j < samples; ++j) {
            uint256 last = count - samples + j;
            uint256 pick = number(bytes32(seed), j) % (last + 1);
            chosen[j] = contains(chosen, j, pick) ? last : pick;
        }
    }

    /// @notice Whether `item` is among the first `length` of `list`.
    function contains(uint256[] memory list, uint256 length, uint256 item) internal pure returns (bool) {
        for (uint256 i = 0; i < length; ++i) {
            if (list[i] == item) return true;
        }
        return false;
    }

    /// @notice The size of the RLP string at `offset`, prefix included.
    function _itemSize(bytes calldata header, uint256 offset) private pure returns (uint256) {
        uint256 prefix = uint8(header[offset]);
        if (prefix < SHORT_STRING) return 1;
        if (prefix <= LONG_STRING) return 1 + prefix - SHORT_STRING;
        uint256 lengthSize = prefix - LONG_STRING;
        bytes32 length = bytes32(header[offset + 1:offset + 33]);
        return 1 + lengthSize + (uint256(length) >> (256 - 8 * lengthSize));
    }
}
