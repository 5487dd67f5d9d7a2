"""What `touchstone bench engine` does: what exactness costs, measured here, ratios in one run.

Parts that need a fresh process (dispatch caps, peak memory) run in one: this module, with their name."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import typer
from pydantic import BaseModel
from rich.console import Console
from torch import Tensor

from market.commands.output import build_table
from trainer.bench import (
    measure_hashing_share,
    time_bf16_step,
    time_contraction_ratio,
    time_step_ratio,
)
from trainer.dispatch import CAPS, cap_environment, describe_cpu
from trainer.execution import Executor
from trainer.experiments.loss import run_trial
from trainer.experiments.trials import Trial
from trainer.lower.optimizer import AdamW
from trainer.lower.step import COUNTERS, DATASET, DataSpec, lower_step
from trainer.models import Llama
from trainer.peak import compare_peak_memory
from trainer.shards import ShardTask, run_segment
from trainer.states import compute_state_roots
from trainer.text import read_library_text
from trainer.zoo import find_model

MODEL: Final = "llama-35m"  # model M of the benchmark
BATCH: Final = 8
THREADS: Final = 2
ROUNDS: Final = 5
CONTRACTION: Final = 2048
LOSS_TRIAL: Final = Trial("10m", "16", seed=0, steps=2000, threads=THREADS)
LOSS_SEEDS: Final = (0, 1)
_WIDTHS: Final = (8, 14, 16, 24)
_HASHED_MODEL: Final = "tiny"
_HASHED_STEPS: Final = 50
_TEXT_BYTES: Final = 1 << 20


class EngineFigures(BaseModel):
    """The figures by name. Times are the best of alternating runs; ``state_roots`` are by dispatch cap."""

    cpu: str
    threads: int
    parameters: int
    lowering_s: float
    step_exact_ms: float
    step_fp32_ms: float
    step_bf16_ms: float
    step_vs_fp32: float
    step_vs_bf16: float
    tokens_per_s: dict[str, float]
    kinds_ms: dict[str, float]
    step_vs_fp32_avx2: float
    gemm_vs_fp32: float
    gemm_vs_fp32_by_bits: dict[int, float]
    memory_exact_mib: float
    memory_fp32_mib: float
    memory_vs_fp32: float
    hashing_share: float
    hashing_s: dict[str, float]
    state_roots: dict[str, str]
    loss_gap: float
    losses: dict[str, float]


class _Bench:
    """A model, lowered, on real text."""

    def __init__(self, name: str, batch: int) -> None:
        source = find_model(name)
        assert source.length is not None
        model = source.build(0)
        assert isinstance(model, Llama)
        self.model, self.batch = model, batch
        text = read_library_text(_TEXT_BYTES)
        self.dataset = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        begin = time.perf_counter()
        data = DataSpec(len(self.dataset), batch, source.length)
        step = lower_step(self.model, None, data, AdamW())
        self.lowering_s = time.perf_counter() - begin
        self.executor = Executor(step.program, threads=THREADS)
        self.state = {**step.initial_base, **step.initial_slot}
        rows = self.dataset[: batch * (source.length + 1)].view(batch, -1).long()
        self._rows = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def compute_loss(self) -> Tensor:
        """Return torch's loss of a batch."""
        loss: Tensor = self.model(*self._rows)
        return loss

    def time_step(self) -> dict[str, Any]:
        """Return `time_step_ratio` of a step."""
        inputs = {**self.state, DATASET: self.dataset, COUNTERS: torch.tensor([1, 0, 0, 0])}
        return time_step_ratio(self.executor, inputs, self.model, self.compute_loss, ROUNDS)


def _measure_step() -> dict[str, Any]:
    bench = _Bench(MODEL, BATCH)
    return {
        **bench.time_step(),
        "bf16_ms": time_bf16_step(bench.model, bench.compute_loss, THREADS, ROUNDS),
        "lowering_s": bench.lowering_s,
        "parameters": sum(p.numel() for p in bench.model.parameters()),
        "tokens": BATCH * bench.model.config.length,
    }


def _measure_hashing() -> dict[str, float]:
    bench = _Bench(MODEL, BATCH)
    return measure_hashing_share(bench.executor, bench.state, bench.dataset)


def _compute_root() -> dict[str, str]:
    """Return the state root after training a small model."""
    bench = _Bench(_HASHED_MODEL, 2)
    program = bench.executor.program
    task = ShardTask(program, bench.dataset, 1, 0, 0, _HASHED_STEPS)
    end = run_segment(bench.executor, task, bench.state, 0)
    return {"root": compute_state_roots(program, end.state).state.hex()}


