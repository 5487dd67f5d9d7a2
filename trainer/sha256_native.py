"""SHA-256 of many messages at once: every lane of a vector register works on a message of its own.

One kernel turns a tensor's tiles into the roots of its subtrees of ``UNIT_TILES`` tiles. It is written over
vectors of ``LANES`` words, so any CPU runs it: 16 lanes where the target has AVX-512, else 8. It is compiled
once and cached like the fused kernels, under a digest that covers this file too.
"""

# ruff: noqa: ARG001 - an intrinsic's parameters are those of the function it defines

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # it has no stubs
from numba.core.registry import cpu_target

from market.protocol.constants import TILE_BYTES
from trainer.exact import fused_native
from trainer.exact.fused_native import (
    Decorator,
    Word,
    add_atomically,
    compile_cached,
    compile_function,
    i32_at,
    i64_at,
    intrinsic,
    types,
    u8_at,
)

UNIT_TILES: Final = 256  # tiles under a root that the kernel gives: one thread's work at a time
UNIT_HEIGHT: Final = 8

# The arguments (i64): what threads count together, how many units there are, then addresses.
NEXT_UNIT: Final = 0
NEXT_THREAD: Final = 1
UNIT_COUNT: Final = 2
TENSOR_TABLE: Final = 3
UNIT_TABLE: Final = 4
MISSING: Final = 5  # the roots of trees without leaves, by height
ROOTS: Final = 6  # the results
SCRATCH: Final = 7  # SCRATCH_BYTES for each thread

# A tensor's row of the first table (i64): addresses, and its tiles in rows that none of them crosses.
DATA: Final = 0
DOMAIN: Final = 1
EXPONENTS: Final = 2  # big-endian i32, one a row
ROW_BYTES: Final = 3
ROW_TILES: Final = 4
TILES: Final = 5
HEIGHT: Final = 6  # of its trees: at most UNIT_HEIGHT
TENSOR_WORDS: Final = 7

# A unit's row of the second table (i64).
TENSOR: Final = 0
FIRST_TILE: Final = 1
UNIT_WORDS: Final = 2

_TARGET: Final = cpu_target.target_context.codegen().magic_tuple()  # NUMBA_CPU_NAME caps it
LANES: Final = 16 if "+avx512f" in _TARGET[2].split(",") else 8

_DIGEST_BYTES: Final = 32
_NODE_BYTES: Final = 64
_HEAD_BYTES: Final = 36  # of a leaf's message: domain and exponent
_MESSAGE_BYTES: Final = 1088  # a leaf of a whole tile with SHA-256's padding: 17 blocks
_BLOCK_BYTES: Final = 64

# Scratch memory of a thread, in bytes.
_STATE_AT: Final = 0  # eight vectors
_LANES_AT: Final = _STATE_AT + 32 * LANES  # the address that each lane reads, then its blocks
_BLOCKS_AT: Final = _LANES_AT + 8 * LANES
_MESSAGES_AT: Final = _BLOCKS_AT + 8 * LANES
_NODES_AT: Final = _MESSAGES_AT + _MESSAGE_BYTES * LANES
SCRATCH_BYTES: Final = _NODES_AT + _DIGEST_BYTES * UNIT_TILES

_WORD: Final = ir.IntType(32)
_ADDRESS: Final = ir.IntType(64)
_VECTOR: Final = ir.VectorType(_WORD, LANES)


