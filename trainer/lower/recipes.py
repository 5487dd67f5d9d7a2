"""Functions that IEEE-754 does not define, as fixed sequences of the operations it does.

Constants are rounded to binary32 as written. Accuracy is stated where a test measures it."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from market.protocol.program import Op
from trainer.lower.expressions import Expr, Operand, apply, f32, i64, invert, lift, select

_EXP: Final = (
    0.0013751130318269134,
    0.008368992246687412,
    0.04166954383254051,
    0.166665181517601,
    0.49999988079071045,
)
_EXPM1: Final = tuple(1 / math.factorial(n) for n in range(8, 0, -1))
_TANH: Final = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
# Eigen's rational approximation of erf on [-4, 4]: odd numerator, even denominator
_ERF_NUMERATOR: Final = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR: Final = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    total: Expr = f32(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def negate(x: Expr) -> Expr:
    """Return -x."""
    return apply(Op.NEG, x) if x.type == "f" else i64(0) - x


def absolute(x: Expr) -> Expr:
    """Return |x|."""
    return apply(Op.ABS, x) if x.type == "f" else select(x < 0, i64(0) - x, x)


def square_root(x: Expr) -> Expr:
    """Return the square root, correctly rounded."""
    return apply(Op.SQRT, x)


def reciprocal_square_root(x: Expr) -> Expr:
    """Return 1 / sqrt(x), both correctly rounded."""
    return lift(1.0, "f") / apply(Op.SQRT, x)


def reciprocal(x: Expr) -> Expr:
    """Return 1 / x, correctly rounded."""
    return lift(1.0, "f") / x


def is_nan(x: Expr) -> Expr:
    """Return 1 for NaN, else 0."""
    return invert(x.equals(x))


def _clamp_for_to_int(x: Expr) -> Expr:
    """Return 1 where |x| < 2^31, so that an integer holds it and beyond 2^24 it is one already."""
    return absolute(x) < 2.0**31


def round_even(x: Expr) -> Expr:
    """Return the nearest integer, ties to even; -0 and what is too large for a fraction stay."""
    rounded = apply(Op.FROM_INT, apply(Op.TO_INT, x))
    signed = apply(
        Op.FROM_BITS,
        apply(Op.IOR, apply(Op.BITS, rounded), apply(Op.IAND, apply(Op.BITS, x), -(2**31))),
    )
    return select(_clamp_for_to_int(x), signed, x)


def floor(x: Expr) -> Expr:
    """Return the largest integer not above x."""
    rounded = round_even(x)
    return select(x < rounded, rounded - 1.0, rounded)


def ceil(x: Expr) -> Expr:
    """Return the smallest integer not below x."""
    return negate(floor(negate(x)))


def truncate(x: Expr) -> Expr:
    """Return x without its fraction."""
    return select(x < 0.0, ceil(x), floor(x))


def to_int_truncated(x: Expr) -> Expr:
    """Return the integer part as an integer: torch's conversion, saturating."""
    return apply(Op.TO_INT, truncate(x))


def _key(x: Expr) -> Expr:
    bits = apply(Op.BITS, x)
    return select(bits < 0, apply(Op.IXOR, bits, 0x7FFFFFFF), bits)


def maximum(x: Expr, y: Operand) -> Expr:
    """Return the larger by ordered key (NaN wins, -0 < +0), or the larger integer."""
    other = lift(y, x.type)
    if x.type == "i":
        return select(x < other, other, x)
    return select(_key(x) < _key(other), other, x)


def minimum(x: Expr, y: Operand) -> Expr:
    """Return the smaller, NaN if either is NaN; -0 < +0."""
    other = lift(y, x.type)
    if x.type == "i":
        return select(other < x, other, x)
    smaller = select(_key(other) < _key(x), other, x)
    return select(is_nan(x), x, select(is_nan(other), other, smaller))


def clamp(x: Expr, low: Operand | None, high: Operand | None) -> Expr:
    """Return x held between ``low`` and ``high``; NaN passes."""
    if high is not None:
        limit = lift(high, x.type)
        x = select(limit < x, limit, x)
    if low is not None:
        limit = lift(low, x.type)
        x = select(x < limit, limit, x)
    return x


