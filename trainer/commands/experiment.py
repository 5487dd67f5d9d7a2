"""What `touchstone experiment` does."""

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from pydantic import BaseModel

from market.commands.output import build_table, emit
from trainer.experiments.bits import (
    LOGITS_ARITHMETICS,
    SMALL_DECODER,
    VOCABULARIES,
    BitsReport,
    compare_logits,
    compare_roles,
    compare_vocabularies,
    list_arithmetics,
)
from trainer.experiments.cost import StepCost, measure_costs
from trainer.experiments.errors import GradientErrors
from trainer.experiments.loss import Curves, run_trial
from trainer.experiments.plots import plot_all
from trainer.experiments.trials import Trial


class CostReport(BaseModel):
    """Steps of one model in several arithmetics."""

    model: str
    batch: int
    threads: int
    steps: list[StepCost]


def _report(line: str) -> None:
    typer.echo(line, err=True)


def compare_losses(
    trial: Trial, arithmetics: Sequence[str], seeds: Sequence[int], folder: Path, *, as_json: bool
) -> None:
    """Run or continue ``trial`` in every arithmetic with every seed, and print its losses."""
    torch.set_num_threads(trial.threads)
    found = []
    for seed in seeds:
        for arithmetic in arithmetics:
            one = trial.vary(arithmetic, seed)

            def tell(step: int, loss: float, name: str = one.name) -> None:
                _report(f"{name}: step {step}, loss {loss:.4f}")

            found.append(run_trial(one, folder / one.name, tell))
    curves = Curves(curves=found)
    rows = []
    for curve in found:
        gap = curves.find_gap(curve)
        shown = "" if gap is None else f"{gap:+.2%}"
        root = curve.state_root.hex() if curve.state_root else ""
        rows.append((curve.arithmetic, curve.seed, f"{curve.held_out:.4f}", shown, root))
    columns = ("arithmetic", "seed", "held-out loss", "against fp32", "state root")
    emit(curves, build_table(trial.model, columns, rows), as_json=as_json)


def compare_bits(trials: Sequence[Trial], folder: Path, *, as_json: bool) -> None:
    """Print the errors of gradients by role around the first trial, of the logits' around the others."""
    first, *others = trials
    torch.set_num_threads(first.threads)
    found = compare_roles(first, folder, [*list_arithmetics()], _report_errors)
    for trial in others:
        found += compare_logits(trial, folder, _report_errors)
    found += compare_vocabularies(
        SMALL_DECODER, VOCABULARIES, 2, LOGITS_ARITHMETICS, _report_errors
    )
    rows = [(e.vocabulary, e.weights, e.arithmetic, e.median, e.worst) for e in found]
    columns = ("vocabulary", "weights", "arithmetic", "median", "worst")
    table = build_table("relative errors of gradients", columns, rows)
    emit(BitsReport(errors=found), table, as_json=as_json)


def _report_errors(errors: GradientErrors) -> None:
    place = f"{errors.vocabulary:,} classes, {errors.weights}, {errors.arithmetic}"
    _report(f"{place}: median {errors.median}, worst {errors.worst}")


def compare_costs(trial: Trial, arithmetics: Sequence[str], rounds: int, *, as_json: bool) -> None:
    """Print the time of a step of ``trial`` in every arithmetic."""
    steps = measure_costs(trial, arithmetics, rounds)
    report = CostReport(model=trial.model, batch=trial.batch, threads=trial.threads, steps=steps)
    rows = [(s.arithmetic, s.products or "", f"{s.milliseconds} ms") for s in steps]
    columns = ("arithmetic", "8-bit products", "step")
    emit(report, build_table(trial.model, columns, rows), as_json=as_json)


def plot(data: Path, images: Path) -> None:
    """Draw the pictures of the figures in ``data``."""
    for path in plot_all(data, images):
        typer.echo(path)
