"""Maps as a vectorized interpreter: one compiled kernel evaluates any code, a block of elements at a time.

A register is a block of scratch memory that stays in the first-level cache, or the operand's own memory where
that is contiguous. Every result is stored before it is read, so nothing can contract.
"""

# ruff: noqa: C901, PLR0913, PLR1714, SIM109, FBT003 - kernels take addresses, not objects

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market.protocol.program import SIGNATURES, MapOp, Op
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
    collapse_axes,
    compile_function,
    compile_kernel,
    i32_at,
    i64_at,
)
from trainer.exact.fused_registers import (
    BLOCK,
    F32,
    I64,
    evaluate_conversion,
    evaluate_float,
    evaluate_integer,
    get_size,
    load_run,
    store_run,
)

F32_SLOT: Final = (
    4 * BLOCK + 64
)  # bytes; the padding keeps slots from sharing their low address bits
I64_SLOT: Final = 8 * BLOCK + 64
BLOCKS_PER_CHUNK: Final = 8

_LAST_FLOAT, _LAST_CONVERSION = int(Op.ABS), int(Op.FROM_BITS)
CONSTANT, CONTIGUOUS, GENERAL = range(3)  # how an operand moves through the iteration

# Arguments after the head
_TOTAL, _BLOCKS_PER_CHUNK, _REGISTERS, _CONSTANTS, _LOADS, _OPS, _STORES, _RANK = range(
    HEAD, HEAD + 8
)
_BODY: Final = (
    HEAD + 8
)  # then the iteration's sizes, homes of registers, constants, loads, operations, stores
_CONSTANT_WORDS: Final = 3  # register, is f32, value
_OP_WORDS: Final = 5  # opcode, registers of the result and the operands
_VIEW_WORDS: Final = (
    5  # entry, offset in bytes, dtype, register, how it moves; then a stride for each axis
)


@compile_function
def _move(
    register: Word,
    memory: Word,
    view: Word,
    sizes: Word,
    index: Word,
    start: Word,
    count: Word,
    storing: Word,
) -> None:
    """Load or store ``count`` elements of a strided view from ``start`` on, run by run of its last axis.

    ``index`` is memory for the position in the iteration; the word before ``sizes`` is the rank."""
    dtype, strides, shape, rank = (
        i64_at(view)[2],
        i64_at(view + 8 * _VIEW_WORDS),
        i64_at(sizes),
        i64_at(sizes - 8)[0],
    )
    width, size, at = 4 if dtype == F32 else 8, get_size(dtype), i64_at(index)
    rest, offset = start, 0
    for axis in range(rank - 1, -1, -1):
        at[axis] = rest % shape[axis]
        offset += at[axis] * strides[axis]
        rest //= shape[axis]
    inner, step = shape[rank - 1], strides[rank - 1]
    column, done = at[rank - 1], 0
    while True:
        run = min(inner - column, count - done)
        if storing:
            store_run(memory + offset * size, register + done * width, dtype, step, run)
        else:
            load_run(register + done * width, memory + offset * size, dtype, step, run)
        done += run
        if done >= count:
            return
        offset -= column * step
        column, axis = 0, rank - 2
        at[axis] += 1
        offset += strides[axis]
        while axis > 0 and at[axis] == shape[axis]:
            offset -= at[axis] * strides[axis]
            at[axis] = 0
            axis -= 1
            at[axis] += 1
            offset += strides[axis]


@compile_function
def _load_block(
    view: Word,
    table: Word,
    registers: Word,
    homes: Word,
    sizes: Word,
    index: Word,
    start: Word,
    count: Word,
) -> None:
    entry, offset, dtype, register, move = (
        i64_at(view)[0],
        i64_at(view)[1],
        i64_at(view)[2],
        i64_at(view)[3],
        i64_at(view)[4],
    )
    memory, home = i64_at(table)[entry] + offset, i64_at(homes)[register]
    i64_at(registers)[register] = home
    if move == CONTIGUOUS and count == BLOCK and (dtype == F32 or dtype == I64):
        i64_at(registers)[register] = memory + start * get_size(dtype)
    elif move == CONTIGUOUS:
        load_run(home, memory + start * get_size(dtype), dtype, 1, count)
    elif move == GENERAL:
        _move(home, memory, view, sizes, index, start, count, False)


