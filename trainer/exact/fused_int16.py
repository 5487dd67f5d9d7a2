"""Dots of 16-bit integers without an 8-bit unit: whole integers times 8-bit digits, summed in 32 bits.

For processors before VNNI, where ``torch._int_mm`` saturates: pairs of 16-bit products are added in one
instruction (vpmaddwd), twice the multiplications of a float32 product in the same time. One operand is split,
``q = 256 high + low``. INVARIANT: 512 products of |q| <= 32639 and |digit| <= 128 sum to less than 2^31, so
after as many terms a tile goes to 64 bits; the rest is `fused_dot`'s combination.
"""

# ruff: noqa: ARG001 - an intrinsic's parameters are those of the function it defines

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # it has no stubs

from trainer.exact.fused_dot import get_scale
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
    compile_function,
    compile_kernel,
    f32_at,
    i16_at,
    i32_at,
    i64_at,
    intrinsic,
    types,
)
from trainer.exact.fused_quantize import find_row

TILE_ROWS: Final = 6
TILE_COLUMNS: Final = 8
BLOCK_TERMS: Final = 512
BLOCK_ROWS: Final = 480  # a multiple of TILE_ROWS
BLOCK_COLUMNS: Final = 32  # a multiple of TILE_COLUMNS

_PAIR_BYTES: Final = 64  # of both digits of two terms of TILE_COLUMNS columns
_PANEL_BYTES: Final = BLOCK_TERMS // 2 * _PAIR_BYTES

# Arguments after the head
_A, _B, _LENGTH, _BATCHES, _ROWS, _COLUMNS = range(HEAD, HEAD + 6)
_EA, _EA_OFFSET, _BITS_A, _EB, _EB_OFFSET, _BITS_B, _OUT, _OUT_OFFSET = range(HEAD + 6, HEAD + 14)
_RANKS: Final = HEAD + 14  # of batch, rows, columns; then sizes and strides (a, b, out) of each

# A thread's scratch
_SUMS: Final = 0
_PANELS: Final = _SUMS + 8 * BLOCK_ROWS * BLOCK_COLUMNS
_ROW_A: Final = _PANELS + _PANEL_BYTES * BLOCK_COLUMNS // TILE_COLUMNS
_ROW_EA: Final = _ROW_A + 8 * BLOCK_ROWS
_ROW_OUT: Final = _ROW_EA + 8 * BLOCK_ROWS
_COLUMN_B: Final = _ROW_OUT + 8 * BLOCK_ROWS
_COLUMN_OUT: Final = _COLUMN_B + 8 * BLOCK_COLUMNS
_COLUMN_SCALE: Final = _COLUMN_OUT + 8 * BLOCK_COLUMNS
_SCRATCH_BYTES: Final = _COLUMN_SCALE + 4 * BLOCK_COLUMNS


