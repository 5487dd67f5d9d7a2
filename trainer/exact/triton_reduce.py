"""Exact sums and ordered maxima: of groups that a program reduces whole, or that many programs share.

What crosses programs is an int32 maximum or an int64 sum, so any order gives the same bits.
"""

# ruff: noqa: FBT003, PLR0913 - kernels take views apart

from collections.abc import Sequence
from typing import Final

import triton.language as tl

from market.protocol.constants import SUM_FLOOR, SUM_FRACTION_BITS
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_groups import (
    Groups,
    find_greatest,
    get_key,
    make_groups,
    plan_greatest,
)
from trainer.exact.triton_native import (
    LARGEST,
    TOTALS,
    Memory,
    Step,
    as_float,
    canonical,
    cover,
    divide_up,
    find_lines,
    find_offset,
    get_exponent,
    get_unscale,
    is_wide,
    jit,
    pick,
    round_even,
    run_all,
    scale_up,
)

_FINISHED: Final = 256  # groups whose results a program stores

FRACTION_BITS: Final = tl.constexpr(SUM_FRACTION_BITS)
FLOOR: Final = tl.constexpr(SUM_FLOOR)
SUM_F32: Final = tl.constexpr(0)
SUM_I64: Final = tl.constexpr(1)
MAX_F32: Final = tl.constexpr(2)


@jit
def to_term(x: tl.tensor, exponent: tl.tensor, WHAT: tl.constexpr) -> tl.tensor:
    """Return the integer that ``x`` is in a sum."""
    if WHAT == SUM_I64:
        return x
    else:  # noqa: RET505 - as above
        return round_even(scale_up(x, exponent, FRACTION_BITS)).to(tl.int64)


@jit
def finish_sum(total: tl.tensor, exponent: tl.tensor) -> tl.tensor:
    """Return ``total * 2^(exponent - 38)``, NaN for poison."""
    return canonical(total.to(tl.float32) * get_unscale(exponent, FRACTION_BITS))