@compile_function
def _fill_constants(args: Word, table: Word, homes: Word, constants: Word, loads: Word) -> None:
    """Fill the registers that no block changes."""
    for k in range(i64_at(args)[_CONSTANTS]):
        constant = i64_at(constants + 8 * _CONSTANT_WORDS * k)
        home, is_f32, value = i64_at(homes)[constant[0]], constant[1], constant[2]
        for i in range(BLOCK):
            if is_f32 != 0:
                i32_at(home)[i] = np.int32(value)
            else:
                i64_at(home)[i] = value
    words = _VIEW_WORDS + i64_at(args)[_RANK]
    for k in range(i64_at(args)[_LOADS]):
        view = loads + 8 * words * k
        if i64_at(view)[4] == CONSTANT:
            memory = i64_at(table)[i64_at(view)[0]] + i64_at(view)[1]
            load_run(i64_at(homes)[i64_at(view)[3]], memory, i64_at(view)[2], 0, BLOCK)


def _run_map(args: Word) -> None:
    head = i64_at(args)
    table, rank, count = head[TABLE], head[_RANK], head[_REGISTERS]
    scratch = (
        i64_at(table)[SCRATCH] + add_atomically(args + 8 * NEXT_THREAD, 1) * head[SCRATCH_BYTES]
    )
    sizes = args + 8 * _BODY
    offsets = sizes + 8 * rank
    constants = offsets + 8 * count
    loads = constants + 8 * _CONSTANT_WORDS * head[_CONSTANTS]
    ops = loads + 8 * (_VIEW_WORDS + rank) * head[_LOADS]
    stores = ops + 8 * _OP_WORDS * head[_OPS]
    index, homes, registers = scratch, scratch + 64, scratch + 64 + 8 * count
    data = (registers + 8 * count + 63) // 64 * 64
    for k in range(count):
        i64_at(homes)[k] = data + i64_at(offsets)[k]
        i64_at(registers)[k] = i64_at(homes)[k]
    _fill_constants(args, table, homes, constants, loads)
    words, total, r = _VIEW_WORDS + rank, head[_TOTAL], i64_at(registers)
    span = BLOCK * head[_BLOCKS_PER_CHUNK]
    while True:
        chunk = add_atomically(args + 8 * NEXT_CHUNK, 1)
        if chunk >= head[CHUNKS]:
            return
        for start in range(chunk * span, min((chunk + 1) * span, total), BLOCK):
            n = min(BLOCK, total - start)
            for k in range(head[_LOADS]):
                _load_block(loads + 8 * words * k, table, registers, homes, sizes, index, start, n)
            for k in range(head[_OPS]):
                op = i64_at(ops + 8 * _OP_WORDS * k)
                code, d, a, b, c = op[0], r[op[1]], r[op[2]], r[op[3]], r[op[4]]
                if code <= _LAST_FLOAT:
                    evaluate_float(code, d, a, b)
                elif code <= _LAST_CONVERSION:
                    evaluate_conversion(code, d, a, b, c)
                else:
                    evaluate_integer(code, d, a, b, c)
            for k in range(head[_STORES]):
                view = stores + 8 * words * k
                memory = i64_at(table)[i64_at(view)[0]] + i64_at(view)[1]
                _move(r[i64_at(view)[3]], memory, view, sizes, index, start, n, True)


get_map_kernel: Final = compile_kernel(_run_map)


@dataclass(slots=True)
class _Slots:
    """Scratch memory for registers: a slot is free again after its register's last use."""

    size: int = 0
    free: dict[bool, list[int]] = field(default_factory=lambda: {True: [], False: []})

    def take(self, *, is_f32: bool) -> int:
        if self.free[is_f32]:
            return self.free[is_f32].pop()
        self.size += F32_SLOT if is_f32 else I64_SLOT
        return self.size - (F32_SLOT if is_f32 else I64_SLOT)


