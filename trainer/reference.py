"""The same job in ordinary torch fp32: what exactness is compared with, in loss and in time.

Same initialization, batches, schedule and averaging; torch's own kernels and optimizers."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from market.protocol.philox import compute_batch_starts
from trainer.jobs import Schedule
from trainer.lower.graph import LossFunction
from trainer.lower.muon import Muon
from trainer.lower.optimizer import SGD, AdamW, Rule
from trainer.lower.step import DataSpec, RowSpec

Batch = tuple[Tensor, Tensor]  # inputs and targets


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """A job as ordinary torch runs it: the model, its rule, its data and its schedule."""

    model: nn.Module
    rule: Rule
    dataset: Tensor
    data: DataSpec | RowSpec
    seed: int
    schedule: Schedule
    loss: LossFunction | None = None  # of the model's output and the targets


class _MuonAndAdamW(torch.optim.Optimizer):
    """Both as one: the groups are those of the two."""

    def __init__(self, hidden: torch.optim.Muon, others: torch.optim.AdamW) -> None:
        super().__init__([*hidden.param_groups, *others.param_groups], {})
        self._parts = hidden, others

    def step(self) -> None:  # type: ignore[override]  # nobody passes a closure
        """Update all parameters."""
        hidden, others = self._parts
        hidden.step()  # type: ignore[no-untyped-call]  # torch's
        others.step()


def build_optimizer(model: nn.Module, rule: Rule) -> torch.optim.Optimizer:
    """Return torch's optimizer with the rule's constants; decay applies to two axes or more."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = {name: named.pop(name) for name in rule.hidden} if isinstance(rule, Muon) else {}
    groups = [
        {
            "params": [p for p in named.values() if p.ndim >= 2],
            "weight_decay": rule.weight_decay,
        },
        {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if isinstance(rule, SGD):
        return torch.optim.SGD(groups, momentum=rule.momentum, nesterov=rule.nesterov)
    assert isinstance(rule, AdamW)
    betas = (rule.beta1, rule.beta2)
    adam = torch.optim.AdamW(groups, lr=rule.learning_rate, betas=betas, eps=rule.epsilon)
    if not isinstance(rule, Muon) or not hidden:
        return adam
    muon = torch.optim.Muon(
        hidden.values(),
        weight_decay=rule.weight_decay,
        momentum=rule.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return _MuonAndAdamW(muon, adam)


def read_batch(run: ReferenceRun, round_index: int, slot: int, step: int) -> Batch:
    """Return the inputs and targets of a step as the program reads them."""
    length = run.data.length if isinstance(run.data, DataSpec) else 0
    place = run.seed, round_index, slot, step
    starts = compute_batch_starts(*place, run.data.batch, len(run.dataset), length)
    if isinstance(run.data, RowSpec):
        return cut_rows(run.data, run.dataset[starts])
    return cut_windows(run.dataset, starts, length)


def cut_windows(tokens: Tensor, starts: list[int], length: int) -> Batch:
    """Return the windows at ``starts`` and the tokens that follow each of theirs, i64 [n, length]."""
    rows = torch.stack([tokens[start : start + length + 1] for start in starts]).long()
    return rows[:, :-1], rows[:, 1:]


def cut_rows(data: RowSpec, rows: Tensor) -> Batch:
    """Return the inputs and classes in ``rows``; bytes become numbers from 0 to 1."""
    inputs = rows[:, :-1].float().reshape(-1, *data.input_shape)
    return inputs / 255 if rows.dtype == torch.uint8 else inputs, rows[:, -1].long()


def compute_loss(model: nn.Module, loss: LossFunction | None, batch: Batch) -> Tensor:
    """Return the loss of a batch: the model's own, or ``loss`` of its output."""
    found: Tensor = model(*batch) if loss is None else loss(model(batch[0]), batch[1])
    return found


def take_step(
    run: ReferenceRun,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    global_step: int,
) -> float:
    """Update ``model`` once; return its loss before."""
    for group in optimizer.param_groups:
        group["lr"] = run.rule.compute_learning_rate(global_step)
    loss = compute_loss(model, run.loss, batch)
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


def compute_held_out_loss(
    model: nn.Module,
    held_out: Tensor,
    length: int,
    rows: int,
    loss: LossFunction | None = None,
) -> float:
    """Return the mean loss on ``rows`` windows spread evenly over the ``held_out`` tokens."""
    last = len(held_out) - length - 1
    starts = [last * row // max(1, rows - 1) for row in range(rows)]
    with torch.no_grad():
        losses = [
            float(compute_loss(model, loss, cut_windows(held_out, [start], length)))
            for start in starts
        ]
    return sum(losses) / len(losses)
