// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CommitmentsHarness} from "./Commitments.t.sol";
import {InstructionHeader, MapOp, Programs, View} from "./Programs.sol";
import {Trees} from "./Trees.sol";
import {Test} from "./Vm.sol";

/// @notice The cheatcodes that only these tests use.
interface VmJson {
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseJsonIntArray(string calldata json, string calldata key)
        external
        pure
        returns (int256[] memory);
}

/// @notice What a program, an instruction or a tensor is made of, as a contract would be given it: in calldata.
contract ProgramsHarness {
    bytes32 private constant PROGRAM_HEADER = hex"5453544e06";
    uint256 private constant TILE_BYTES = 1024;

    function hashPart(bytes calldata part) external pure returns (bytes32) {
        return Programs.hashPart(part);
    }

    function decodeHeader(bytes calldata part) external pure returns (InstructionHeader memory) {
        return Programs.decodeHeader(part);
    }

    function decodeView(bytes calldata part) external pure returns (View memory) {
        return Programs.decodeView(part);
    }

    function decodeOp(bytes calldata part, uint256 index) external pure returns (MapOp memory) {
        return Programs.decodeOp(part, index);
    }

    function decodeConstant(bytes calldata part, uint256 index) external pure returns (int64) {
        return Programs.decodeConstant(part, index);
    }

    /// @notice The leaf of the header that a program's stored form begins with.
    function hashProgramHeader(bytes calldata encoded) external pure returns (bytes32) {
        return sha256(bytes.concat(PROGRAM_HEADER, encoded[:64]));
    }

    /// @notice The leaves over the tiles of `data`; one exponent for each row, each row with its own tiles.
    function hashTiles(bytes32 domain, bytes calldata data, int256[] calldata exponents)
        external
        pure
        returns (bytes32[] memory leaves)
    {
        uint256 rowBytes = data.length / exponents.length;
        uint256 rowTiles = (rowBytes + TILE_BYTES - 1) / TILE_BYTES;
        leaves = new bytes32[](exponents.length * rowTiles);
        for (uint256 i = 0; i < leaves.length; ++i) {
            uint256 row = i / rowTiles;
            bytes calldata tile = _tile(data[row * rowBytes:(row + 1) * rowBytes], i % rowTiles);
            bytes memory padding = new bytes((32 - tile.length % 32) % 32);
            leaves[i] = sha256(bytes.concat(domain, _encode(exponents[row]), tile, padding));
        }
    }

    function _tile(bytes calldata row, uint256 index) private pure returns (bytes calldata) {
        uint256 end = (index + 1) * TILE_BYTES;
        return row[index * TILE_BYTES:end < row.length ? end : row.length];
    }

    /// @notice Two's complement of an exponent.
    function _encode(int256 exponent) private pure returns (bytes4) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes4(uint32(int32(exponent))); // an exponent is small
    }
}

