"""Groups of elements that share an exponent or a maximum: how programs divide them, and their greatest ranks.

What crosses programs is an int32 maximum, so any order gives the same bits.
"""

# ruff: noqa: PLR0913 - kernels take views apart

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import triton.language as tl

from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_native import (
    LARGEST,
    MAGNITUDE,
    Memory,
    Step,
    as_bits,
    canonical,
    cover,
    divide_up,
    find_lines,
    find_offset,
    is_wide,
    jit,
    run_all,
)

TILE: Final = 2048  # elements that a program holds at once
ENOUGH_PROGRAMS: Final = 512  # to keep a large device busy
_ACROSS: Final = 64  # groups side by side, where neighbouring groups are neighbours in memory
_LONGEST_LINE: Final = 1024

LEAST_KEY: Final = tl.constexpr(-0x80000000)


@jit
def get_key(bits: tl.tensor) -> tl.tensor:
    """Map patterns (int32) to keys whose order is that of `max`; its own inverse."""
    return tl.where(bits < 0, bits ^ MAGNITUDE, bits)


@jit
def get_rank(x: tl.tensor, KEYS: tl.constexpr) -> tl.tensor:
    """Return what a maximum is taken of: ordered keys, or patterns of magnitudes."""
    if KEYS:
        return get_key(as_bits(canonical(x)))
    else:  # noqa: RET505 - Triton compiles the branch that it takes alone
        return as_bits(x) & MAGNITUDE


@jit
def find_greatest(  # a tile of groups (rows) and terms (columns) at a time, from ``start`` to ``end``
    at: tl.tensor,
    live: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    term_sizes: tl.tensor,
    term_strides: tl.tensor,
    KEYS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Return the greatest rank of each group's terms; ``at`` points to where a group begins."""
    greatest = tl.full([R, C], LEAST_KEY, tl.int32)
    for block in range(start // C, tl.cdiv(end, C)):
        term = find_lines(block, C, WIDE)[None, :]
        mask = live & (term < end)
        value = tl.load(at + find_offset(term, term_sizes, term_strides), mask=mask)
        greatest = tl.maximum(greatest, tl.where(mask, get_rank(value, KEYS), LEAST_KEY))
    return tl.max(greatest, axis=1)[:, None]


@jit
def raise_greatest(
    x: tl.tensor,
    greatest: tl.tensor,
    offset: tl.tensor,
    groups: tl.tensor,
    terms: tl.tensor,
    group_blocks: tl.tensor,
    span: tl.tensor,
    group_sizes: tl.tensor,
    group_strides: tl.tensor,
    term_sizes: tl.tensor,
    term_strides: tl.tensor,
    KEYS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Raise the ``greatest`` rank of ``R`` groups by ``span`` of their terms."""
    block = tl.program_id(0)
    group = find_lines(block % group_blocks, R, WIDE)[:, None]
    live = group < groups
    at = x + offset + find_offset(group, group_sizes, group_strides)
    start = block // group_blocks * span
    end = tl.minimum(start + span, terms)
    found = find_greatest(at, live, start, end, term_sizes, term_strides, KEYS, R, C, WIDE)
    tl.atomic_max(greatest + group, found, mask=live, sem="relaxed")


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of terms in a view: both kinds of axes, collapsed, and a program's tile of them."""

    entry: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    term_sizes: tuple[int, ...]
    term_strides: tuple[int, ...]
    rows: int  # of a tile: groups,
    columns: int  # and terms
    wide: bool

    @property
    def count(self) -> int:
        """The number of groups."""
        return prod(self.sizes)

    @property
    def terms(self) -> int:
        """The number of terms of each."""
        return prod(self.term_sizes)

    @property
    def blocks(self) -> int:
        """The programs that cover all groups."""
        return divide_up(self.count, self.rows)

    @property
    def shared(self) -> bool:
        """Whether there are too few groups, with too many terms, for a program to take a whole one."""
        return self.blocks < ENOUGH_PROGRAMS // 4 and self.terms > 4 * self.columns

    def find_span(self) -> int:
        """Return how many terms a program takes, so that there are enough programs."""
        shares = max(1, ENOUGH_PROGRAMS // self.blocks)
        return self.columns * max(1, divide_up(self.terms, self.columns * shares))


def make_groups(
    view: Strided,
    sizes: Sequence[int],
    strides: Sequence[int],
    terms: tuple[Sequence[int], Sequence[int]],
) -> Groups:
    """Return groups over axes of ``sizes`` and ``strides`` with ``terms`` (sizes, strides), tiled."""
    term_sizes, (term_strides,) = collapse_axes(terms[0], [terms[1]])
    across = strides[-1] == 1 and term_strides[-1] != 1
    count, length = prod(sizes), prod(term_sizes)
    if across:
        rows = cover(count, _ACROSS)
        columns = cover(length, TILE // rows)
    else:
        columns = cover(length, _LONGEST_LINE)
        rows = cover(count, TILE // columns)
    wide = is_wide((*sizes, *term_sizes), (*strides, *term_strides))
    return Groups(
        *(view.entry, view.offset, tuple(sizes), tuple(strides), term_sizes, term_strides),
        *(rows, columns, wide),
    )


def plan_greatest(memory: Memory, groups: Groups, *, keys: bool) -> Step:
    """Return a function that leaves the greatest rank of each group in ``LARGEST``."""
    memory.reserve(groups.count)
    span = groups.find_span()
    programs = groups.blocks * divide_up(groups.terms, span)
    arguments = (
        *(groups.offset, groups.count, groups.terms, groups.blocks, span),
        *(groups.sizes, groups.strides, groups.term_sizes, groups.term_strides),
        *(keys, groups.rows, groups.columns, groups.wide),
    )
    fill = memory.fill(LARGEST, groups.count, LEAST_KEY.value if keys else 0)
    return run_all(
        [fill, memory.bind(raise_greatest, programs, (groups.entry, LARGEST), arguments)]
    )
