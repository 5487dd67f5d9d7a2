"""Combining the products of digits into the result of a dot: one integer, one rounding, two scalings."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from market.protocol.constants import POISON_EXPONENT
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import (
    CHUNKS,
    HEAD,
    NEXT_CHUNK,
    TABLE,
    Strided,
    Word,
    Work,
    add_atomically,
    as_f32,
    canonical,
    collapse_axes,
    compile_function,
    compile_kernel,
    f32_at,
    f64_at,
    i32_at,
    i64_at,
    power_of_two,
)
from trainer.exact.fused_quantize import find_row

CHUNK_ELEMENTS: Final = 1 << 13

# Arguments after the head
_P, _P_WIDE, _P_STEP, _ROW_STEP, _DIGITS_A, _DIGITS_B, _DIGIT_BITS = range(HEAD, HEAD + 7)
_EA, _EA_OFFSET, _BITS_A, _EB, _EB_OFFSET, _EB_STEP, _BITS_B = range(HEAD + 7, HEAD + 14)
_OUT, _OUT_OFFSET, _OUT_STEP, _ROWS, _COLUMNS, _ROWS_PER_CHUNK, _RANK = range(HEAD + 14, HEAD + 21)
_BODY: Final = HEAD + 21  # sizes of the rows' axes, then the strides of products, ea, eb and out

CANONICAL_NAN: Final = np.int32(0x7FC00000)
MASK_32: Final = 0xFFFFFFFF


@compile_function
def get_scale(exponent: Word, bits: Word) -> Word:
    """Return 2^(exponent - bits + 1), or NaN for poison."""
    if exponent == POISON_EXPONENT:
        return as_f32(CANONICAL_NAN)
    return power_of_two(exponent - bits + 1)


@compile_function
def _sum_digit_products(
    p: Word, wide: Word, row_step: Word, digits_a: Word, digits_b: Word, digit_bits: Word
) -> Word:
    """Return the integer whose digit products lie at ``p`` (any number of digits)."""
    total = 0
    for i in range(digits_a):
        for j in range(digits_b):
            at = i * row_step + j
            product = np.int64(f64_at(p)[at]) if wide != 0 else np.int64(i32_at(p)[at])
            total += product << (digit_bits * (digits_a - 1 - i + digits_b - 1 - j))
    return total


@compile_function
def _combine_row(args: Word, p: Word, scale_a: Word, eb: Word, out: Word) -> None:
    head = i64_at(args)
    columns, wide, p_step, row_step = head[_COLUMNS], head[_P_WIDE], head[_P_STEP], head[_ROW_STEP]
    eb_step, out_step, bits_b = head[_EB_STEP], head[_OUT_STEP], head[_BITS_B]
    digits_a, digits_b, digit_bits = head[_DIGITS_A], head[_DIGITS_B], head[_DIGIT_BITS]
    if (
        wide == 0
        and digits_a == 2
        and digits_b == 2
        and p_step == 2
        and eb_step == 1
        and out_step == 1
    ):
        high, low = i64_at(p), i64_at(p + 4 * row_step)  # a pair of i32 products in each word
        for n in range(columns):
            cross = (high[n] >> 32) + ((low[n] << 32) >> 32)
            total = (((high[n] << 32) >> 32) << 16) + (cross << 8) + (low[n] >> 32)
            y = np.float32(np.float32(total) * scale_a)
            f32_at(out)[n] = canonical(y * get_scale(i32_at(eb)[n], bits_b))
    elif (
        wide != 0
        and digits_a == 1
        and digits_b == 1
        and p_step == 1
        and eb_step == 1
        and out_step == 1
    ):
        for n in range(columns):
            whole = f64_at(p)[n] + 0.0  # a sum of 0 * -1 alone is -0, no integer
            y = np.float32(np.float32(whole) * scale_a)
            f32_at(out)[n] = canonical(y * get_scale(i32_at(eb)[n], bits_b))
    else:
        size = 8 if wide != 0 else 4
        for n in range(columns):
            total = _sum_digit_products(
                p + n * p_step * size, wide, row_step, digits_a, digits_b, digit_bits
            )
            y = np.float32(np.float32(total) * scale_a)
            f32_at(out)[n * out_step] = canonical(y * get_scale(i32_at(eb)[n * eb_step], bits_b))


def _run_combine(args: Word) -> None:
    head = i64_at(args)
    table, span, rank, sizes = (
        i64_at(head[TABLE]),
        head[_ROWS_PER_CHUNK],
        head[_RANK],
        args + 8 * _BODY,
    )
    size = 8 if head[_P_WIDE] != 0 else 4
    ea, eb = table[head[_EA]] + head[_EA_OFFSET], table[head[_EB]] + head[_EB_OFFSET]
    out = table[head[_OUT]] + head[_OUT_OFFSET]
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        for row in range(chunk * span, min((chunk + 1) * span, head[_ROWS])):
            p = table[head[_P]] + size * find_row(row, rank, sizes, sizes + 8 * rank)
            exponent = i32_at(ea)[find_row(row, rank, sizes, sizes + 16 * rank)]
            row_eb = eb + 4 * find_row(row, rank, sizes, sizes + 24 * rank)
            row_out = out + 4 * find_row(row, rank, sizes, sizes + 32 * rank)
            _combine_row(args, p, get_scale(exponent, head[_BITS_A]), row_eb, row_out)


get_combine_kernel: Final = compile_kernel(_run_combine)


def plan_combine(  # noqa: PLR0913 - two operands, their products and the result
    shape: Sequence[int],
    products: Strided,
    digits: tuple[int, int, int],
    row_step: int,
    exponents: tuple[Strided, Strided],
    bits: tuple[int, int],
    out: Strided,
) -> Work:
    """Return the work of combining ``products`` into ``out``, a view of ``shape``.

    The last axis is one of columns. ``products`` (i32, or i64 that stand for binary64) is strided by
    element; each has ``digits[0]`` rows, ``row_step`` apart, of ``digits[1]`` words; a digit has
    ``digits[2]`` bits."""
    views = [products, *exponents, out]
    sizes, strides = collapse_axes(shape[:-1], [view.strides[:-1] for view in views])
    rows, columns = int(np.prod(sizes)), shape[-1]
    span = max(1, CHUNK_ELEMENTS // columns)
    assert exponents[0].strides[-1] == 0 or columns == 1
    wide = int(products.dtype is Dtype.I64)
    arguments = [
        *(products.entry, wide, products.strides[-1], row_step, *digits),
        *(exponents[0].entry, 4 * exponents[0].offset, bits[0]),
        *(exponents[1].entry, 4 * exponents[1].offset, exponents[1].strides[-1], bits[1]),
        *(out.entry, 4 * out.offset, out.strides[-1], rows, columns, span, len(sizes), *sizes),
        *(stride for view in strides for stride in view),
    ]
    return Work(get_combine_kernel(), arguments, -(-rows // span), 0, 8 * rows * columns)
