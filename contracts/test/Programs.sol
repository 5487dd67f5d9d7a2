// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Part 0 of an instruction.
struct InstructionHeader {
    uint8 kind;
    uint8 operands;
    uint8 outputs;
    uint8 rank;
    uint8 reduced;
    uint8 ops;
    uint8 f32Constants;
    uint8 i64Constants;
    int64[2] attributes;
    uint32[6] shape; // of the iteration, zero beyond the rank
}

/// @notice Parts 1 to 12 of an instruction: where an operand is read, or an output written.
struct View {
    uint32 tensor;
    uint32 register; // outputs of `map`; else 0
    int64 offset;
    int64[6] strides; // zero beyond the rank
}

/// @notice Four bytes of part 13.
struct MapOp {
    uint8 opcode;
    uint8 a;
    uint8 b;
    uint8 c;
}

/// @notice The parts of an instruction, as docs/protocol.md section 4 encodes them.
/// @dev A part is decoded as it stands: whoever decodes one has proven it against the program's root.
library Programs {
    bytes32 private constant INSTRUCTION_PART = hex"5453544e09";

    uint256 internal constant PARTS = 16;
    uint256 internal constant OPERANDS_AT = 1;
    uint256 internal constant OUTPUTS_AT = 9;
    uint256 internal constant CODE_AT = 13;
    uint256 internal constant CONSTANTS_AT = 14;

    /// @notice The leaf of a part; zero for an absent one, which has no bytes.
    function hashPart(bytes calldata part) internal pure returns (bytes32) {
        return part.length == 0 ? bytes32(0) : sha256(bytes.concat(INSTRUCTION_PART, part));
    }

    function decodeHeader(bytes calldata part) internal pure returns (InstructionHeader memory header) {
        (header.kind, header.operands) = (uint8(part[0]), uint8(part[1]));
        (header.outputs, header.rank) = (uint8(part[2]), uint8(part[3]));
        (header.reduced, header.ops) = (uint8(part[4]), uint8(part[5]));
        (header.f32Constants, header.i64Constants) = (uint8(part[6]), uint8(part[7]));
        header.attributes = [_int64(part, 8), _int64(part, 16)];
        for (uint256 axis = 0; axis < 6; ++axis) {
            header.shape[axis] = _uint32(part, 40 + 4 * axis);
        }
    }

    function decodeView(bytes calldata part) internal pure returns (View memory decoded) {
        decoded.tensor = _uint32(part, 0);
        decoded.register = _uint32(part, 4);
        decoded.offset = _int64(part, 8);
        for (uint256 axis = 0; axis < 6; ++axis) {
            decoded.strides[axis] = _int64(part, 16 + 8 * axis);
        }
    }

    /// @notice Op `index` of part 13.
    function decodeOp(bytes calldata part, uint256 index) internal pure returns (MapOp memory) {
        bytes4 op = bytes4(part[4 * index:4 * index + 4]);
        return MapOp(uint8(op[0]), uint8(op[1]), uint8(op[2]), uint8(op[3]));
    }

    /// @notice Constant `index` of part 14, those of f32 first: a pattern in the low 32 bits, or an i64.
    function decodeConstant(bytes calldata part, uint256 index) internal pure returns (int64) {
        return _int64(part, 8 * index);
    }

    function _uint32(bytes calldata part, uint256 start) private pure returns (uint32) {
        return uint32(bytes4(part[start:start + 4]));
    }

    function _int64(bytes calldata part, uint256 start) private pure returns (int64) {
        return int64(uint64(bytes8(part[start:start + 8])));
    }
}
