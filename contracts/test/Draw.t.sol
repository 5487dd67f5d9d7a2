// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Draw, Purpose} from "../src/libraries/Draw.sol";
import {Headers} from "./Headers.sol";
import {Test} from "./Vm.sol";

/// @notice The function of the library that takes calldata.
contract DrawHarness {
    function readMixHash(bytes calldata header, uint256 blockNumber) external view returns (bytes32) {
        return Draw.readMixHash(header, blockNumber);
    }
}

contract DrawTest is Test {
    DrawHarness private harness;
    string private json;

    function setUp() public {
        vm.roll(1_000);
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

    function test_segments_are_drawn_in_the_order_of_python() public view {
        uint256[] memory values = vm.parseJsonUintArray(json, ".draw.segments.values");
        uint256 count = vm.parseJsonUint(json, ".draw.segments.n");
        uint256 seed = uint48(uint256(_leaseEntropy(Purpose.Segments)));

        uint256[] memory drawn = Draw.segments(seed, count, vm.parseJsonUint(json, ".draw.segments.m"));

        assertEq(seed, vm.parseJsonUint(json, ".draw.segments.seed"));
        assertEq(keccak256(abi.encode(drawn)), keccak256(abi.encode(values)));
    }

    function test_tickets_are_tried_in_the_order_of_python() public view {
        _assertCandidates(Purpose.Ticket, ".draw.tickets.");
    }

    function test_panelists_are_tried_in_the_order_of_python() public view {
        _assertCandidates(Purpose.Panel, ".draw.panel.");
    }

    function test_a_header_that_is_not_the_blocks_is_refused() public {
        bytes memory header = Headers.encode(block.number - 1, "mix hash");
        bytes memory forged = Headers.encode(block.number - 1, "chosen");
        vm.setBlockhash(block.number - 1, keccak256(header));

        vm.expectRevert(
            abi.encodeWithSelector(
                Draw.DrawWrongHeader.selector, block.number - 1, keccak256(header), keccak256(forged)
            )
        );
        harness.readMixHash(forged, block.number - 1);
    }

    function test_a_header_of_a_block_that_is_not_past_or_forgotten_is_refused() public {
        uint256[2] memory numbers = [block.number, block.number - 257];
        for (uint256 i = 0; i < 2; ++i) {
            bytes memory header = Headers.encode(numbers[i], "mix hash");
            vm.expectRevert(
                abi.encodeWithSelector(
                    Draw.DrawWrongHeader.selector, numbers[i], bytes32(0), keccak256(header)
                )
            );
            harness.readMixHash(header, numbers[i]);
        }
    }

    function testFuzz_the_mix_hash_is_read_whatever_the_size_of_the_items_before_it(
        uint64 number,
        uint64 gasLimit,
        bytes32 mixHash,
        bytes memory extra
    ) public {
        bytes memory header = Headers.encode(number, gasLimit, mixHash, extra);
        vm.setBlockhash(block.number - 1, keccak256(header));

        assertEq(harness.readMixHash(header, block.number - 1), mixHash);
    }

    function testFuzz_segments_are_drawn_without_repetition(uint48 seed, uint256 count, uint256 samples)
        public
        pure
    {
        count = clamp(count, 2, 65_536);
        samples = clamp(samples, 1, count < 16 ? count : 16);

        uint256[] memory drawn = Draw.segments(seed, count, samples);

        assertEq(drawn.length, samples);
        for (uint256 j = 0; j < samples; ++j) {
            assertTrue(drawn[j] < count, "a drawn segment exists");
            for (uint256 i = 0; i < j; ++i) {
                assertTrue(drawn[i] != drawn[j], "no segment is drawn twice");
            }
        }
    }

    function test_every_pair_of_segments_is_drawn_equally_often() public pure {
        uint256[64] memory times;
        for (uint256 seed = 1; seed <= 5_600; ++seed) {
            uint256[] memory drawn = Draw.segments(seed, 8, 2);
            (uint256 low, uint256 high) = drawn[0] < drawn[1] ? (drawn[0], drawn[1]) : (drawn[1], drawn[0]);
            ++times[low * 8 + high];
        }

        for (uint256 low = 0; low < 8; ++low) {
            for (uint256 high = low + 1; high < 8; ++high) {
                // 200 are expected of each of the 28, with a standard deviation of 14.
                uint256 count = times[low * 8 + high];
                assertTrue(count > 150 && count < 250, "no pair is favoured");
            }
        }
    }

    function test_entropies_of_different_purposes_and_leases_differ() public pure {
        bytes32 entropy = Draw.entropy(Purpose.Segments, 1, "mix hash");

        assertTrue(entropy != Draw.entropy(Purpose.Ticket, 1, "mix hash"), "the purpose is bound");
        assertTrue(entropy != Draw.entropy(Purpose.Segments, 2, "mix hash"), "the lease is bound");
        assertTrue(entropy != Draw.entropy(Purpose.Segments, 1, "other"), "the block is bound");
    }

    function _assertCandidates(Purpose purpose, string memory key) private view {
        uint256 count = vm.parseJsonUint(json, string.concat(key, "count"));
        uint256[] memory candidates = vm.parseJsonUintArray(json, string.concat(key, "candidates"));
        bytes32 seed = _leaseEntropy(purpose);
        for (uint256 k = 0; k < candidates.length; ++k) {
            assertEq(Draw.number(seed, k) % count, candidates[k]);
        }
    }

    function _leaseEntropy(Purpose purpose) private view returns (bytes32) {
        uint256 leaseId = vm.parseJsonUint(json, ".draw.lease_id");
        return Draw.entropy(purpose, leaseId, vm.parseJsonBytes32(json, ".draw.mix_hash"));
    }
}
