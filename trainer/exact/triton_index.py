"""Indexed reads, exact indexed sums and random words."""

# ruff: noqa: FBT003, PLR0913 - kernels take views apart

from collections.abc import Sequence
from typing import Final

import triton.language as tl

from market.protocol.philox import MULTIPLIERS, ROUNDS, WEYL
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_groups import make_groups, plan_greatest
from trainer.exact.triton_native import (
    LARGEST,
    TOTALS,
    Memory,
    Step,
    canonical,
    clamp_index,
    cover,
    divide_up,
    find_lines,
    find_offset,
    get_exponent,
    jit,
    pick,
    run_all,
)
from trainer.exact.triton_reduce import (
    FLOOR,
    SUM_F32,
    finish_sum,
    to_term,
)

_TILE: Final = 1024
_COLUMNS: Final = 256
_WORDS: Final = 256  # counters of a program

MASK_32: Final = tl.constexpr(0xFFFFFFFF)
MULTIPLIER_0: Final = tl.constexpr(MULTIPLIERS[0])
MULTIPLIER_1: Final = tl.constexpr(MULTIPLIERS[1])
WEYL_0: Final = tl.constexpr(WEYL[0])
WEYL_1: Final = tl.constexpr(WEYL[1])
ROUND_COUNT: Final = tl.constexpr(ROUNDS)


