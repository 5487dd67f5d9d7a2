"""The same job in ordinary torch fp32: what exactness is compared with, in loss and in time.

Same initialization, same batches, same schedule and the same averaging; torch's own kernels and AdamW."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from market.protocol.philox import compute_batch_starts
from trainer.jobs import Schedule
from trainer.lower.optimizer import AdamW


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """A job as ordinary torch runs it: the model, its rule, its data and its schedule."""

    model: nn.Module
    rule: AdamW
    dataset: Tensor  # u8 [tokens]
    batch: int
    length: int
    seed: int
    schedule: Schedule


def build_optimizer(model: nn.Module, rule: AdamW) -> torch.optim.AdamW:
    """Return torch's AdamW with the rule's constants; decay applies to two axes or more."""
    groups = [
        {
            "params": [p for p in model.parameters() if p.ndim >= 2],
            "weight_decay": rule.weight_decay,
        },
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (rule.beta1, rule.beta2)
    return torch.optim.AdamW(groups, lr=rule.learning_rate, betas=betas, eps=rule.epsilon)


def read_batch(run: ReferenceRun, round_index: int, slot: int, step: int) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a step, i64 [batch, length] each."""
    starts = compute_batch_starts(
        run.seed, round_index, slot, step, run.batch, len(run.dataset), run.length
    )
    rows = torch.stack([run.dataset[start : start + run.length + 1] for start in starts]).long()
    return rows[:, :-1], rows[:, 1:]


def take_step(
    run: ReferenceRun,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    batch: tuple[Tensor, Tensor],
    global_step: int,
) -> float:
    """Update ``model`` once; return its loss before."""
    for group in optimizer.param_groups:
        group["lr"] = run.rule.compute_learning_rate(global_step)
    loss: Tensor = model(*batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    torch.nn.utils.clip_grad_norm_(model.parameters(), run.rule.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train_reference(
    run: ReferenceRun, on_step: Callable[[], None] | None = None
) -> tuple[nn.Module, list[float]]:
    """Return the trained model and the loss of every global step, averaged over the slots."""
    schedule = run.schedule
    models = [copy.deepcopy(run.model) for _ in range(schedule.slots)]
    optimizers = [build_optimizer(model, run.rule) for model in models]
    losses = [0.0] * (schedule.rounds * schedule.steps)
    for round_index in range(schedule.rounds):
        for slot, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            for step in range(schedule.steps):
                at = round_index * schedule.steps + step
                batch = read_batch(run, round_index, slot, step)
                losses[at] += take_step(run, model, optimizer, batch, at) / schedule.slots
                if on_step:
                    on_step()
        _average(models)
    return models[0], losses


def _average(models: list[nn.Module]) -> None:
    with torch.no_grad():
        for parameters in zip(*(model.parameters() for model in models), strict=True):
            mean = sum(parameters[1:], parameters[0]) / len(parameters)
            for parameter in parameters:
                parameter.copy_(mean)


def compute_held_out_loss(model: nn.Module, held_out: Tensor, length: int, rows: int) -> float:
    """Return the mean loss on ``rows`` windows spread evenly over the ``held_out`` bytes."""
    last = len(held_out) - length - 1
    starts = [last * row // max(1, rows - 1) for row in range(rows)]
    windows = torch.stack([held_out[start : start + length + 1] for start in starts]).long()
    with torch.no_grad():
        parts = [windows[at : at + 1] for at in range(len(windows))]
        losses = [float(model(part[:, :-1], part[:, 1:])) for part in parts]
    return sum(losses) / len(losses)
