"""The canonical bytes of a program and the tree over them (docs/protocol.md section 4, Encoding).

One encoding serves hashing, storage and the contract: an instruction is 16 fixed parts, each a leaf."""

import struct
from collections.abc import Sequence
from typing import Final

from market.protocol.constants import (
    MAX_INSTRUCTIONS,
    MAX_LITERAL_BYTES,
    MAX_MAP_CONSTANTS,
    MAX_MAP_OPERANDS,
    MAX_MAP_OPS,
    MAX_MAP_OUTPUTS,
    MAX_NAME_BYTES,
    MAX_OUTPUTS,
    MAX_RANK,
    MAX_TENSORS,
    PROGRAM_INSTRUCTION_PARTS,
)
from market.protocol.errors import InvalidProgram
from market.protocol.hashing import (
    ZERO_HASH,
    Hash32,
    Role,
    compute_digest,
    encode_domain,
    hash_leaf,
)
from market.protocol.merkle import compute_root
from market.protocol.program import (
    Instruction,
    Kind,
    MapOp,
    Output,
    OutputKind,
    Program,
    ProgramRoot,
    Tensor,
    TensorRole,
    View,
)
from market.protocol.tensors import Dtype, TensorType, compute_tensor_root

_MAGIC: Final = b"TSP1"
_HEADER: Final = struct.Struct(">4sIIII44x")
_TYPE: Final = struct.Struct(">4sBBBB6I")
_OUTPUT: Final = struct.Struct(">B3xII20x32s")
_INSTRUCTION: Final = struct.Struct(">8Bqq16x6I")
_VIEW: Final = struct.Struct(">IIq6q")
_PART_BYTES: Final = 64
_OPERANDS_AT, _OUTPUTS_AT, _CODE_AT, _CONSTANTS_AT = 1, 9, 13, 14


def _pad(values: Sequence[int]) -> list[int]:
    return [*values, *[0] * (MAX_RANK - len(values))]


def _hash_name(name: str) -> Hash32:
    return compute_digest(name.encode()) if name else ZERO_HASH


def _encode_type(tensor: Tensor) -> bytes:
    kind = tensor.type
    return encode_domain(int(tensor.role), int(kind.dtype), kind.bits, kind.shape)


def _encode_view(view: View) -> bytes:
    return _VIEW.pack(view.tensor, view.register, view.offset, *_pad(view.strides))


def _encode_header(program: Program) -> bytes:
    inputs = sum(1 for _ in program.inputs)
    counts = len(program.tensors), inputs, len(program.instructions), len(program.outputs)
    return _HEADER.pack(_MAGIC, *counts)


def _encode_output(output: Output) -> bytes:
    return _OUTPUT.pack(output.kind, output.tensor, output.replaces, _hash_name(output.name))


def _encode_instruction_header(instruction: Instruction) -> bytes:
    return _INSTRUCTION.pack(
        instruction.kind,
        len(instruction.operands),
        len(instruction.outputs),
        len(instruction.shape),
        instruction.reduced,
        len(instruction.code),
        len(instruction.f32_constants),
        len(instruction.i64_constants),
        *instruction.attributes,
        *_pad(instruction.shape),
    )


def _encode_code(instruction: Instruction) -> bytes:
    return b"".join(map(bytes, instruction.code))


def _encode_constants(instruction: Instruction) -> bytes:
    f32 = b"".join(pattern.to_bytes(8, "big") for pattern in instruction.f32_constants)
    return f32 + b"".join(v.to_bytes(8, "big", signed=True) for v in instruction.i64_constants)


def _pad_part(part: bytes) -> bytes:
    return part + bytes(-len(part) % _PART_BYTES)


def encode_instruction_parts(instruction: Instruction) -> list[bytes]:
    """Return the 16 parts of ``instruction``; absent ones are empty."""
    parts = [b""] * PROGRAM_INSTRUCTION_PARTS
    parts[0] = _encode_instruction_header(instruction)
    for position, view in enumerate(instruction.operands, _OPERANDS_AT):
        parts[position] = _encode_view(view)
    for position, view in enumerate(instruction.outputs, _OUTPUTS_AT):
        parts[position] = _encode_view(view)
    parts[_CODE_AT] = _pad_part(_encode_code(instruction))
    parts[_CONSTANTS_AT] = _pad_part(_encode_constants(instruction))
    return parts


def compute_part_leaves(instruction: Instruction) -> list[Hash32]:
    """Return the 16 leaves of an instruction's tree; an absent part is zero."""
    parts = encode_instruction_parts(instruction)
    return [hash_leaf(Role.INSTRUCTION_PART, part) if part else ZERO_HASH for part in parts]


def compute_instruction_root(instruction: Instruction) -> Hash32:
    """Return the root of an instruction's tree."""
    return compute_root(compute_part_leaves(instruction))


def _hash_tensor(tensor: Tensor) -> Hash32:
    literal = compute_tensor_root(tensor.type, tensor.literal) if tensor.literal else ZERO_HASH
    return hash_leaf(
        Role.TENSOR_DECLARATION, _encode_type(tensor) + _hash_name(tensor.name) + literal
    )


def compute_program_root(program: Program) -> ProgramRoot:
    """Return the root of ``program`` with the leaves of its four parts."""
    header = hash_leaf(Role.PROGRAM_HEADER, _encode_header(program))
    tensors = tuple(map(_hash_tensor, program.tensors))
    outputs = tuple(hash_leaf(Role.PROGRAM_OUTPUT, _encode_output(o)) for o in program.outputs)
    instructions = tuple(map(compute_instruction_root, program.instructions))
    root = compute_root(
        [header, compute_root(tensors), compute_root(outputs), compute_root(instructions)]
    )
    return ProgramRoot(root, header, tensors, outputs, instructions)


