"""Trains a model of the zoo exactly for a few steps, beside float64 autograd of the same module."""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from market.protocol.philox import compute_batch_starts, random_words
from tests.trainer.lower.oracle import SEED
from trainer.execution import Executor, StepResult
from trainer.lower.noise import FIRST_STREAM
from trainer.lower.optimizer import AdamW
from trainer.lower.step import COUNTERS, DATASET, DataSpec, LoweredStep, RowSpec, lower_step
from trainer.zoo import ModelSource, find_model

RULE = AdamW(learning_rate=1e-2, total_steps=20, steps_per_shard=20)
MEDIAN_BOUND = 1e-3  # measured 3e-5 to 2.2e-4; numerics.md has 4.5e-4 to 1.9e-3 for larger models
WORST_BOUND = 4e-3


@dataclass(frozen=True)
class Trial:
    """A lowered model, its data, and the results of its first steps."""

    source: ModelSource
    data: DataSpec | RowSpec
    table: np.ndarray
    step: LoweredStep
    results: tuple[StepResult, ...]

    @property
    def state(self):
        """The state after the last step."""
        return self.results[-1].state

    @property
    def losses(self):
        return [float(result.metrics[0]) for result in self.results]

    def read(self, index):
        """Return the batch of a step."""
        return read_batch(self.data, self.table, index)


@cache
def train(name: str, steps: int = 4) -> Trial:
    return train_source(find_model(name), steps)


def train_source(source: ModelSource, steps: int) -> Trial:
    data, table = make_data(source)
    step = lower_step(source.build(5), source.loss, data, RULE)
    return Trial(source, data, table, step, run_steps(Executor(step.program), step, table, steps))


def run_steps(executor: Executor, step: LoweredStep, table: np.ndarray, steps: int):
    state, results = {**step.initial_base, **step.initial_slot}, []
    for index in range(steps):
        counters = torch.tensor([SEED, 0, 0, index])
        place = {DATASET: torch.from_numpy(table), COUNTERS: counters}
        results.append(executor.run_step({**state, **place}))
        state = results[-1].state
    return tuple(results)


def make_data(source: ModelSource):
    noise = np.random.default_rng(1)
    if source.vocab is None:
        data = RowSpec(24, 8, source.input_shape)
        table = noise.integers(0, 256, data.type.shape).astype(np.uint8)
        table[:, -1] %= source.classes
        return data, table
    word = noise.integers(0, source.vocab, 13)
    return DataSpec(520, 2, 16), np.tile(word, 40).astype(np.uint8)


def read_batch(data, table, index):
    """Return inputs (rows: in float64) and targets."""
    if isinstance(data, RowSpec):
        chosen = compute_batch_starts(SEED, 0, 0, index, data.batch, data.rows, 0)
        rows = torch.from_numpy(table[chosen].astype(np.float64))
        return rows[:, :-1].reshape(-1, *data.input_shape) / 255, rows[:, -1].long()
    starts = compute_batch_starts(SEED, 0, 0, index, data.batch, data.tokens, data.length)
    windows = np.stack([table[at : at + data.length + 1] for at in starts]).astype(np.int64)
    return torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].copy())


class FixedDropout(TorchFunctionMode):
    """Makes the n-th dropout of a forward pass keep what the n-th stream of a step says."""

    def __init__(self, index):
        super().__init__()
        self.index, self.streams = index, itertools.count(FIRST_STREAM)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.nn.functional.dropout:
            return function(*args, **(kwargs or {}))
        x, chance, is_training = args[0], kwargs["p"], kwargs["training"]
        if not is_training or chance == 0:
            return x
        words = random_words(SEED, self.index, 0, next(self.streams), x.numel())
        kept = torch.tensor([word >= chance * 2**32 for word in words])
        return x * kept.reshape(x.shape) / (1 - chance)


def compute_errors(trial: Trial) -> list[float]:
    """Return the relative errors of the first step's gradients against float64."""
    exact, (inputs, targets) = trial.source.build(5).double(), trial.read(0)
    with FixedDropout(0):
        loss = trial.source.loss(exact(inputs), targets)
    loss.backward()
    trained = {n: p.grad for n, p in exact.named_parameters() if p.requires_grad}
    found = trial.results[0].gradients
    assert found.keys() == trained.keys()
    # a key's bias moves no softmax: its gradient is zero but for rounding
    floor = 1e-3 * max(float(g.norm()) for g in trained.values())
    return [
        float((found[name].double() - g).norm()) / max(float(g.norm()), floor)
        for name, g in trained.items()
    ]
