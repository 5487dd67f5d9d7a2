"""The static rules of a program (docs/protocol.md section 4): total, bounded, written once before read.

A provider refuses a program that breaks one, so whatever runs can be ruled on element by element."""

from collections.abc import Callable, Iterator
from typing import Final

from market.protocol.checker import Checker
from market.protocol.constants import (
    CANONICAL_NAN,
    MAX_DIMENSION,
    MAX_DOT_LENGTH,
    MAX_INSTRUCTIONS,
    MAX_MAP_CONSTANTS,
    MAX_MAP_OPERANDS,
    MAX_MAP_OPS,
    MAX_MAP_OUTPUTS,
    MAX_NAME_BYTES,
    MAX_OUTPUTS,
    MAX_RANK,
    MAX_SUM_TERMS,
    MAX_TENSOR_ELEMENTS,
    MAX_TENSORS,
    QUANTIZE_BUMPS,
)
from market.protocol.errors import InvalidProgram
from market.protocol.program import (
    SIGNATURES,
    Instruction,
    Kind,
    Op,
    OutputKind,
    Program,
    Tensor,
    TensorRole,
    View,
)
from market.protocol.tensors import Dtype, TensorType

_COUNTERS: Final = TensorType(Dtype.I64, (4,))
_I64_LIMIT: Final = 2**63
_MAX_REGISTERS: Final = 256
_MAX_RANDOM: Final = 2**34  # the block number is one 32-bit word of the counter
_STATE_ROLES: Final = (TensorRole.BASE, TensorRole.SLOT)


def _get_register_type(tensor: Tensor) -> str:
    return "f" if tensor.type.dtype is Dtype.F32 else "i"


def _check_code(checker: Checker, instruction: Instruction, operands: list[Tensor]) -> str:
    """Return the types of all registers of a map, one letter each."""
    types = [_get_register_type(tensor) for tensor in operands]
    types += ["f"] * len(instruction.f32_constants) + ["i"] * len(instruction.i64_constants)
    for number, (opcode, *arguments) in enumerate(instruction.code):
        checker.require(opcode in SIGNATURES, f"operation {number}: no opcode {opcode}")
        signature, result = SIGNATURES[Op(opcode)]
        checker.require(
            not any(arguments[len(signature) :]), f"operation {number}: an unused register is named"
        )
        for register, letter in zip(arguments, signature, strict=False):
            known = register < len(types) and types[register] == letter
            checker.require(known, f"operation {number}: register {register} is no {letter!r}")
        types.append(result)
    checker.require(len(types) <= _MAX_REGISTERS, f"{len(types)} registers: at most 256")
    return "".join(types)


def _check_constants(checker: Checker, instruction: Instruction) -> None:
    for pattern in instruction.f32_constants:
        is_canonical = pattern & 0x7FFFFFFF <= 0x7F800000 or pattern == CANONICAL_NAN
        checker.require(0 <= pattern < 2**32 and is_canonical, f"constant {pattern:#x} is no f32")
    for value in instruction.i64_constants:
        checker.require(-_I64_LIMIT <= value < _I64_LIMIT, f"constant {value} is no i64")


def _check_map(checker: Checker, instruction: Instruction) -> None:
    _check_constants(checker, instruction)
    operands = [checker.require_plain(view, instruction.shape) for view in instruction.operands]
    types = _check_code(checker, instruction, operands)
    checker.require(1 <= len(instruction.outputs) <= MAX_MAP_OUTPUTS, "a map has 1 to 4 outputs")
    for view in instruction.outputs:
        tensor = checker.write(view, instruction.shape)
        fits = view.register < len(types) and types[view.register] == _get_register_type(tensor)
        checker.require(fits, f"register {view.register} does not fit tensor {view.tensor}")
        checker.require(tensor.type.bits == 0, "a map cannot write a quantized tensor")


def _check_quantize(checker: Checker, instruction: Instruction) -> None:
    bits = instruction.attributes[0]
    checker.require(bits in QUANTIZE_BUMPS, f"{bits} bits: 8, 14, 16 or 24")
    checker.require(len(instruction.operands) == 1, "there must be one operand")
    checker.require_plain(instruction.operands[0], instruction.shape, Dtype.F32)
    tensor = checker.write_whole(instruction, instruction.shape)
    checker.require(tensor.type.bits == bits, f"the output is not quantized to {bits} bits")