def exp(x: Expr) -> Expr:
    """Return e^x within 0.97 ulp; 0 below -87.34, infinity above 88.72, never subnormal."""
    c = select(x < -87.33654, -87.33654, select(f32(88.72283) < x, 88.72283, x))
    n = apply(Op.TO_INT, c * 1.4426950408889634)
    n_f32 = apply(Op.FROM_INT, n)
    r = (c - n_f32 * 0.693359375) - n_f32 * -2.12194440e-4
    y = (_horner(r, _EXP) * (r * r) + r) + 1.0
    scaled = apply(Op.FROM_BITS, apply(Op.BITS, y) + apply(Op.SHL, n, 23))
    inside = select(is_nan(x), x, scaled)
    return select(x < -87.33654, 0.0, select(f32(88.72283) < x, math.inf, inside))


def log(x: Expr) -> Expr:
    """Return the natural logarithm within 0.84 ulp (musl's logf); subnormals included."""
    is_small = x < 2.0**-126
    bits = apply(Op.BITS, select(is_small, x * 2.0**25, x)) + (0x3F800000 - 0x3F3504F3)
    exponent = apply(Op.SHR, bits, 23) - select(is_small, i64(127 + 25), i64(127))
    mantissa = apply(Op.IAND, bits, 0x7FFFFF) + 0x3F3504F3
    f = apply(Op.FROM_BITS, mantissa) - 1.0
    s = f / (f + 2.0)
    z = s * s
    w = z * z
    t1 = w * (w * 0.24279078841 + 0.40000972152)
    t2 = z * (w * 0.28498786688 + 0.66666662693)
    half = f * 0.5 * f
    k = apply(Op.FROM_INT, exponent)
    y = s * (half + (t2 + t1)) + k * 9.0580006145e-06 - half + f + k * 6.9313812256e-01
    y = select(x < math.inf, y, x)
    return select(x.equals(0.0), -math.inf, select(x < 0.0, math.nan, y))


def log1p(x: Expr) -> Expr:
    """Return log(1 + x) within 2.5 ulp (Kahan: the rounding of 1 + x is divided out again)."""
    u = x + 1.0
    y = log(u) * (x / (u - 1.0))
    return select(u.equals(1.0), x, select(x < math.inf, y, x))


def expm1(x: Expr) -> Expr:
    """Return e^x - 1 within 1.6 ulp: below 1/2 its series."""
    small = _horner(x, _EXPM1) * x
    return select(absolute(x) < 0.5, small, exp(x) - 1.0)


def sigmoid(x: Expr) -> Expr:
    """Return 1 / (1 + e^-x) within 2.5 ulp."""
    return lift(1.0, "f") / (exp(negate(x)) + 1.0)


def silu(x: Expr) -> Expr:
    """Return x sigmoid(x)."""
    return x * sigmoid(x)


def tanh(x: Expr) -> Expr:
    """Return the hyperbolic tangent within 1.4 ulp (Cephes)."""
    z = absolute(x)
    square = x * x
    small = _horner(square, _TANH) * square * x + x
    large = lift(1.0, "f") - lift(2.0, "f") / (exp(z + z) + 1.0)
    signed = select(x < 0.0, negate(large), large)
    return select(z < 0.625, small, select(is_nan(x), x, signed))


def erf(x: Expr) -> Expr:
    """Return the error function within 4.5e-7 (Eigen's rational)."""
    c = clamp(x, -4.0, 4.0)
    square = c * c
    return c * _horner(square, _ERF_NUMERATOR) / _horner(square, _ERF_DENOMINATOR)


def sign(x: Expr) -> Expr:
    """Return -1, 0 or 1; NaN stays."""
    if x.type == "i":
        return select(x < 0, i64(-1), lift(0, "i") < x)
    return select(x < 0.0, -1.0, select(lift(0.0, "f") < x, f32(1.0), x))


def _invert_cube(x: Expr) -> Expr:
    root = reciprocal_square_root(x)
    return (root * root) * root


# What `pow` may be raised to
POWERS: Final[dict[float, Callable[[Expr], Expr]]] = {
    -2: lambda x: reciprocal(x * x),
    -1.5: _invert_cube,
    -1: reciprocal,
    -0.5: reciprocal_square_root,
    0: lambda _: f32(1.0),
    0.5: square_root,
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: (x * x) * x,
}