_PARTS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "step": _measure_step,
    "step-capped": lambda: _Bench(MODEL, BATCH).time_step(),
    "gemm": lambda: {
        str(bits): time_contraction_ratio(CONTRACTION, bits, THREADS)["ratio"] for bits in _WIDTHS
    },
    "memory": lambda: compare_peak_memory(MODEL, BATCH, THREADS),
    "hashing": _measure_hashing,
    "root": _compute_root,
}


def _run_part(part: str, cap: str = "native") -> dict[str, Any]:
    """Return what a part of the benchmark measures in a process of its own."""
    typer.echo(f"measuring {part} ({cap} dispatch)", err=True)
    done = subprocess.run(
        [sys.executable, "-m", "trainer.commands.bench", part],
        env=cap_environment(cap),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _compare_losses(runs: Path) -> tuple[float, dict[str, float]]:
    """Return the exact runs' held-out losses over fp32's, less one, and all; ``runs`` are continued."""

    def tell(step: int, loss: float) -> None:
        typer.echo(f"step {step}, loss {loss:.4f}", err=True)

    curves = []
    for seed in LOSS_SEEDS:
        for arithmetic in (LOSS_TRIAL.arithmetic, "fp32"):
            trial = LOSS_TRIAL.vary(arithmetic, seed)
            typer.echo(f"training {trial.model} in {arithmetic}, seed {seed}", err=True)
            curves.append(run_trial(trial, runs / trial.name, tell))
    exact, plain = (
        [curve.held_out for curve in curves if (curve.arithmetic == "fp32") is is_plain]
        for is_plain in (False, True)
    )
    losses = {f"{curve.arithmetic}, seed {curve.seed}": curve.held_out for curve in curves}
    return sum(exact) / sum(plain) - 1, losses


def measure(runs: Path) -> EngineFigures:
    """Measure everything, part by part; the losses come last and take half an hour."""
    step, gemm, memory, hashing = (
        _run_part(part) for part in ("step", "gemm", "memory", "hashing")
    )
    capped = _run_part("step-capped", "avx2")
    roots = {cap: _run_part("root", cap)["root"] for cap in CAPS}
    gap, losses = _compare_losses(runs)
    times = {name: step[f"{name}_ms"] for name in ("exact", "fp32", "bf16")}
    return EngineFigures(
        cpu=describe_cpu(),
        threads=THREADS,
        parameters=step["parameters"],
        lowering_s=step["lowering_s"],
        step_exact_ms=times["exact"],
        step_fp32_ms=times["fp32"],
        step_bf16_ms=times["bf16"],
        step_vs_fp32=step["ratio"],
        step_vs_bf16=times["exact"] / times["bf16"],
        tokens_per_s={name: step["tokens"] * 1e3 / ms for name, ms in times.items()},
        kinds_ms=step["kinds_ms"],
        step_vs_fp32_avx2=capped["ratio"],
        gemm_vs_fp32=gemm["16"],
        gemm_vs_fp32_by_bits={int(bits): ratio for bits, ratio in gemm.items()},
        memory_exact_mib=memory["exact_mib"],
        memory_fp32_mib=memory["fp32_mib"],
        memory_vs_fp32=memory["ratio"],
        hashing_share=hashing["share"],
        hashing_s=hashing,
        state_roots=roots,
        loss_gap=gap,
        losses=losses,
    )


def bench_engine(out: Path | None, runs: Path) -> None:
    """Print the engine's table, and write the figures to ``out``."""
    found = measure(runs)
    agree = len(set(found.state_roots.values())) == 1
    rows = [
        ("exact step / eager fp32 step, M", "<= 1.0", f"{found.step_vs_fp32:.2f}"),
        ("the same, dispatch capped to AVX2", "<= 2.5", f"{found.step_vs_fp32_avx2:.2f}"),
        ("2,048-cubed contraction / SGEMM", "<= 0.6", f"{found.gemm_vs_fp32:.2f}"),
        ("peak memory / fp32, M", "<= 1.5", f"{found.memory_vs_fp32:.2f}"),
        ("hashing and committing / training, M", "<= 5%", f"{found.hashing_share:.1%}"),
        ("held-out loss against fp32, 10M", "within 0.5%", f"{found.loss_gap:+.2%}"),
        ("lowering M", "<= 10 s", f"{found.lowering_s:.1f} s"),
        (f"state roots under {', '.join(CAPS)}", "equal", "equal" if agree else "DIFFERENT"),
    ]
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found.tokens_per_s.items())
    console = Console()
    title = f"{found.cpu}, {found.threads} threads"
    console.print(build_table(title, ("what", "must", "measured"), rows))
    console.print(f"tokens per second of M: {rates}")
    if out:
        out.write_text(json.dumps(found.model_dump(), indent=1) + "\n")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_PARTS[sys.argv[1]]()))
