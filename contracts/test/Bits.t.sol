// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../src/libraries/Bits.sol";
import {Test} from "./Vm.sol";

contract BitsTest is Test {
    function testFuzz_bits_are_counted_as_one_by_one(uint256 word) public pure {
        assertEq(Bits.count(word), _countOneByOne(word));
    }

    function testFuzz_bits_of_sparse_and_dense_words_are_counted(uint256 a, uint256 b, uint256 c)
        public
        pure
    {
        assertEq(Bits.count(a & b & c), _countOneByOne(a & b & c));
        assertEq(Bits.count(a | b | c), _countOneByOne(a | b | c));
    }

    function test_every_range_of_bits_is_counted() public pure {
        assertEq(Bits.count(0), 0);
        for (uint256 count = 1; count <= 256; ++count) {
            uint256 range = type(uint256).max >> (256 - count);
            assertEq(Bits.count(range), count);
            assertEq(Bits.count(range << (256 - count)), count);
        }
    }

    function _countOneByOne(uint256 word) private pure returns (uint256 count) {
        for (; word > 0; word >>= 1) {
            count += word & 1;
        }
    }
}