def _write_reduced(checker: Checker, instruction: Instruction, reduced: int) -> Tensor:
    rank = len(instruction.shape)
    checker.require(1 <= reduced <= rank, f"{reduced} reduced axes of {rank}")
    checker.require(len(instruction.outputs) == 1, "there must be one output")
    view = instruction.outputs[0]
    checker.require(not any(view.strides[rank - reduced :]), "the output moves on a reduced axis")
    return checker.write(view, (*instruction.shape[: rank - reduced], *[1] * reduced))


def _check_dot(checker: Checker, instruction: Instruction) -> None:
    checker.require(len(instruction.operands) == 2, "there must be two operands")
    checker.require(bool(instruction.shape), "there must be an axis to contract")
    length = instruction.shape[-1]
    checker.require(length <= MAX_DOT_LENGTH, f"{length} terms: at most {MAX_DOT_LENGTH}")
    for view in instruction.operands:
        tensor = checker.require_operand(view, instruction.shape)
        checker.require(tensor.type.bits > 0, f"tensor {view.tensor} is not quantized")
        whole_rows = tensor.type.shape[-1] == length and view.strides[-1] == 1
        aligned = all(step % length == 0 for step in (view.offset, *view.strides[:-1]))
        checker.require(whole_rows and aligned, f"tensor {view.tensor} is not read in whole rows")
    tensor = _write_reduced(checker, instruction, 1)
    checker.require(tensor.type == TensorType(Dtype.F32, tensor.type.shape), "the output is no f32")


def _check_reduction(checker: Checker, instruction: Instruction) -> None:
    allowed = (Dtype.F32, Dtype.I64) if instruction.kind is Kind.SUM else (Dtype.F32,)
    checker.require(len(instruction.operands) == 1, "there must be one operand")
    operand = checker.require_plain(instruction.operands[0], instruction.shape, *allowed)
    terms = 1
    for size in instruction.shape[len(instruction.shape) - instruction.reduced :]:
        terms *= size
    checker.require(terms <= MAX_SUM_TERMS, f"{terms} terms: at most {MAX_SUM_TERMS}")
    tensor = _write_reduced(checker, instruction, instruction.reduced)
    checker.require(
        tensor.type.dtype is operand.type.dtype and not tensor.type.bits, "the output's type"
    )


_INTEGERS: Final = (Dtype.U8, Dtype.I16, Dtype.I32, Dtype.I64)


def _check_gather(checker: Checker, instruction: Instruction) -> None:
    bound, stride = instruction.attributes
    checker.require(len(instruction.operands) == 2, "there must be an index and a source")
    checker.require(bound >= 1, f"bound {bound}: at least 1")
    checker.require_plain(instruction.operands[0], instruction.shape, *_INTEGERS)
    checker.require(stride >= 0, f"index stride {stride}: at least 0")
    reach = (bound - 1) * stride
    source = checker.require_plain(instruction.operands[1], instruction.shape, extra=reach)
    checker.require(len(instruction.outputs) == 1, "there must be one output")
    tensor = checker.write(instruction.outputs[0], instruction.shape)
    checker.require(
        tensor.type.dtype is source.type.dtype and not tensor.type.bits, "the output's type"
    )


def _check_scatter_add(checker: Checker, instruction: Instruction) -> None:
    bound, stride = instruction.attributes
    rank, rows = len(instruction.shape), instruction.reduced
    checker.require(1 <= rows <= rank, f"{rows} row axes of {rank}")
    checker.require(len(instruction.operands) == 2, "there must be an index and a source")
    index, source = instruction.operands
    checker.require_plain(index, instruction.shape, *_INTEGERS)
    checker.require(not any(index.strides[rows:]), "the index moves along a column axis")
    checker.require_plain(source, instruction.shape, Dtype.F32)
    terms = 1
    for size in instruction.shape[:rows]:
        terms *= size
    checker.require(terms <= MAX_SUM_TERMS, f"{terms} terms: at most {MAX_SUM_TERMS}")
    columns = instruction.shape[rows:]
    expected = TensorType(Dtype.F32, (bound, *columns))
    checker.require(len(instruction.outputs) == 1, "there must be one output")
    view = instruction.outputs[0]
    checker.require(
        view.offset == 0 and view.strides == (*[0] * rows, *expected.strides[1:]),
        "the output is not read in order",
    )
    checker.require(stride == expected.strides[0], f"index stride {stride} is not a row")
    whole = View(view.tensor, 0, expected.strides)
    tensor = checker.write(whole, expected.shape)
    checker.require(tensor.type == expected, f"the output is not {expected}")


