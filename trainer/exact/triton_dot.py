"""Dots on tensor cores: every product of two digits, their sum, one rounding and two scalings in one kernel.

A program computes a block of results from the digits of its rows and columns; products never touch
memory. Digits are multiplied as int8 with int32 sums, or as bfloat16 with binary32 sums no longer than a
block. INVARIANT: a digit is within [-128, 127], so a sum of two products of digits over less than 2^16 terms,
or of three over 2^15, fits 32 bits; and a product over a block of 128 stays below 2^24, exact in binary32.
"""

# ruff: noqa: PLR0913 - kernels take views apart

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import triton.language as tl

from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_native import (
    Memory,
    Step,
    canonical,
    cover,
    divide_up,
    find_offset,
    get_unscale,
    jit,
)
from trainer.exact.triton_quantize import DIGITS, get_pitch

SPAN: Final = 1 << 15  # terms that 32 bits sum
GROUP: Final = 8  # blocks of rows that share a block of columns in the cache
_LEAST_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """The block of a program, and how it is worked on; ``terms`` are at most 128."""

    rows: int
    columns: int
    terms: int
    warps: int
    stages: int


# By the digit products' weights: 1, 2, 3, 4 or 5 sums of 32 bits for each element are kept in registers
TILES: Final = {
    1: Tile(128, 128, 128, 8, 3),
    2: Tile(128, 128, 64, 8, 4),
    3: Tile(128, 64, 64, 8, 4),
    4: Tile(64, 64, 64, 4, 4),
    5: Tile(64, 64, 64, 4, 3),
}


@jit
def load_digits(
    at: tl.tensor, k: tl.tensor, pitch: tl.tensor, DIGIT: tl.constexpr, EVEN: tl.constexpr
) -> tl.tensor:
    """Load a block of one digit; zero past the pitch."""
    if EVEN:
        return tl.load(at + DIGIT * pitch + k)
    else:  # noqa: RET505 - Triton compiles the branch that it takes alone
        return tl.load(at + DIGIT * pitch + k, mask=k < pitch, other=0)


