"""Exact sums, ordered maxima and scattered sums over strided views.

A group is reduced run by run where its own elements are neighbours in memory; where neighbouring groups are,
a strip of them is reduced at once, so that memory is always read along lines.
"""

# ruff: noqa: C901, PLR0913 - kernels take addresses, not objects

from collections.abc import Sequence
from typing import Final

import numpy as np

from market.protocol.constants import POISON_EXPONENT, SUM_FLOOR, SUM_FRACTION_BITS
from market.protocol.tensors import Dtype
from trainer.exact.fused_dot import CANONICAL_NAN
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
    as_bits,
    as_f32,
    canonical,
    collapse_axes,
    compile_function,
    compile_kernel,
    f32_at,
    i32_at,
    i64_at,
    power_of_two,
    round_even,
)
from trainer.exact.fused_quantize import find_row, get_exponent

STRIP: Final = 64  # groups reduced at once
CHUNK_ELEMENTS: Final = 1 << 13
SUM_F32, SUM_I64, MAX_F32 = range(3)

# Arguments after the head
_X, _X_OFFSET, _OUT, _OUT_OFFSET, _WHAT, _GROUPS, _TERMS, _GROUPS_PER_CHUNK = range(HEAD, HEAD + 8)
_GROUP_RANK, _TERM_RANK = HEAD + 8, HEAD + 9
_BODY: Final = (
    HEAD + 10
)  # sizes of the groups' axes, their strides in x and out; the terms' sizes, their strides

LEAST_KEY: Final = np.int32(-0x80000000)


@compile_function
def finish_sum(total: Word, exponent: Word) -> Word:
    """Return ``total * 2^(exponent - 38)``, NaN for poison."""
    if exponent == POISON_EXPONENT:
        return as_f32(CANONICAL_NAN)
    return canonical(np.float32(total) * power_of_two(exponent - SUM_FRACTION_BITS))


@compile_function
def get_sum_scale(exponent: Word) -> Word:
    """Return 2^(38 - exponent), or 0 for poison."""
    return (
        np.float32(0) if exponent == POISON_EXPONENT else power_of_two(SUM_FRACTION_BITS - exponent)
    )


@compile_function
def _get_key(bits: Word) -> Word:
    return np.int32(bits ^ 0x7FFFFFFF) if bits < 0 else np.int32(bits)


@compile_function
def _find_run_largest(x: Word, step: Word, count: Word) -> Word:
    largest = np.int32(0)
    if step == 1:
        for i in range(count):
            magnitude = np.int32(i32_at(x)[i] & np.int32(0x7FFFFFFF))
            largest = magnitude if magnitude > largest else largest
    else:
        for i in range(count):
            magnitude = np.int32(i32_at(x)[i * step] & np.int32(0x7FFFFFFF))
            largest = magnitude if magnitude > largest else largest
    return np.int64(largest)


@compile_function
def _find_run_greatest_key(x: Word, step: Word, count: Word) -> Word:
    greatest = LEAST_KEY
    if step == 1:
        for i in range(count):
            key = _get_key(as_bits(canonical(f32_at(x)[i])))
            greatest = key if key > greatest else greatest
    else:
        for i in range(count):
            key = _get_key(as_bits(canonical(f32_at(x)[i * step])))
            greatest = key if key > greatest else greatest
    return np.int64(greatest)


@compile_function
def _sum_run(x: Word, step: Word, count: Word, scale: Word) -> Word:
    total: Word = 0
    if step == 1:
        for i in range(count):
            total += np.int64(round_even(f32_at(x)[i] * scale))
    else:
        for i in range(count):
            total += np.int64(round_even(f32_at(x)[i * step] * scale))
    return total


@compile_function
def _sum_integers(x: Word, step: Word, count: Word) -> Word:
    total = 0
    for i in range(count):
        total += i64_at(x)[i * step]
    return total


@compile_function
def _reduce_group(x: Word, what: Word, terms: Word, rank: Word, sizes: Word, out: Word) -> None:
    """Reduce one group of ``terms`` elements, run by run of its last axis."""
    strides = sizes + 8 * rank
    inner, step = i64_at(sizes)[rank - 1], i64_at(strides)[rank - 1]
    if what == SUM_I64:
        total = 0
        for start in range(0, terms, inner):
            total += _sum_integers(x + 8 * find_row(start, rank, sizes, strides), step, inner)
        i64_at(out)[0] = total
    elif what == MAX_F32:
        greatest = np.int64(LEAST_KEY)
        for start in range(0, terms, inner):
            run = x + 4 * find_row(start, rank, sizes, strides)
            greatest = max(greatest, _find_run_greatest_key(run, step, inner))
        i32_at(out)[0] = _get_key(greatest)
    else:
        largest, total = 0, 0
        for start in range(0, terms, inner):
            run = x + 4 * find_row(start, rank, sizes, strides)
            largest = max(largest, _find_run_largest(run, step, inner))
        exponent = get_exponent(largest, 0, SUM_FLOOR)
        if exponent != POISON_EXPONENT:
            scale = get_sum_scale(exponent)
            for start in range(0, terms, inner):
                total += _sum_run(x + 4 * find_row(start, rank, sizes, strides), step, inner, scale)
        f32_at(out)[0] = finish_sum(total, exponent)


@compile_function
def _raise_largest(x: Word, count: Word, largest: Word) -> None:
    for i in range(count):
        magnitude = np.int32(i32_at(x)[i] & np.int32(0x7FFFFFFF))
        i32_at(largest)[i] = magnitude if magnitude > i32_at(largest)[i] else i32_at(largest)[i]


