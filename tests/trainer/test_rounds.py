"""The base after a round whose set lacks slots."""

import pytest
import torch

from market.protocol.tensors import Dtype, TensorType
from trainer.lower.outer import lower_outer_step
from trainer.rounds import compute_next_base

KIND = TensorType(Dtype.F32, (3, 5))
OUTER = lower_outer_step({"w": KIND}, 3)


def make_state(seed):
    return {"w": torch.randn(KIND.shape, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_slot_counts_like_a_contribution_that_is_not_finite(missing):
    base, states = make_state(0), [make_state(slot + 1) for slot in range(3)]
    given = [None if slot == missing else state for slot, state in enumerate(states)]
    diverged = [s if s is not None else {"w": torch.full(KIND.shape, torch.inf)} for s in given]

    found = compute_next_base(OUTER, base, given)

    assert torch.equal(found["w"], compute_next_base(OUTER, base, diverged)["w"])
    deltas = sum(base["w"] - state["w"] for state in given if state is not None)
    torch.testing.assert_close(found["w"], base["w"] - deltas / 3)


def test_a_round_without_any_slot_changes_nothing():
    base = make_state(0)

    found = compute_next_base(OUTER, base, [None] * 3)

    assert torch.equal(found["w"], base["w"])
