"""Quantizing in one pass over memory: a row's exponent and integers, in the form that a carrier multiplies.

A quantized tensor is kept as balanced digits of 8 bits (``DIGITS_I8``: [rows, digits, K], the highest digit
first), as binary64 integers (``WHOLE_F64``), or, for 24 bits, as two binary64 digits of 12 bits
(``DIGITS_F64``). ``PLAIN`` is the protocol's own form. Rows that lie across memory are transposed, a tile at
a time, on their way into the cache.
"""

# ruff: noqa: C901 - a kernel's branches are its forms

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np

from market.protocol.constants import POISON_EXPONENT, QUANTIZE_BUMPS, QUANTIZE_FLOOR
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import (
    CHUNKS,
    HEAD,
    NEXT_CHUNK,
    NEXT_THREAD,
    SCRATCH,
    SCRATCH_BYTES,
    TABLE,
    TILE,
    Strided,
    Word,
    Work,
    add_atomically,
    collapse_axes,
    compile_function,
    compile_kernel,
    f32_at,
    f64_at,
    i8_at,
    i16_at,
    i32_at,
    i64_at,
    power_of_two,
    round_even,
    transpose_tile,
)


class Form(IntEnum):
    """How the integers of a quantized tensor are stored."""

    PLAIN_I16 = 0
    PLAIN_I32 = 1
    DIGITS_I8 = 2
    WHOLE_F64 = 3
    DIGITS_F64 = 4


I8_DIGITS: Final = {8: 1, 14: 2, 16: 2, 24: 3}
F64_DIGIT_BITS: Final = 12
CHUNK_ELEMENTS: Final = 1 << 13

PLAIN_I16, PLAIN_I32, DIGITS_I8, WHOLE_F64, DIGITS_F64 = (int(form) for form in Form)

# Arguments after the head
_X, _X_OFFSET, _STEP, _ROWS, _LENGTH, _BITS, _BUMP, _FORM = range(HEAD, HEAD + 8)
_Q, _Q_OFFSET, _ROW_BYTES, _E, _E_OFFSET, _ROWS_PER_CHUNK, _RANK = range(HEAD + 8, HEAD + 15)
_BODY: Final = HEAD + 15  # sizes of the rows' axes, then their strides

INFINITY_BITS: Final = np.int32(0x7F800000)


@compile_function
def get_exponent(largest: Word, bump: Word, floor: Word) -> Word:
    """Return the exponent of a group from the largest of its magnitudes' bits."""
    if largest >= 0x7F800000:
        return POISON_EXPONENT
    return max(((largest + bump) >> 23) - 126, floor)


@compile_function
def find_row(row: Word, rank: Word, sizes: Word, strides: Word) -> Word:
    """Return the offset of the flat index ``row``."""
    offset = 0
    for axis in range(rank - 1, -1, -1):
        offset += (row % i64_at(sizes)[axis]) * i64_at(strides)[axis]
        row //= i64_at(sizes)[axis]
    return offset


@compile_function
def _gather_row(source: Word, step: Word, length: Word, target: Word) -> None:
    for k in range(length):
        i32_at(target)[k] = i32_at(source)[k * step]


@compile_function
def _transpose_rows(
    source: Word, step: Word, length: Word, target: Word, target_step: Word
) -> None:
    """Write 16 rows that are neighbours in memory, whose elements are ``step`` apart, one after the other."""
    whole = length // TILE * TILE
    for k in range(0, whole, TILE):
        transpose_tile(source + 4 * k * step, 4 * step, target + 4 * k, target_step)
    for k in range(whole, length):
        for row in range(TILE):
            i32_at(target + row * target_step)[k] = i32_at(source)[k * step + row]


@compile_function
def find_largest(row: Word, length: Word) -> Word:
    """Return the largest magnitude's bits in a contiguous row."""
    largest = np.int32(0)
    for k in range(length):
        magnitude = np.int32(i32_at(row)[k] & np.int32(0x7FFFFFFF))
        largest = magnitude if magnitude > largest else largest
    return np.int64(largest)


@compile_function
def _write_digits(row: Word, length: Word, scale: Word, bits: Word, target: Word) -> None:
    x = f32_at(row)
    if bits == 8:
        for k in range(length):
            i8_at(target)[k] = np.int8(np.int32(round_even(x[k] * scale)))
    elif bits == 24:
        for k in range(length):
            q = np.int32(round_even(x[k] * scale))
            high = np.int32((q + 128) >> 8)
            i8_at(target)[k] = np.int8(np.int32((high + 128) >> 8))
            i8_at(target + length)[k] = np.int8(high)
            i8_at(target + 2 * length)[k] = np.int8(q)
    else:
        for k in range(length):
            q = np.int32(round_even(x[k] * scale))
            i8_at(target)[k] = np.int8(np.int32((q + 128) >> 8))
            i8_at(target + length)[k] = np.int8(q)