@compile_function
def _raise_keys(x: Word, count: Word, greatest: Word) -> None:
    for i in range(count):
        key = _get_key(as_bits(canonical(f32_at(x)[i])))
        i32_at(greatest)[i] = key if key > i32_at(greatest)[i] else i32_at(greatest)[i]


@compile_function
def _add_terms(x: Word, count: Word, scales: Word, totals: Word) -> None:
    for i in range(count):
        i64_at(totals)[i] += np.int64(round_even(f32_at(x)[i] * f32_at(scales)[i]))


@compile_function
def _reduce_strip(
    x: Word,
    what: Word,
    terms: Word,
    rank: Word,
    sizes: Word,
    count: Word,
    out: Word,
    out_step: Word,
    scratch: Word,
) -> None:
    """Reduce ``count`` groups (f32) that are neighbours in memory, a line of one term of each at a time."""
    strides = sizes + 8 * rank
    inner, step = i64_at(sizes)[rank - 1], i64_at(strides)[rank - 1]
    totals, largest, scales = scratch, scratch + 8 * STRIP, scratch + 12 * STRIP
    for i in range(count):
        i64_at(totals)[i] = 0
        i32_at(largest)[i] = LEAST_KEY if what == MAX_F32 else np.int32(0)
    for start in range(0, terms, inner):
        line = x + 4 * find_row(start, rank, sizes, strides)
        for k in range(inner):
            if what == MAX_F32:
                _raise_keys(line + 4 * k * step, count, largest)
            else:
                _raise_largest(line + 4 * k * step, count, largest)
    if what == MAX_F32:
        for i in range(count):
            i32_at(out)[i * out_step] = _get_key(i32_at(largest)[i])
        return
    for i in range(count):
        f32_at(scales)[i] = get_sum_scale(get_exponent(np.int64(i32_at(largest)[i]), 0, SUM_FLOOR))
    for start in range(0, terms, inner):
        line = x + 4 * find_row(start, rank, sizes, strides)
        for k in range(inner):
            _add_terms(line + 4 * k * step, count, scales, totals)
    for i in range(count):
        exponent = get_exponent(np.int64(i32_at(largest)[i]), 0, SUM_FLOOR)
        f32_at(out)[i * out_step] = finish_sum(i64_at(totals)[i], exponent)


def _run_reduce(args: Word) -> None:
    head = i64_at(args)
    table, what, terms, span = (
        i64_at(head[TABLE]),
        head[_WHAT],
        head[_TERMS],
        head[_GROUPS_PER_CHUNK],
    )
    scratch = table[SCRATCH] + add_atomically(args + 8 * NEXT_THREAD, 1) * head[SCRATCH_BYTES]
    rank, term_rank, sizes = head[_GROUP_RANK], head[_TERM_RANK], args + 8 * _BODY
    in_strides, out_strides, term_sizes = sizes + 8 * rank, sizes + 16 * rank, sizes + 24 * rank
    width = 8 if what == SUM_I64 else 4
    inner, out_step = i64_at(sizes)[rank - 1], i64_at(out_strides)[rank - 1]
    across = (
        what != SUM_I64
        and i64_at(in_strides)[rank - 1] == 1
        and i64_at(term_sizes)[2 * term_rank - 1] != 1
    )
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        group, end = chunk * span, min((chunk + 1) * span, head[_GROUPS])
        while group < end:
            x = table[head[_X]] + head[_X_OFFSET] + width * find_row(group, rank, sizes, in_strides)
            out = (
                table[head[_OUT]]
                + head[_OUT_OFFSET]
                + width * find_row(group, rank, sizes, out_strides)
            )
            count = min(STRIP, end - group, inner - group % inner) if across else 1
            if across:
                _reduce_strip(x, what, terms, term_rank, term_sizes, count, out, out_step, scratch)
            else:
                _reduce_group(x, what, terms, term_rank, term_sizes, out)
            group += count


get_reduce_kernel: Final = compile_kernel(_run_reduce)


def plan_reduce(shape: Sequence[int], reduced: int, what: int, x: Strided, out: Strided) -> Work:
    """Return the work of reducing the last ``reduced`` axes of ``x``, of ``shape``, into ``out``."""
    kept = len(shape) - reduced
    sizes, strides = collapse_axes(shape[:kept], [x.strides[:kept], out.strides[:kept]])
    order = sorted(
        range(kept, len(shape)), key=lambda axis: -x.strides[axis]
    )  # terms commute: read in order
    term_sizes, (term_strides,) = collapse_axes(
        [shape[i] for i in order], [[x.strides[i] for i in order]]
    )
    groups, terms = int(np.prod(sizes)), int(np.prod(term_sizes))
    span = max(1, CHUNK_ELEMENTS // terms)
    if strides[0][-1] == 1 and term_strides[-1] != 1:
        span = -(-span // STRIP) * STRIP
        if groups < 4 * STRIP:  # few groups with many terms: narrower strips for more threads
            span = STRIP // 2
    width = x.dtype.size
    arguments = [
        *(x.entry, x.offset * width, out.entry, out.offset * width, what, groups, terms, span),
        *(
            len(sizes),
            len(term_sizes),
            *sizes,
            *strides[0],
            *strides[1],
            *term_sizes,
            *term_strides,
        ),
    ]
    return Work(get_reduce_kernel(), arguments, -(-groups // span), 16 * STRIP, 4 * groups * terms)


def get_reduction(dtype: Dtype, *, maximum: bool) -> int:
    """Return what ``plan_reduce`` calls a `max`, or a `sum` of ``dtype``."""
    if maximum:
        return MAX_F32
    return SUM_I64 if dtype is Dtype.I64 else SUM_F32
