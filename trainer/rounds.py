"""The outer step: how a round's base follows from the contributions of the round before.

It is an exact program like any other, so every participant computes the same bits for itself."""

from collections.abc import Sequence

from market.protocol.program import Program, TensorRole
from trainer.execution import Executor
from trainer.states import State


def compute_next_base(outer: Program, base: State, contributions: Sequence[State]) -> State:
    """Return the next round's base from this round's ``base`` and its slots' poststates, in order."""
    names = outer.find_inputs(TensorRole.BASE)
    inputs = {name: base[name] for name in names}
    for slot, contribution in enumerate(contributions):
        inputs |= {f"{slot}/{name}": contribution[name] for name in names}
    return Executor(outer).run_step(inputs).state