def _encode_name(name: str) -> bytes:
    encoded = name.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def encode_program(program: Program) -> bytes:
    """Return the stored form of ``program``, the only bytes that decode to it."""
    chunks = [_encode_header(program)]
    for tensor in program.tensors:
        has_literal = bytes([bool(tensor.literal)])
        chunks += [_encode_type(tensor), _encode_name(tensor.name), has_literal]
    for output in program.outputs:
        chunks += [_encode_output(output), _encode_name(output.name)]
    for instruction in program.instructions:
        chunks.append(_encode_instruction_header(instruction))
        chunks += map(_encode_view, (*instruction.operands, *instruction.outputs))
        chunks += [_encode_code(instruction), _encode_constants(instruction)]
    chunks += (tensor.literal for tensor in program.tensors)
    return b"".join(chunks)


class _Reader:
    """Takes fields off the front of a blob; every size is checked before it is used."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        if size > len(self._data) - self._at:
            raise InvalidProgram(f"the program ends at byte {len(self._data)}, inside a field")
        chunk = self._data[self._at : self._at + size]
        self._at += size
        return chunk

    def take_name(self) -> str:
        """Return a length-prefixed UTF-8 name."""
        size = int.from_bytes(self.take(2), "big")
        if size > MAX_NAME_BYTES:
            raise InvalidProgram(f"a name of {size} bytes: at most {MAX_NAME_BYTES}")
        return self.take(size).decode()


def _require_count(name: str, count: int, limit: int) -> int:
    if count > limit:
        raise InvalidProgram(f"{count} {name}: at most {limit}")
    return count


def _decode_tensor(reader: _Reader) -> tuple[Tensor, bool]:
    _, role, dtype, bits, rank, *dims = _TYPE.unpack(reader.take(_TYPE.size))
    kind = TensorType(Dtype(dtype), tuple(dims[:rank]), bits)
    name = reader.take_name()
    return Tensor(kind, TensorRole(role), name), reader.take(1) != b"\0"


def _decode_output(reader: _Reader) -> Output:
    kind, tensor, replaces, _ = _OUTPUT.unpack(reader.take(_OUTPUT.size))
    return Output(OutputKind(kind), tensor, reader.take_name(), replaces)


def _decode_view(reader: _Reader, rank: int) -> View:
    tensor, register, offset, *strides = _VIEW.unpack(reader.take(_VIEW.size))
    return View(tensor, offset, tuple(strides[:rank]), register)


def _decode_code(reader: _Reader, ops: int) -> tuple[MapOp, ...]:
    code = reader.take(4 * _require_count("map operations", ops, MAX_MAP_OPS))
    return tuple((code[i], code[i + 1], code[i + 2], code[i + 3]) for i in range(0, len(code), 4))


def _decode_instruction(reader: _Reader) -> Instruction:
    fields = _INSTRUCTION.unpack(reader.take(_INSTRUCTION.size))
    kind, operands, outputs, rank, reduced, ops, f32s, i64s, first, second, *dims = fields
    _require_count("operands", operands, MAX_MAP_OPERANDS)
    _require_count("outputs", outputs, MAX_MAP_OUTPUTS)
    _require_count("constants", f32s + i64s, MAX_MAP_CONSTANTS)
    return Instruction(
        Kind(kind),
        tuple(dims[:rank]),
        tuple(_decode_view(reader, rank) for _ in range(operands)),
        tuple(_decode_view(reader, rank) for _ in range(outputs)),
        reduced,
        (first, second),
        _decode_code(reader, ops),
        tuple(int.from_bytes(reader.take(8), "big") for _ in range(f32s)),
        tuple(int.from_bytes(reader.take(8), "big", signed=True) for _ in range(i64s)),
    )


def _decode_fields(reader: _Reader) -> Program:
    magic, tensors, _, instructions, outputs = _HEADER.unpack(reader.take(_HEADER.size))
    if magic != _MAGIC:
        raise InvalidProgram(f"a program begins with {_MAGIC!r}, not {magic!r}")
    _require_count("tensors", tensors, MAX_TENSORS)
    _require_count("instructions", instructions, MAX_INSTRUCTIONS)
    _require_count("outputs", outputs, MAX_OUTPUTS)
    declared = [_decode_tensor(reader) for _ in range(tensors)]
    decoded_outputs = tuple(_decode_output(reader) for _ in range(outputs))
    decoded_instructions = tuple(_decode_instruction(reader) for _ in range(instructions))
    literal_bytes = sum(tensor.type.nbytes for tensor, has_literal in declared if has_literal)
    _require_count("bytes of constants", literal_bytes, MAX_LITERAL_BYTES)
    table = tuple(
        Tensor(t.type, t.role, t.name, reader.take(t.type.nbytes) if has_literal else b"")
        for t, has_literal in declared
    )
    return Program(table, decoded_instructions, decoded_outputs)


def decode_program(data: bytes) -> Program:
    """Return the program whose stored form is ``data``; raise InvalidProgram if there is none.

    Types and sizes are checked here; `validity.require_valid_program` checks what they mean."""
    try:
        program = _decode_fields(_Reader(data))
        encoded = encode_program(program)
    except (ValueError, struct.error, OverflowError) as error:
        raise InvalidProgram(f"the program does not decode: {error}") from error
    if encoded != data:
        raise InvalidProgram("the program is not in its canonical form")
    return program
