"""Maps as generated Triton kernels: the straight-line source of a code, compiled once for all its shapes.

A program computes a tile of rows and columns; the columns are the axis along which the first output is
written. The source is made of opcodes and numbers alone: nothing of a requester's text enters it.
"""

import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Final

import triton.language as tl

from market.protocol.program import SIGNATURES, MapOp, Op
from market.protocol.tensors import Dtype
from trainer.exact import triton_native
from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_native import (
    TWO_63,
    Memory,
    Step,
    as_float,
    cover,
    divide_up,
    is_wide,
    jit,
    move_to,
    pick,
    round_even,
)

TILE: Final = 1024  # elements of a program
_COLUMNS: Final = 256
_TRANSPOSED_COLUMNS: Final = 32
_LANGUAGE_TYPES: Final = {
    Dtype.U8: "tl.uint8",
    Dtype.I16: "tl.int16",
    Dtype.I32: "tl.int32",
    Dtype.I64: "tl.int64",
}
_EXPRESSIONS: Final[dict[Op, str]] = {
    Op.ADD: "{0} + {1}",
    Op.SUB: "{0} - {1}",
    Op.MUL: "{0} * {1}",
    Op.DIV: "tl.div_rn({0}, {1})",
    Op.SQRT: "tl.sqrt_rn({0})",
    Op.NEG: "as_float(as_bits({0}) ^ SIGN)",
    Op.ABS: "magnitude({0})",
    Op.LT: "({0} < {1}).to(tl.int64)",
    Op.LE: "({0} <= {1}).to(tl.int64)",
    Op.EQ: "({0} == {1}).to(tl.int64)",
    Op.SELECT: "tl.where({0} != 0, {1}, {2})",
    Op.TO_INT: "to_int({0})",
    Op.FROM_INT: "{0}.to(tl.float32)",  # nearest even: cvt.rn.f32.s64
    Op.BITS: "as_bits(canonical({0})).to(tl.int64)",
    Op.FROM_BITS: "as_float({0}.to(tl.int32))",
    Op.IADD: "{0} + {1}",
    Op.ISUB: "{0} - {1}",
    Op.IMUL: "{0} * {1}",
    Op.IDIV: "floor_divide({0}, {1})",
    Op.IAND: "{0} & {1}",
    Op.IOR: "{0} | {1}",
    Op.IXOR: "{0} ^ {1}",
    Op.SHL: "{0} << ({1} & 63)",
    Op.SHR: "{0} >> ({1} & 63)",
    Op.ILT: "({0} < {1}).to(tl.int64)",
    Op.IEQ: "({0} == {1}).to(tl.int64)",
    Op.ISELECT: "tl.where({0} != 0, {1}, {2})",
}


@jit
def to_int(x: tl.tensor) -> tl.tensor:
    """Return ``x`` as int64: nearest even, saturating, 0 for NaN."""
    rounded = round_even(x)
    limit = as_float(tl.full([], TWO_63, tl.int32))
    fits = (rounded >= -limit) & (rounded < limit)  # false on NaN
    inside = tl.where(fits, rounded, 0.0).to(tl.int64)
    above = tl.where(rounded >= limit, 0x7FFFFFFFFFFFFFFF, inside)
    return tl.where(rounded < -limit, -0x8000000000000000, above)


