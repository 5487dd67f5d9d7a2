"""The fp32 twin: the same batches and the same steps, whatever the optimizer and the data."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.execution import Executor
from trainer.jobs import Schedule
from trainer.lower.muon import Muon
from trainer.lower.optimizer import SGD, AdamW
from trainer.lower.step import DataSpec, RowSpec, lower_step
from trainer.reference import ReferenceRun, read_batch, train_reference
from trainer.shards import ShardTask, run_segment

STEPS, SEED, CLASSES = 4, 5, 4
SCHEDULE = Schedule(rounds=1, slots=1, segments=1, steps_per_segment=STEPS)
PACE = {"total_steps": 8, "steps_per_shard": STEPS, "weight_decay": 0.1}
RULES = {
    "AdamW": AdamW(learning_rate=0.01, **PACE),
    "SGD": SGD(learning_rate=0.1, nesterov=True, **PACE),
    "Muon": Muon(learning_rate=0.01, hidden=("1.weight",), **PACE),
}
ROWS = RowSpec(30, 4, (2, 3))


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, CLASSES))


def make_rows():
    noise = np.random.default_rng(0)
    table = noise.integers(0, 256, (ROWS.rows, 7)).astype(np.uint8)
    table[:, -1] = noise.integers(0, CLASSES, ROWS.rows)
    return torch.tensor(table)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_takes_the_steps_that_the_program_takes(rule):
    model, dataset = build_model(), make_rows()
    step = lower_step(model, F.cross_entropy, ROWS, rule)
    task = ShardTask(step.program, dataset, SEED, 0, 0, STEPS)
    end = run_segment(Executor(step.program), task, {**step.initial_base, **step.initial_slot}, 0)

    run = ReferenceRun(model, rule, dataset, ROWS, SEED, SCHEDULE, F.cross_entropy)
    trained, losses = train_reference(run)

    assert end.metrics[:, 0].tolist() == pytest.approx(losses, rel=2e-3)
    for name, p in trained.named_parameters():
        moved = end.state[name] - step.initial_base[name]
        twin = p.detach() - step.initial_base[name]
        bound = 0.2 if name in getattr(rule, "hidden", ()) else 0.05  # torch turns in bfloat16
        assert float((moved - twin).norm()) < bound * float(twin.norm()), name


def test_it_reads_windows_of_any_integer_type():
    tokens = torch.arange(1000, dtype=torch.int16)
    data = DataSpec(1000, 3, 5)
    run = ReferenceRun(build_model(), RULES["SGD"], tokens, data, SEED, SCHEDULE)

    inputs, targets = read_batch(run, 0, 0, 1)

    assert inputs.dtype == torch.int64
    assert torch.equal(inputs + 1, targets)
    assert inputs.shape == (3, 5)
