"""Muon: steps of hidden matrices along the orthogonal factor of their gradients' running mean.

Newton and Schulz's iteration finds the factor in exact contractions; all other tensors follow AdamW, at the
same learning rate, because a matrix's step is scaled to the size of one of AdamW's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainer.lower import instructions
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import Expr, lift, select
from trainer.lower.optimizer import AdamW, Pace, compute_norm, momentum_name
from trainer.lower.values import Lazy, Value, permute

ITERATIONS: Final = 5
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: steepest at 0
LEAST_NORM: Final = 1e-7
ADAM_SIZE: Final = 0.2  # root mean square of a step of AdamW's, in learning rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Muon(AdamW):
    """Orthogonal steps of the matrices named in ``hidden``, with Nesterov's momentum; AdamW elsewhere."""

    hidden: tuple[str, ...]
    momentum: float = 0.95

    def build_slot(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a running mean for each hidden matrix, and AdamW's state for the rest."""
        others = {name: tensor for name, tensor in base.items() if name not in self.hidden}
        slot = {momentum_name(name): torch.zeros_like(base[name]) for name in self.hidden}
        return slot | AdamW.build_slot(self, others)

    def move(
        self,
        builder: ProgramBuilder,
        pace: Pace,
        state: Mapping[str, Value],
        gradients: Mapping[str, Value],
    ) -> dict[str, Value]:
        """Return the next weights, means, moments and powers."""
        others = {name: g for name, g in gradients.items() if name not in self.hidden}
        following = AdamW.move(self, builder, pace, state, others)
        clip, rate = builder.store(pace.clip), pace.rate
        keep = builder.store(builder.map(lambda r: lift(1.0, "f") - r * self.weight_decay, rate))
        for name in self.hidden:
            names = (name, momentum_name(name))
            old = [state[part] for part in names]
            moved = self._turn(builder, old, gradients[name], (clip, rate, keep))
            following.update(zip(names, moved, strict=True))
        return following

    def _turn(
        self,
        builder: ProgramBuilder,
        old: Sequence[Value],
        gradient: Value,
        scalars: Sequence[Lazy],
    ) -> tuple[Value, Value]:
        """Return the next weights and running mean of one matrix."""
        (weights, mean), (clip, rate, keep) = old, scalars
        size = ADAM_SIZE * math.sqrt(max(gradient.shape))

        def follow(m: Expr, g: Expr, c: Expr) -> Expr:
            return m * self.momentum + (g * c) * (1 - self.momentum)

        mean = builder.store(builder.map(follow, mean, gradient, clip))
        direction = orthogonalize(builder, builder.map(follow, mean, gradient, clip))
        moved = builder.map(
            lambda w, k, d, r: w * k - d * (r * size), weights, keep, direction, rate
        )
        return builder.store(moved), mean


def orthogonalize(builder: ProgramBuilder, matrix: Value) -> Value:
    """Return nearly the orthogonal factor of ``matrix``: its singular values become about 1."""
    rows, columns = matrix.shape
    if rows > columns:
        return permute(orthogonalize(builder, permute(matrix, (1, 0))), (1, 0))
    linear, cubic, quintic = COEFFICIENTS
    norm = compute_norm(builder, [builder.store(matrix)])
    x = builder.map(lambda v, n: v / select(n < LEAST_NORM, LEAST_NORM, n), matrix, norm)
    for _ in range(ITERATIONS):
        x = builder.store(x)
        square = instructions.dot(builder, x, x)  # symmetric, so its rows are its columns
        fourth = instructions.dot(builder, square, square)
        mixed = builder.map(lambda a, b: a * cubic + b * quintic, square, fourth)
        turned = instructions.dot(builder, mixed, permute(x, (1, 0)))
        x = builder.map(lambda v, t: v * linear + t, x, turned)
    return x
