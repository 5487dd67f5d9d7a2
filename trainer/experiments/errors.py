"""Errors of one step's gradients against float64 autograd: exact arithmetic of any bits, fp32, bf16."""

import copy
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from trainer.execution import Executor
from trainer.experiments.corpus import Corpus
from trainer.jobs import Schedule
from trainer.lower.optimizer import AdamW
from trainer.lower.precision import Precision
from trainer.lower.step import DataSpec, lower_step
from trainer.models import Llama
from trainer.reference import ReferenceRun, read_batch
from trainer.shards import ShardTask, encode_counters

BATCH_SEED: Final = 5
_KINDS: Final = {  # of a decoder's tensors, by a part of the name
    "embedding": "embedding",
    "norm": "norms",
    "attention": "attention",
    "head": "head",
    "gate": "feed-forward",
    "up": "feed-forward",
    "down": "feed-forward",
}

Gradients = Mapping[str, Tensor]


class GradientErrors(BaseModel):
    """Relative errors |g - g64| / |g64| of a model's gradients: over all tensors, and by kind of tensor."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: int
    weights: str  # where they are from
    arithmetic: str
    median: float
    worst: float
    kinds: dict[str, float]  # medians


@dataclass(frozen=True, slots=True)
class Case:
    """A model at whose weights gradients are compared."""

    weights: str
    model: Llama


class GradientProgram:
    """A step of ``model``'s shape that computes gradients with the given bits, from any weights."""

    def __init__(self, model: Llama, corpus: Corpus, batch: int, precision: Precision) -> None:
        data = DataSpec(len(corpus.training), batch, model.config.length, corpus.dtype)
        step = lower_step(model, None, data, AdamW(), precision=precision)
        self._task = ShardTask(step.program, corpus.training, BATCH_SEED, 0, 0, 1)
        self._executor = Executor(step.program)
        self._slot = step.initial_slot

    def compute_gradients(self, model: nn.Module) -> Gradients:
        """Return the gradients of ``model`` on the first batch."""
        base = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        counters = encode_counters(self._task, 0)
        inputs = {**base, **self._slot, "tokens": self._task.dataset, "counters": counters}
        return self._executor.run_step(inputs).gradients


def read_first_batch(model: Llama, corpus: Corpus, batch: int) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets that a `GradientProgram` of that batch reads."""
    length, schedule = model.config.length, Schedule(1, 1, 1, 1)
    data = DataSpec(len(corpus.training), batch, length, corpus.dtype)
    run = ReferenceRun(model, AdamW(), corpus.training, data, BATCH_SEED, schedule)
    return read_batch(run, 0, 0, 0)


def compute_torch_gradients(
    model: nn.Module, batch: tuple[Tensor, Tensor], arithmetic: str
) -> Gradients:
    """Return autograd's gradients: ``arithmetic`` is fp64, fp32 or bf16 (autocast of the forward pass)."""
    copied = copy.deepcopy(model)
    if arithmetic == "fp64":
        copied = copied.double()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arithmetic == "bf16"):
        loss = copied(*batch)
    loss.backward()
    return {name: p.grad for name, p in copied.named_parameters() if p.grad is not None}


def compare_gradients(
    case: Case, arithmetic: str, found: Gradients, expected: Gradients
) -> GradientErrors:
    """Return the errors of ``found``; ``expected`` is in float64."""
    errors = {name: _compute_error(found[name], expected[name]) for name in expected}
    kinds = sorted(set(_KINDS.values()))
    groups = {kind: [e for name, e in errors.items() if find_kind(name) == kind] for kind in kinds}
    return GradientErrors(
        vocabulary=case.model.config.vocab,
        weights=case.weights,
        arithmetic=arithmetic,
        median=_round(statistics.median(errors.values())),
        worst=_round(max(errors.values())),
        kinds={kind: _round(statistics.median(group)) for kind, group in groups.items() if group},
    )


def find_kind(name: str) -> str:
    """Return the kind of a decoder's tensor."""
    return next(kind for part, kind in _KINDS.items() if part in name)


def _compute_error(found: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.vector_norm(found.double() - expected)
    return float(difference / torch.linalg.vector_norm(expected))


def _round(error: float) -> float:
    return float(f"{error:.3g}")
