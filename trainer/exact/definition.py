"""The exact arithmetic in plain integers: what the torch and fused forms and the judge must equal.

A binary32 is its 32-bit pattern, an i64 a signed Python integer. Nothing here is a float, and
nothing depends on an order.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Final

from market.protocol.constants import (
    CANONICAL_NAN,
    POISON_EXPONENT,
    QUANTIZE_BUMPS,
    QUANTIZE_FLOOR,
    SUM_FLOOR,
    SUM_FRACTION_BITS,
)
from market.protocol.philox import philox_words
from market.protocol.program import SIGNATURES, MapOp, Op

_SIGN: Final = 0x80000000
_MAGNITUDE: Final = 0x7FFFFFFF
_INFINITY: Final = 0x7F800000
_ONE: Final = 0x3F800000
_I64_MIN: Final = -(2**63)
_I64_MAX: Final = 2**63 - 1
_STICKY_BITS: Final = 64  # a quotient or root keeps this many bits more than a result can hold


# Binary32


def is_nan(x: int) -> bool:
    """Tell whether the pattern ``x`` is a NaN."""
    return x & _MAGNITUDE > _INFINITY


def canonical(x: int) -> int:
    """Return ``x``, or the one NaN if it is a NaN."""
    return CANONICAL_NAN if is_nan(x) else x


def unpack(x: int) -> tuple[int, int]:
    """Return integers (m, e) with ``|x| = m * 2^e``, for a finite pattern ``x``."""
    exponent, fraction = (x >> 23) & 0xFF, x & 0x7FFFFF
    return (fraction | 0x800000, exponent - 150) if exponent else (fraction, -149)


def pack(sign: int, m: int, e: int) -> int:
    """Round ``m * 2^e`` (m >= 0) to the nearest binary32, ties to even, with the given sign bit."""
    unit = max(e + m.bit_length() - 24, -149)  # the exponent of the result's last place
    significand = round_shifted(m, e - unit)
    return sign << 31 | min(((unit + 149) << 23) + significand, _INFINITY) if m else sign << 31


def round_shifted(m: int, shift: int) -> int:
    """Return ``m * 2^shift`` (m >= 0) rounded to the nearest integer, ties to even."""
    if shift >= 0:
        return m << shift
    floor = m >> -shift
    return (m + (1 << (-shift - 1)) - 1 + (floor & 1)) >> -shift


def round_scaled(x: int, shift: int) -> int:
    """Return the finite ``x * 2^shift`` rounded to the nearest integer, ties to even."""
    m, e = unpack(x)
    magnitude = round_shifted(m, e + shift)
    return -magnitude if x & _SIGN else magnitude


def power_of_two(k: int) -> int:
    """Return the pattern of 2^k, -126 <= k <= 127."""
    return (k + 127) << 23


def add(x: int, y: int) -> int:
    """IEEE addition."""
    if is_nan(x) or is_nan(y) or (_is_infinite(x) and _is_infinite(y) and x != y):
        return CANONICAL_NAN
    if _is_infinite(x) or _is_infinite(y):
        return x if _is_infinite(x) else y
    (mx, ex), (my, ey) = unpack(x), unpack(y)
    e = min(ex, ey)
    total = (-1) ** (x >> 31) * (mx << (ex - e)) + (-1) ** (y >> 31) * (my << (ey - e))
    sign = int(total < 0) if total else (x & y) >> 31
    return pack(sign, abs(total), e)


def sub(x: int, y: int) -> int:
    """IEEE subtraction."""
    return add(x, y ^ _SIGN)


def mul(x: int, y: int) -> int:
    """IEEE multiplication."""
    sign = (x ^ y) >> 31
    if is_nan(x) or is_nan(y):
        return CANONICAL_NAN
    if _is_infinite(x) or _is_infinite(y):
        return CANONICAL_NAN if _is_zero(x) or _is_zero(y) else sign << 31 | _INFINITY
    (mx, ex), (my, ey) = unpack(x), unpack(y)
    return pack(sign, mx * my, ex + ey)


def div(x: int, y: int) -> int:
    """IEEE division."""
    sign = (x ^ y) >> 31
    if (
        is_nan(x)
        or is_nan(y)
        or (_is_infinite(x) and _is_infinite(y))
        or (_is_zero(x) and _is_zero(y))
    ):
        return CANONICAL_NAN
    if _is_infinite(x) or _is_zero(y):
        return sign << 31 | _INFINITY
    if _is_infinite(y):
        return sign << 31
    (mx, ex), (my, ey) = unpack(x), unpack(y)
    quotient, rest = divmod(mx << _STICKY_BITS, my)
    return pack(sign, quotient << 1 | (rest != 0), ex - ey - _STICKY_BITS - 1)


def sqrt(x: int) -> int:
    """IEEE square root."""
    if _is_zero(x) or x == _INFINITY:
        return x
    if is_nan(x) or x & _SIGN:
        return CANONICAL_NAN
    m, e = unpack(x)
    m <<= _STICKY_BITS + (e & 1)
    root = isqrt(m)
    return pack(0, root << 1 | (root * root != m), (e - (e & 1) - _STICKY_BITS) // 2 - 1)


def lt(x: int, y: int) -> int:
    """IEEE ``x < y``."""
    return int(not is_nan(x) and not is_nan(y) and _order(x) < _order(y))


def le(x: int, y: int) -> int:
    """IEEE ``x <= y``."""
    return int(not is_nan(x) and not is_nan(y) and _order(x) <= _order(y))


def eq(x: int, y: int) -> int:
    """IEEE ``x == y``."""
    return int(not is_nan(x) and not is_nan(y) and _order(x) == _order(y))


def to_int(x: int) -> int:
    """Return ``x`` as an i64: nearest even, saturating, 0 for NaN."""
    if is_nan(x):
        return 0
    if _is_infinite(x):
        return _I64_MIN if x & _SIGN else _I64_MAX
    return min(max(round_scaled(x, 0), _I64_MIN), _I64_MAX)


def from_int(a: int) -> int:
    """Return the binary32 nearest to the integer ``a``."""
    return pack(int(a < 0), abs(a), 0)


def _is_infinite(x: int) -> bool:
    return x & _MAGNITUDE == _INFINITY


def _is_zero(x: int) -> bool:
    return x & _MAGNITUDE == 0


def _order(x: int) -> int:
    return -(x & _MAGNITUDE) if x & _SIGN else x


# Maps


def wrap(a: int, bits: int = 64) -> int:
    """Return ``a`` modulo 2^bits as a signed integer."""
    return (a + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


OPERATIONS: Final[dict[Op, Callable[..., int]]] = {
    Op.ADD: add,
    Op.SUB: sub,
    Op.MUL: mul,
    Op.DIV: div,
    Op.SQRT: sqrt,
    Op.NEG: lambda x: canonical(x ^ _SIGN),
    Op.ABS: lambda x: canonical(x & _MAGNITUDE),
    Op.LT: lt,
    Op.LE: le,
    Op.EQ: eq,
    Op.SELECT: lambda a, x, y: canonical(x if a else y),
    Op.TO_INT: to_int,
    Op.FROM_INT: from_int,
    Op.BITS: lambda x: wrap(canonical(x), 32),
    Op.FROM_BITS: lambda a: canonical(a & 0xFFFFFFFF),
    Op.IADD: lambda a, b: wrap(a + b),
    Op.ISUB: lambda a, b: wrap(a - b),
    Op.IMUL: lambda a, b: wrap(a * b),
    Op.IDIV: lambda a, b: a // b if b > 0 else 0,
    Op.IAND: lambda a, b: a & b,
    Op.IOR: lambda a, b: a | b,
    Op.IXOR: lambda a, b: a ^ b,
    Op.SHL: lambda a, b: wrap(a << (b & 63)),
    Op.SHR: lambda a, b: a >> (b & 63),
    Op.ILT: lambda a, b: int(a < b),
    Op.IEQ: lambda a, b: int(a == b),
    Op.ISELECT: lambda a, b, c: b if a else c,
}


def evaluate_map(code: Sequence[MapOp], registers: Sequence[int]) -> list[int]:
    """Return all registers of one element: those given (operands, constants), then the results.

    What an output stores is ``canonical`` of an f32 register, and an i64 register modulo 2^size.
    """
    values = list(registers)
    for number, *arguments in code:
        op = Op(number)
        arity = len(SIGNATURES[op][0])
        values.append(OPERATIONS[op](*(values[register] for register in arguments[:arity])))
    return values


# Groups that share an exponent


def group_exponent(patterns: Sequence[int], bump: int, floor: int) -> int:
    """Return the exponent of a group, 255 if one is not finite. With bump 0, all |x| < 2^e."""
    largest = max(x & _MAGNITUDE for x in patterns)
    return POISON_EXPONENT if largest >= _INFINITY else max(((largest + bump) >> 23) - 126, floor)


def quantize(patterns: Sequence[int], bits: int) -> tuple[list[int], int]:
    """Return the ``bits``-bit integers of a row and its exponent."""
    exponent = group_exponent(patterns, QUANTIZE_BUMPS[bits], QUANTIZE_FLOOR)
    if exponent == POISON_EXPONENT:
        return [0] * len(patterns), exponent
    return [round_scaled(x, bits - 1 - exponent) for x in patterns], exponent


def dot(qa: Sequence[int], ea: int, bits_a: int, qb: Sequence[int], eb: int, bits_b: int) -> int:
    """Return the dot product of two quantized rows: exact, then scaled by the exponents in turn."""
    if POISON_EXPONENT in (ea, eb):
        return CANONICAL_NAN
    total = from_int(sum(a * b for a, b in zip(qa, qb, strict=True)))
    return mul(mul(total, power_of_two(ea - bits_a + 1)), power_of_two(eb - bits_b + 1))


def sum_f32(patterns: Sequence[int]) -> int:
    """Return the exact sum of a group, rounded once."""
    return scatter_add([0] * len(patterns), patterns, 1)[0]


def sum_i64(values: Sequence[int]) -> int:
    """Return the sum modulo 2^64."""
    return wrap(sum(values))


def scatter_add(index: Sequence[int], patterns: Sequence[int], bound: int) -> list[int]:
    """Return a column of the output: ``bound`` sums of the source elements with that clamped index.

    One element that is not finite makes the whole column NaN.
    """
    exponent = group_exponent(patterns, 0, SUM_FLOOR)
    if exponent == POISON_EXPONENT:
        return [CANONICAL_NAN] * bound
    totals = [0] * bound
    for i, x in zip(index, patterns, strict=True):
        totals[clamp(i, bound)] += round_scaled(x, SUM_FRACTION_BITS - exponent)
    return [mul(from_int(total), power_of_two(exponent - SUM_FRACTION_BITS)) for total in totals]


# The rest


def order_key(x: int) -> int:
    """Return the i32 whose order is that of ``max``: -0 < +0 < infinity < NaN. Its own inverse."""
    signed = wrap(x, 32)
    return signed ^ _MAGNITUDE if signed < 0 else signed


def max_f32(patterns: Sequence[int]) -> int:
    """Return the element with the largest key; a NaN wins."""
    return order_key(max(order_key(canonical(x)) for x in patterns)) & 0xFFFFFFFF


def clamp(index: int, bound: int) -> int:
    """Return the index that a gather or scatter_add uses."""
    return min(max(index, 0), bound - 1)


def gather_position(view_position: int, index: int, bound: int, index_stride: int) -> int:
    """Return the flat position that a gather reads; an f32 read there is stored canonical."""
    return view_position + clamp(index, bound) * index_stride


def random_word(key: int, c1: int, c2: int, c3: int, element: int) -> int:
    """Return element ``element`` of a `random` instruction."""
    return philox_words(key, (element // 4, c1, c2, c3))[element % 4]


def iota(start: int, step: int, index: int) -> int:
    """Return element ``index`` of an `iota` instruction."""
    return wrap(start + step * index)
