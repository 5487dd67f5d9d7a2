"""What `touchstone bench` does: the figures of README's table, measured here, ratios in one run."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel
from rich.console import Console

from market.commands.output import build_table
from market.protocol.spec import Terms
from market.storage.blobs import BlobStore
from market.storage.cid import Cid
from trainer.bench import time_step_ratio
from trainer.data import split_held_out
from trainer.execution import Executor
from trainer.jobs import JobFiles, Schedule, fetch_job, fetch_state
from trainer.prepare import Recipe, prepare_job
from trainer.shards import ShardTask, encode_counters, hash_segment, run_segment
from trainer.states import compute_state_roots, encode_state
from trainer.text import read_library_text
from verifier.audit import reproduce_segment
from verifier.demo.figures import DemoFigures

ROUNDS: Final = 5
_SCHEDULE: Final = Schedule(rounds=2, slots=3, segments=8, steps_per_segment=20)
_RECIPE: Final = Recipe("demo", 8, 3e-3, 10, _SCHEDULE)
_TERMS: Final = Terms(
    price_per_shard=1, audit_fee=0, stake_per_shard=100, lease_time_s=1, samples=2, deadline=1
)


class BenchFigures(BaseModel):
    """The figures by name."""

    cpu: str
    threads: int
    step_exact_ms: float
    step_fp32_ms: float
    step_vs_fp32: float
    hashing_share: float
    audit_vs_training: float
    lowering_s: float
    demo_s: float
    demo_peak_mib: float
    loss_gap: float
    gas_lifecycle: int


def _time(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _get_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{next(names, platform.processor())}, {capability}"


def _measure_step(files: JobFiles, executor: Executor) -> dict[str, object]:
    task = ShardTask(files.program, files.dataset, 1, 0, 0, 2)
    inputs = {**files.initial, "tokens": files.dataset, "counters": encode_counters(task, 0)}
    model = _RECIPE.build_model()
    length = _RECIPE.get_length(_RECIPE.find_source())
    windows = files.dataset[: _RECIPE.batch * (length + 1)]
    rows = windows.view(_RECIPE.batch, -1).long()
    return time_step_ratio(
        executor, inputs, model, lambda: model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    )


class _Segment:
    """A segment as its provider and as its auditor do it, each part timed."""

    def __init__(self, files: JobFiles, executor: Executor, store: BlobStore) -> None:
        self._files, self._executor, self._store = files, executor, store
        steps = _SCHEDULE.steps_per_segment
        self._task = ShardTask(files.program, files.dataset, 1, 0, 0, steps)
        self._prestate = Cid(files.spec.initial_state.cid)

    def provide(self) -> tuple[float, float]:
        """Return the seconds of training, and of hashing, encoding and storing what it gave."""
        program = self._files.program
        begin = time.perf_counter()
        state = fetch_state(self._store, program, self._prestate)
        end = run_segment(self._executor, self._task, state, 0)
        middle = time.perf_counter()
        hash_segment(program, end)
        self._store.put(encode_state(program, end.state))
        return middle - begin, time.perf_counter() - middle

    def audit(self) -> None:
        """Fetch, check and reproduce the same segment."""
        state = fetch_state(self._store, self._files.program, self._prestate)
        compute_state_roots(self._files.program, state)
        reproduce_segment(self._executor, self._task, state, (0, 0))


def _measure_segment(segment: _Segment) -> tuple[float, float]:
    """Return hashing over training, and auditing over providing; the best of alternating runs."""
    provided, audited = [], []
    for _ in range(ROUNDS):
        provided.append(segment.provide())
        audited.append(_time(segment.audit))
    training, hashing = min(t for t, _ in provided), min(h for _, h in provided)
    return hashing / training, min(audited) / min(t + h for t, h in provided)


def _run_demo() -> DemoFigures:
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        home = Path(folder) / "home"
        command = [sys.executable, "-m", "market.cli", "demo", "--home", str(home)]
        subprocess.run([*command, "--json", str(figures)], check=True, stdout=subprocess.DEVNULL)
        return DemoFigures.model_validate_json(figures.read_bytes())


def measure() -> BenchFigures:
    """Measure everything; the demo comes last and takes minutes."""
    dataset, _ = split_held_out(read_library_text(4_000_000))
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder), 2**32)
        begin = time.perf_counter()
        spec = prepare_job(store, "bench", _RECIPE, dataset, _TERMS)
        lowering = time.perf_counter() - begin
        files = fetch_job(store, spec)
        executor = Executor(files.program)
        step = _measure_step(files, executor)
        hashing, audit = _measure_segment(_Segment(files, executor, store))
    demo = _run_demo()
    return BenchFigures.model_validate(
        {
            "cpu": _get_cpu(),
            "threads": executor.threads,
            "step_exact_ms": step["exact_ms"],
            "step_fp32_ms": step["fp32_ms"],
            "step_vs_fp32": step["ratio"],
            "hashing_share": hashing,
            "audit_vs_training": audit,
            "lowering_s": lowering,
            "demo_s": demo.total_seconds,
            "demo_peak_mib": demo.peak_memory_bytes / 2**20,
            "loss_gap": demo.loss_after / demo.loss_after_fp32 - 1,
            "gas_lifecycle": demo.gas_lifecycle,
        }
    )


def bench(out: Path | None) -> None:
    """Print the table of README, and write the figures to ``out``."""
    found = measure()
    rows = [
        ("`make demo` after set-up", "<= 360 s", f"{found.demo_s:.0f} s"),
        ("peak memory of any process", "<= 2,048 MiB", f"{found.demo_peak_mib:.0f} MiB"),
        ("exact step / eager torch fp32 step", "<= 3", f"{found.step_vs_fp32:.2f}"),
        ("audit of a segment / its training", "<= 1.1", f"{found.audit_vs_training:.2f}"),
        ("hashing and committing / training", "<= 10%", f"{found.hashing_share:.1%}"),
        ("held-out loss against torch fp32", "within 1%", f"{found.loss_gap:+.2%}"),
        ("gas of an honest lease", "<= 600,000", f"{found.gas_lifecycle:,}"),
    ]
    title = f"{found.cpu}, {found.threads} threads"
    Console().print(build_table(title, ("what", "must", "measured"), rows))
    if out:
        out.write_text(json.dumps(found.model_dump(), indent=1) + "\n")