def _find_live_ops(code: Sequence[MapOp], first: int, roots: Sequence[int]) -> list[int]:
    live, kept = set(roots), []
    for j in range(len(code) - 1, -1, -1):
        if first + j in live:
            op, *sources = code[j]
            live.update(sources[: len(SIGNATURES[Op(op)][0])])
            kept.append(j)
    return kept[::-1]


def _place_registers(
    code: Sequence[MapOp], kept: Sequence[int], is_f32: list[bool], first: int, roots: Sequence[int]
) -> tuple[dict[int, int], int]:
    """Give every register that is used an offset in scratch memory; return them and the bytes they take."""
    slots = _Slots()
    homes = {register: slots.take(is_f32=is_f32[register]) for register in range(first)}
    last = {source: j for j in kept for source in code[j][1:]}
    for j in kept:  # a result's home is not yet free of its sources: no operation is in place
        homes[first + j] = slots.take(is_f32=is_f32[first + j])
        for source in {*code[j][1:]}:
            if source >= first and last[source] == j and source not in roots:
                slots.free[is_f32[source]].append(homes[source])
    return homes, slots.size


def plan_map(
    shape: Sequence[int],
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Strided],
    outputs: Sequence[tuple[int, Strided]],
) -> Work:
    """Return the work of a map over views of ``shape``."""
    order = sorted(
        range(len(shape)), key=lambda axis: -outputs[0][1].strides[axis]
    )  # axes commute: write in order
    views = [*operands, *(view for _, view in outputs)]
    sizes, strides = collapse_axes(
        [shape[i] for i in order], [[v.strides[i] for i in order] for v in views]
    )
    first = len(operands) + len(f32_constants) + len(i64_constants)
    is_f32 = [view.dtype is Dtype.F32 for view in operands]
    is_f32 += [True] * len(f32_constants) + [False] * len(i64_constants)
    is_f32 += [SIGNATURES[Op(op)][1] == "f" for op, *_ in code]
    roots = [register for register, _ in outputs]
    kept = _find_live_ops(code, first, roots)
    homes, size = _place_registers(code, kept, is_f32, first, roots)
    number = {register: k for k, register in enumerate(homes)}
    constants: list[int] = []
    for k, value in enumerate((*f32_constants, *i64_constants), len(operands)):
        constants += [k, int(is_f32[k]), _wrap(value, 32 if is_f32[k] else 64)]
    body = [*sizes, *homes.values(), *constants]
    for k, (view, steps) in enumerate(zip(operands, strides, strict=False)):
        body += _encode_view(view, k, sizes, steps)
    for j in kept:
        body += [code[j][0], *(number[register] for register in (first + j, *code[j][1:]))]
    for (register, view), steps in zip(outputs, strides[len(operands) :], strict=True):
        body += _encode_view(view, number[register], sizes, steps)
    total = int(np.prod(sizes))
    blocks = -(-total // BLOCK)
    span = max(1, min(BLOCKS_PER_CHUNK, blocks // BLOCKS_PER_CHUNK))
    counts = [len(homes), len(constants) // _CONSTANT_WORDS, len(operands), len(kept), len(outputs)]
    scratch = 64 + 16 * len(homes) + 128 + size
    cost = total * (len(kept) + len(views))
    return Work(
        get_map_kernel(),
        [total, span, *counts, len(sizes), *body],
        -(-blocks // span),
        scratch,
        cost,
    )


def _wrap(value: int, bits: int) -> int:
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _encode_view(
    view: Strided, register: int, sizes: Sequence[int], strides: Sequence[int]
) -> list[int]:
    dense = [int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes))]
    move = GENERAL
    if not any(strides):
        move = CONSTANT
    elif list(strides) == dense:
        move = CONTIGUOUS
    return [view.entry, view.offset * view.dtype.size, int(view.dtype), register, move, *strides]
