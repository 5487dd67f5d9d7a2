"""Rules of contractions and reductions.

Axes that a reduction keeps are in the shape of its result, so rules ignore `keepdim`."""

import math
from collections.abc import Sequence
from typing import Any, Final

from market.protocol.program import Op
from trainer.lower import instructions, recipes
from trainer.lower.expressions import Expr, apply, i64, invert, select
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Lazy, Value, permute

RULES: Final = Rules()


@RULES.register("mm", "bmm")
def _matmul(to: Lowering, a: Any, b: Any) -> Value:
    left, right = to.cast(a, "f"), to.cast(b, "f")
    batch = len(left.shape) - 2
    swapped = permute(right, [*range(batch), batch + 1, batch])
    operands = len(to.node.args) - 2  # a bias comes first
    bits = to.find_bits(operands), to.find_bits(operands + 1)
    return instructions.dot(
        to.builder, left, swapped, batch=batch, bits=bits, out=to.find_out_layout()
    )


@RULES.register("addmm")
def _addmm(to: Lowering, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Value:
    if (alpha, beta) != (1, 1):
        raise to.unsupported(f"alpha {alpha} and beta {beta}: only 1")
    return to.map(lambda x, y: x + y, _matmul(to, a, b), bias)


@RULES.register("baddbmm")
def _baddbmm(
    to: Lowering, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
) -> Value:
    return _addmm(to, bias, a, b, beta=beta, alpha=alpha)


def _find_axes(x: Value, axes: Any) -> list[int]:
    listed = [axes] if isinstance(axes, int) else list(axes or range(len(x.shape)))
    return sorted({axis % len(x.shape) for axis in listed})


def _count(x: Value, axes: Sequence[int]) -> int:
    return math.prod(x.shape[axis] for axis in axes)


@RULES.register("sum")
def _sum(to: Lowering, x: Any, axes: Any = None, *_: Any, **__: Any) -> Value:
    value = to.cast(x, "f") if to.kind == "f" else to.to_value(x)
    found = _find_axes(value, axes) if value.shape else []
    total = instructions.reduce_sum(to.builder, value, found) if found else value
    return to.builder.reshape(total, to.shape)


@RULES.register("mean")
def _mean(to: Lowering, x: Any, axes: Any = None, *_: Any, **__: Any) -> Value:
    value = to.cast(x, "f")
    count = _count(value, _find_axes(value, axes))
    return to.map(lambda total: total / count, _sum(to, value, axes))


@RULES.register("amax")
def _amax(to: Lowering, x: Any, axes: Any = (), *_: Any) -> Value:
    value = to.cast(x, "f")
    return to.builder.reshape(
        instructions.reduce_max(to.builder, value, _find_axes(value, axes)), to.shape
    )


@RULES.register("amin")
def _amin(to: Lowering, x: Any, axes: Any = (), *_: Any) -> Value:
    lowest = _amax(to, to.map(recipes.negate, to.cast(x, "f")), axes)
    return to.map(recipes.negate, lowest)


@RULES.register("max", "min")
def _extreme(to: Lowering, x: Any, axis: Any = None, *_: Any) -> Any:
    """Return the extreme of all, the larger of two tensors, or an axis's extremes and where they are."""
    name = to.name
    if axis is None:
        return {"max": _amax, "min": _amin}[name](to, x)
    if not isinstance(axis, int):
        return to.map({"max": recipes.maximum, "min": recipes.minimum}[name], x, axis)
    value = to.cast(x, "f")
    sign = value if name == "max" else to.map(recipes.negate, value)
    highest, place = _find_highest(to, sign, axis)
    extreme = highest if name == "max" else to.map(recipes.negate, highest)
    return to.builder.reshape(extreme, to.shape), to.builder.reshape(place, to.shape)


@RULES.register("argmax", "argmin")
def _place(to: Lowering, x: Any, axis: int | None = None, *_: Any) -> Value:
    value = to.cast(x, "f")
    if axis is None:
        value, axis = to.builder.reshape(value, (math.prod(value.shape),)), 0
    sign = value if to.name == "argmax" else to.builder.map(recipes.negate, value)
    return to.builder.reshape(_find_highest(to, sign, axis)[1], to.shape)


def _find_highest(to: Lowering, value: Value, axis: int) -> tuple[Lazy, Value]:
    """Return the maximum along an axis, kept with size 1, and the place of its first occurrence."""
    axis %= len(value.shape)
    stored = to.builder.store(value)
    highest = instructions.reduce_max(to.builder, stored, [axis])
    size = value.shape[axis]
    shape = tuple(size if a == axis else 1 for a in range(len(value.shape)))
    places = to.builder.reshape(instructions.iota(to.builder, size, 0, -1), shape)
    return highest, find_first(to, stored, highest, places, [axis])


def find_first(
    to: Lowering, value: Value, highest: Value, places: Value, axes: Sequence[int]
) -> Value:
    """Return the first place along ``axes`` where ``value`` is ``highest``; ``places`` count down from 0."""

    def mark(x: Expr, m: Expr, place: Expr) -> Expr:
        return select(x.equals(m), apply(Op.FROM_INT, place), -math.inf)

    marks = to.builder.map(mark, value, highest, places)
    first = instructions.reduce_max(to.builder, marks, axes)
    return to.builder.map(lambda n: i64(0) - apply(Op.TO_INT, n), first)


@RULES.register("any")
def _any(to: Lowering, x: Any, axes: Any = None, *_: Any) -> Value:
    value = to.cast(x, "b")
    count = instructions.reduce_sum(to.builder, value, _find_axes(value, axes))
    return to.builder.reshape(to.cast(count, "b"), to.shape)


@RULES.register("all")
def _all(to: Lowering, x: Any, axes: Any = None, *_: Any) -> Value:
    missing = to.builder.map(invert, to.cast(x, "b"), kind="b")
    return to.builder.map(invert, _any(to, missing, axes), kind="b")


def _moments(to: Lowering, x: Value, axes: Sequence[int], divisor: float) -> tuple[Value, Value]:
    """Return the mean and the sum of squared differences divided by ``divisor``, axes kept."""
    count = _count(x, axes)
    total = instructions.reduce_sum(to.builder, x, axes)
    mean = to.builder.store(to.builder.map(lambda t: t / count, total))
    squares = to.builder.map(lambda a, m: (a - m) * (a - m), x, mean)
    spread = instructions.reduce_sum(to.builder, squares, axes)
    return mean, to.builder.map(lambda t: t / divisor, spread)


@RULES.register("var_mean")
def _var_mean(
    to: Lowering, x: Any, axes: Any = None, *, correction: float | None = 1, **_: Any
) -> tuple[Value, Value]:
    value = to.cast(x, "f")
    found = _find_axes(value, axes)
    divisor = _count(value, found) - (1 if correction is None else correction)
    mean, variance = _moments(to, value, found, divisor)
    return to.builder.reshape(variance, to.shape), to.builder.reshape(mean, to.shape)


@RULES.register("var")
def _var(to: Lowering, x: Any, axes: Any = None, **options: Any) -> Value:
    return _var_mean(to, x, axes, **options)[0]


@RULES.register("native_layer_norm")
def _layer_norm(
    to: Lowering, x: Any, shape: Sequence[int], weight: Any, bias: Any, epsilon: float
) -> tuple[Value, Value, Value]:
    value = to.cast(x, "f")
    axes = list(range(len(value.shape) - len(shape), len(value.shape)))
    mean, variance = _moments(to, value, axes, _count(value, axes))
    scale = to.builder.store(
        to.builder.map(lambda v: recipes.reciprocal_square_root(v + epsilon), variance)
    )
    out = to.builder.map(lambda a, m, s: (a - m) * s, value, mean, scale)
    if weight is not None:
        out = to.builder.map(lambda a, w: a * w, out, to.cast(weight, "f"))
    if bias is not None:
        out = to.builder.map(lambda a, b: a + b, out, to.cast(bias, "f"))
    return out, mean, scale


@RULES.register("_softmax")
def _softmax(to: Lowering, x: Any, axis: int, *_: Any) -> Value:
    powers, total, _shifted = _exponentiate(to, x, axis)
    return to.builder.map(lambda e, t: e / t, powers, total)


@RULES.register("_log_softmax")
def _log_softmax(to: Lowering, x: Any, axis: int, *_: Any) -> Value:
    _powers, total, shifted = _exponentiate(to, x, axis)
    return to.builder.map(lambda d, t: d - t, shifted, to.builder.map(recipes.log, total))


def _exponentiate(to: Lowering, x: Any, axis: int) -> tuple[Value, Value, Value]:
    """Return exp(x - max), its sum and x - max along ``axis``."""
    value = to.builder.store(to.cast(x, "f"))
    axes = [axis % len(value.shape)]
    highest = instructions.reduce_max(to.builder, value, axes)
    shifted = to.builder.map(lambda a, m: a - m, value, highest)
    powers = to.builder.store(to.builder.map(recipes.exp, shifted))
    return powers, instructions.reduce_sum(to.builder, powers, axes), shifted
