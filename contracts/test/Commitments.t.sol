// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Commitments, Outcome} from "../src/libraries/Commitments.sol";
import {Jobs} from "../src/libraries/Jobs.sol";
import {Made, Traces} from "./Traces.sol";
import {Test} from "./Vm.sol";

/// @notice The functions of the library that take calldata, at an address of the test's choice.
contract CommitmentsHarness {
    function hashSpec(bytes32[8] calldata values) external view returns (bytes32) {
        return Commitments.hashSpec(values);
    }

    function hashAudit(
        uint256 leaseId,
        address auditor,
        bytes32 salt,
        bytes32 baseRoot,
        uint256 segments,
        Outcome[] calldata outcomes
    ) external view returns (bytes32) {
        return Commitments.hashAudit(leaseId, auditor, salt, baseRoot, segments, outcomes);
    }

    function isValidBranch(
        bytes32 leaf,
        bytes32[] calldata branch,
        uint256 index,
        uint256 count,
        bytes32 root
    ) external view returns (bool) {
        return Commitments.isValidBranch(leaf, branch, index, count, root);
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
        for (uint256 i = 0; i < count; ++i) {
            string memory key = string.concat(".trace.records[", vm.toString(i), "].");
            bytes32 record = _hashRecord(i, key);
            bytes32[] memory branch =
                vm.parseJsonBytes32Array(json, string.concat(".trace.branches[", vm.toString(i), "]"));

            assertEq(record, vm.parseJsonBytes32(json, string.concat(key, "leaf")));
            assertTrue(harness.isValidBranch(record, branch, i, count, root), "the branch proves its record");
        }
    }

    function test_an_audit_hashes_as_in_python() public {
        address place = vm.parseJsonAddress(json, ".audit.contract");
        vm.etch(place, address(harness).code);
        vm.chainId(vm.parseJsonUint(json, ".audit.chain_id"));
        (uint256 segments, Outcome[] memory outcomes) = _auditedOutcomes();

        bytes32 audit = CommitmentsHarness(place)
            .hashAudit(
                vm.parseJsonUint(json, ".audit.lease_id"),
                vm.parseJsonAddress(json, ".audit.auditor"),
                vm.parseJsonBytes32(json, ".audit.salt"),
                vm.parseJsonBytes32(json, ".audit.base_root"),
                segments,
                outcomes
            );

        assertEq(audit, vm.parseJsonBytes32(json, ".audit.commitment"));
    }

    function testFuzz_a_branch_proves_its_record_at_its_index_and_nowhere_else(
        uint256 segments,
        uint256 index,
        uint256 other
    ) public view {
        segments = clamp(segments, 2, 40);
        Made memory made = Traces.make(0, segments, "base", "slot");
        index = clamp(index, 0, segments);
        bytes32[] memory branch = made.branch(index);
        (bytes32 record, bytes32 root) = (made.record(index), made.root());

        bool atIndex = harness.isValidBranch(record, branch, index, segments + 1, root);
        bool elsewhere = harness.isValidBranch(record, branch, other, segments + 1, root);

        assertTrue(atIndex, "a branch proves its record");
        assertTrue(elsewhere == (other == index), "a branch proves its record at one index only");
    }

    function testFuzz_a_branch_proves_no_other_record(bytes32 record, uint256 index) public view {
        Made memory made = Traces.make(0, 8, "base", "slot");
        index = clamp(index, 0, 8);
        vm.assume(record != made.record(index));

        bool valid = harness.isValidBranch(record, made.branch(index), index, 9, made.root());

        assertTrue(!valid, "another record is refused");
    }

    function test_a_branch_of_another_length_is_refused() public view {
        Made memory made = Traces.make(0, 8, "base", "slot");
        bytes32[] memory branch = made.branch(0);
        bytes32 parent = Commitments.hashNode(made.record(0), branch[0]);
        bytes32[] memory shorter = new bytes32[](3);
        for (uint256 i = 0; i < 3; ++i) {
            shorter[i] = branch[i + 1];
        }

        assertTrue(!harness.isValidBranch(parent, shorter, 0, 9, made.root()), "an inner node is no record");
    }

    function testFuzz_an_audit_is_bound_to_all_it_names(uint256 leaseId, address auditor, bytes32 salt)
        public
        view
    {
        vm.assume(leaseId != 1 || auditor != address(1) || salt != "salt");
        (, Outcome[] memory outcomes) = _auditedOutcomes();

        bytes32 audit = harness.hashAudit(leaseId, auditor, salt, "base", 5, outcomes);

        bytes32 other = harness.hashAudit(1, address(1), "salt", "base", 5, outcomes);
        assertTrue(audit != other, "another lease, auditor or salt gives another audit");
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

    function _auditedOutcomes() private view returns (uint256 segments, Outcome[] memory outcomes) {
        uint256[] memory drawn = vm.parseJsonUintArray(json, ".audit.segments");
        outcomes = new Outcome[](drawn.length);
        for (uint256 j = 0; j < drawn.length; ++j) {
            segments |= 2 ** drawn[j];
            string memory key = string.concat(".audit.outcomes[", vm.toString(j), "]");
            bytes32[] memory roots = vm.parseJsonBytes32Array(json, key);
            outcomes[j] = Outcome(roots[0], roots[1], roots[2]);
        }
    }
}
