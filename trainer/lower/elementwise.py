"""Rules of elementwise operators: expressions, nothing stored."""

import math
from collections.abc import Callable
from typing import Any, Final

from market.protocol.program import Op
from trainer.lower import recipes
from trainer.lower.builder import is_literal_zero
from trainer.lower.expressions import Expr, apply, invert, select
from trainer.lower.lowering import Lowering, Rule, Rules
from trainer.lower.values import Value

RULES: Final = Rules()

# Arithmetic in the type of the result

_ARITHMETIC: Final[dict[str, Callable[..., Expr]]] = {
    "mul": lambda x, y: x * y,
    "neg": recipes.negate,
    "abs": recipes.absolute,
    "maximum": recipes.maximum,
    "minimum": recipes.minimum,
    "sqrt": recipes.square_root,
    "rsqrt": recipes.reciprocal_square_root,
    "reciprocal": recipes.reciprocal,
    "exp": recipes.exp,
    "log": recipes.log,
    "log1p": recipes.log1p,
    "expm1": recipes.expm1,
    "sigmoid": recipes.sigmoid,
    "silu": recipes.silu,
    "tanh": recipes.tanh,
    "erf": recipes.erf,
    "round": recipes.round_even,
    "floor": recipes.floor,
    "ceil": recipes.ceil,
    "trunc": recipes.truncate,
    "relu": lambda x: recipes.clamp(x, 0, None),
    "sign": recipes.sign,
    "bitwise_and": lambda x, y: apply(Op.IAND, x, y),
    "bitwise_or": lambda x, y: apply(Op.IOR, x, y),
    "bitwise_xor": lambda x, y: apply(Op.IXOR, x, y),
}


def _arithmetic(function: Callable[..., Expr]) -> Rule:
    def lower(to: Lowering, *values: Any) -> Value:
        return to.map(function, *values)

    return lower


RULES.update({name: _arithmetic(function) for name, function in _ARITHMETIC.items()})


@RULES.register("add")
def _add(to: Lowering, x: Any, y: Any, *, alpha: float = 1) -> Value:
    first, second = to.cast(x), to.cast(y)
    if alpha != 1:
        second = to.map(lambda a: a * alpha, second)
    for kept, other in ((first, second), (second, first)):
        if is_literal_zero(other) and kept.shape == to.shape:
            return kept
    return to.map(lambda a, b: a + b, first, second)


@RULES.register("sub")
def _sub(to: Lowering, x: Any, y: Any, *, alpha: float = 1) -> Value:
    y = to.map(lambda a: a * alpha, y) if alpha != 1 else y
    return to.map(lambda a, b: a - b, x, y)


@RULES.register("rsub")
def _rsub(to: Lowering, x: Any, y: Any, *, alpha: float = 1) -> Value:
    return _sub(to, y, x, alpha=alpha)


