"""Rows and their classes: which rows a step reads, what becomes of their bytes, a classifier's gradients."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from market.protocol.philox import compute_batch_starts
from market.protocol.program import TensorRole
from market.protocol.tensors import Dtype, TensorType
from tests.trainer.lower.interpreter import Interpreter
from tests.trainer.lower.oracle import (
    OPTIMIZER,
    SEED,
    compute_autograd,
    make_inputs,
    relative_error,
    to_torch,
)
from trainer.execution import Executor
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import apply
from trainer.lower.step import COUNTERS, DATASET, Op, OutputKind, RowSpec, lower_step, read_batch

SHAPE, CLASSES = (2, 3, 3), 5
BYTES, REALS = RowSpec(40, 6, SHAPE), RowSpec(40, 6, SHAPE, Dtype.F32)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(18, 12), nn.Linear(12, CLASSES)

    def forward(self, images):
        return self.out(F.relu(self.hidden(images.flatten(1))))


def make_table(data):
    noise = np.random.default_rng(2)
    inputs = noise.integers(0, 256, (data.rows, 18))
    if data.dtype is Dtype.F32:
        inputs = noise.normal(size=inputs.shape)
    labels = noise.integers(0, CLASSES, (data.rows, 1))
    table = np.concatenate([inputs, labels], axis=1)
    return table.astype(np.uint8 if data.dtype is Dtype.U8 else np.float32)


def read_rows(table, data, index):
    chosen = compute_batch_starts(SEED, 0, 0, index, data.batch, data.rows, 0)
    rows = torch.from_numpy(table[chosen].astype(np.float64))
    inputs = rows[:, :-1].reshape(-1, *SHAPE)
    return inputs / 255 if data.dtype is Dtype.U8 else inputs, rows[:, -1].long()


@pytest.mark.parametrize("data", [BYTES, REALS], ids=["bytes", "reals"])
def test_a_step_reads_the_rows_that_the_seed_draws(data):
    builder = ProgramBuilder()
    dataset = builder.add_input(DATASET, data.type, TensorRole.DATASET)
    counters = builder.add_input(COUNTERS, TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    inputs, labels = read_batch(builder, data, dataset, counters)
    labels = builder.map(lambda n: apply(Op.FROM_INT, n), labels)
    table = make_table(data)
    place = {DATASET: table, COUNTERS: np.array([SEED, 0, 0, 7])}

    found = [
        Interpreter(builder.build([NamedOutput(OutputKind.METRICS, "", value)])).run(place)[2][""]
        for value in (inputs, labels)
    ]

    expected = read_rows(table, data, 7)
    assert found[0].shape == (data.batch, *SHAPE)
    np.testing.assert_array_equal(found[0], expected[0].numpy())
    np.testing.assert_array_equal(found[1], expected[1].numpy())


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("data", [BYTES, REALS], ids=["bytes", "reals"])
def test_a_classifier_has_the_gradients_of_autograd(data, micro_batches):
    table = make_table(data)
    step = lower_step(Classifier(), F.cross_entropy, data, OPTIMIZER, micro_batches=micro_batches)

    _, gradients, metrics = Interpreter(step.program).run(make_inputs(step, table, index=2))

    loss, expected = compute_autograd(Classifier(), read_rows(table, data, 2), F.cross_entropy)
    assert metrics["metrics"][0] == pytest.approx(loss, rel=1e-6)
    assert all(relative_error(gradients[name], g) < 1e-6 for name, g in expected.items())


def test_bytes_become_what_torch_makes_of_them():
    table = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 2))
    step = lower_step(nn.Linear(1, 256), F.cross_entropy, RowSpec(256, 512, (1,)), OPTIMIZER)
    executor = Executor(step.program)
    seen = {}

    def keep(number, values):
        seen[number] = [v.elements.clone() for v in values if v.elements.dtype == torch.float32]

    executor.run_step(to_torch(make_inputs(step, table)), observe=keep)

    chosen = compute_batch_starts(SEED, 0, 0, 0, 512, 256, 0)
    expected = torch.tensor(chosen, dtype=torch.uint8).float() / 255
    assert any(torch.equal(found.flatten(), expected) for all_ in seen.values() for found in all_)