@jit
def gather(
    index: tl.tensor,
    source: tl.tensor,
    out: tl.tensor,
    index_offset: tl.tensor,
    source_offset: tl.tensor,
    out_offset: tl.tensor,
    bound: tl.tensor,
    index_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    column_blocks: tl.tensor,
    sizes: tl.tensor,
    index_strides: tl.tensor,
    source_strides: tl.tensor,
    out_strides: tl.tensor,
    index_step: tl.tensor,
    source_step: tl.tensor,
    out_step: tl.tensor,
    IS_FLOAT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
) -> None:
    """Read a tile of rows and columns at clamped indices."""
    block = tl.program_id(0)
    row = find_lines(block // column_blocks, R, True)[:, None]
    column = find_lines(block % column_blocks, C, True)[None, :]
    mask = (row < rows) & (column < columns)
    at = index_offset + find_offset(row, sizes, index_strides) + column * index_step
    place = clamp_index(tl.load(index + at, mask=mask, other=0), bound)
    at = source_offset + find_offset(row, sizes, source_strides) + column * source_step
    value = tl.load(source + at + place * index_stride, mask=mask)
    if IS_FLOAT:
        value = canonical(value)
    at = out_offset + find_offset(row, sizes, out_strides) + column * out_step
    tl.store(out + at, value, mask=mask)


def plan_gather(
    memory: Memory,
    shape: Sequence[int],
    index: Strided,
    source: Strided,
    attributes: tuple[int, int],
    out: Strided,
) -> Step:
    """Return a function that reads ``source[view + clamp(index) * index_stride]`` into ``out``.

    ``attributes`` are the bound and the index stride."""
    order = sorted(range(len(shape)), key=lambda axis: -out.strides[axis])
    views = (index, source, out)
    sizes, strides = collapse_axes(pick(shape, order), [pick(x.strides, order) for x in views])
    rows = sizes[:-1] or (1,)
    count, columns = 1, sizes[-1]
    for size in rows:
        count *= size
    width = cover(columns, _COLUMNS)
    height = cover(count, _TILE // width)
    column_blocks = divide_up(columns, width)
    arguments = (
        *(index.offset, source.offset, out.offset, *attributes, count, columns, column_blocks),
        *(rows, *(view[:-1] or (0,) for view in strides), *(view[-1] for view in strides)),
        *(out.dtype is Dtype.F32, height, width),
    )
    entries = (index.entry, source.entry, out.entry)
    return memory.bind(gather, divide_up(count, height) * column_blocks, entries, arguments)


@jit
def scatter_terms(
    index: tl.tensor,
    x: tl.tensor,
    largest: tl.tensor,
    totals: tl.tensor,
    index_offset: tl.tensor,
    x_offset: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    column_blocks: tl.tensor,
    bound: tl.tensor,
    row_sizes: tl.tensor,
    row_index: tl.tensor,
    row_x: tl.tensor,
    column_sizes: tl.tensor,
    column_index: tl.tensor,
    column_x: tl.tensor,
    R: tl.constexpr,
    C: tl.constexpr,
) -> None:
    """Add the terms of a tile of source rows and columns to the ``totals`` [bound, columns]."""
    block = tl.program_id(0)
    row = find_lines(block // column_blocks, R, True)[:, None]
    column = find_lines(block % column_blocks, C, True)[None, :]
    mask = (row < rows) & (column < columns)
    at = index_offset + find_offset(row, row_sizes, row_index)
    at += find_offset(column, column_sizes, column_index)
    place = clamp_index(tl.load(index + at, mask=mask, other=0), bound)
    at = x_offset + find_offset(row, row_sizes, row_x) + find_offset(column, column_sizes, column_x)
    value = tl.load(x + at, mask=mask, other=0.0)
    exponent = get_exponent(tl.load(largest + column, mask=column < columns, other=0), 0, FLOOR)
    term = to_term(value, exponent, SUM_F32)
    tl.atomic_add(totals + place * columns + column, term, mask=mask, sem="relaxed")


@jit
def finish_table(
    largest: tl.tensor,
    totals: tl.tensor,
    out: tl.tensor,
    out_offset: tl.tensor,
    count: tl.tensor,
    columns: tl.tensor,
    SIZE: tl.constexpr,
) -> None:
    """Store the table [bound, columns] of sums."""
    at = find_lines(tl.program_id(0), SIZE, True)
    mask = at < count
    exponent = get_exponent(tl.load(largest + at % columns, mask=mask, other=0), 0, FLOOR)
    total = tl.load(totals + at, mask=mask, other=0)
    tl.store(out + out_offset + at, finish_sum(total, exponent), mask=mask)


def plan_scatter_add(
    memory: Memory,
    shape: Sequence[int],
    reduced: int,
    index: Strided,
    x: Strided,
    bound: int,
    out: Strided,
) -> Step:
    """Return a function that adds ``x``'s elements to rows ``clamp(index)`` of ``out`` [bound, columns]."""
    views = (index.strides, x.strides)
    row_sizes, row_strides = collapse_axes(shape[:reduced], [view[:reduced] for view in views])
    sizes, strides = collapse_axes(shape[reduced:], [view[reduced:] for view in views])
    groups = make_groups(x, sizes, strides[1], (row_sizes, row_strides[1]))
    columns, rows = groups.count, groups.terms
    memory.reserve(columns, bound * columns)
    width = cover(columns, _COLUMNS)
    height = cover(rows, _TILE // width)
    column_blocks = divide_up(columns, width)
    arguments = (
        *(index.offset, x.offset, rows, columns, column_blocks, bound),
        *(row_sizes, *row_strides, sizes, *strides, height, width),
    )
    entries = (index.entry, x.entry, LARGEST, TOTALS)
    finish = (out.offset, bound * columns, columns, _TILE)
    return run_all(
        [
            plan_greatest(memory, groups, keys=False),
            memory.fill(TOTALS, bound * columns, 0),
            memory.bind(scatter_terms, divide_up(rows, height) * column_blocks, entries, arguments),
            memory.bind(
                finish_table,
                divide_up(bound * columns, _TILE),
                (LARGEST, TOTALS, out.entry),
                finish,
            ),
        ]
    )


@jit
def draw_words(
    key: tl.tensor,
    c1: tl.tensor,
    c2: tl.tensor,
    c3: tl.tensor,
    out: tl.tensor,
    key_at: tl.tensor,
    c1_at: tl.tensor,
    c2_at: tl.tensor,
    c3_at: tl.tensor,
    out_offset: tl.tensor,
    count: tl.tensor,
    SIZE: tl.constexpr,
) -> None:
    """Write the words of ``SIZE`` counters."""
    block = find_lines(tl.program_id(0), SIZE, True)
    word0 = block & MASK_32
    word1 = tl.load(c1 + c1_at) & MASK_32
    word2 = tl.load(c2 + c2_at) & MASK_32
    word3 = tl.load(c3 + c3_at) & MASK_32
    key0 = tl.load(key + key_at) & MASK_32
    key1 = (tl.load(key + key_at) >> 32) & MASK_32
    for _ in tl.static_range(ROUND_COUNT):
        product0, product1 = word0 * MULTIPLIER_0, word2 * MULTIPLIER_1
        word0 = ((product1 >> 32) & MASK_32) ^ word1 ^ key0
        word1 = product1 & MASK_32
        word2 = ((product0 >> 32) & MASK_32) ^ word3 ^ key1
        word3 = product0 & MASK_32
        key0 = (key0 + WEYL_0) & MASK_32
        key1 = (key1 + WEYL_1) & MASK_32
    at = 4 * block
    tl.store(out + out_offset + at, word0, mask=at < count)
    tl.store(out + out_offset + at + 1, word1, mask=at + 1 < count)
    tl.store(out + out_offset + at + 2, word2, mask=at + 2 < count)
    tl.store(out + out_offset + at + 3, word3, mask=at + 3 < count)


def plan_random(memory: Memory, count: int, scalars: Sequence[Strided], out: Strided) -> Step:
    """Return a function that fills ``out`` with Philox words; ``scalars`` are the key and the counters."""
    arguments = (*(x.offset for x in scalars), out.offset, count, _WORDS)
    entries = (*(x.entry for x in scalars), out.entry)
    return memory.bind(draw_words, divide_up(count, 4 * _WORDS), entries, arguments)
