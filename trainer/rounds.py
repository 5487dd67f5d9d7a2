"""The outer step: how a round's base follows from the contributions of the round before.

It is an exact program like any other, so every participant computes the same bits for itself."""

import math
from collections.abc import Sequence

import torch

from market.protocol.program import Program, TensorRole
from trainer.execution import Executor
from trainer.lower.outer import contribution_name
from trainer.states import State


def compute_next_base(outer: Program, base: State, contributions: Sequence[State | None]) -> State:
    """Return the next round's base from this round's ``base`` and its slots' poststates, in order.

    A slot that is missing from the round, None, gives NaN in every element: like any contribution
    that is not finite, it counts as zero."""
    names = outer.find_inputs(TensorRole.BASE)
    nothing = {name: torch.full_like(base[name], math.nan) for name in names}
    inputs = {name: base[name] for name in names}
    for slot, contribution in enumerate(contributions):
        given = nothing if contribution is None else contribution
        inputs |= {contribution_name(slot, name): given[name] for name in names}
    return Executor(outer).run_step(inputs).state
