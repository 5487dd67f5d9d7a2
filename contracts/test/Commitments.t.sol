// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Commitments} from "../src/libraries/Commitments.sol";
import {Jobs} from "../src/libraries/Jobs.sol";
import {Work} from "./Traces.sol";
import {Test} from "./Vm.sol";

/// @notice The functions of the library that take calldata.
contract CommitmentsHarness {
    function hashSpec(bytes32[8] calldata values) external view returns (bytes32) {
        return Commitments.hashSpec(values);
    }

    function isValidBranch(
        bytes32 leaf,
        bytes32[] calldata branch,
        uint256 index,
        uint256 depth,
        bytes32 root
    ) external view returns (bool) {
        return Commitments.isValidBranch(leaf, branch, index, depth, root);
    }
}

/// @notice Vectors are written by tests/vectors/generate.py from market.protocol.
contract CommitmentsTest is Test {
    CommitmentsHarness private harness;
    string private json;

    function setUp() public {
        harness = new CommitmentsHarness();
        json = vm.readFile("../tests/vectors/commitments.json");
    }

    function test_a_spec_hashes_as_in_python() public view {
        bytes32[] memory leaves = vm.parseJsonBytes32Array(json, ".spec.leaves");
        bytes32[8] memory values;
        for (uint256 i = 0; i < 8; ++i) {
            values[i] = leaves[i];
        }

        assertEq(harness.hashSpec(values), vm.parseJsonBytes32(json, ".spec.root"));
    }

    function test_an_outcome_hashes_as_in_python() public view {
        bytes32 gradientRoot = vm.parseJsonBytes32(json, ".outcome.gradient_root");
        bytes32 metricsRoot = vm.parseJsonBytes32(json, ".outcome.metrics_root");

        bytes32 outcome = Commitments.hashOutcome(gradientRoot, metricsRoot);

        assertEq(outcome, vm.parseJsonBytes32(json, ".outcome.leaf"));
    }

    function test_records_and_their_branches_are_as_in_python() public view {
        bytes32 root = vm.parseJsonBytes32(json, ".trace.root");
        uint256 count = _recordCount();
        uint256 depth = Commitments.treeDepth(count);
        for (uint256 i = 0; i < count; ++i) {
            string memory key = string.concat(".trace.records[", vm.toString(i), "].");
            bytes32 record = _hashRecord(i, key);
            bytes32[] memory branch =
                vm.parseJsonBytes32Array(json, string.concat(".trace.branches[", vm.toString(i), "]"));

            assertEq(record, vm.parseJsonBytes32(json, string.concat(key, "leaf")));
            assertTrue(harness.isValidBranch(record, branch, i, depth, root), "the branch proves its record");
        }
    }

    function test_the_records_of_a_lease_have_the_places_and_branches_of_python() public view {
        uint256 segments = vm.parseJsonUint(json, ".lease.segments");
        uint256 shards = vm.parseJsonUint(json, ".lease.shards");
        uint256 depth = Commitments.leaseDepth(shards, segments);
        bytes32 root = vm.parseJsonBytes32(json, ".lease.root");
        for (uint256 i = 0; i < shards * (segments + 1); ++i) {
            string memory key = string.concat(".lease.records[", vm.toString(i), "].");
            uint256 position = Commitments.positionOf(i / (segments + 1), i % (segments + 1), segments);
            bytes32 leaf = vm.parseJsonBytes32(json, string.concat(key, "leaf"));
            bytes32[] memory branch = vm.parseJsonBytes32Array(json, string.concat(key, "branch"));

            assertEq(position, vm.parseJsonUint(json, string.concat(key, "position")));
            assertTrue(
                harness.isValidBranch(leaf, branch, position, depth, root), "the branch proves its record"
            );
        }
    }

    function testFuzz_a_branch_proves_its_record_at_its_place_in_the_lease_and_nowhere_else(
        Work memory work,
        uint256 shard,
        uint256 index,
        uint256 other
    ) public view {
        work.segments = clamp(work.segments, 2, 20);
        work.shards = clamp(work.shards, 1, 5);
        (shard, index) = (clamp(shard, 0, work.shards - 1), clamp(index, 0, work.segments));
        uint256 depth = Commitments.leaseDepth(work.shards, work.segments);
        uint256 position = Commitments.positionOf(shard, index, work.segments);
        bytes32[] memory branch = work.branch(shard, index);
        (bytes32 record, bytes32 root) = (work.record(shard, index), work.root());

        bool there = harness.isValidBranch(record, branch, position, depth, root);
        bool elsewhere = harness.isValidBranch(record, branch, other, depth, root);

        assertTrue(there, "a branch proves its record");
        assertTrue(elsewhere == (other == position), "a branch proves its record at one place only");
    }

    function testFuzz_records_of_a_lease_have_places_of_their_own(
        uint256 segments,
        uint256[2] memory shard,
        uint256[2] memory index
    ) public pure {
        segments = clamp(segments, 2, 256);
        uint256[2] memory positions;
        for (uint256 i = 0; i < 2; ++i) {
            (shard[i], index[i]) = (clamp(shard[i], 0, 255), clamp(index[i], 0, segments));
            positions[i] = Commitments.positionOf(shard[i], index[i], segments);
            assertTrue(positions[i] >> Commitments.leaseDepth(256, segments) == 0, "a place is in the tree");
        }

        bool isSame = shard[0] == shard[1] && index[0] == index[1];
        assertTrue((positions[0] == positions[1]) == isSame, "no two records have one place");
    }

    function test_the_root_of_one_shards_lease_is_its_traces() public view {
        Work memory work = Work(1, 1, 8);
        bytes32[] memory branch = work.branch(0, 3);

        assertEq(branch.length, 4);
        assertTrue(harness.isValidBranch(work.record(0, 3), branch, 3, 4, work.root()), "no level is added");
    }

    function testFuzz_a_branch_proves_no_other_record(bytes32 record, uint256 index) public view {
        Work memory work = Work(1, 1, 8);
        index = clamp(index, 0, 8);
        vm.assume(record != work.record(0, index));

        bool valid = harness.isValidBranch(record, work.branch(0, index), index, 4, work.root());

        assertTrue(!valid, "another record is refused");
    }

    function test_a_branch_of_another_length_is_refused() public view {
        Work memory work = Work(1, 1, 8);
        bytes32[] memory branch = work.branch(0, 0);
        bytes32 parent = Commitments.hashNode(work.record(0, 0), branch[0]);
        bytes32[] memory shorter = new bytes32[](3);
        for (uint256 i = 0; i < 3; ++i) {
            shorter[i] = branch[i + 1];
        }

        assertTrue(!harness.isValidBranch(parent, shorter, 0, 4, work.root()), "an inner node is no record");
    }

    function _recordCount() private view returns (uint256) {
        bytes32 schedule = vm.parseJsonBytes32(json, ".spec.leaves[5]");
        return Jobs.decodeSchedule(schedule).segments + 1;
    }

    function _hashRecord(uint256 index, string memory key) private view returns (bytes32) {
        bytes32 stateRoot = Commitments.hashNode(
            vm.parseJsonBytes32(json, string.concat(key, "base_root")),
            vm.parseJsonBytes32(json, string.concat(key, "slot_root"))
        );
        return
            Commitments.hashRecord(index, stateRoot, vm.parseJsonBytes32(json, string.concat(key, "outcome")));
    }
}
