"""How much exactness costs: a program's step against the same training step in eager float32."""

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from trainer.execution import Executor

ROUNDS: Final = 12
_KIBIBYTE: Final = 1024


def time_step_ratio(
    executor: Executor,
    inputs: Mapping[str, Tensor],
    model: nn.Module,
    compute_loss: Callable[[], Tensor],
    rounds: int = ROUNDS,
) -> dict[str, object]:
    """Return the best times of an exact step and of the same step of ``model`` in eager float32.

    They take turns in this process, on the executor's number of threads, so a busy machine slows both. The
    exact step's milliseconds by instruction kind and peak memory come too."""
    before = torch.get_num_threads()
    torch.set_num_threads(executor.threads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    exact, eager, kinds = [], [], []
    try:
        for _ in range(rounds):
            exact.append(_measure_s(lambda: _run_exact(executor, inputs)))
            eager.append(_measure_s(lambda: _run_eager(model, compute_loss, optimizer)))
            kinds.append(_measure_kinds(executor, inputs))
    finally:
        torch.set_num_threads(before)
    return {
        "threads": executor.threads,
        "exact_ms": min(exact) * 1e3,
        "fp32_ms": min(eager) * 1e3,
        "ratio": min(exact) / min(eager),
        "kinds_ms": {kind: min(times[kind] for times in kinds) * 1e3 for kind in kinds[0]},
        "arena_mib": executor.arena_bytes / _KIBIBYTE**2,
        "peak_process_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIBIBYTE,
    }


def _measure_s(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _run_exact(executor: Executor, inputs: Mapping[str, Tensor]) -> None:
    executor.release(executor.run_step(inputs))


def _run_eager(
    model: nn.Module, compute_loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> None:
    optimizer.zero_grad(set_to_none=True)
    compute_loss().backward()  # type: ignore[no-untyped-call]  # torch declares no type for it
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _measure_kinds(executor: Executor, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the seconds of each kind of instruction in one step."""
    kinds: dict[str, float] = defaultdict(float)
    clock = [time.perf_counter()]

    def observe(i: int) -> None:
        now = time.perf_counter()
        kinds[executor.program.instructions[i].kind.name.lower()] += now - clock[0]
        clock[0] = now

    executor.release(executor.run_step(inputs, after=observe))
    return dict(kinds)