@jit
def add_terms(  # likewise
    at: tl.tensor,
    live: tl.tensor,
    exponent: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    term_sizes: tl.tensor,
    term_strides: tl.tensor,
    WHAT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Return the int64 sum of each group's terms."""
    total = tl.zeros([R, C], tl.int64)
    for block in range(start // C, tl.cdiv(end, C)):
        term = find_lines(block, C, WIDE)[None, :]
        mask = live & (term < end)
        value = tl.load(at + find_offset(term, term_sizes, term_strides), mask=mask, other=0)
        total += to_term(value, exponent, WHAT)
    return tl.sum(total, axis=1)[:, None]


@jit
def reduce_whole(
    x: tl.tensor,
    out: tl.tensor,
    offset: tl.tensor,
    out_offset: tl.tensor,
    groups: tl.tensor,
    terms: tl.tensor,
    group_sizes: tl.tensor,
    group_strides: tl.tensor,
    out_strides: tl.tensor,
    term_sizes: tl.tensor,
    term_strides: tl.tensor,
    WHAT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Reduce ``R`` groups from their first term to their last."""
    group = find_lines(tl.program_id(0), R, WIDE)[:, None]
    live = group < groups
    at = x + offset + find_offset(group, group_sizes, group_strides)
    target = out + out_offset + find_offset(group, group_sizes, out_strides)
    if WHAT == MAX_F32:
        greatest = find_greatest(
            at,
            live,
            0,
            terms,
            term_sizes,
            term_strides,
            True,
            R,
            C,
            WIDE,
        )
        tl.store(target, as_float(get_key(greatest)), mask=live)
    elif WHAT == SUM_I64:
        total = add_terms(at, live, 0, 0, terms, term_sizes, term_strides, WHAT, R, C, WIDE)
        tl.store(target, total, mask=live)
    else:
        largest = find_greatest(
            at,
            live,
            0,
            terms,
            term_sizes,
            term_strides,
            False,
            R,
            C,
            WIDE,
        )
        exponent = get_exponent(largest, 0, FLOOR)
        total = add_terms(at, live, exponent, 0, terms, term_sizes, term_strides, WHAT, R, C, WIDE)
        tl.store(target, finish_sum(total, exponent), mask=live)


@jit
def add_to_totals(
    x: tl.tensor,
    largest: tl.tensor,
    totals: tl.tensor,
    offset: tl.tensor,
    groups: tl.tensor,
    terms: tl.tensor,
    group_blocks: tl.tensor,
    span: tl.tensor,
    group_sizes: tl.tensor,
    group_strides: tl.tensor,
    term_sizes: tl.tensor,
    term_strides: tl.tensor,
    WHAT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Add ``span`` of the terms of ``R`` groups to their ``totals``."""
    block = tl.program_id(0)
    group = find_lines(block % group_blocks, R, WIDE)[:, None]
    live = group < groups
    at = x + offset + find_offset(group, group_sizes, group_strides)
    start = block // group_blocks * span
    end = tl.minimum(start + span, terms)
    exponent = 0
    if WHAT == SUM_F32:
        exponent = get_exponent(tl.load(largest + group, mask=live, other=0), 0, FLOOR)
    total = add_terms(at, live, exponent, start, end, term_sizes, term_strides, WHAT, R, C, WIDE)
    tl.atomic_add(totals + group, total, mask=live, sem="relaxed")


@jit
def finish_groups(
    largest: tl.tensor,
    totals: tl.tensor,
    out: tl.tensor,
    out_offset: tl.tensor,
    groups: tl.tensor,
    group_sizes: tl.tensor,
    out_strides: tl.tensor,
    WHAT: tl.constexpr,
    R: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Store the results of groups that programs shared."""
    group = find_lines(tl.program_id(0), R, WIDE)
    live = group < groups
    target = out + out_offset + find_offset(group, group_sizes, out_strides)
    if WHAT == SUM_I64:
        tl.store(target, tl.load(totals + group, mask=live), mask=live)
    elif WHAT == MAX_F32:
        key = tl.load(largest + group, mask=live)
        tl.store(target, as_float(get_key(key)), mask=live)
    else:
        exponent = get_exponent(tl.load(largest + group, mask=live, other=0), 0, FLOOR)
        total = tl.load(totals + group, mask=live, other=0)
        tl.store(target, finish_sum(total, exponent), mask=live)


def _plan_totals(memory: Memory, groups: Groups, what: int) -> Step:
    memory.reserve(0, groups.count)
    span = groups.find_span()
    programs = groups.blocks * divide_up(groups.terms, span)
    arguments = (
        *(groups.offset, groups.count, groups.terms, groups.blocks, span),
        *(groups.sizes, groups.strides, groups.term_sizes, groups.term_strides),
        *(what, groups.rows, groups.columns, groups.wide),
    )
    add = memory.bind(add_to_totals, programs, (groups.entry, LARGEST, TOTALS), arguments)
    return run_all([memory.fill(TOTALS, groups.count, 0), add])


def get_reduction(dtype: Dtype, *, maximum: bool) -> int:
    """Return what ``plan_reduce`` calls a `max`, or a `sum` of ``dtype``."""
    what = MAX_F32 if maximum else SUM_I64 if dtype is Dtype.I64 else SUM_F32
    return int(what.value)


def plan_reduce(
    memory: Memory, shape: Sequence[int], reduced: int, what: int, x: Strided, out: Strided
) -> Step:
    """Return a function that reduces the last ``reduced`` axes of ``x``, of ``shape``, into ``out``."""
    kept = len(shape) - reduced
    by_step = sorted(
        range(len(shape)), key=lambda axis: -x.strides[axis]
    )  # groups and terms commute
    kept_axes = [axis for axis in by_step if axis < kept]
    term_axes = [axis for axis in by_step if axis >= kept]
    sizes, (strides, targets) = collapse_axes(
        pick(shape, kept_axes), [pick(view.strides, kept_axes) for view in (x, out)]
    )
    groups = make_groups(x, sizes, strides, (pick(shape, term_axes), pick(x.strides, term_axes)))
    target = Strided(out.entry, out.dtype, out.offset, targets)
    if groups.shared:
        return _plan_shared(memory, groups, what, target)
    wide = groups.wide or is_wide(sizes, targets)
    arguments = (
        *(x.offset, out.offset, groups.count, groups.terms, sizes, strides, targets),
        *(groups.term_sizes, groups.term_strides, what, groups.rows, groups.columns, wide),
    )
    return memory.bind(reduce_whole, groups.blocks, (x.entry, out.entry), arguments)


def _plan_shared(memory: Memory, groups: Groups, what: int, out: Strided) -> Step:
    steps: list[Step] = []
    if what != SUM_I64.value:
        steps.append(plan_greatest(memory, groups, keys=what == MAX_F32.value))
    if what != MAX_F32.value:
        steps.append(_plan_totals(memory, groups, what))
    block = cover(groups.count, _FINISHED)
    wide = is_wide(groups.sizes, out.strides)
    arguments = (out.offset, groups.count, groups.sizes, out.strides, what, block, wide)
    entries = (LARGEST, TOTALS, out.entry)
    steps.append(memory.bind(finish_groups, divide_up(groups.count, block), entries, arguments))
    return run_all(steps)
