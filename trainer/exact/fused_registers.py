"""Maps' operations on registers, which are blocks of scratch memory, and moving them to and from tensors."""

# ruff: noqa: C901, PLR0912, PLR1714, SIM109 - a kernel's branches are its operations

from typing import Final

import numpy as np

from market.protocol.program import Op
from market.protocol.tensors import Dtype
from trainer.exact.fused_native import (
    Word,
    as_bits,
    as_f32,
    canonical,
    compile_function,
    f32_at,
    i16_at,
    i32_at,
    i64_at,
    round_even,
    square_root,
    u8_at,
)

BLOCK: Final = 512  # elements
U8, I16, I32, I64, F32 = (int(dtype) for dtype in Dtype)

ADD, SUB, MUL, DIV = int(Op.ADD), int(Op.SUB), int(Op.MUL), int(Op.DIV)
SQRT, NEG, ABS = int(Op.SQRT), int(Op.NEG), int(Op.ABS)
LT, LE, EQ, SELECT = int(Op.LT), int(Op.LE), int(Op.EQ), int(Op.SELECT)
TO_INT, FROM_INT, BITS, FROM_BITS = (
    int(Op.TO_INT),
    int(Op.FROM_INT),
    int(Op.BITS),
    int(Op.FROM_BITS),
)
IADD, ISUB, IMUL, IDIV = int(Op.IADD), int(Op.ISUB), int(Op.IMUL), int(Op.IDIV)
IAND, IOR, IXOR, SHL, SHR = int(Op.IAND), int(Op.IOR), int(Op.IXOR), int(Op.SHL), int(Op.SHR)
ILT, IEQ, ISELECT = int(Op.ILT), int(Op.IEQ), int(Op.ISELECT)

ZERO: Final = np.float32(0)
TWO_63: Final = np.float32(2.0**63)
MAX_I64: Final = np.int64(2**63 - 1)
MIN_I64: Final = np.int64(-(2**63))


@compile_function
def evaluate_float(op: Word, d: Word, a: Word, b: Word) -> None:
    """Compute an f32 from one or two."""
    y, x, z = f32_at(d), f32_at(a), f32_at(b)
    yb, xb = i32_at(d), i32_at(a)
    if op == ADD:
        for i in range(BLOCK):
            y[i] = x[i] + z[i]
    elif op == SUB:
        for i in range(BLOCK):
            y[i] = x[i] - z[i]
    elif op == MUL:
        for i in range(BLOCK):
            y[i] = x[i] * z[i]
    elif op == DIV:
        for i in range(BLOCK):
            y[i] = x[i] / z[i]
    elif op == SQRT:
        for i in range(BLOCK):
            y[i] = square_root(x[i])
    elif op == NEG:
        for i in range(BLOCK):
            yb[i] = xb[i] ^ np.int32(-0x80000000)
    elif op == ABS:
        for i in range(BLOCK):
            yb[i] = xb[i] & np.int32(0x7FFFFFFF)


@compile_function
def evaluate_conversion(op: Word, d: Word, a: Word, b: Word, c: Word) -> None:
    """Compare, select or convert."""
    if op == LT:
        for i in range(BLOCK):
            i64_at(d)[i] = 1 if f32_at(a)[i] < f32_at(b)[i] else 0
    elif op == LE:
        for i in range(BLOCK):
            i64_at(d)[i] = 1 if f32_at(a)[i] <= f32_at(b)[i] else 0
    elif op == EQ:
        for i in range(BLOCK):
            i64_at(d)[i] = 1 if f32_at(a)[i] == f32_at(b)[i] else 0
    elif op == SELECT:
        for i in range(BLOCK):
            yes, no = i32_at(b)[i], i32_at(c)[i]
            i32_at(d)[i] = yes if i64_at(a)[i] != 0 else no
    elif op == TO_INT:
        for i in range(BLOCK):
            x = round_even(f32_at(a)[i])
            inside = (x >= -TWO_63) & (x < TWO_63)
            y = np.int64(x if inside else ZERO)
            y = MAX_I64 if x >= TWO_63 else y
            i64_at(d)[i] = MIN_I64 if x < -TWO_63 else y
    elif op == FROM_INT:
        for i in range(BLOCK):
            f32_at(d)[i] = np.float32(i64_at(a)[i])
    elif op == BITS:
        for i in range(BLOCK):
            i64_at(d)[i] = np.int64(as_bits(canonical(f32_at(a)[i])))
    elif op == FROM_BITS:
        for i in range(BLOCK):
            f32_at(d)[i] = as_f32(np.int32(i64_at(a)[i]))


