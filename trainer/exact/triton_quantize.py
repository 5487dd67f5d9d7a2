"""Quantizing into int8 digits: [rows, digits, pitch], the lowest digit first.

``pitch`` is the row length rounded up to 16; what lies between is zero, so that dots may read whole vectors.
Every width is split into digits of 8 bits, ``q = sum(digit << 8 i)``, each within [-128, 127].
"""

# ruff: noqa: FBT003, PLR0913 - kernels take views apart

from collections.abc import Sequence
from typing import Final

import torch
import triton.language as tl
from torch import Tensor

from market.protocol.constants import QUANTIZE_BUMPS, QUANTIZE_FLOOR
from trainer.exact.fused_native import Strided, collapse_axes
from trainer.exact.triton_groups import (
    find_greatest,
    make_groups,
    plan_greatest,
)
from trainer.exact.triton_native import (
    LARGEST,
    Memory,
    Step,
    divide_up,
    find_lines,
    find_offset,
    get_exponent,
    is_wide,
    jit,
    round_to_i32,
    run_all,
    scale_up,
)

DIGITS: Final = {8: 1, 14: 2, 16: 2, 24: 3}
FLOOR: Final = tl.constexpr(QUANTIZE_FLOOR)

_VECTOR: Final = 16  # bytes that a thread reads at once


def get_pitch(length: int) -> int:
    """Return the bytes from a digit of a row to the next."""
    return divide_up(length, _VECTOR) * _VECTOR


def view_digits(memory: Tensor, bits: int, length: int) -> Tensor:
    """Return bytes as digits [rows, digits, pitch]."""
    return memory.view(torch.int8).view(-1, DIGITS[bits], get_pitch(length))


def join_digits(digits: Tensor, bits: int, length: int) -> Tensor:
    """Return the integers of ``digits``, [rows, length] in the protocol's dtype."""
    total = torch.zeros((len(digits), length), dtype=torch.int32, device=digits.device)
    for i in reversed(range(DIGITS[bits])):
        total = (total << 8) + digits[:, i, :length]
    return total if bits > 16 else total.to(torch.int16)


def split_digits(q: Tensor, bits: int) -> Tensor:
    """Return the digits of integers [rows, length]."""
    rows, length = q.shape
    size = rows * DIGITS[bits] * get_pitch(length)
    digits = view_digits(torch.zeros(size, dtype=torch.int8, device=q.device), bits, length)
    rest = q.to(torch.int32)
    for i in range(DIGITS[bits]):
        higher = (rest + 128) >> 8
        digits[:, i, :length] = rest - (higher << 8)
        rest = higher
    return digits


@jit
def store_digits(
    at: tl.tensor, pitch: tl.tensor, value: tl.tensor, mask: tl.tensor, BITS: tl.constexpr
) -> None:
    """Store integers as digits, the lowest at ``at``."""
    if BITS > 8:
        tl.store(at, value.to(tl.int8), mask=mask)  # modulo 2^8: the balanced digit
        value = (value + 128) >> 8
        at += pitch
    if BITS > 16:
        tl.store(at, value.to(tl.int8), mask=mask)
        value = (value + 128) >> 8
        at += pitch
    tl.store(at, value.to(tl.int8), mask=mask)


@jit
def quantize_span(
    x: tl.tensor,
    target: tl.tensor,
    live: tl.tensor,
    exponent: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    step: tl.tensor,
    length: tl.tensor,
    pitch: tl.tensor,
    BITS: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Quantize rows that begin at ``x``, from ``start`` to ``end``; zero beyond their length."""
    for block in range(start // C, tl.cdiv(end, C)):
        k = find_lines(block, C, WIDE)[None, :]
        value = tl.load(x + k * step, mask=live & (k < length), other=0.0)
        integer = round_to_i32(scale_up(value, exponent, BITS - 1))
        store_digits(target + k, pitch, integer, live & (k < end), BITS)


@jit
def quantize_rows(
    x: tl.tensor,
    q: tl.tensor,
    exponents: tl.tensor,
    offset: tl.tensor,
    first: tl.tensor,
    rows: tl.tensor,
    length: tl.tensor,
    pitch: tl.tensor,
    sizes: tl.tensor,
    strides: tl.tensor,
    step: tl.tensor,
    BITS: tl.constexpr,
    BUMP: tl.constexpr,
    DIGIT_COUNT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Quantize ``R`` whole rows; the ``first`` is written at that number."""
    row = find_lines(tl.program_id(0), R, WIDE)[:, None]
    live = row < rows
    at = x + offset + find_offset(row, sizes, strides)
    largest = find_greatest(at, live, 0, length, (length,), (step,), False, R, C, WIDE)
    exponent = get_exponent(largest, BUMP, FLOOR)
    number = first + row.to(tl.int64)
    tl.store(exponents + number, exponent, mask=live)
    target = q + number * (DIGIT_COUNT * pitch)
    quantize_span(at, target, live, exponent, 0, pitch, step, length, pitch, BITS, C, WIDE)


@jit
def quantize_parts(
    x: tl.tensor,
    largest: tl.tensor,
    q: tl.tensor,
    exponents: tl.tensor,
    offset: tl.tensor,
    first: tl.tensor,
    rows: tl.tensor,
    row_blocks: tl.tensor,
    span: tl.tensor,
    length: tl.tensor,
    pitch: tl.tensor,
    sizes: tl.tensor,
    strides: tl.tensor,
    step: tl.tensor,
    BITS: tl.constexpr,
    BUMP: tl.constexpr,
    DIGIT_COUNT: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Quantize ``span`` elements of ``R`` rows whose largest magnitudes are known."""
    block = tl.program_id(0)
    row = find_lines(block % row_blocks, R, WIDE)[:, None]
    live = row < rows
    at = x + offset + find_offset(row, sizes, strides)
    start = block // row_blocks * span
    end = tl.minimum(start + span, pitch)
    exponent = get_exponent(tl.load(largest + row, mask=live, other=0), BUMP, FLOOR)
    number = first + row.to(tl.int64)
    tl.store(exponents + number, exponent, mask=live & (start == 0))
    target = q + number * (DIGIT_COUNT * pitch)
    quantize_span(at, target, live, exponent, start, end, step, length, pitch, BITS, C, WIDE)


def plan_quantize(
    memory: Memory,
    shape: Sequence[int],
    x: Strided,
    bits: int,
    q: int,
    exponents: Strided,
) -> Step:
    """Return a function that quantizes ``x``, of ``shape``, into digits, the entry ``q``, and ``exponents``.

    Rows are written in order, from the number that is the exponents' offset."""
    length, step = shape[-1], x.strides[-1]
    sizes, (strides,) = collapse_axes(shape[:-1], [x.strides[:-1]])
    groups = make_groups(x, sizes, strides, ((length,), (step,)))
    wide = groups.wide or is_wide((groups.count, length), (length, 1))
    pitch = get_pitch(length)
    rows = x.offset, exponents.offset, groups.count
    rest = (
        *(length, pitch, sizes, strides, step, bits, QUANTIZE_BUMPS[bits], DIGITS[bits]),
        *(groups.rows, groups.columns, wide),
    )
    if not groups.shared:
        entries = (x.entry, q, exponents.entry)
        return memory.bind(quantize_rows, groups.blocks, entries, (*rows, *rest))
    span = groups.find_span()
    programs, whole = groups.blocks * divide_up(pitch, span), (x.entry, LARGEST, q, exponents.entry)
    parts = (*rows, groups.blocks, span, *rest)
    quantize = memory.bind(quantize_parts, programs, whole, parts)
    return run_all([plan_greatest(memory, groups, keys=False), quantize])
