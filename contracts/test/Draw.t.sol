// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice The function of the library that takes calldata.
contract DrawHarness {
    function readMixHash(bytes calldata header, uint256 blockNumber) external view returns (bytes32) {
        return Draw.readMixHash(header, blockNumber);
    }
}

contract DrawTest is MarketTest {
    DrawHarness private harness;
    string private json;

    function setUp() public override {
        super.setUp();
        harness = new DrawHarness();
        json = vm.readFile("../tests/vectors/commitments.json");
    }

    function test_a_header_is_proven_and_read_as_in_python() public {
        bytes memory header = vm.parseJsonBytes(json, ".draw.header");
        assertEq(keccak256(header), vm.parseJsonBytes32(json, ".draw.block_hash"));
        vm.setBlockhash(block.number - 1, keccak256(header));

        bytes32 mixHash = harness.readMixHash(header, block.number - 1);

        assertEq(mixHash, vm.parseJsonBytes32(json, ".draw.mix_hash"));
    }

    function test_a_job_seed_is_drawn_as_in_python() public view {
        uint256 jobId = vm.parseJsonUint(json, ".draw.job_id");

        bytes32 entropy = Draw.entropy(Purpose.JobSeed, jobId, vm.parseJsonBytes32(json, ".draw.mix_hash"));

        assertEq(uint256(entropy) >> 192, vm.parseJsonUint(json, ".draw.job_seed"));
    }

    function test_segments_are_drawn_as_in_python() public view {
        uint256[] memory values = vm.parseJsonUintArray(json, ".draw.segments.values");
        (uint256 count, uint256 drawn) =
            (vm.parseJsonUint(json, ".draw.segments.n"), vm.parseJsonUint(json, ".draw.segments.m"));

        uint16[] memory list = Draw.toList(Draw.segments(_leaseEntropy(Purpose.Segments), count, drawn));

        assertEq(list.length, values.length);
        for (uint256 j = 0; j < values.length; ++j) {
            assertEq(list[j], values[j]);
        }
    }

    function test_tickets_are_tried_in_the_order_of_python() public view {
        uint256 count = vm.parseJsonUint(json, ".draw.tickets.count");
        uint256[] memory candidates = vm.parseJsonUintArray(json, ".draw.tickets.candidates");
        bytes32 seed = _leaseEntropy(Purpose.Ticket);

        for (uint256 k = 0; k < candidates.length; ++k) {
            assertEq(Draw.number(seed, k) % count, candidates[k]);
        }
    }

    function test_a_header_that_is_not_the_blocks_is_refused() public {
        bytes memory header = _mine(block.number, MIX_HASH);
        bytes memory forged = _header(block.number - 1, "chosen");
        bytes memory refusal = abi.encodeWithSelector(
            Draw.DrawWrongHeader.selector, block.number - 1, keccak256(header), keccak256(forged)
        );

        vm.expectRevert(refusal);
        harness.readMixHash(forged, block.number - 1);
    }

    function testFuzz_the_mix_hash_is_read_whatever_the_size_of_the_items_before_it(
        uint64 number,
        uint64 gasLimit,
        bytes32 mixHash,
        bytes memory extra
    ) public {
        bytes memory header = _headerWith(number, gasLimit, mixHash, extra);
        vm.setBlockhash(block.number - 1, keccak256(header));

        assertEq(harness.readMixHash(header, block.number - 1), mixHash);
    }

    function testFuzz_segments_are_drawn_without_repetition(bytes32 seed, uint256 count, uint256 samples)
        public
        pure
    {
        count = clamp(count, 2, 256);
        samples = clamp(samples, 1, count < 16 ? count : 16);

        uint16[] memory list = Draw.toList(Draw.segments(seed, count, samples));

        assertEq(list.length, samples);
        for (uint256 j = 0; j < samples; ++j) {
            assertTrue(list[j] < count, "a drawn segment exists");
            assertTrue(j == 0 || list[j - 1] < list[j], "drawn segments ascend");
        }
    }

    function test_every_segment_is_drawn_equally_often() public pure {
        uint256[8] memory times;
        for (uint256 i = 0; i < 1024; ++i) {
            uint16[] memory list = Draw.toList(Draw.segments(bytes32(i), 8, 2));
            ++times[list[0]];
            ++times[list[1]];
        }

        for (uint256 segment = 0; segment < 8; ++segment) {
            // 256 are expected, with a standard deviation of 14.
            assertTrue(times[segment] > 200 && times[segment] < 312, "no segment is favoured");
        }
    }

    function _leaseEntropy(Purpose purpose) private view returns (bytes32) {
        uint256 leaseId = vm.parseJsonUint(json, ".draw.lease_id");
        return Draw.entropy(purpose, leaseId, vm.parseJsonBytes32(json, ".draw.mix_hash"));
    }
}