@jit
def floor_divide(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return ``a / b`` rounded down; 0 where ``b <= 0``."""
    divisor = tl.maximum(b, 1)
    quotient = a // divisor  # towards zero
    floor = tl.where(a - quotient * divisor < 0, quotient - 1, quotient)
    return tl.where(b > 0, floor, tl.zeros_like(floor))


@dataclass(frozen=True, slots=True)
class _Move:
    """How a view moves through a tile: along its rows, along its columns."""

    rows: bool
    columns: bool

    @property
    def mask(self) -> str:
        """The mask of what the view reads."""
        return {
            (True, True): "inside",
            (True, False): "row < rows",
            (False, True): "column < columns",
            (False, False): "None",
        }[self.rows, self.columns]


@dataclass(frozen=True, slots=True)
class _Body:
    """All that a kernel's source depends on."""

    code: tuple[MapOp, ...]
    f32_constants: tuple[int, ...]
    i64_constants: tuple[int, ...]
    loads: tuple[tuple[Dtype, _Move], ...]
    stores: tuple[tuple[int, Dtype], ...]


def _find_live(body: _Body, first: int) -> set[int]:
    live = {register for register, _ in body.stores}
    for register in range(first + len(body.code) - 1, first - 1, -1):
        if register in live:
            op, *sources = body.code[register - first]
            live.update(sources[: len(SIGNATURES[Op(op)][0])])
    return live


def _write_registers(body: _Body) -> Iterator[str]:
    """Write the loads, the constants and the operations whose results something reads."""
    first = len(body.loads) + len(body.f32_constants) + len(body.i64_constants)
    parts: list[str] = []
    for i, (dtype, move) in enumerate(body.loads):
        load = f"tl.load(x{i} + {_write_offset(f'x{i}', move)}, mask={move.mask})"
        parts.append(load if dtype is Dtype.F32 else f"{load}.to(tl.int64)")
    for pattern in body.f32_constants:
        signed = pattern - 2**32 if pattern >= 2**31 else pattern
        parts.append(f"as_float(tl.full([1, 1], {signed}, tl.int32))")
    parts += [f"tl.full([1, 1], {value}, tl.int64)" for value in body.i64_constants]
    for op, *sources in body.code:
        parts.append(_EXPRESSIONS[Op(op)].format(*(f"r{source}" for source in sources)))
    live = _find_live(body, first)
    return (f"r{i} = {part}" for i, part in enumerate(parts) if i in live)


def _write_offset(name: str, move: _Move) -> str:
    parts = [f"{name}_offset"]
    parts += [f"find_offset(row, sizes, {name}_strides)"] if move.rows else []
    parts += [f"column * {name}_step"] if move.columns else []
    return " + ".join(parts)


def _write_source(body: _Body) -> str:
    names = [f"x{i}" for i in range(len(body.loads))] + [f"y{i}" for i in range(len(body.stores))]
    views = [f"{name}_offset, {name}_strides, {name}_step" for name in names]
    lines = [
        "block = tl.program_id(0)",
        "row = find_lines(block // column_blocks, R, WIDE)[:, None]",
        "column = find_lines(block % column_blocks, C, WIDE)[None, :]",
        "inside = (row < rows) & (column < columns)",
        *_write_registers(body),
    ]
    lines += ["if R * C < 512:", "    tl.debug_barrier()"]  # an output may be an operand's memory
    for i, (register, dtype) in enumerate(body.stores):
        value = f"canonical(r{register})"
        if dtype is not Dtype.F32:
            value = f"r{register}.to({_LANGUAGE_TYPES[dtype]})"
        offset = _write_offset(f"y{i}", _Move(rows=True, columns=True))
        lines.append(f"tl.store(y{i} + {offset}, tl.broadcast_to({value}, [R, C]), mask=inside)")
    sizes = "sizes, rows, columns, column_blocks, "
    blocks = "R: tl.constexpr, C: tl.constexpr, WIDE: tl.constexpr"
    head = f"def run_map({', '.join(names + views)}, {sizes}{blocks}):"
    return "\n    ".join((head, *lines)) + "\n"


@cache
def get_map_kernel(body: _Body) -> Any:
    """Return the kernel of a map."""
    source = _write_source(body)
    name = f"<touchstone map {sha256(source.encode()).hexdigest()}>"
    # Triton reads a kernel's source where tracebacks do; an entry without a time stays
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = {**vars(triton_native), "to_int": to_int, "floor_divide": floor_divide}
    exec(compile(source, name, "exec"), module)
    return jit(module["run_map"])


def plan_map(  # noqa: PLR0913 - a map has five parts
    memory: Memory,
    shape: Sequence[int],
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Strided],
    outputs: Sequence[tuple[int, Strided]],
) -> Step:
    """Return a function that evaluates a map over views of ``shape``."""
    views = [*operands, *(view for _, view in outputs)]
    sizes, views = _order_axes(shape, views, len(operands))
    rows, columns = sizes[:-1] or (1,), sizes[-1]
    views = [move_to(view, (*(view.strides[:-1] or (0,)), view.strides[-1])) for view in views]
    count = 1
    for size in rows:
        count *= size
    across = any(view.strides[-1] > 1 for view in views)
    width = cover(columns, _TRANSPOSED_COLUMNS if across else _COLUMNS)
    height = cover(count, TILE // width)
    width = cover(columns, TILE // height)
    body = _Body(
        tuple(code),
        tuple(f32_constants),
        tuple(i64_constants),
        tuple(
            (x.dtype, _Move(any(x.strides[:-1]), x.strides[-1] > 0)) for x in views[: len(operands)]
        ),
        tuple(
            (register, view.dtype)
            for (register, _), view in zip(outputs, views[len(operands) :], strict=True)
        ),
    )
    column_blocks = divide_up(columns, width)
    programs = divide_up(count, height) * column_blocks
    wide = is_wide(sizes, *(view.strides[-len(sizes) :] for view in views))
    arguments: list[object] = []
    for view in views:
        arguments += (view.offset, view.strides[:-1], view.strides[-1])
    arguments += (rows, count, columns, column_blocks, height, width, wide)
    return memory.bind(get_map_kernel(body), programs, [view.entry for view in views], arguments)


def _order_axes(
    shape: Sequence[int], views: Sequence[Strided], outputs_from: int
) -> tuple[tuple[int, ...], list[Strided]]:
    """Collapse the axes: last the one along which the first output moves least, before it an operand's."""
    target = views[outputs_from].strides
    order = sorted(range(len(shape)), key=lambda axis: -target[axis])
    sizes, strides = collapse_axes(
        pick(shape, order), [pick(view.strides, order) for view in views]
    )
    rows = sorted(
        range(len(sizes) - 1), key=lambda axis: -_find_least_step(strides, axis, outputs_from)
    )
    order = [*rows, len(sizes) - 1]
    moved = [move_to(view, pick(steps, order)) for view, steps in zip(views, strides, strict=True)]
    return pick(sizes, order), moved


def _find_least_step(strides: Sequence[Sequence[int]], axis: int, operands: int) -> int:
    return min((view[axis] for view in strides[:operands] if view[axis]), default=2**63)
