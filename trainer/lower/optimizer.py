"""AdamW with clipping by the global norm, as exact maps.

The powers of beta are state, multiplied once a step; the learning rates of all steps are a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from market.protocol.constants import MAX_SUM_TERMS
from trainer.lower import instructions, recipes
from trainer.lower.builder import ProgramBuilder, concatenate
from trainer.lower.expressions import Expr, f32, lift, select
from trainer.lower.values import Lazy, Value, expand_lazy

BETA1_POWER = "optimizer/beta1_power"
BETA2_POWER = "optimizer/beta2_power"


@dataclass(frozen=True, slots=True)
class AdamW:
    """The rule and its schedule: linear warm-up, then a cosine from ``learning_rate`` to a fraction.

    Steps count over all rounds of a slot; decay applies to tensors of two axes or more."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    warmup_steps: int = 0
    total_steps: int = 1
    final_fraction: float = 0.1
    steps_per_shard: int = 1

    def compute_learning_rate(self, step: int) -> float:
        """Return the learning rate of a global step, before it is rounded to binary32."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        span = max(1, self.total_steps - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        share = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * share)


@dataclass(frozen=True, slots=True)
class Update:
    """The next state, and what the metrics report."""

    state: dict[str, Value]
    norm: Value
    learning_rate: Value


def moment_names(parameter: str) -> tuple[str, str]:
    """Return the slot tensors that hold a parameter's two moments."""
    return f"moment1/{parameter}", f"moment2/{parameter}"


def compute_norm(builder: ProgramBuilder, gradients: Sequence[Value]) -> Lazy:
    """Return the Euclidean norm of all gradients together, a scalar."""
    squares = []
    for gradient in gradients:
        flat = builder.reshape(gradient, (math.prod(gradient.shape),))
        squares.append(builder.to_lazy(builder.map(lambda g: g * g, flat)))
    whole = concatenate(squares, 0)
    count = whole.shape[0]
    parts = [
        instructions.reduce_sum(
            builder, builder.slice(whole, 0, start, min(count, start + MAX_SUM_TERMS)), [0]
        )
        for start in range(0, count, MAX_SUM_TERMS)
    ]
    joined = concatenate(parts, 0)
    total = joined if len(parts) == 1 else instructions.reduce_sum(builder, joined, [0])
    root = builder.map(recipes.square_root, builder.reshape(total, ()))
    return builder.store(root)


def _read_learning_rate(builder: ProgramBuilder, rule: AdamW, step: Value) -> Lazy:
    rates = [rule.compute_learning_rate(n) for n in range(rule.total_steps)]
    table = instructions.literal(builder, np.array(rates, dtype=np.float32))
    index = builder.reshape(step, (1,))
    return builder.reshape(instructions.gather(builder, index, table, 0), ())


def apply_adamw(
    builder: ProgramBuilder,
    rule: AdamW,
    step: Value,
    state: Mapping[str, Value],
    gradients: Mapping[str, Value],
) -> Update:
    """Return the state after one update at the global ``step``; ``gradients`` has the parameters."""
    rate = _read_learning_rate(builder, rule, step)
    norm = compute_norm(builder, list(gradients.values()))
    power1 = builder.store(builder.map(lambda p: p * rule.beta1, state[BETA1_POWER]))
    power2 = builder.store(builder.map(lambda p: p * rule.beta2, state[BETA2_POWER]))
    clip = rule.clip_norm
    scalars = [
        builder.store(value)
        for value in (
            builder.map(lambda n: select(f32(clip) < n, f32(clip) / n, 1.0), norm),
            builder.map(lambda r, p: r / (lift(1.0, "f") - p), rate, power1),
            builder.map(lambda p: recipes.square_root(lift(1.0, "f") - p), power2),
            builder.map(lambda r: lift(1.0, "f") - r * rule.weight_decay, rate),
        )
    ]
    following: dict[str, Value] = {BETA1_POWER: power1, BETA2_POWER: power2}
    for name, gradient in gradients.items():
        names = (name, *moment_names(name))
        old = [state[part] for part in names]
        for part, value in zip(names, _update(builder, rule, old, gradient, scalars), strict=True):
            following[part] = value
    return Update(following, norm, rate)


def _update(
    builder: ProgramBuilder,
    rule: AdamW,
    old: Sequence[Value],
    gradient: Value,
    scalars: Sequence[Lazy],
) -> tuple[Value, Value, Value]:
    """Return the next weights and moments of one tensor."""
    scale, size, root, keep = (expand_lazy(scalar, gradient.shape) for scalar in scalars)
    weights, first, second = old

    def follow_first(m: Expr, g: Expr, s: Expr) -> Expr:
        return m * rule.beta1 + (g * s) * (1 - rule.beta1)

    def follow_second(v: Expr, g: Expr, s: Expr) -> Expr:
        clipped = g * s
        return v * rule.beta2 + (clipped * clipped) * (1 - rule.beta2)

    def move(w: Expr, m: Expr, v: Expr, at: Expr, r: Expr) -> Expr:
        return w - m * at / (recipes.square_root(v) / r + rule.epsilon)

    first = builder.store(builder.map(follow_first, first, gradient, scale))
    second = builder.store(builder.map(follow_second, second, gradient, scale))
    if len(gradient.shape) >= 2 and rule.weight_decay:
        weights = builder.map(lambda w, k: w * k, weights, keep)
    weights = builder.map(move, weights, first, second, size, root)
    return builder.store(weights), first, second