@compile_function
def evaluate_integer(op: Word, d: Word, a: Word, b: Word, c: Word) -> None:
    """Compute an i64 from two or three."""
    y, x, z = i64_at(d), i64_at(a), i64_at(b)
    if op == IADD:
        for i in range(BLOCK):
            y[i] = x[i] + z[i]
    elif op == ISUB:
        for i in range(BLOCK):
            y[i] = x[i] - z[i]
    elif op == IMUL:
        for i in range(BLOCK):
            y[i] = x[i] * z[i]
    elif op == IDIV:
        for i in range(BLOCK):
            y[i] = x[i] // z[i] if z[i] > 0 else 0
    elif op == IAND:
        for i in range(BLOCK):
            y[i] = x[i] & z[i]
    elif op == IOR:
        for i in range(BLOCK):
            y[i] = x[i] | z[i]
    elif op == IXOR:
        for i in range(BLOCK):
            y[i] = x[i] ^ z[i]
    elif op == SHL:
        for i in range(BLOCK):
            y[i] = x[i] << (z[i] & 63)
    elif op == SHR:
        for i in range(BLOCK):
            y[i] = x[i] >> (z[i] & 63)
    elif op == ILT:
        for i in range(BLOCK):
            y[i] = 1 if x[i] < z[i] else 0
    elif op == IEQ:
        for i in range(BLOCK):
            y[i] = 1 if x[i] == z[i] else 0
    elif op == ISELECT:
        for i in range(BLOCK):
            yes, no = z[i], i64_at(c)[i]
            y[i] = yes if x[i] != 0 else no


@compile_function
def load_run(d: Word, source: Word, dtype: Word, step: Word, count: Word) -> None:
    """Load ``count`` elements, ``step`` apart, into a register."""
    if dtype == F32:
        if step == 1:
            for i in range(count):
                i32_at(d)[i] = i32_at(source)[i]
        elif step == 0:
            value = i32_at(source)[0]
            for i in range(count):
                i32_at(d)[i] = value
        else:
            for i in range(count):
                i32_at(d)[i] = i32_at(source)[i * step]
    elif dtype == I64:
        for i in range(count):
            i64_at(d)[i] = i64_at(source)[i * step]
    elif dtype == I32:
        for i in range(count):
            i64_at(d)[i] = i32_at(source)[i * step]
    elif dtype == I16:
        for i in range(count):
            i64_at(d)[i] = i16_at(source)[i * step]
    else:
        for i in range(count):
            i64_at(d)[i] = u8_at(source)[i * step]


@compile_function
def store_run(target: Word, s: Word, dtype: Word, step: Word, count: Word) -> None:
    """Store ``count`` elements of a register, ``step`` apart."""
    if dtype == F32:
        if step == 1:
            for i in range(count):
                f32_at(target)[i] = canonical(f32_at(s)[i])
        else:
            for i in range(count):
                f32_at(target)[i * step] = canonical(f32_at(s)[i])
    elif dtype == I64:
        for i in range(count):
            i64_at(target)[i * step] = i64_at(s)[i]
    elif dtype == I32:
        for i in range(count):
            i32_at(target)[i * step] = np.int32(i64_at(s)[i])
    elif dtype == I16:
        for i in range(count):
            i16_at(target)[i * step] = np.int16(i64_at(s)[i])
    else:
        for i in range(count):
            u8_at(target)[i * step] = np.uint8(i64_at(s)[i])


@compile_function
def get_size(dtype: Word) -> Word:
    """Return the bytes of an element."""
    if dtype == F32 or dtype == I32:
        return 4
    if dtype == I64:
        return 8
    return 2 if dtype == I16 else 1
