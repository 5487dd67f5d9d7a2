"""A training that overflows stays a function: every machine gets the same infinities and the one NaN."""

import pytest
import torch

from market.protocol.constants import CANONICAL_NAN
from market.protocol.program import TensorRole
from tests.trainer.tiny_job import build_tiny_job
from trainer.execution import Executor
from trainer.shards import ShardTask, run_segment
from trainer.states import compute_state_roots, decode_state, encode_state


@pytest.fixture(scope="module")
def job():
    return build_tiny_job()


@pytest.fixture(scope="module")
def huge(job):
    """An initial state whose weights overflow in the first product."""
    base = job["program"].find_inputs(TensorRole.BASE)
    return {
        name: tensor * 1e38 if name in base and tensor.ndim == 2 else tensor
        for name, tensor in job["initial"].items()
    }


def train(job, state, backend):
    task = ShardTask(job["program"], job["dataset"], 1, 0, 0, 2)
    executor = Executor(job["program"], backend=backend, threads=2)
    return run_segment(executor, task, state, 0)


def test_an_overflow_gives_the_same_state_in_every_form(job, huge):
    ends = [train(job, huge, backend) for backend in ("fused", "torch")]

    first, second = (compute_state_roots(job["program"], end.state) for end in ends)
    assert first == second
    assert not torch.isfinite(ends[0].metrics[:, 0]).any()


def test_the_state_after_an_overflow_can_be_stored_and_read_again(job, huge):
    end = train(job, huge, "fused")

    state = decode_state(job["program"], encode_state(job["program"], end.state))

    found = torch.cat([t.reshape(-1) for t in state.values()])
    patterns = found[found.isnan()].view(torch.int32)
    assert len(patterns) > 0
    assert (patterns == CANONICAL_NAN).all()
    for name, tensor in end.state.items():
        assert torch.equal(state[name].view(torch.int32), tensor.view(torch.int32))