def _check_random(checker: Checker, instruction: Instruction) -> None:
    checker.require(len(instruction.operands) == 4, "there must be a key and three counters")
    checker.require(len(instruction.shape) == 1, "random numbers come in one axis")
    checker.require(instruction.shape[0] <= _MAX_RANDOM, f"{instruction.shape[0]} random numbers")
    for view in instruction.operands:
        checker.require_plain(view, instruction.shape, Dtype.I64)
        checker.require(not any(view.strides), "a counter is not a scalar")
    tensor = checker.write_whole(instruction, instruction.shape)
    checker.require(tensor.type.dtype is Dtype.I64, "the output is no i64")


def _check_iota(checker: Checker, instruction: Instruction) -> None:
    checker.require(not instruction.operands, "there must be no operand")
    tensor = checker.write_whole(instruction, instruction.shape)
    checker.require(tensor.type.dtype is Dtype.I64, "the output is no i64")


def _check_const(checker: Checker, instruction: Instruction) -> None:
    checker.require(not instruction.operands, "there must be no operand")
    tensor = checker.write_whole(instruction, instruction.shape)
    checker.require(len(tensor.literal) == tensor.type.nbytes, "the literal has another size")
    if tensor.type.dtype is Dtype.F32:
        words = memoryview(tensor.literal).cast("I")
        is_canonical = all(w & 0x7FFFFFFF <= 0x7F800000 or w == CANONICAL_NAN for w in words)
        checker.require(is_canonical, "the literal holds a NaN that is not canonical")


_CHECKS: Final[dict[Kind, Callable[[Checker, Instruction], None]]] = {
    Kind.MAP: _check_map,
    Kind.QUANTIZE: _check_quantize,
    Kind.DOT: _check_dot,
    Kind.SUM: _check_reduction,
    Kind.MAX: _check_reduction,
    Kind.GATHER: _check_gather,
    Kind.SCATTER_ADD: _check_scatter_add,
    Kind.RANDOM: _check_random,
    Kind.IOTA: _check_iota,
    Kind.CONST: _check_const,
}
_ATTRIBUTES: Final = {Kind.QUANTIZE: 1, Kind.GATHER: 2, Kind.SCATTER_ADD: 2, Kind.IOTA: 2}
_REDUCING: Final = (Kind.SUM, Kind.MAX, Kind.SCATTER_ADD)


def _check_instruction(checker: Checker, instruction: Instruction) -> None:
    shape = instruction.shape
    checker.require(len(shape) <= MAX_RANK, f"rank {len(shape)}: at most {MAX_RANK}")
    checker.require(all(1 <= s <= MAX_DIMENSION for s in shape), f"iteration shape {shape}")
    volume = 1
    for size in shape[: -1 if instruction.kind is Kind.DOT else None]:
        volume *= size
    checker.require(volume <= MAX_TENSOR_ELEMENTS, f"{volume} iterations: at most 2^40")
    sizes = len(instruction.operands), len(instruction.code), len(instruction.outputs)
    limits = MAX_MAP_OPERANDS, MAX_MAP_OPS, MAX_MAP_OUTPUTS
    checker.require(
        all(n <= limit for n, limit in zip(sizes, limits, strict=True)), "too many parts"
    )
    constants = len(instruction.f32_constants) + len(instruction.i64_constants)
    checker.require(constants <= MAX_MAP_CONSTANTS, f"{constants} constants: at most 64")
    has_code = bool(instruction.code) or constants > 0
    checker.require(instruction.kind is Kind.MAP or not has_code, "only a map has code")
    checker.require(instruction.kind in _REDUCING or instruction.reduced == 0, "it reduces nothing")
    unused = instruction.attributes[_ATTRIBUTES.get(instruction.kind, 0) :]
    checker.require(not any(unused), "an unused attribute is set")
    is_map = instruction.kind is Kind.MAP
    registers = any(view.register for view in instruction.outputs)
    checker.require(is_map or not registers, "only a map's outputs name registers")
    _CHECKS[instruction.kind](checker, instruction)