@RULES.register("div")
def _div(to: Lowering, x: Any, y: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return to.map(lambda a, b: a / b, x, y)
    if to.kind == "f":
        function = {"floor": recipes.floor, "trunc": recipes.truncate}[rounding_mode]
        return to.map(lambda a, b: function(a / b), x, y)
    if rounding_mode != "floor" or not isinstance(y, int) or y < 1:
        raise to.unsupported("an integer division other than floor by a positive literal")
    return to.map(lambda a: apply(Op.IDIV, a, y), x)


@RULES.register("floor_divide")
def _floor_divide(to: Lowering, x: Any, y: Any) -> Value:
    return _div(to, x, y, rounding_mode="floor")


@RULES.register("pow")
def _pow(to: Lowering, x: Any, exponent: Any) -> Value:
    form = recipes.POWERS.get(exponent) if isinstance(exponent, int | float) else None
    if form is None or to.kind != "f":
        raise to.unsupported(f"the exponent {exponent}: only {', '.join(map(str, recipes.POWERS))}")
    return to.map(form, x)


@RULES.register("gelu")
def _gelu(to: Lowering, x: Any, *, approximate: str = "none") -> Value:
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        return to.map(
            lambda a: a * 0.5 * (recipes.tanh((a + a * a * a * 0.044715) * scale) + 1.0), x
        )
    return to.map(lambda a: a * 0.5 * (recipes.erf(a * math.sqrt(0.5)) + 1.0), x)


@RULES.register("elu")
def _elu(to: Lowering, x: Any, alpha: float = 1, scale: float = 1, inner: float = 1) -> Value:
    def bend(a: Expr) -> Expr:
        return select(a <= 0.0, recipes.expm1(a * inner) * (alpha * scale), a * scale)

    return to.map(bend, x)


@RULES.register("remainder")
def _remainder(to: Lowering, x: Any, y: Any) -> Value:
    if to.kind != "i" or not isinstance(y, int) or y < 1:
        raise to.unsupported("a remainder other than of integers by a positive literal")
    return to.map(lambda a: a - apply(Op.IDIV, a, y) * y, x)


@RULES.register("clamp")
def _clamp(to: Lowering, x: Any, low: float | None = None, high: float | None = None) -> Value:
    return to.map(lambda a: recipes.clamp(a, low, high), x)


@RULES.register("clamp_min")
def _clamp_min(to: Lowering, x: Any, low: float) -> Value:
    return _clamp(to, x, low=low)


@RULES.register("clamp_max")
def _clamp_max(to: Lowering, x: Any, high: float) -> Value:
    return _clamp(to, x, high=high)


# Comparisons, in the common type of their operands

_COMPARISONS: Final[dict[str, Callable[[Expr, Expr], Expr]]] = {
    "lt": lambda x, y: x < y,
    "gt": lambda x, y: y < x,
    "le": lambda x, y: x <= y,
    "ge": lambda x, y: y <= x,
    "eq": lambda x, y: x.equals(y),
    "ne": lambda x, y: invert(x.equals(y)),
}


def _comparison(function: Callable[[Expr, Expr], Expr]) -> Rule:
    def lower(to: Lowering, x: Any, y: Any) -> Value:
        kind = to.find_common_kind(x, y)
        return to.builder.map(function, to.cast(x, kind), to.cast(y, kind), kind="b")

    return lower


RULES.update({name: _comparison(function) for name, function in _COMPARISONS.items()})


@RULES.register("logical_and")
def _logical_and(to: Lowering, x: Any, y: Any) -> Value:
    return to.map(lambda a, b: apply(Op.IAND, a, b), to.cast(x, "b"), to.cast(y, "b"))


@RULES.register("logical_or")
def _logical_or(to: Lowering, x: Any, y: Any) -> Value:
    return to.map(lambda a, b: apply(Op.IOR, a, b), to.cast(x, "b"), to.cast(y, "b"))


@RULES.register("logical_not")
def _logical_not(to: Lowering, x: Any) -> Value:
    return to.map(invert, to.cast(x, "b"))


@RULES.register("bitwise_not")
def _bitwise_not(to: Lowering, x: Any) -> Value:
    return to.map(invert if to.kind == "b" else lambda a: apply(Op.IXOR, a, -1), x)


@RULES.register("isnan")
def _isnan(to: Lowering, x: Any) -> Value:
    return to.builder.map(recipes.is_nan, to.cast(x, "f"), kind="b")


@RULES.register("isinf")
def _isinf(to: Lowering, x: Any) -> Value:
    return to.builder.map(lambda a: recipes.absolute(a).equals(math.inf), to.cast(x, "f"), kind="b")


@RULES.register("where")
def _where(to: Lowering, condition: Any, yes: Any, no: Any) -> Value:
    values = to.cast(condition, "b"), to.cast(yes), to.cast(no)
    return to.builder.map(select, *values, kind=to.kind)


@RULES.register("masked_fill")
def _masked_fill(to: Lowering, x: Any, mask: Any, value: Any) -> Value:
    return _where(to, mask, value, x)


@RULES.register("_to_copy", "clone", "alias", "detach", "lift_fresh_copy", "contiguous", "copy")
def _copy(to: Lowering, x: Any, source: Any = None, **_: Any) -> Value:
    value = to.cast(x if source is None or isinstance(source, bool) else source)
    return to.builder.expand(value, to.shape)


@RULES.register("full_like", "new_full")
def _full_like(to: Lowering, _x: Any, *arguments: Any, **_: Any) -> Value:
    return to.builder.expand(to.cast(arguments[-1]), to.shape)


@RULES.register("zeros_like", "new_zeros", "empty_like", "new_empty", "new_empty_strided")
def _zeros_like(to: Lowering, *_arguments: Any, **_: Any) -> Value:
    return to.builder.expand(to.cast(0), to.shape)


@RULES.register("ones_like", "new_ones")
def _ones_like(to: Lowering, *_arguments: Any, **_: Any) -> Value:
    return to.builder.expand(to.cast(1), to.shape)