/// @notice Vectors are written by tests/vectors/generate.py, whose tiny program these tests know.
contract ProgramsTest is Test {
    // Instructions of the tiny program.
    uint256 private constant QUANTIZE = 0;
    uint256 private constant DOT = 1;
    uint256 private constant SUM = 2;
    uint256 private constant CONST = 3;
    uint256 private constant MAP = 4;
    uint256 private constant COUNT = 5;

    // Leaves of a program's tree, the last of which is the root over the instructions.
    uint256 private constant SECTIONS = 4;
    uint256 private constant INSTRUCTIONS = 3;

    ProgramsHarness private harness;
    CommitmentsHarness private commitments;
    string private json;

    function setUp() public {
        harness = new ProgramsHarness();
        commitments = new CommitmentsHarness();
        json = vm.readFile("../tests/vectors/programs.json");
    }

    function test_the_parts_of_an_instruction_hash_as_in_python() public view {
        bytes32[] memory roots = _instructionRoots();
        for (uint256 i = 0; i < roots.length; ++i) {
            assertEq(Trees.root(_partLeaves(i)), roots[i]);
        }
    }

    function test_the_header_of_a_program_hashes_as_in_python() public view {
        bytes memory encoded = vm.parseJsonBytes(json, ".encoded");

        assertEq(harness.hashProgramHeader(encoded), vm.parseJsonBytes32(json, ".header"));
    }

    function test_a_program_hashes_as_in_python() public view {
        assertEq(Trees.root(_sections()), vm.parseJsonBytes32(json, ".root"));
    }

    function test_a_part_of_an_instruction_from_python_is_proven_at_its_index_only() public view {
        bytes32[] memory roots = _instructionRoots();
        for (uint256 i = 0; i < roots.length; ++i) {
            bytes32[] memory leaves = _partLeaves(i);
            for (uint256 part = 0; part < Programs.PARTS; ++part) {
                if (leaves[part] == 0) continue; // next to another absent part, it has that one's branch
                _assertProvenOnlyAt(part, leaves[part], Trees.branch(leaves, part), roots[i]);
            }
        }
    }

    function test_a_part_of_a_program_from_python_is_proven_at_its_index_only() public view {
        bytes32 root = vm.parseJsonBytes32(json, ".root");
        for (uint256 i = 0; i < COUNT; ++i) {
            bytes32[] memory leaves = _partLeaves(i);
            for (uint256 part = 0; part < Programs.PARTS; ++part) {
                if (leaves[part] == 0) continue;
                (uint256 index, bytes32[] memory branch) = _programBranch(i, part);
                _assertProvenOnlyAt(index, leaves[part], branch, root);
            }
        }
    }

    function test_an_absent_part_from_python_is_proven_absent() public view {
        (uint256 index, bytes32[] memory branch) = _programBranch(CONST, Programs.CODE_AT);
        bytes32 root = vm.parseJsonBytes32(json, ".root");

        bool absent = commitments.isValidBranch(0, branch, index, branch.length, root);
        bool present = commitments.isValidBranch("code", branch, index, branch.length, root);

        assertTrue(absent, "a zero leaf proves that there is no code");
        assertTrue(!present, "no code is proven in its place");
    }

    function test_the_headers_of_instructions_decode_as_python_encodes_them() public view {
        int64[2] memory none;
        _assertHeader(
            QUANTIZE, InstructionHeader(2, 1, 1, 2, 0, 0, 0, 0, [int64(16), 0], [uint32(4), 8, 0, 0, 0, 0])
        );
        _assertHeader(DOT, InstructionHeader(3, 2, 1, 3, 0, 0, 0, 0, none, [uint32(4), 4, 8, 0, 0, 0]));
        _assertHeader(SUM, InstructionHeader(4, 1, 1, 2, 1, 0, 0, 0, none, [uint32(4), 4, 0, 0, 0, 0]));
        _assertHeader(CONST, InstructionHeader(10, 0, 1, 1, 0, 0, 0, 0, none, [uint32(1), 0, 0, 0, 0, 0]));
        _assertHeader(MAP, InstructionHeader(1, 3, 1, 2, 0, 3, 1, 0, none, [uint32(4), 8, 0, 0, 0, 0]));
    }

    function test_views_decode_as_python_encodes_them() public view {
        uint256 operands = Programs.OPERANDS_AT;
        uint256 outputs = Programs.OUTPUTS_AT;
        _assertView(DOT, operands, View(2, 0, 0, [int64(8), 0, 1, 0, 0, 0]));
        _assertView(DOT, operands + 1, View(2, 0, 0, [int64(0), 8, 1, 0, 0, 0]));
        _assertView(DOT, outputs, View(3, 0, 0, [int64(4), 1, 0, 0, 0, 0]));
        _assertView(MAP, operands, View(0, 0, 0, [int64(8), 1, 0, 0, 0, 0]));
        _assertView(MAP, operands + 1, View(4, 0, 0, [int64(1), 0, 0, 0, 0, 0]));
        _assertView(MAP, operands + 2, View(6, 0, 0, [int64(0), 0, 0, 0, 0, 0]));
        _assertView(MAP, outputs, View(5, 6, 0, [int64(8), 1, 0, 0, 0, 0]));
    }

    function test_the_code_of_a_map_decodes_as_python_encodes_it() public view {
        (uint8 sub, uint8 mul) = (2, 3);

        _assertOp(0, MapOp(mul, 1, 3, 0));
        _assertOp(1, MapOp(sub, 0, 4, 0));
        _assertOp(2, MapOp(mul, 5, 2, 0));
    }

    function test_the_constants_of_a_map_decode_as_python_encodes_them() public view {
        bytes memory constants = _part(MAP, Programs.CONSTANTS_AT);

        assertTrue(harness.decodeConstant(constants, 0) == 0x3f000000, "the constant is one half");
    }

    function testFuzz_a_header_decodes_to_what_was_encoded(InstructionHeader memory header) public view {
        bytes memory part = abi.encodePacked(
            abi.encodePacked(header.kind, header.operands, header.outputs, header.rank),
            abi.encodePacked(header.reduced, header.ops, header.f32Constants, header.i64Constants),
            abi.encodePacked(header.attributes[0], header.attributes[1], bytes16(0))
        );
        for (uint256 axis = 0; axis < 6; ++axis) {
            part = abi.encodePacked(part, header.shape[axis]);
        }

        InstructionHeader memory decoded = harness.decodeHeader(part);

        assertEq(keccak256(abi.encode(decoded)), keccak256(abi.encode(header)));
    }

    function testFuzz_a_view_decodes_to_what_was_encoded(View memory encoded) public view {
        bytes memory part = abi.encodePacked(encoded.tensor, encoded.register, encoded.offset);
        for (uint256 axis = 0; axis < 6; ++axis) {
            part = abi.encodePacked(part, encoded.strides[axis]);
        }

        View memory decoded = harness.decodeView(part);

        assertEq(keccak256(abi.encode(decoded)), keccak256(abi.encode(encoded)));
    }

    function testFuzz_constants_decode_to_what_was_encoded(int64 first, int64 second) public view {
        bytes memory part = abi.encodePacked(first, second, bytes32(0), bytes16(0));

        assertTrue(harness.decodeConstant(part, 0) == first, "the first constant is read");
        assertTrue(harness.decodeConstant(part, 1) == second, "the second constant is read");
    }

    /// @notice Tries every index of the tree that `branch` is for.
    function _assertProvenOnlyAt(uint256 index, bytes32 leaf, bytes32[] memory branch, bytes32 root)
        private
        view
    {
        uint256 count = 2 ** branch.length;
        for (uint256 other = 0; other <= count; ++other) {
            bool valid = commitments.isValidBranch(leaf, branch, other, branch.length, root);
            assertTrue(valid == (other == index), "a branch proves its part at one index only");
        }
    }

    function _assertHeader(uint256 instruction, InstructionHeader memory expected) private view {
        InstructionHeader memory decoded = harness.decodeHeader(_part(instruction, 0));
        assertTrue(
            keccak256(abi.encode(decoded)) == keccak256(abi.encode(expected)),
            string.concat("the header of instruction ", vm.toString(instruction), " is the program's")
        );
    }

    function _assertView(uint256 instruction, uint256 part, View memory expected) private view {
        View memory decoded = harness.decodeView(_part(instruction, part));
        assertTrue(
            keccak256(abi.encode(decoded)) == keccak256(abi.encode(expected)),
            string.concat("part ", vm.toString(part), " is the program's")
        );
    }

    function _assertOp(uint256 index, MapOp memory expected) private view {
        MapOp memory decoded = harness.decodeOp(_part(MAP, Programs.CODE_AT), index);
        assertTrue(
            keccak256(abi.encode(decoded)) == keccak256(abi.encode(expected)),
            string.concat("op ", vm.toString(index), " is the program's")
        );
    }

    /// @notice From a part up to the root of its instruction, then of the instructions, then of the program.
    function _programBranch(uint256 instruction, uint256 part)
        private
        view
        returns (uint256 index, bytes32[] memory branch)
    {
        bytes32[] memory toInstruction = Trees.branch(_partLeaves(instruction), part);
        bytes32[] memory toInstructions = Trees.branch(_instructionRoots(), instruction);
        bytes32[] memory toProgram = Trees.branch(_sections(), INSTRUCTIONS);
        branch = _concat(_concat(toInstruction, toInstructions), toProgram);
        index = (INSTRUCTIONS << (branch.length - toProgram.length)) | (instruction << toInstruction.length)
            | part;
    }

    function _concat(bytes32[] memory left, bytes32[] memory right)
        private
        pure
        returns (bytes32[] memory list)
    {
        list = new bytes32[](left.length + right.length);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = i < left.length ? left[i] : right[i - left.length];
        }
    }

    function _sections() private view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](SECTIONS);
        leaves[0] = vm.parseJsonBytes32(json, ".header");
        leaves[1] = Trees.root(vm.parseJsonBytes32Array(json, ".tensors"));
        leaves[2] = Trees.root(vm.parseJsonBytes32Array(json, ".outputs"));
        leaves[INSTRUCTIONS] = Trees.root(_instructionRoots());
    }

    function _instructionRoots() private view returns (bytes32[] memory roots) {
        roots = new bytes32[](COUNT);
        for (uint256 i = 0; i < roots.length; ++i) {
            string memory key = string.concat(".instructions[", vm.toString(i), "].root");
            roots[i] = vm.parseJsonBytes32(json, key);
        }
    }

    function _partLeaves(uint256 instruction) private view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](Programs.PARTS);
        for (uint256 part = 0; part < Programs.PARTS; ++part) {
            leaves[part] = harness.hashPart(_part(instruction, part));
        }
    }

    function _part(uint256 instruction, uint256 part) private view returns (bytes memory) {
        string memory key = string.concat(".instructions[", vm.toString(instruction), "].parts[");
        return vm.parseJsonBytes(json, string.concat(key, vm.toString(part), "]"));
    }
}

