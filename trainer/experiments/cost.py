"""What bits cost in time: steps of one model in several arithmetics, taking turns in one process."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict

from market.protocol.program import Kind, Program
from trainer.execution import Executor
from trainer.experiments.trials import TORCH_ARITHMETICS, TorchTraining, Trial
from trainer.lower.precision import Precision
from trainer.lower.step import DataSpec, lower_step
from trainer.shards import ShardTask, encode_counters

DIGITS: Final = {8: 1, 14: 2, 16: 2, 24: 3}  # of 8 bits


class StepCost(BaseModel):
    """The best time of a step, and for each multiply-add of its contractions the products of 8-bit digits."""

    model_config = ConfigDict(extra="forbid")

    arithmetic: str
    products: float | None  # of exact arithmetic
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _Side:
    arithmetic: str
    products: float | None
    step: Callable[[], object]


def measure_costs(trial: Trial, arithmetics: Sequence[str], rounds: int) -> list[StepCost]:
    """Return the cost of the first step of ``trial``, whose own arithmetic is not looked at."""
    torch.set_num_threads(trial.threads)
    sides = [_prepare(trial, arithmetic) for arithmetic in arithmetics]
    best = dict.fromkeys(arithmetics, math.inf)
    for _ in range(rounds):
        for side in sides:
            start = time.perf_counter()
            side.step()
            best[side.arithmetic] = min(best[side.arithmetic], time.perf_counter() - start)
    return [
        StepCost(
            arithmetic=side.arithmetic,
            products=side.products,
            milliseconds=round(best[side.arithmetic] * 1e3, 2),
        )
        for side in sides
    ]


def count_products(program: Program) -> float:
    """Return the products of 8-bit digits for each multiply-add of the program's contractions."""
    work = products = 0
    for instruction in program.instructions:
        if instruction.kind is Kind.DOT:
            bits = (program.tensors[view.tensor].type.bits for view in instruction.operands)
            volume = math.prod(instruction.shape)
            work += volume
            products += volume * math.prod(DIGITS[b] for b in bits)
    return products / work


def _prepare(trial: Trial, arithmetic: str) -> _Side:
    corpus, model = trial.read_corpus(), trial.build_model()
    if arithmetic in TORCH_ARITHMETICS:
        training = TorchTraining(trial.vary(arithmetic, trial.seed), corpus)
        return _Side(arithmetic, None, lambda: training.take_step(0))
    data = DataSpec(len(corpus.training), trial.batch, model.config.length, corpus.dtype)
    step = lower_step(model, None, data, trial.rule, precision=Precision.parse(arithmetic))
    executor = Executor(step.program, threads=trial.threads)
    task = ShardTask(step.program, corpus.training, trial.seed, 0, 0, trial.segment)
    inputs = {**step.initial_base, **step.initial_slot}
    inputs |= {"tokens": task.dataset, "counters": encode_counters(task, 0)}
    return _Side(
        arithmetic,
        round(count_products(step.program), 2),
        lambda: executor.release(executor.run_step(inputs)),
    )
