"""The outer step: plain averaging that counts a contribution that is not finite as nothing."""

import numpy as np
import pytest
import torch

from market.protocol.program import OutputKind, TensorRole
from market.protocol.tensors import Dtype, TensorType
from trainer.execution import Executor
from trainer.lower.outer import contribution_name, lower_outer_step

BASE = {
    "w": TensorType(Dtype.F32, (3, 5)),
    "b": TensorType(Dtype.F32, (4,)),
    "s": TensorType(Dtype.F32, ()),
}


def make_state(seed):
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(kind.shape, generator=noise) for name, kind in BASE.items()}


def run(base, contributions):
    program = lower_outer_step(BASE, len(contributions))
    inputs = dict(base)
    for slot, tensors in enumerate(contributions):
        inputs |= {contribution_name(slot, name): t for name, t in tensors.items()}
    return Executor(program).run_step(inputs).state


def average(base, contributions):
    """The rule in binary32, slot by slot."""
    result = {}
    for name, old in base.items():
        total = torch.zeros_like(old)
        for number, tensors in enumerate(contributions):
            is_finite = all(bool(t.isfinite().all()) for t in tensors.values())
            delta = old - tensors[name] if is_finite else torch.zeros_like(old)
            total = delta if number == 0 else total + delta
        result[name] = old - total / len(contributions)
    return result


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_the_next_base_is_the_base_minus_the_mean_of_the_deltas(slots):
    base, contributions = make_state(0), [make_state(slot + 1) for slot in range(slots)]

    found = run(base, contributions)

    expected = average(base, contributions)
    assert list(found) == list(BASE)
    assert all(torch.equal(found[name], expected[name]) for name in BASE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", list(BASE))
def test_a_contribution_that_is_not_finite_counts_as_zero(bad, name):
    base, contributions = make_state(0), [make_state(slot + 1) for slot in range(3)]
    contributions[1][name].view(-1)[-1] = bad

    found = run(base, contributions)

    expected = average(base, contributions)
    assert all(torch.equal(found[name], expected[name]) for name in BASE)
    assert all(t.isfinite().all() for t in found.values())


def test_large_finite_contributions_are_finite():
    base = {name: torch.zeros(kind.shape) for name, kind in BASE.items()}
    huge = {name: torch.full(kind.shape, 3e38) for name, kind in BASE.items()}

    found = run(base, [huge])

    np.testing.assert_array_equal(found["w"].numpy(), np.full((3, 5), np.float32(3e38)))


def test_the_program_names_its_inputs_by_slot():
    program = lower_outer_step(BASE, 2)

    assert list(program.find_inputs(TensorRole.BASE)) == list(BASE)
    expected = [f"{slot}/{name}" for slot in range(2) for name in BASE]
    assert list(program.find_inputs(TensorRole.CONTRIBUTION)) == expected
    assert list(program.find_outputs(OutputKind.NEXT_STATE)) == list(BASE)
    assert not program.find_outputs(OutputKind.GRADIENT)
    assert not program.find_outputs(OutputKind.METRICS)