@compile_function
def _write_row(row: Word, length: Word, scale: Word, bits: Word, form: Word, target: Word) -> None:
    x = f32_at(row)
    if form == DIGITS_I8:
        _write_digits(row, length, scale, bits, target)
    elif form == WHOLE_F64:
        for k in range(length):
            f64_at(target)[k] = np.float64(round_even(x[k] * scale))
    elif form == DIGITS_F64:
        for k in range(length):
            q = np.int32(round_even(x[k] * scale))
            high = np.int32((q + 2048) >> F64_DIGIT_BITS)
            f64_at(target)[k] = np.float64(high)
            f64_at(target + 8 * length)[k] = np.float64(np.int32(q - (high << F64_DIGIT_BITS)))
    elif form == PLAIN_I16:
        for k in range(length):
            i16_at(target)[k] = np.int16(np.int32(round_even(x[k] * scale)))
    else:
        for k in range(length):
            i32_at(target)[k] = np.int32(round_even(x[k] * scale))


@compile_function
def _quantize_row(args: Word, table: Word, row: Word, source: Word) -> None:
    head = i64_at(args)
    length, bits, row_bytes = head[_LENGTH], head[_BITS], head[_ROW_BYTES]
    exponent = get_exponent(find_largest(source, length), head[_BUMP], QUANTIZE_FLOOR)
    i32_at(i64_at(table)[head[_E]] + head[_E_OFFSET])[row] = np.int32(exponent)
    target = i64_at(table)[head[_Q]] + head[_Q_OFFSET] + row * row_bytes
    if exponent == POISON_EXPONENT:
        for k in range(row_bytes):
            i8_at(target)[k] = np.int8(0)
    else:
        _write_row(source, length, power_of_two(bits - 1 - exponent), bits, head[_FORM], target)


def _run_quantize(args: Word) -> None:
    head = i64_at(args)
    table, length, step, span = head[TABLE], head[_LENGTH], head[_STEP], head[_ROWS_PER_CHUNK]
    scratch = (
        i64_at(table)[SCRATCH] + add_atomically(args + 8 * NEXT_THREAD, 1) * head[SCRATCH_BYTES]
    )
    rank, sizes = head[_RANK], args + 8 * _BODY
    strides = sizes + 8 * rank
    memory, target_step = i64_at(table)[head[_X]] + head[_X_OFFSET], 4 * length + 64
    inner = i64_at(sizes)[rank - 1]
    across = step != 1 and i64_at(strides)[rank - 1] == 1
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        row, end = chunk * span, min((chunk + 1) * span, head[_ROWS])
        while row < end:
            source = memory + 4 * find_row(row, rank, sizes, strides)
            if across and row + TILE <= end and row % inner + TILE <= inner:
                _transpose_rows(source, step, length, scratch, target_step)
                for k in range(TILE):
                    _quantize_row(args, table, row + k, scratch + k * target_step)
                row += TILE
                continue
            if step != 1:
                _gather_row(source, step, length, scratch)
                source = scratch
            _quantize_row(args, table, row, source)
            row += 1


get_quantize_kernel: Final = compile_kernel(_run_quantize)


def get_row_bytes(bits: int, form: Form, length: int) -> int:
    """Return the bytes of a row of ``length`` integers in ``form``."""
    return (
        length
        * {
            Form.PLAIN_I16: 2,
            Form.PLAIN_I32: 4,
            Form.DIGITS_I8: I8_DIGITS[bits],
            Form.WHOLE_F64: 8,
            Form.DIGITS_F64: 16,
        }[form]
    )


def plan_quantize(
    shape: Sequence[int], x: Strided, bits: int, form: Form, q: Strided, exponents: Strided
) -> Work:
    """Return the work of quantizing ``x``, of ``shape``, to dense ``q`` (in ``form``) and ``exponents``."""
    length, step = shape[-1], x.strides[-1] if shape[-1] > 1 else 1
    sizes, (strides,) = collapse_axes(shape[:-1], [x.strides[:-1]])
    rows = int(np.prod(sizes))
    span = max(1, CHUNK_ELEMENTS // length)
    if step != 1:
        span = -(-span // TILE) * TILE
    row_bytes = get_row_bytes(bits, form, length)
    arguments = [
        *(
            x.entry,
            x.offset * Dtype.F32.size,
            step,
            rows,
            length,
            bits,
            QUANTIZE_BUMPS[bits],
            int(form),
        ),
        *(
            q.entry,
            q.offset * row_bytes,
            row_bytes,
            exponents.entry,
            exponents.offset * Dtype.I32.size,
            span,
        ),
        *(len(sizes), *sizes, *strides),
    ]
    scratch = TILE * (4 * length + 64) if step != 1 else 0
    return Work(get_quantize_kernel(), arguments, -(-rows // span), scratch, 4 * rows * length)