@intrinsic
def add_tile(
    _context: Any, rows: Any, shift: Any, panel: Any, pairs: Any, sums: Any, step: Any
) -> Any:
    """Add to a tile of i64 ``sums`` (rows ``step`` bytes apart) the products of rows and a panel's columns.

    ``rows`` is the address of TILE_ROWS addresses, ``shift`` bytes before the first of ``pairs`` terms."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows, shift, panel, pairs, sums, step = arguments
        word, wide = ir.IntType(64), ir.VectorType(ir.IntType(64), TILE_COLUMNS)
        addresses = [_load_address(builder, rows, row) for row in range(TILE_ROWS)]
        starts = [
            builder.inttoptr(builder.add(address, shift), ir.IntType(32).as_pointer())
            for address in addresses
        ]
        tile = _multiply_pairs(builder, starts, panel, pairs)
        eight = ir.Constant(wide, [8] * TILE_COLUMNS)
        for row in range(TILE_ROWS):
            high, low = (builder.sext(tile[2 * row + digit], wide) for digit in range(2))
            total = builder.add(builder.shl(high, eight), low)
            offset = builder.mul(step, ir.Constant(word, row))
            target = builder.inttoptr(builder.add(sums, offset), wide.as_pointer())
            builder.store(builder.add(builder.load(target, align=8), total), target, align=8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _load_address(builder: Any, table: Any, index: int) -> Any:
    word = ir.IntType(64)
    at = builder.add(table, ir.Constant(word, 8 * index))
    return builder.load(builder.inttoptr(at, word.as_pointer()))


def _multiply_pairs(builder: Any, starts: Sequence[Any], panel: Any, pairs: Any) -> list[Any]:
    """Return i32 sums over the loop of ``pairs``: for each row those of high digits, then of low ones."""
    word, lanes = ir.IntType(64), ir.VectorType(ir.IntType(32), TILE_COLUMNS)
    entry, loop, done = builder.block, *(builder.append_basic_block() for _ in range(2))
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(word)
    pair.add_incoming(ir.Constant(word, 0), entry)
    before = [builder.phi(lanes) for _ in range(2 * len(starts))]
    base = builder.add(panel, builder.mul(pair, ir.Constant(word, _PAIR_BYTES)))
    digits = [_load_halves(builder, base, digit) for digit in range(2)]
    after = []
    for row, start in enumerate(starts):
        terms = _repeat_pair(builder, builder.load(builder.gep(start, [pair]), align=2))
        for digit in range(2):
            total = _add_neighbours(builder, builder.mul(terms, digits[digit]))
            after.append(builder.add(before[2 * row + digit], total))
    following = builder.add(pair, ir.Constant(word, 1))
    pair.add_incoming(following, loop)
    for old, new in zip(before, after, strict=True):
        old.add_incoming(ir.Constant(lanes, [0] * TILE_COLUMNS), entry)
        old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, done)
    builder.position_at_end(done)
    return after


def _widen(builder: Any, halves: Any) -> Any:
    return builder.sext(halves, ir.VectorType(ir.IntType(32), 2 * TILE_COLUMNS))


def _load_halves(builder: Any, base: Any, digit: int) -> Any:
    halves = ir.VectorType(ir.IntType(16), 2 * TILE_COLUMNS)
    at = builder.add(base, ir.Constant(ir.IntType(64), digit * _PAIR_BYTES // 2))
    return _widen(builder, builder.load(builder.inttoptr(at, halves.as_pointer()), align=4))


def _repeat_pair(builder: Any, pair: Any) -> Any:
    lanes = ir.VectorType(ir.IntType(32), TILE_COLUMNS)
    unknown, first = ir.Constant(lanes, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(unknown, pair, first)
    all_lanes = builder.shuffle_vector(one, unknown, ir.Constant(lanes, [0] * TILE_COLUMNS))
    halves = ir.VectorType(ir.IntType(16), 2 * TILE_COLUMNS)
    return _widen(builder, builder.bitcast(all_lanes, halves))


def _add_neighbours(builder: Any, products: Any) -> Any:
    lanes = ir.VectorType(ir.IntType(32), TILE_COLUMNS)
    even, odd = (
        builder.shuffle_vector(
            products, products, ir.Constant(lanes, list(range(start, 2 * TILE_COLUMNS, 2)))
        )
        for start in (0, 1)
    )
    return builder.add(even, odd)


@compile_function
def _pack_pair(first: Word, second: Word, target: Word) -> None:
    """Write the digits of two terms of a column: the high ones, then TILE_COLUMNS words on the low ones."""
    high_first, high_second = (first + 128) >> 8, (second + 128) >> 8
    low_first, low_second = first - (high_first << 8), second - (high_second << 8)
    i32_at(target)[0] = np.int32((high_first & 0xFFFF) | (high_second << 16))
    i32_at(target)[TILE_COLUMNS] = np.int32((low_first & 0xFFFF) | (low_second << 16))


@compile_function
def _pack_column(source: Word, terms: Word, target: Word) -> None:
    """Write a column's ``terms`` where `add_tile` reads them; an odd last one is paired with 0."""
    q = i16_at(source)
    for pair in range(terms >> 1):
        first, second = np.int64(q[2 * pair]), np.int64(q[2 * pair + 1])
        _pack_pair(first, second, target + pair * _PAIR_BYTES)
    if terms & 1:
        _pack_pair(np.int64(q[terms - 1]), np.int64(0), target + (terms >> 1) * _PAIR_BYTES)


