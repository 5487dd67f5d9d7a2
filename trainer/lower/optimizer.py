"""Optimizers with clipping by the global norm, as exact maps: the rules' common schedule, AdamW, and SGD.

The powers of beta are state, multiplied once a step; the learning rates of all steps are a table."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from market.protocol.constants import MAX_SUM_TERMS
from trainer.lower import instructions, recipes
from trainer.lower.builder import ProgramBuilder, concatenate
from trainer.lower.expressions import Expr, f32, lift, select
from trainer.lower.values import Lazy, Value, expand_lazy

BETA1_POWER: Final = "optimizer/beta1_power"
BETA2_POWER: Final = "optimizer/beta2_power"


@dataclass(frozen=True, slots=True)
class Pace:
    """What all parameters' updates of one step share: scalars, not yet stored."""

    rate: Lazy  # the learning rate
    clip: Value  # what gradients are multiplied with


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """How weights follow gradients, and the schedule: linear warm-up, then a cosine from
    ``learning_rate`` to a fraction.

    Steps count over all rounds of a slot; decay applies to tensors of two axes or more."""

    learning_rate: float
    weight_decay: float
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

    @abstractmethod
    def build_slot(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rule's own state before the first step on the parameters ``base``."""

    @abstractmethod
    def move(
        self,
        builder: ProgramBuilder,
        pace: Pace,
        state: Mapping[str, Value],
        gradients: Mapping[str, Value],
    ) -> dict[str, Value]:
        """Return the next value of every tensor of ``state``: ``gradients`` has the parameters."""


@dataclass(frozen=True, slots=True)
class Update:
    """The next state, and what the metrics report."""

    state: dict[str, Value]
    norm: Value
    learning_rate: Value


def apply_rule(
    builder: ProgramBuilder,
    rule: Rule,
    step: Value,
    state: Mapping[str, Value],
    gradients: Mapping[str, Value],
) -> Update:
    """Return the state after one update at the global ``step``; ``gradients`` has the parameters."""
    rate = _read_learning_rate(builder, rule, step)
    norm = compute_norm(builder, list(gradients.values()))
    bound = rule.clip_norm
    clip = builder.map(lambda n: select(f32(bound) < n, f32(bound) / n, 1.0), norm)
    following = rule.move(builder, Pace(rate, clip), state, gradients)
    return Update(following, norm, rate)


def compute_norm(builder: ProgramBuilder, tensors: Sequence[Value]) -> Lazy:
    """Return the Euclidean norm of all ``tensors`` together, a scalar."""
    squares = []
    for tensor in tensors:
        flat = builder.reshape(tensor, (math.prod(tensor.shape),))
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


def _read_learning_rate(builder: ProgramBuilder, rule: Rule, step: Value) -> Lazy:
    rates = [rule.compute_learning_rate(n) for n in range(rule.total_steps)]
    table = instructions.literal(builder, np.array(rates, dtype=np.float32))
    index = builder.reshape(step, (1,))
    return builder.reshape(instructions.gather(builder, index, table, 0), ())


# AdamW


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(Rule):
    """Decoupled decay, and steps of the first moment over the root of the second, bias-corrected."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8

    def build_slot(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return two moments for each parameter, and the powers of both betas."""
        slot = {name: torch.zeros_like(base[p]) for p in base for name in moment_names(p)}
        return slot | {BETA1_POWER: torch.ones(()), BETA2_POWER: torch.ones(())}

    def move(
        self,
        builder: ProgramBuilder,
        pace: Pace,
        state: Mapping[str, Value],
        gradients: Mapping[str, Value],
    ) -> dict[str, Value]:
        """Return the next weights, moments and powers."""
        power1 = builder.store(builder.map(lambda p: p * self.beta1, state[BETA1_POWER]))
        power2 = builder.store(builder.map(lambda p: p * self.beta2, state[BETA2_POWER]))
        scalars = [
            builder.store(value)
            for value in (
                pace.clip,
                builder.map(lambda r, p: r / (lift(1.0, "f") - p), pace.rate, power1),
                builder.map(lambda p: recipes.square_root(lift(1.0, "f") - p), power2),
                builder.map(lambda r: lift(1.0, "f") - r * self.weight_decay, pace.rate),
            )
        ]
        following: dict[str, Value] = {BETA1_POWER: power1, BETA2_POWER: power2}
        for name, gradient in gradients.items():
            names = (name, *moment_names(name))
            moved = self._move_one(builder, [state[part] for part in names], gradient, scalars)
            following.update(zip(names, moved, strict=True))
        return following

    def _move_one(
        self,
        builder: ProgramBuilder,
        old: Sequence[Value],
        gradient: Value,
        scalars: Sequence[Lazy],
    ) -> tuple[Value, Value, Value]:
        """Return the next weights and moments of one tensor."""
        scale, size, root, keep = (expand_lazy(scalar, gradient.shape) for scalar in scalars)
        weights, first, second = old

        def follow_first(m: Expr, g: Expr, s: Expr) -> Expr:
            return m * self.beta1 + (g * s) * (1 - self.beta1)

        def follow_second(v: Expr, g: Expr, s: Expr) -> Expr:
            clipped = g * s
            return v * self.beta2 + (clipped * clipped) * (1 - self.beta2)

        def move(w: Expr, m: Expr, v: Expr, at: Expr, r: Expr) -> Expr:
            return w - m * at / (recipes.square_root(v) / r + self.epsilon)

        first = builder.store(builder.map(follow_first, first, gradient, scale))
        second = builder.store(builder.map(follow_second, second, gradient, scale))
        if len(gradient.shape) >= 2 and self.weight_decay:
            weights = builder.map(lambda w, k: w * k, weights, keep)
        weights = builder.map(move, weights, first, second, size, root)
        return builder.store(weights), first, second


def moment_names(parameter: str) -> tuple[str, str]:
    """Return the slot tensors that hold a parameter's two moments."""
    return f"moment1/{parameter}", f"moment2/{parameter}"


# SGD


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(Rule):
    """Steps along a running sum of gradients; decay is added to the gradient, as in torch's."""

    learning_rate: float = 0.1
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False

    def build_slot(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a running sum for each parameter; nothing without momentum."""
        if not self.momentum:
            return {}
        return {momentum_name(name): torch.zeros_like(tensor) for name, tensor in base.items()}

    def move(
        self,
        builder: ProgramBuilder,
        pace: Pace,
        state: Mapping[str, Value],
        gradients: Mapping[str, Value],
    ) -> dict[str, Value]:
        """Return the next weights and running sums."""
        clip, rate = builder.store(pace.clip), builder.store(pace.rate)
        following: dict[str, Value] = {}
        for name, gradient in gradients.items():
            weights = state[name]
            change = builder.map(lambda g, c: g * c, gradient, clip)
            if len(gradient.shape) >= 2 and self.weight_decay:
                change = builder.map(lambda g, w: g + w * self.weight_decay, change, weights)
            if self.momentum:
                kept = momentum_name(name)
                change, following[kept] = self._add_up(builder, change, state[kept])
            moved = builder.map(lambda w, d, r: w - d * r, weights, change, rate)
            following[name] = builder.store(moved)
        return following

    def _add_up(
        self, builder: ProgramBuilder, gradient: Value, total: Value
    ) -> tuple[Value, Value]:
        """Return the direction of the step and the next running sum."""
        total = builder.store(builder.map(lambda b, g: b * self.momentum + g, total, gradient))
        if not self.nesterov:
            return total, total
        return builder.map(lambda g, b: g + b * self.momentum, gradient, total), total


def momentum_name(parameter: str) -> str:
    """Return the slot tensor that holds the running sum of a parameter's gradients."""
    return f"momentum/{parameter}"
