"""Indexed reads, exact indexed sums and random words."""

# ruff: noqa: C901, PLR0913, PLR1714, SIM109 - kernels take addresses, not objects

from collections.abc import Sequence
from typing import Final

import numpy as np

from market.protocol.constants import SUM_FLOOR
from market.protocol.philox import MULTIPLIERS, ROUNDS, WEYL
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import (
    CHUNKS,
    HEAD,
    NEXT_CHUNK,
    NEXT_THREAD,
    SCRATCH,
    SCRATCH_BYTES,
    TABLE,
    Strided,
    Word,
    Work,
    add_atomically,
    canonical,
    collapse_axes,
    compile_function,
    compile_kernel,
    f32_at,
    i16_at,
    i32_at,
    i64_at,
    round_even,
    u8_at,
)
from trainer.exact.fused_quantize import find_row, get_exponent
from trainer.exact.fused_reduce import STRIP, finish_sum, get_sum_scale

CHUNK_ELEMENTS: Final = 1 << 13
U8, I16, I32, I64, F32 = (int(dtype) for dtype in Dtype)
STRIP_ELEMENTS: Final = 1 << 18  # of the totals that a thread keeps
MIN_STRIP: Final = 8
MASK_32: Final = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = MULTIPLIERS  # kernels see numbers, not tuples
WEYL_0, WEYL_1 = WEYL


@compile_function
def _read_index(memory: Word, dtype: Word, at: Word, bound: Word) -> Word:
    if dtype == I64:
        index = i64_at(memory)[at]
    elif dtype == I32:
        index = np.int64(i32_at(memory)[at])
    elif dtype == I16:
        index = np.int64(i16_at(memory)[at])
    else:
        index = np.int64(u8_at(memory)[at])
    return min(max(index, 0), bound - 1)


# Gather: arguments after the head
_INDEX, _INDEX_OFFSET, _INDEX_DTYPE, _SOURCE, _SOURCE_OFFSET, _OUT, _OUT_OFFSET = range(
    HEAD, HEAD + 7
)
_DTYPE, _BOUND, _INDEX_STRIDE, _TOTAL, _RUNS_PER_CHUNK, _RANK = range(HEAD + 7, HEAD + 13)
_BODY: Final = HEAD + 13  # sizes, then strides of index, source and out


@compile_function
def _copy_run(
    source: Word, source_step: Word, target: Word, target_step: Word, count: Word, dtype: Word
) -> None:
    if dtype == F32:
        for i in range(count):
            f32_at(target)[i * target_step] = canonical(f32_at(source)[i * source_step])
    elif dtype == I64:
        for i in range(count):
            i64_at(target)[i * target_step] = i64_at(source)[i * source_step]
    elif dtype == I32:
        for i in range(count):
            i32_at(target)[i * target_step] = i32_at(source)[i * source_step]
    elif dtype == I16:
        for i in range(count):
            i16_at(target)[i * target_step] = i16_at(source)[i * source_step]
    else:
        for i in range(count):
            u8_at(target)[i * target_step] = u8_at(source)[i * source_step]


@compile_function
def _gather_run(args: Word, index: Word, at: Word, source: Word, target: Word) -> None:
    """Gather along the last axis, from the element ``at`` of the index on."""
    head = i64_at(args)
    rank, sizes, dtype = head[_RANK], args + 8 * _BODY, head[_DTYPE]
    count, step = i64_at(sizes)[rank - 1], i64_at(sizes)[2 * rank - 1]
    source_step, target_step = i64_at(sizes)[3 * rank - 1], i64_at(sizes)[4 * rank - 1]
    width = 8 if dtype == I64 else 4 if dtype == F32 or dtype == I32 else 2 if dtype == I16 else 1
    jump = head[_INDEX_STRIDE] * width
    if step == 0:
        source += jump * _read_index(index, head[_INDEX_DTYPE], at, head[_BOUND])
        _copy_run(source, source_step, target, target_step, count, dtype)
        return
    for i in range(count):
        place = source + jump * _read_index(index, head[_INDEX_DTYPE], at + i * step, head[_BOUND])
        _copy_run(place + i * source_step * width, 0, target + i * target_step * width, 0, 1, dtype)


