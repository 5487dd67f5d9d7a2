"""The picture of a run: the loss of every shard, with the audited and the false segments marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure
from matplotlib.patches import Patch

_SHARD_COLOURS: Final = ("#2b5d8a", "#3a8f7b", "#8a6d2b", "#7b4a8f", "#4a6b2b", "#8a3a5a")
_AUDITED: Final = "#3a8f7b"
_FALSE: Final = "#c0392b"


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of one lease by step, and the segments that were drawn for its audit."""

    round_index: int
    slot: int
    losses: Sequence[float]
    audited: Sequence[int]
    false_segment: int | None  # of a slashed lease


def plot_losses(
    path: Path, curves: Sequence[Curve], reference: Sequence[float], steps_per_segment: int
) -> None:
    """Write the picture of ``curves`` beside the mean loss of the ``reference`` run, as PNG."""
    figure = Figure(figsize=(10, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        _plot_curve(axes, curve, steps_per_segment)
    axes.plot(
        range(len(reference)),
        reference,
        color="black",
        linewidth=1,
        linestyle=":",
        label="torch fp32, mean",
    )
    axes.set_xlabel("step")
    axes.set_ylabel("training loss, nats per byte")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    handles += [Patch(color=_AUDITED, alpha=0.25), Patch(color=_FALSE, alpha=0.45)]
    labels += ["audited segment, equal", "audited segment, false: stake lost"]
    axes.legend(handles, labels, frameon=False, fontsize=8, ncols=2)
    axes.set_title(
        "Every shard's loss, and what chance drew to be recomputed", loc="left", fontsize=11
    )
    figure.savefig(path)


def _plot_curve(axes: "object", curve: Curve, steps_per_segment: int) -> None:
    steps = len(curve.losses)
    first = curve.round_index * steps
    is_false = curve.false_segment is not None
    axes.plot(  # type: ignore[attr-defined]
        range(first, first + steps),
        curve.losses,
        color=_FALSE if is_false else _SHARD_COLOURS[curve.slot % len(_SHARD_COLOURS)],
        linewidth=1,
        linestyle="--" if is_false else "-",
        label=f"round {curve.round_index + 1}, shard {curve.slot + 1}"
        + (", forged" if is_false else ""),
    )
    for segment in curve.audited:
        start = first + segment * steps_per_segment
        axes.axvspan(  # type: ignore[attr-defined]
            start,
            start + steps_per_segment,
            ymin=0.02 + 0.03 * curve.slot,
            ymax=0.045 + 0.03 * curve.slot,
            color=_FALSE if is_false else _AUDITED,
            alpha=0.6 if is_false else 0.45,
            linewidth=0,
        )
