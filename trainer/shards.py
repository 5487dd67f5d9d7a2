"""Training a shard: segments of steps from a prestate, and the trace that commits to them.

Provider, auditor and replay all call `run_segment`; there is no other definition of a segment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from market.protocol.errors import InvalidProgram
from market.protocol.program import Program, TensorRole
from market.protocol.records import Outcome
from trainer.execution import Executor, StepResult
from trainer.states import State, StateRoots, compute_outcome, compute_state_roots

_SIGN_BIT = 1 << 63


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What a shard trains, and its coordinates: everything but the prestate."""

    program: Program
    dataset: Tensor
    seed: int
    round_index: int
    slot: int
    steps_per_segment: int


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """The poststate of a segment, the gradients of its last step and the metrics of every step."""

    state: State
    gradients: Mapping[str, Tensor]
    metrics: Tensor  # [steps, metrics], f32


class TrainSegment(Protocol):
    """Runs one segment: `run_segment`, or what a dishonest provider puts in its place."""

    def __call__(  # noqa: D102
        self,
        executor: Executor,
        task: ShardTask,
        state: State,
        segment: int,
        on_step: Callable[[int], None],
    ) -> SegmentEnd: ...


def encode_counters(task: ShardTask, step: int) -> Tensor:
    """Return the program's counters at ``step`` of the shard: i64[4]."""
    seed = task.seed - (1 << 64) if task.seed & _SIGN_BIT else task.seed
    return torch.tensor([seed, task.round_index, task.slot, step], dtype=torch.int64)


def _get_only_name(program: Program, role: TensorRole) -> str:
    names = list(program.find_inputs(role))
    if len(names) != 1:
        raise InvalidProgram(f"{len(names)} inputs of role {role.name.lower()}: a step takes one")
    return names[0]


def ignore_progress(step: int) -> None:
    """Report nothing."""


def run_segment(
    executor: Executor,
    task: ShardTask,
    state: State,
    segment: int,
    on_step: Callable[[int], None] = ignore_progress,
) -> SegmentEnd:
    """Return the end of ``segment`` begun at ``state``, which is left as it was.

    ``on_step`` hears the number of each step of the shard once it is done."""
    dataset = _get_only_name(task.program, TensorRole.DATASET)
    counters = _get_only_name(task.program, TensorRole.COUNTERS)
    metrics: list[Tensor] = []
    result: StepResult | None = None
    first = segment * task.steps_per_segment
    for step in range(first, first + task.steps_per_segment):
        inputs = {**state, dataset: task.dataset, counters: encode_counters(task, step)}
        result = executor.run_step(inputs, spent=result)
        state = result.state
        metrics.append(result.metrics.clone())
        on_step(step)
    assert result is not None  # a segment has steps
    return SegmentEnd(state, result.gradients, torch.stack(metrics))


def hash_segment(
    program: Program, end: SegmentEnd, before: StateRoots | None = None
) -> tuple[StateRoots, Outcome]:
    """Return the roots that the record after a segment carries.

    Given the roots of the state ``before`` it, frozen tensors are not hashed again."""
    roots = compute_state_roots(program, end.state, before)
    return roots, compute_outcome(program, end.gradients, end.metrics[-1])
