"""The demo's dishonest provider: it runs half of the steps of every segment and forges the rest.

It is the ordinary provider with another `TrainSegment`, so all else about it is as it should be."""

from collections.abc import Callable
from dataclasses import replace

import torch

from trainer.commands.provider import ProviderOptions, provide
from trainer.execution import Executor
from trainer.shards import SegmentEnd, ShardTask, run_segment
from trainer.states import State


def skip_half(
    executor: Executor,
    task: ShardTask,
    state: State,
    segment: int,
    on_step: Callable[[int], None],
) -> SegmentEnd:
    """Run the first half of the steps, and extrapolate what the others might have done."""
    half = replace(task, steps_per_segment=task.steps_per_segment // 2)
    end = run_segment(executor, half, state, 2 * segment, on_step)
    forged = {
        name: tensor + (tensor - state[name]) if tensor.is_floating_point() else tensor
        for name, tensor in end.state.items()
    }
    return SegmentEnd(forged, end.gradients, torch.cat([end.metrics, end.metrics]))


def main() -> None:
    """Run the provider with half of the work."""
    provide(ProviderOptions(threads=1, self_check=False), skip_half)


if __name__ == "__main__":
    main()