def _check_inputs(checker: Checker) -> None:
    tensors = checker.program.tensors
    roles = [tensor.role is TensorRole.VALUE for tensor in tensors]
    checker.require(roles == sorted(roles), "an input comes after a value")
    names = [tensor.name for _, tensor in checker.program.inputs]
    checker.require(len(set(names)) == len(names) and all(names), "inputs need names of their own")
    for number, tensor in enumerate(tensors):
        checker.at = f"tensor {number}"
        is_input = tensor.role is not TensorRole.VALUE
        checker.require(len(tensor.name.encode()) <= MAX_NAME_BYTES, "its name is too long")
        checker.require(is_input or not tensor.name, "a value has a name")
        checker.require(not (is_input and tensor.literal), "an input has a literal")
        checker.require(not (is_input and tensor.type.bits), "an input is quantized")
        if tensor.role is TensorRole.COUNTERS:
            checker.require(tensor.type == _COUNTERS, "the counters are i64[4]")


def _check_outputs(checker: Checker) -> None:
    checker.at = "the outputs"
    program = checker.program
    states = [i for i, tensor in program.inputs if tensor.role in _STATE_ROLES]
    by_kind = {kind: [o for o in program.outputs if o.kind is kind] for kind in OutputKind}
    replaced = [output.replaces for output in by_kind[OutputKind.NEXT_STATE]]
    checker.require(replaced == states, "each state tensor needs its next value, in order")
    checker.require(len(by_kind[OutputKind.METRICS]) <= 1, "there are two metrics vectors")
    kinds = [output.kind for output in program.outputs]
    checker.require(kinds == sorted(kinds), "states come first, then gradients, then metrics")
    for output in program.outputs:
        kind = checker.get_tensor(output.tensor).type
        checker.require(checker.is_complete(output.tensor), f"{output.name} is not written")
        if output.kind is OutputKind.NEXT_STATE:
            state = program.tensors[output.replaces]
            checker.require(
                (state.type, state.name) == (kind, output.name), f"{output.name} changes its type"
            )
        else:
            checker.require(kind == TensorType(Dtype.F32, kind.shape), f"{output.name} is no f32")
            checker.require(output.replaces == 0, f"{output.name} replaces nothing")
    gradients = [output.name for output in by_kind[OutputKind.GRADIENT]]
    checker.require(len(set(gradients)) == len(gradients) and all(gradients), "gradients' names")


def _check_tables(checker: Checker) -> None:
    program = checker.program
    for name, count, limit in (
        ("tensors", len(program.tensors), MAX_TENSORS),
        ("instructions", len(program.instructions), MAX_INSTRUCTIONS),
        ("outputs", len(program.outputs), MAX_OUTPUTS),
    ):
        checker.require(count <= limit, f"{count} {name}: at most {limit}")


def _find_stray_literals(program: Program) -> Iterator[int]:
    written = {i.outputs[0].tensor for i in program.instructions if i.kind is Kind.CONST}
    return (i for i, t in enumerate(program.tensors) if t.literal and i not in written)


def require_valid_program(program: Program) -> None:
    """Raise InvalidProgram, naming the instruction and the rule, unless ``program`` keeps them all."""
    checker = Checker(program)
    _check_tables(checker)
    _check_inputs(checker)
    for number, instruction in enumerate(program.instructions):
        checker.at = f"instruction {number} ({instruction.kind.name.lower()})"
        _check_instruction(checker, instruction)
    checker.at = "the program"
    checker.require(not any(_find_stray_literals(program)), "a literal that no const writes")
    _check_outputs(checker)


def is_valid_program(program: Program) -> bool:
    """Check that ``program`` is total, bounded and written once before it is read."""
    try:
        require_valid_program(program)
    except InvalidProgram:
        return False
    return True
