"""Runs a lowered step with the float64 oracle, and the same module with float64 autograd."""

import copy

import numpy as np
import torch

from market.protocol.philox import compute_batch_starts
from tests.trainer.lower.interpreter import Interpreter
from trainer.lower.optimizer import AdamW
from trainer.lower.step import DataSpec, lower_step

SEED = 2**63 - 7
OPTIMIZER = AdamW(total_steps=100, warmup_steps=10, steps_per_shard=20)


def make_tokens(count: int, vocab: int = 256) -> np.ndarray:
    return np.random.default_rng(1).integers(0, vocab, count).astype(np.uint8)


def make_inputs(step, tokens, *, round_index=0, slot=0, index=0):
    counters = np.array([SEED, round_index, slot, index], np.int64)
    return {**step.initial_base, **step.initial_slot, "tokens": tokens, "counters": counters}


def read_rows(tokens, data: DataSpec, *, round_index=0, slot=0, index=0):
    starts = compute_batch_starts(
        SEED, round_index, slot, index, data.batch, data.tokens, data.length
    )
    rows = np.stack([tokens[at : at + data.length + 1] for at in starts]).astype(np.int64)
    return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())


def to_torch(inputs):
    return {name: torch.as_tensor(value) for name, value in inputs.items()}


def compute_autograd(model, batch, loss=None):
    """Return the loss and gradients in float64."""
    exact = copy.deepcopy(model).double()
    value = exact(*batch) if loss is None else loss(exact(batch[0]), batch[1])
    value.backward()
    return value.item(), {n: p.grad for n, p in exact.named_parameters() if p.grad is not None}


def relative_error(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def find_errors(model, loss=None, data=None, **place):
    """Return the relative errors of the loss and of each gradient of the lowered step."""
    data = data or DataSpec(1000, 2, 4)
    tokens = make_tokens(data.tokens)
    step = lower_step(model, loss, data, OPTIMIZER)
    _, gradients, metrics = Interpreter(step.program).run(make_inputs(step, tokens, **place))
    batch = read_rows(tokens, data, **place)
    value, expected = compute_autograd(model, batch, loss)
    errors = {name: relative_error(gradients[name], g) for name, g in expected.items()}
    return {"loss": relative_error(metrics["metrics"][0], value), **errors}