@jit
def add_product(total: tl.tensor, x: tl.tensor, y: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Return ``total`` plus the product of ``x`` and the transpose of ``y``, int32."""
    if DTYPE == tl.int8:  # noqa: SIM300 - the parameter is the variable
        return tl.dot(x, tl.trans(y), total, out_dtype=tl.int32)
    else:  # noqa: RET505 - as above
        product = tl.dot(x.to(DTYPE), tl.trans(y.to(DTYPE)), input_precision="ieee")
        return total + product.to(tl.int32)


@jit
def multiply_span(  # noqa: C901, PLR0912 - one branch for each digit
    a: tl.tensor,
    b: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    pitch: tl.tensor,
    DIGITS_A: tl.constexpr,
    DIGITS_B: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    EVEN: tl.constexpr,
    DTYPE: tl.constexpr,
) -> tl.tensor:
    """Return the integer products of rows at ``a`` and columns at ``b`` over the terms from start to end."""
    total0 = tl.zeros([M, N], tl.int32)  # by weight: products of digits i and j weigh 2^(8 (i + j))
    total1, total2, total3, total4 = total0, total0, total0, total0
    for at in range(start, end, K):
        k = at + tl.arange(0, K)[None, :]
        b0 = load_digits(b, k, pitch, 0, EVEN)
        a0 = load_digits(a, k, pitch, 0, EVEN)
        total0 = add_product(total0, a0, b0, DTYPE)
        if DIGITS_A > 1:
            a1 = load_digits(a, k, pitch, 1, EVEN)
            total1 = add_product(total1, a1, b0, DTYPE)
        if DIGITS_A > 2:
            a2 = load_digits(a, k, pitch, 2, EVEN)
            total2 = add_product(total2, a2, b0, DTYPE)
        if DIGITS_B > 1:
            b1 = load_digits(b, k, pitch, 1, EVEN)
            total1 = add_product(total1, a0, b1, DTYPE)
            if DIGITS_A > 1:
                total2 = add_product(total2, a1, b1, DTYPE)
            if DIGITS_A > 2:
                total3 = add_product(total3, a2, b1, DTYPE)
        if DIGITS_B > 2:
            b2 = load_digits(b, k, pitch, 2, EVEN)
            total2 = add_product(total2, a0, b2, DTYPE)
            if DIGITS_A > 1:
                total3 = add_product(total3, a1, b2, DTYPE)
            if DIGITS_A > 2:
                total4 = add_product(total4, a2, b2, DTYPE)
    total = total0.to(tl.int64)
    if DIGITS_A + DIGITS_B > 2:
        total += total1.to(tl.int64) << 8
    if DIGITS_A + DIGITS_B > 3:
        total += total2.to(tl.int64) << 16
    if DIGITS_A + DIGITS_B > 4:
        total += total3.to(tl.int64) << 24
    if DIGITS_A + DIGITS_B > 5:
        total += total4.to(tl.int64) << 32
    return total


@jit
def multiply(
    a: tl.tensor,
    ea: tl.tensor,
    b: tl.tensor,
    eb: tl.tensor,
    out: tl.tensor,
    offset_a: tl.tensor,
    offset_b: tl.tensor,
    out_offset: tl.tensor,
    pitch: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    row_blocks: tl.tensor,
    column_blocks: tl.tensor,
    batch_sizes: tl.tensor,
    batch_a: tl.tensor,
    batch_b: tl.tensor,
    batch_out: tl.tensor,
    row_sizes: tl.tensor,
    row_a: tl.tensor,
    row_out: tl.tensor,
    column_sizes: tl.tensor,
    column_b: tl.tensor,
    column_out: tl.tensor,
    fraction_a: tl.tensor,
    fraction_b: tl.tensor,
    DIGITS_A: tl.constexpr,
    DIGITS_B: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    EVEN: tl.constexpr,
    SPAN: tl.constexpr,
    GROUP: tl.constexpr,
    DTYPE: tl.constexpr,
) -> None:
    """Compute a block of one index of the batch."""
    block = tl.program_id(0)
    batch = block // (row_blocks * column_blocks)
    block = block % (row_blocks * column_blocks)
    first = block // (GROUP * column_blocks) * GROUP
    height = tl.minimum(row_blocks - first, GROUP)
    within = block % (GROUP * column_blocks)
    row = (first + within % height) * M + tl.arange(0, M)
    column = within // height * N + tl.arange(0, N)

    batch = batch.to(tl.int64)
    from_row = tl.minimum(row, rows - 1).to(tl.int64)  # computed too often, but not stored
    from_column = tl.minimum(column, columns - 1).to(tl.int64)
    number_a = offset_a + find_offset(batch, batch_sizes, batch_a)
    number_a += find_offset(from_row, row_sizes, row_a)
    number_b = offset_b + find_offset(batch, batch_sizes, batch_b)
    number_b += find_offset(from_column, column_sizes, column_b)
    at_a = a + (number_a * (DIGITS_A * pitch))[:, None]
    at_b = b + (number_b * (DIGITS_B * pitch))[:, None]
    if SPAN > 0:
        total = tl.zeros([M, N], tl.int64)
        for start in range(0, pitch, SPAN):
            end = tl.minimum(start + SPAN, pitch)
            total += multiply_span(
                *(at_a, at_b, start, end, pitch),
                *(DIGITS_A, DIGITS_B, M, N, K, EVEN, DTYPE),
            )
    else:
        total = multiply_span(
            *(at_a, at_b, 0, pitch, pitch),
            *(DIGITS_A, DIGITS_B, M, N, K, EVEN, DTYPE),
        )

    if out.dtype.element_ty == tl.int64:
        y = total
    else:
        scale_a = get_unscale(tl.load(ea + number_a), fraction_a)[:, None]
        scale_b = get_unscale(tl.load(eb + number_b), fraction_b)[None, :]
        y = canonical(total.to(tl.float32) * scale_a * scale_b)
    target = out_offset + find_offset(batch, batch_sizes, batch_out)
    target += find_offset(row.to(tl.int64), row_sizes, row_out)[:, None]
    target += find_offset(column.to(tl.int64), column_sizes, column_out)[None, :]
    tl.store(out + target, y, mask=(row < rows)[:, None] & (column < columns)[None, :])


@dataclass(frozen=True, slots=True)
class Operand:
    """A quantized operand: the entry of its digits, and the view of its ``exponents`` by rows."""

    digits: int
    bits: int
    exponents: Strided  # the digits' view is the same


@dataclass(frozen=True, slots=True)
class _Axes:
    """Axes of one class: sizes, and strides in a's rows, b's rows and the result's elements."""

    sizes: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def count(self) -> int:
        return prod(self.sizes)


def _classify(shape: Sequence[int], views: Sequence[Sequence[int]]) -> tuple[_Axes, _Axes, _Axes]:
    """Sort the axes into those of the batch, of rows (only a moves) and of columns (only b does)."""
    a, b, _ = views
    moving = [axis for axis, size in enumerate(shape) if size > 1]
    columns = [axis for axis in moving if a[axis] == 0 and b[axis] != 0]
    rows = [axis for axis in moving if b[axis] == 0]
    batch = [axis for axis in moving if axis not in columns and axis not in rows]

    def collect(axes: Sequence[int]) -> _Axes:
        sizes, strides = collapse_axes(
            [shape[axis] for axis in axes], [[view[axis] for axis in axes] for view in views]
        )
        return _Axes(sizes, *strides)

    return collect(batch), collect(rows), collect(columns)


def choose_tile(digits_a: int, digits_b: int, rows: int, columns: int, pitch: int) -> Tile:
    """Return the block for a dot of so many rows, columns and terms."""
    tile = TILES[digits_a + digits_b - 1]
    m, n = (
        max(_LEAST_BLOCK, cover(*pair)) for pair in ((rows, tile.rows), (columns, tile.columns))
    )
    k = max(2 * _LEAST_BLOCK, cover(pitch, tile.terms))
    return Tile(m, n, k, tile.warps if m * n > 64 * 64 else 4, tile.stages)


def plan_dot(
    memory: Memory,
    shape: Sequence[int],
    a: Operand,
    b: Operand,
    out: Strided,
    dtype: Any,
    tile: Tile | None = None,
    span: int = SPAN,
) -> Step:
    """Return a function that contracts ``a`` and ``b`` into ``out``; ``shape`` has the contracted axis last.

    An i64 ``out`` gets the integers themselves. ``dtype`` is Triton's type for digits: int8, bfloat16, or
    float32 where that is interpreted; ``span`` how many terms 32 bits sum."""
    kept, pitch = shape[:-1], get_pitch(shape[-1])
    batch, rows, columns = _classify(kept, (a.exponents.strides, b.exponents.strides, out.strides))
    digits = DIGITS[a.bits], DIGITS[b.bits]
    tile = tile or choose_tile(*digits, rows.count, columns.count, pitch)
    blocks = divide_up(rows.count, tile.rows), divide_up(columns.count, tile.columns)
    arguments = (
        *(a.exponents.offset, b.exponents.offset, out.offset, pitch),
        *(rows.count, columns.count, *blocks, batch.sizes, batch.a, batch.b, batch.out),
        *(rows.sizes, rows.a, rows.out, columns.sizes, columns.b, columns.out),
        *(a.bits - 1, b.bits - 1, *digits, tile.rows, tile.columns, tile.terms),
        *(pitch % tile.terms == 0, span if pitch > span else 0, GROUP, dtype),
    )
    entries = (a.digits, a.exponents.entry, b.digits, b.exponents.entry, out.entry)
    programs = batch.count * prod(blocks)
    return memory.bind(
        multiply, programs, entries, arguments, num_warps=tile.warps, num_stages=tile.stages
    )