/// @notice Vectors that are a list of cases.
abstract contract CasesTest is Test {
    function _exists(string memory json, string memory key) internal view returns (bool) {
        return VmJson(address(vm)).keyExistsJson(json, key);
    }
}

contract TensorsTest is CasesTest {
    ProgramsHarness private harness;
    string private json;

    function setUp() public {
        harness = new ProgramsHarness();
        json = vm.readFile("../tests/vectors/tensors.json");
    }

    function test_tensors_hash_as_in_python() public view {
        uint256 count = 0;
        for (string memory key = _key(0); _exists(json, key); key = _key(++count)) {
            bytes memory data = vm.parseJsonBytes(json, string.concat(key, ".data"));

            bytes32[] memory leaves = harness.hashTiles(_domain(key), data, _exponents(key));

            assertEq(Trees.root(leaves), vm.parseJsonBytes32(json, string.concat(key, ".root")));
        }
        assertTrue(count >= 10, "there are plain tensors and quantized ones");
    }

    function _key(uint256 index) private pure returns (string memory) {
        return string.concat(".tensors[", vm.toString(index), "]");
    }

    /// @notice The domain of a tensor's tiles: its type.
    function _domain(string memory key) private view returns (bytes32) {
        uint256[] memory shape = vm.parseJsonUintArray(json, string.concat(key, ".shape"));
        uint256 dtype = vm.parseJsonUint(json, string.concat(key, ".dtype"));
        uint256 bits = vm.parseJsonUint(json, string.concat(key, ".bits"));
        uint256 domain = (0x5453544e01 << 24) | (dtype << 16) | (bits << 8) | shape.length;
        for (uint256 axis = 0; axis < 6; ++axis) {
            domain = (domain << 32) | (axis < shape.length ? shape[axis] : 0);
        }
        return bytes32(domain);
    }

    /// @notice One for each row; a plain tensor is one row, with 0.
    function _exponents(string memory key) private view returns (int256[] memory) {
        if (vm.parseJsonUint(json, string.concat(key, ".bits")) == 0) return new int256[](1);
        return VmJson(address(vm)).parseJsonIntArray(json, string.concat(key, ".exponents"));
    }
}