@compile_function
def _find_rows(args: Word, axis: Word, start: Word, count: Word, which: Word, target: Word) -> None:
    """Write the offsets of ``count`` indices of an axis class in one of its three views."""
    head = i64_at(args)
    rank, lists = head[_RANKS + 2 * axis], args + 8 * head[_RANKS + 2 * axis + 1]
    for i in range(count):
        i64_at(target)[i] = find_row(start + i, rank, lists, lists + 8 * rank * (which + 1))


@compile_function
def _locate(args: Word, batch: Word, row: Word, rows: Word, column: Word, scratch: Word) -> None:
    """Fill the thread's tables of addresses for a block of rows and columns, the last rows repeated."""
    head, table = i64_at(args), i64_at(i64_at(args)[TABLE])
    _find_rows(args, 0, batch, 1, 0, scratch + _SUMS)
    a = i64_at(scratch + _SUMS)[0]
    _find_rows(args, 0, batch, 1, 1, scratch + _SUMS)
    b = i64_at(scratch + _SUMS)[0]
    _find_rows(args, 0, batch, 1, 2, scratch + _SUMS)
    out = table[head[_OUT]] + 4 * (head[_OUT_OFFSET] + i64_at(scratch + _SUMS)[0])
    row_bytes, columns = 2 * head[_LENGTH], min(BLOCK_COLUMNS, head[_COLUMNS] - column)
    _find_rows(args, 1, row, rows, 0, scratch + _ROW_A)
    _find_rows(args, 1, row, rows, 2, scratch + _ROW_OUT)
    ea, eb = (
        table[head[_EA]] + 4 * (head[_EA_OFFSET] + a),
        table[head[_EB]] + 4 * (head[_EB_OFFSET] + b),
    )
    for i in range(rows):
        at = i64_at(scratch + _ROW_A)[i]
        i64_at(scratch + _ROW_EA)[i] = ea + 4 * at
        i64_at(scratch + _ROW_A)[i] = head[_A] + row_bytes * (head[_EA_OFFSET] + a + at)
        i64_at(scratch + _ROW_OUT)[i] = out + 4 * i64_at(scratch + _ROW_OUT)[i]
    for i in range(rows, -(-rows // TILE_ROWS) * TILE_ROWS):
        i64_at(scratch + _ROW_A)[i] = i64_at(scratch + _ROW_A)[rows - 1]
    _find_rows(args, 2, column, columns, 1, scratch + _COLUMN_B)
    _find_rows(args, 2, column, columns, 2, scratch + _COLUMN_OUT)
    for i in range(columns):
        at = i64_at(scratch + _COLUMN_B)[i]
        f32_at(scratch + _COLUMN_SCALE)[i] = get_scale(np.int64(i32_at(eb)[at]), head[_BITS_B])
        i64_at(scratch + _COLUMN_B)[i] = head[_B] + row_bytes * (head[_EB_OFFSET] + b + at)


@compile_function
def _multiply_block(args: Word, rows: Word, columns: Word, scratch: Word) -> None:
    """Leave in the thread's sums the integer products of a block."""
    length = i64_at(args)[_LENGTH]
    for i in range(-(-rows // TILE_ROWS) * TILE_ROWS * BLOCK_COLUMNS):
        i64_at(scratch + _SUMS)[i] = 0
    for start in range(0, length, BLOCK_TERMS):
        terms = min(BLOCK_TERMS, length - start)
        for column in range(columns):
            source = i64_at(scratch + _COLUMN_B)[column] + 2 * start
            panel = scratch + _PANELS + column // TILE_COLUMNS * _PANEL_BYTES
            _pack_column(source, terms, panel + 4 * (column % TILE_COLUMNS))
        for column in range(0, columns, TILE_COLUMNS):
            panel = scratch + _PANELS + column // TILE_COLUMNS * _PANEL_BYTES
            for row in range(0, rows, TILE_ROWS):
                sums = scratch + _SUMS + 8 * (row * BLOCK_COLUMNS + column)
                addresses = scratch + _ROW_A + 8 * row
                add_tile(addresses, 2 * start, panel, (terms + 1) >> 1, sums, 8 * BLOCK_COLUMNS)


@compile_function
def _store_block(args: Word, rows: Word, columns: Word, scratch: Word) -> None:
    """Round, scale and store a block of sums."""
    for row in range(rows):
        exponent = np.int64(i32_at(i64_at(scratch + _ROW_EA)[row])[0])
        scale = get_scale(exponent, i64_at(args)[_BITS_A])
        sums = i64_at(scratch + _SUMS + 8 * row * BLOCK_COLUMNS)
        scales, places = f32_at(scratch + _COLUMN_SCALE), i64_at(scratch + _COLUMN_OUT)
        out = f32_at(i64_at(scratch + _ROW_OUT)[row])
        for column in range(columns):
            y = np.float32(np.float32(sums[column]) * scale)
            out[places[column]] = canonical(y * scales[column])


def _run_int16(args: Word) -> None:
    head = i64_at(args)
    thread = add_atomically(args + 8 * NEXT_THREAD, 1)
    scratch = i64_at(head[TABLE])[SCRATCH] + thread * head[SCRATCH_BYTES]
    row_blocks = -(-head[_ROWS] // BLOCK_ROWS)
    column_blocks = -(-head[_COLUMNS] // BLOCK_COLUMNS)
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        batch, rest = chunk // (row_blocks * column_blocks), chunk % (row_blocks * column_blocks)
        row, column = rest // column_blocks * BLOCK_ROWS, rest % column_blocks * BLOCK_COLUMNS
        rows, columns = (
            min(BLOCK_ROWS, head[_ROWS] - row),
            min(BLOCK_COLUMNS, head[_COLUMNS] - column),
        )
        _locate(args, batch, row, rows, column, scratch)
        _multiply_block(args, rows, columns, scratch)
        _store_block(args, rows, columns, scratch)


get_int16_kernel: Final = compile_kernel(_run_int16)


def plan_int16(
    axes: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    length: int,
    digits: tuple[int, int],
    exponents: tuple[Strided, Strided],
    bits: tuple[int, int],
    out: Strided,
) -> Work:
    """Return the work of contracting two operands of up to 16 bits, i16 rows at the addresses ``digits``.

    ``axes`` are those of the batch, of rows and of columns: sizes, and their strides in a's rows, in b's
    rows and in the elements of ``out``; ``exponents`` are views of the same rows."""
    batches, rows, columns = (prod(sizes) for sizes, _ in axes)
    arguments = [*digits, length, batches, rows, columns]
    arguments += [exponents[0].entry, exponents[0].offset, bits[0]]
    arguments += [exponents[1].entry, exponents[1].offset, bits[1], out.entry, out.offset]
    lists: list[int] = []
    ranks = []
    for sizes, strides in axes:
        ranks += [len(sizes), _RANKS + 2 * len(axes) + len(lists)]
        lists += [*sizes, *(stride for view in strides for stride in view)]
    chunks = batches * -(-rows // BLOCK_ROWS) * -(-columns // BLOCK_COLUMNS)
    cost = batches * rows * columns * length // TILE_COLUMNS
    return Work(get_int16_kernel(), [*arguments, *ranks, *lists], chunks, _SCRATCH_BYTES, cost)
