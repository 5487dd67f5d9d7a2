"""How much exactness costs: steps, contractions and memory against torch's own, sides taking turns."""

import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from market.protocol.constants import MAX_STATE_BYTES
from market.protocol.program import OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.storage.blobs import BlobStore
from trainer.execution import Executor
from trainer.lower import instructions
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.progress import ProgressKeeper, ShardProgress, write_boundary
from trainer.shards import SegmentEnd, ShardTask, hash_segment, run_segment
from trainer.states import State

ROUNDS: Final = 12
SEGMENT_STEPS: Final = 16
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    exact, eager, kinds = [], [], []
    with _use_threads(executor.threads):
        for _ in range(rounds):
            exact.append(_measure_s(lambda: _run_exact(executor, inputs)))
            eager.append(_measure_s(lambda: _run_eager(model, compute_loss, optimizer)))
            kinds.append(_measure_kinds(executor, inputs))
    return {
        "threads": executor.threads,
        "exact_ms": min(exact) * 1e3,
        "fp32_ms": min(eager) * 1e3,
        "ratio": min(exact) / min(eager),
        "kinds_ms": {kind: min(times[kind] for times in kinds) * 1e3 for kind in kinds[0]},
        "arena_mib": executor.arena_bytes / _KIBIBYTE**2,
        "peak_process_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIBIBYTE,
    }


def time_bf16_step(
    model: nn.Module, compute_loss: Callable[[], Tensor], threads: int, rounds: int = ROUNDS
) -> float:
    """Return the best time of the same step under bf16 autocast, in milliseconds.

    Slow beyond measure on processors without bfloat16 instructions."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    with _use_threads(threads), torch.autocast("cpu", torch.bfloat16):
        steps = (
            _measure_s(lambda: _run_eager(model, compute_loss, optimizer)) for _ in range(rounds)
        )
        return min(steps) * 1e3


@contextmanager
def _use_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_contraction(size: int, bits: int) -> Program:
    """Return a program that quantizes two matrices of ``size`` squared and contracts them."""
    builder = ProgramBuilder()
    kind = TensorType(Dtype.F32, (size, size))
    a, b = (builder.add_input(name, kind, TensorRole.DATASET) for name in ("a", "b"))
    product = instructions.dot(builder, a, b, bits=(bits, bits))
    return builder.build([NamedOutput(OutputKind.GRADIENT, "product", product)])


def time_contraction_ratio(
    size: int, bits: int, threads: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Return the best times of one exact contraction, quantizing included, and of torch's float32 product."""
    executor = Executor(build_contraction(size, bits), threads=threads)
    a, b = torch.randn(2, size, size)
    out = torch.empty(size, size)
    exact, plain = [], []
    with _use_threads(threads):
        for _ in range(rounds):
            exact.append(_measure_s(lambda: _run_exact(executor, {"a": a, "b": b})))
            plain.append(_measure_s(lambda: torch.mm(a, b.T, out=out)))
    return {
        "exact_ms": min(exact) * 1e3,
        "fp32_ms": min(plain) * 1e3,
        "ratio": min(exact) / min(plain),
    }


def measure_hashing_share(
    executor: Executor, state: State, dataset: Tensor, steps: int = 4, rounds: int = 3
) -> dict[str, float]:
    """Return what the end of a segment costs a provider, over the training of ``SEGMENT_STEPS`` steps.

    ``share`` counts all: the roots, the bytes and their CID, and the wait for the disk, although the next
    segment trains during that; ``share_waited`` is what the training stands still for. Times are the best of
    ``rounds`` segments of ``steps`` steps, each with its end."""
    task = ShardTask(executor.program, dataset, 1, 0, 0, steps)
    taken: list[float] = []
    ends: list[dict[str, float]] = []
    with _use_threads(executor.threads), tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder), MAX_STATE_BYTES)
        for _ in range(rounds):
            end, times = _time_steps(executor, task, state)
            taken += times
            ends.append(_measure_end(store, executor.program, end))
    found = {name: min(end[name] for end in ends) for name in ends[0]}
    training = min(taken) * SEGMENT_STEPS
    waited = found["roots_s"] + found["write_s"]
    return {
        **found,
        "step_s": min(taken),
        "share": (waited + found["keep_s"]) / training,
        "share_waited": waited / training,
    }


def _time_steps(
    executor: Executor, task: ShardTask, state: State
) -> tuple[SegmentEnd, list[float]]:
    """Run a segment; return its end and the seconds of all its steps but the first."""
    clock: list[float] = []
    end = run_segment(executor, task, state, 0, lambda _: clock.append(time.perf_counter()))
    return end, [later - sooner for sooner, later in pairwise(clock)]


def _measure_end(store: BlobStore, program: Program, end: SegmentEnd) -> dict[str, float]:
    """Do what a provider does at the end of a segment; return the seconds of its parts."""
    begin = time.perf_counter()
    roots, outcome = hash_segment(program, end)
    hashed = time.perf_counter()
    boundary = write_boundary(store, program, end.state, roots, outcome)
    written = time.perf_counter()
    keeper = ProgressKeeper()
    progress = ShardProgress(records=()).extend(boundary.record, end.metrics)
    with tempfile.TemporaryDirectory() as folder:
        keeper.begin_save(Path(folder) / "lease.json", progress, boundary.draft)
        keeper.wait()
    kept = time.perf_counter()
    store.delete(boundary.draft.cid)
    return {"roots_s": hashed - begin, "write_s": written - hashed, "keep_s": kept - written}


def _measure_s(step: Callable[[], object]) -> float:
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
