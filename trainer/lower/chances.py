"""Rules of random operators: each use draws words of its own stream, new at every step.

A word is uniform in [0, 2^32), so an event of probability p is a word below p 2^32, exactly."""

import math
from typing import Any, Final

from market.protocol.program import Op
from trainer.lower.expressions import Expr, apply, invert, select
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Lazy, Shape, Value

RULES: Final = Rules()


def _draw(to: Lowering, shape: Shape) -> Lazy:
    words = to.noise.draw(to.builder, math.prod(shape))
    return to.builder.reshape(words, shape)


def _happens(word: Expr, chance: float) -> Expr:
    return word < math.ceil(chance * 2.0**32)


@RULES.register("native_dropout")
def _dropout(to: Lowering, x: Any, chance: float, _is_training: Any) -> tuple[Value, Value]:
    value = to.cast(x, "f")
    kept = to.builder.map(
        lambda word: invert(_happens(word, chance)), _draw(to, value.shape), kind="b"
    )
    kept = to.builder.store(kept)
    scale = 1 / (1 - chance) if chance < 1 else 0.0
    return to.builder.map(lambda a, is_kept: a * select(is_kept, scale, 0.0), value, kept), kept


@RULES.register("bernoulli")
def _bernoulli(to: Lowering, _x: Any, chance: float | None = None, **_: Any) -> Value:
    if not isinstance(chance, int | float):
        raise to.unsupported("a probability that is a tensor")
    return to.builder.map(
        lambda word: apply(Op.FROM_INT, _happens(word, chance)), _draw(to, to.shape)
    )


@RULES.register("rand", "rand_like", "uniform")
def _uniform(to: Lowering, _x: Any, low: float = 0.0, high: float = 1.0, **_: Any) -> Value:
    """Return multiples of 2^-24 in [0, 1), which binary32 holds, stretched to [low, high)."""

    def stretch(word: Expr) -> Expr:
        unit = apply(Op.FROM_INT, apply(Op.SHR, word, 8)) * 2.0**-24
        scaled = unit * (high - low)
        return scaled + low if low else scaled

    return to.builder.map(stretch, _draw(to, to.shape))