contract PhiloxTest is CasesTest {
    uint256 private constant ROUNDS = 10;
    uint256 private constant LOW = type(uint32).max;

    function test_random_words_are_as_in_python() public view {
        string memory json = vm.readFile("../tests/vectors/philox.json");
        uint256 count = 0;
        for (string memory key = _key(0); _exists(json, key); key = _key(++count)) {
            uint256[] memory counter = vm.parseJsonUintArray(json, string.concat(key, ".counter"));
            uint256[] memory words = vm.parseJsonUintArray(json, string.concat(key, ".words"));

            uint256[4] memory drawn = _words(vm.parseJsonUint(json, string.concat(key, ".key")), counter);

            for (uint256 j = 0; j < 4; ++j) {
                assertEq(drawn[j], words[j]);
            }
        }
        assertTrue(count >= 4, "Random123's own answers are among the cases");
    }

    function _key(uint256 index) private pure returns (string memory) {
        return string.concat(".words[", vm.toString(index), "]");
    }

    /// @notice Philox4x32-10: the four words at `counter` under the 64-bit `key`.
    function _words(uint256 key, uint256[] memory counter) private pure returns (uint256[4] memory c) {
        (uint256 key0, uint256 key1) = (key & LOW, key >> 32);
        c = [counter[0], counter[1], counter[2], counter[3]];
        for (uint256 i = 0; i < ROUNDS; ++i) {
            (uint256 product0, uint256 product1) = (0xd2511f53 * c[0], 0xcd9e8d57 * c[2]);
            c = [
                (product1 >> 32) ^ c[1] ^ key0, product1 & LOW, (product0 >> 32) ^ c[3] ^ key1, product0 & LOW
            ];
            (key0, key1) = ((key0 + 0x9e3779b9) & LOW, (key1 + 0xbb67ae85) & LOW);
        }
    }
}
