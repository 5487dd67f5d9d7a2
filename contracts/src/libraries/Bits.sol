// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Sets of up to 256 members as words.
library Bits {
    /// @notice How many bits are set: sums of pairs, of fours, of eights, then of bytes by a product.
    function count(uint256 word) internal pure returns (uint256) {
        if (word == type(uint256).max) return 256; // would wrap to 0 in the last byte
        unchecked {
            word -= (word >> 1) & (type(uint256).max / 3);
            word = (word & (type(uint256).max / 5)) + ((word >> 2) & (type(uint256).max / 5));
            word = (word + (word >> 4)) & (type(uint256).max / 17);
            // slither-disable-next-line divide-before-multiply
            return (word * (type(uint256).max / 255)) >> 248; // a constant: one in each byte
        }
    }
}