def _run_gather(args: Word) -> None:
    head = i64_at(args)
    table, rank, sizes, span = (
        i64_at(head[TABLE]),
        head[_RANK],
        args + 8 * _BODY,
        head[_RUNS_PER_CHUNK],
    )
    dtype, inner = head[_DTYPE], i64_at(sizes)[rank - 1]
    width = 8 if dtype == I64 else 4 if dtype == F32 or dtype == I32 else 2 if dtype == I16 else 1
    index = table[head[_INDEX]]
    source = table[head[_SOURCE]] + head[_SOURCE_OFFSET] * width
    out = table[head[_OUT]] + head[_OUT_OFFSET] * width
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        for start in range(
            chunk * span * inner, min((chunk + 1) * span * inner, head[_TOTAL]), inner
        ):
            at = head[_INDEX_OFFSET] + find_row(start, rank, sizes, sizes + 8 * rank)
            source_at = source + width * find_row(start, rank, sizes, sizes + 16 * rank)
            _gather_run(
                args,
                index,
                at,
                source_at,
                out + width * find_row(start, rank, sizes, sizes + 24 * rank),
            )


get_gather_kernel: Final = compile_kernel(_run_gather)


def plan_gather(
    shape: Sequence[int],
    index: Strided,
    source: Strided,
    bound: int,
    index_stride: int,
    out: Strided,
) -> Work:
    """Return the work of reading ``source[view + clamp(index) * index_stride]`` into ``out``."""
    views = [index, source, out]
    sizes, strides = collapse_axes(shape, [view.strides for view in views])
    total = int(np.prod(sizes))
    span = max(1, CHUNK_ELEMENTS // sizes[-1])
    arguments = [
        *(
            index.entry,
            index.offset,
            int(index.dtype),
            source.entry,
            source.offset,
            out.entry,
            out.offset,
        ),
        *(int(out.dtype), bound, index_stride, total, span, len(sizes), *sizes),
        *(stride for view in strides for stride in view),
    ]
    return Work(get_gather_kernel(), arguments, -(-total // (span * sizes[-1])), 0, 4 * total)


# Scatter: arguments after the head
_X, _X_OFFSET, _S_INDEX, _S_INDEX_OFFSET, _S_INDEX_DTYPE, _S_OUT, _S_OUT_OFFSET = range(
    HEAD, HEAD + 7
)
_S_BOUND, _COLUMNS, _ROWS, _STRIP, _COLUMN_RANK, _ROW_RANK = range(HEAD + 7, HEAD + 13)
_S_BODY: Final = (
    HEAD + 13
)  # sizes of the columns' axes, strides of x and index; the same of the rows


@compile_function
def _scatter_strip(
    args: Word, x: Word, index: Word, at: Word, out: Word, count: Word, scratch: Word
) -> None:
    """Sum ``count`` columns: ``x`` is the first row's first element, ``at`` its index's place."""
    head = i64_at(args)
    columns, bound, dtype = head[_COLUMNS], head[_S_BOUND], head[_S_INDEX_DTYPE]
    column_sizes, rank, row_rank = args + 8 * _S_BODY, head[_COLUMN_RANK], head[_ROW_RANK]
    x_step, index_step = i64_at(column_sizes)[2 * rank - 1], i64_at(column_sizes)[3 * rank - 1]
    rows = column_sizes + 24 * rank
    exponents, totals = i64_at(scratch), i64_at(scratch + 8 * count)
    for i in range(count):
        exponents[i] = 0
    for row in range(head[_ROWS]):
        source = x + 4 * find_row(row, row_rank, rows, rows + 8 * row_rank)
        for i in range(count):
            magnitude = np.int64(i32_at(source)[i * x_step]) & 0x7FFFFFFF
            exponents[i] = magnitude if magnitude > exponents[i] else exponents[i]
    for i in range(count):
        exponents[i] = get_exponent(exponents[i], 0, SUM_FLOOR)
    for i in range(bound * count):
        totals[i] = 0
    for row in range(head[_ROWS]):
        source = x + 4 * find_row(row, row_rank, rows, rows + 8 * row_rank)
        place = at + find_row(row, row_rank, rows, rows + 16 * row_rank)
        for i in range(count):
            target = _read_index(index, dtype, place + i * index_step, bound) * count + i
            scale = get_sum_scale(exponents[i])
            value = f32_at(source)[i * x_step] if scale != 0 else np.float32(0)
            totals[target] += np.int64(round_even(value * scale))
    for target in range(bound):
        for i in range(count):
            f32_at(out)[target * columns + i] = finish_sum(totals[target * count + i], exponents[i])


def _run_scatter(args: Word) -> None:
    head = i64_at(args)
    table, columns, strip = i64_at(head[TABLE]), head[_COLUMNS], head[_STRIP]
    scratch = table[SCRATCH] + add_atomically(args + 8 * NEXT_THREAD, 1) * head[SCRATCH_BYTES]
    rank, sizes = head[_COLUMN_RANK], args + 8 * _S_BODY
    inner = i64_at(sizes)[rank - 1]
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        column, end = chunk * strip, min((chunk + 1) * strip, columns)
        while column < end:
            count = min(end - column, inner - column % inner)
            x = table[head[_X]] + 4 * (
                head[_X_OFFSET] + find_row(column, rank, sizes, sizes + 8 * rank)
            )
            at = head[_S_INDEX_OFFSET] + find_row(column, rank, sizes, sizes + 16 * rank)
            out = table[head[_S_OUT]] + 4 * (head[_S_OUT_OFFSET] + column)
            _scatter_strip(args, x, table[head[_S_INDEX]], at, out, count, scratch)
            column += count


get_scatter_kernel: Final = compile_kernel(_run_scatter)


def plan_scatter_add(
    shape: Sequence[int], reduced: int, index: Strided, x: Strided, bound: int, out: Strided
) -> Work:
    """Return the work of adding rows of ``x`` to the dense ``out`` at ``index``."""
    sizes, strides = collapse_axes(shape[reduced:], [x.strides[reduced:], index.strides[reduced:]])
    row_sizes, row_strides = collapse_axes(
        shape[:reduced], [x.strides[:reduced], index.strides[:reduced]]
    )
    columns, rows = int(np.prod(sizes)), int(np.prod(row_sizes))
    strip = max(MIN_STRIP, min(STRIP, STRIP_ELEMENTS // bound, -(-columns // 4)))
    arguments = [
        *(x.entry, x.offset, index.entry, index.offset, int(index.dtype), out.entry, out.offset),
        *(bound, columns, rows, strip, len(sizes), len(row_sizes)),
        *(*sizes, *strides[0], *strides[1], *row_sizes, *row_strides[0], *row_strides[1]),
    ]
    scratch = 8 * strip * (bound + 1)
    return Work(
        get_scatter_kernel(), arguments, -(-columns // strip), scratch, 4 * columns * (rows + bound)
    )


# Random: arguments after the head
_R_OUT, _R_OUT_OFFSET, _COUNT = range(HEAD, HEAD + 3)
_SCALARS: Final = HEAD + 3  # entry and offset of key, c1, c2, c3


def _run_random(args: Word) -> None:
    head = i64_at(args)
    table, count = i64_at(head[TABLE]), head[_COUNT]
    out = i64_at(table[head[_R_OUT]] + 8 * head[_R_OUT_OFFSET])
    key = i64_at(table[head[_SCALARS]])[head[_SCALARS + 1]]
    c1 = i64_at(table[head[_SCALARS + 2]])[head[_SCALARS + 3]]
    c2 = i64_at(table[head[_SCALARS + 4]])[head[_SCALARS + 5]]
    c3 = i64_at(table[head[_SCALARS + 6]])[head[_SCALARS + 7]]
    for block in range((count + 3) // 4):
        w0, w1, w2, w3 = block & MASK_32, c1 & MASK_32, c2 & MASK_32, c3 & MASK_32
        key0, key1 = key & MASK_32, (key >> 32) & MASK_32
        for _ in range(ROUNDS):
            product0, product1 = MULTIPLIER_0 * w0, MULTIPLIER_1 * w2
            w0 = ((product1 >> 32) & MASK_32) ^ w1 ^ key0
            w2 = ((product0 >> 32) & MASK_32) ^ w3 ^ key1
            w1, w3 = product1 & MASK_32, product0 & MASK_32
            key0, key1 = (key0 + WEYL_0) & MASK_32, (key1 + WEYL_1) & MASK_32
        out[4 * block] = w0
        if 4 * block + 1 < count:
            out[4 * block + 1] = w1
        if 4 * block + 2 < count:
            out[4 * block + 2] = w2
        if 4 * block + 3 < count:
            out[4 * block + 3] = w3


get_random_kernel: Final = compile_kernel(_run_random)


def plan_random(count: int, scalars: Sequence[Strided], out: Strided) -> Work:
    """Return the work of filling ``out`` with ``count`` words; ``scalars`` are the key and three counters."""
    places = [word for view in scalars for word in (view.entry, view.offset)]
    return Work(get_random_kernel(), [out.entry, out.offset, count, *places], 1, 0, count)