def _take_root_bits(degree: int, count: int) -> list[int]:
    """Return the first 32 fractional bits of the ``degree``-th roots of the first ``count`` primes."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))][:count]
    return [_floor_root(prime << 32 * degree, degree) & 0xFFFFFFFF for prime in primes]


def _floor_root(value: int, degree: int) -> int:
    low, high = 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle)
    return low


_INITIAL: Final = tuple(_take_root_bits(2, 8))
_ROUND_CONSTANTS: Final = tuple(_take_root_bits(3, 64))
# The second block of a node's message: its 64 bytes were the first.
_NODE_PADDING: Final = (0x80000000, *[0] * 14, 8 * _NODE_BYTES)


def _fill(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}i32", fnty=kind)
    return builder.call(function, arguments)


def _mix(builder: Any, x: Any, *amounts: int, shift: int | None = None) -> Any:
    """Return the exclusive or of ``x`` rotated right by each of ``amounts`` and shifted by ``shift``."""
    parts = [_call(builder, "fshr", x, x, _fill(amount)) for amount in amounts]
    if shift is not None:
        parts.append(builder.lshr(x, _fill(shift)))
    return builder.xor(builder.xor(parts[0], parts[1]), parts[2])


def _compress(builder: Any, state: list[Any], words: list[Any]) -> list[Any]:
    """Return the eight words after ``state`` takes in a block of sixteen: FIPS 180-4, section 6.2.2."""
    add, both, words = builder.add, builder.and_, list(words)
    a, b, c, d, e, f, g, h = state
    for t, constant in enumerate(_ROUND_CONSTANTS):
        at = t % 16
        if t >= 16:
            early = _mix(builder, words[(t - 15) % 16], 7, 18, shift=3)
            late = _mix(builder, words[(t - 2) % 16], 17, 19, shift=10)
            words[at] = add(add(words[at], early), add(words[(t - 7) % 16], late))
        choice = builder.xor(g, both(e, builder.xor(f, g)))
        first = add(add(h, add(words[at], _fill(constant))), choice)
        first = add(first, _mix(builder, e, 6, 11, 25))
        majority = builder.or_(both(a, b), both(c, builder.or_(a, b)))
        second = add(_mix(builder, a, 2, 13, 22), majority)
        a, b, c, d, e, f, g, h = add(first, second), a, b, c, add(d, first), e, f, g
    return [add(old, new) for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of ``LANES`` rows; interleaving halves log2(LANES) times transposes."""
    half = LANES // 2
    for _ in range(LANES.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [_interleave(builder, *pair, part) for pair in pairs for part in (0, half)]
    return rows


def _interleave(builder: Any, first: Any, second: Any, start: int) -> Any:
    lanes = [start + i // 2 + (LANES if i % 2 else 0) for i in range(LANES)]
    return builder.shuffle_vector(first, second, ir.Constant(_VECTOR, lanes))


def _load_words(builder: Any, lanes: Any, offset: Any) -> list[Any]:
    """Return the sixteen words of the block at ``offset`` of every lane's message."""
    words = []
    for part in range(0, _BLOCK_BYTES, 4 * LANES):
        rows = []
        for lane in range(LANES):
            pointer = builder.inttoptr(
                builder.add(lanes, ir.Constant(_ADDRESS, 8 * lane)), _ADDRESS.as_pointer()
            )
            start = builder.add(builder.load(pointer, align=8), offset)
            at = builder.add(start, ir.Constant(_ADDRESS, part))
            row = builder.load(builder.inttoptr(at, _VECTOR.as_pointer()), align=1)
            rows.append(_call(builder, "bswap", row))
        words += _transpose(builder, rows)
    return words


def _update(builder: Any, state: Any, words: list[Any]) -> None:
    vectors = [
        builder.inttoptr(
            builder.add(state, ir.Constant(_ADDRESS, 4 * LANES * i)), _VECTOR.as_pointer()
        )
        for i in range(8)
    ]
    before = [builder.load(vector, align=4) for vector in vectors]
    for vector, value in zip(vectors, _compress(builder, before, words), strict=True):
        builder.store(value, vector, align=4)


@intrinsic
def _compress_block(_context: Any, state: Any, lanes: Any, offset: Any) -> Any:
    """Let the state take in the block at ``offset`` of the message at each address of ``lanes``."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        state, lanes, offset = arguments
        _update(builder, state, _load_words(builder, lanes, offset))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _compress_padding(_context: Any, state: Any) -> Any:
    """Let the state take in what follows a node's 64 bytes."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _update(builder, arguments[0], [_fill(word) for word in _NODE_PADDING])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _copy(_context: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy ``count`` bytes."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bytes_at = ir.IntType(8).as_pointer()
        kinds = [bytes_at, bytes_at, _ADDRESS]
        pointers = [builder.inttoptr(address, bytes_at) for address in arguments[:2]]
        is_volatile = ir.Constant(ir.IntType(1), 0)
        copy = builder.module.declare_intrinsic("llvm.memcpy", kinds)
        builder.call(copy, [*pointers, arguments[2], is_volatile])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _swap_bytes(_context: Any, value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return types.int32(types.int32), generate


# What is inlined before compilation is compiled once, and not again in each caller.
_inline_function: Final[Decorator] = numba.njit(error_model="numpy", inline="always")
_FIRST_STATE: Final = np.array(_INITIAL, dtype=np.uint32).view(np.int32)


@compile_function
def _begin(scratch: Word) -> None:
    state = i32_at(scratch + _STATE_AT)
    for word in range(8):
        for lane in range(LANES):
            state[word * LANES + lane] = _FIRST_STATE[word]


@compile_function
def _write_digest(scratch: Word, lane: Word, target: Word) -> None:
    state = i32_at(scratch + _STATE_AT)
    out = i32_at(target)
    for word in range(8):
        out[word] = _swap_bytes(state[word * LANES + lane])


@compile_function
def _write_message(tensor: Word, tile: Word, message: Word) -> Word:
    """Write the padded message of a tile's leaf; return how many blocks it has."""
    row = tile // tensor[ROW_TILES]
    at = (tile - row * tensor[ROW_TILES]) * TILE_BYTES
    size = min(TILE_BYTES, tensor[ROW_BYTES] - at)
    _copy(message, tensor[DOMAIN], 32)
    _copy(message + 32, tensor[EXPONENTS] + 4 * row, 4)
    _copy(message + _HEAD_BYTES, tensor[DATA] + row * tensor[ROW_BYTES] + at, size)
    end = _HEAD_BYTES + (size + 31) // 32 * 32
    blocks = (end + 9 + _BLOCK_BYTES - 1) // _BLOCK_BYTES
    out = u8_at(message)
    for i in range(_HEAD_BYTES + size, blocks * _BLOCK_BYTES):
        out[i] = 0
    out[end] = 0x80
    out[blocks * _BLOCK_BYTES - 2] = 8 * end >> 8
    out[blocks * _BLOCK_BYTES - 1] = 8 * end & 0xFF
    return blocks


@_inline_function
def _hash_leaves(tensor: Word, first: Word, count: Word, scratch: Word) -> None:
    """Write the leaves of ``count`` tiles from ``first`` on to the nodes in ``scratch``."""
    lanes = i64_at(scratch + _LANES_AT)
    blocks = i64_at(scratch + _BLOCKS_AT)
    for batch in range(0, count, LANES):
        used = min(LANES, count - batch)
        longest = 0
        for lane in range(LANES):
            # A lane without a tile repeats the last one.
            message = scratch + _MESSAGES_AT + min(lane, used - 1) * _MESSAGE_BYTES
            lanes[lane] = message
            if lane < used:
                blocks[lane] = _write_message(tensor, first + batch + lane, message)
                longest = max(longest, blocks[lane])
        _begin(scratch)
        for block in range(longest):
            _compress_block(scratch + _STATE_AT, scratch + _LANES_AT, block * _BLOCK_BYTES)
            for lane in range(used):
                if blocks[lane] == block + 1:
                    target = scratch + _NODES_AT + (batch + lane) * _DIGEST_BYTES
                    _write_digest(scratch, lane, target)


@_inline_function
def _hash_nodes(pairs: Word, scratch: Word) -> None:
    """Replace the nodes in ``scratch`` with the parents of ``pairs`` of them.

    Nothing is lost: parents are written where nodes were read before."""
    lanes = i64_at(scratch + _LANES_AT)
    for batch in range(0, pairs, LANES):
        used = min(LANES, pairs - batch)
        for lane in range(LANES):
            pair = batch + min(lane, used - 1)
            lanes[lane] = scratch + _NODES_AT + pair * _NODE_BYTES
        _begin(scratch)
        _compress_block(scratch + _STATE_AT, scratch + _LANES_AT, 0)
        _compress_padding(scratch + _STATE_AT)
        for lane in range(used):
            _write_digest(scratch, lane, scratch + _NODES_AT + (batch + lane) * _DIGEST_BYTES)


def _hash_units(address: int) -> None:
    """Write the roots of units until all are taken; any number of threads may do so at once."""
    arguments = i64_at(address)
    thread = add_atomically(address + 8 * NEXT_THREAD, 1)
    scratch = arguments[SCRATCH] + thread * SCRATCH_BYTES
    units = i64_at(arguments[UNIT_TABLE])
    missing, roots = arguments[MISSING], arguments[ROOTS]
    nodes = scratch + _NODES_AT
    while True:
        unit = add_atomically(address + 8 * NEXT_UNIT, 1)
        if unit >= arguments[UNIT_COUNT]:
            break
        row = units[unit * UNIT_WORDS + TENSOR]
        tensor = i64_at(arguments[TENSOR_TABLE] + 8 * TENSOR_WORDS * row)
        first = units[unit * UNIT_WORDS + FIRST_TILE]
        count = min(UNIT_TILES, tensor[TILES] - first)
        _hash_leaves(tensor, first, count, scratch)
        for height in range(tensor[HEIGHT]):
            if count & 1:
                _copy(nodes + count * _DIGEST_BYTES, missing + height * _DIGEST_BYTES, 32)
            count = (count + 1) // 2
            _hash_nodes(count, scratch)
        _copy(roots + unit * _DIGEST_BYTES, nodes, _DIGEST_BYTES)


@cache
def find_kernel() -> Callable[[int], None]:
    """Return the function of the address of the arguments; it holds no lock while it runs."""
    sources = Path(__file__), Path(fused_native.__file__)
    kernel: Callable[[int], None] = compile_cached(_hash_units, sources).ctypes
    return kernel
