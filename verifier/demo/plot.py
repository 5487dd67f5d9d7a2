"""The picture of a run: every shard's loss, and below it a map of which segments were audited."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

_SHARDS: Final = ("#2b5d8a", "#8a6d2b", "#7b4a8f", "#3a7f8f", "#6b7f2b", "#8a4a5a")
_TRAINED: Final = "#dde3ea"
_AUDITED: Final = "#2e9e6b"
_FALSE: Final = "#c0392b"
_WINDOW: Final = 9  # steps that a drawn point averages


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of one lease by step, and the segments that were drawn for its audit."""

    lease_id: int
    provider: str
    round_index: int
    slot: int
    losses: Sequence[float]
    audited: Sequence[int]
    is_false: bool  # an audit found it so

    @property
    def first_step(self) -> int:
        """The step of the whole job at which it begins."""
        return self.round_index * len(self.losses)

    @property
    def colour(self) -> str:
        """The colour of its line."""
        return _FALSE if self.is_false else _SHARDS[self.slot % len(_SHARDS)]


def _smooth(losses: Sequence[float]) -> list[float]:
    parts = [losses[max(0, i - _WINDOW // 2) : i + _WINDOW // 2 + 1] for i in range(len(losses))]
    return [sum(part) / len(part) for part in parts]


def _plot_losses(axes: Axes, curves: Sequence[Curve], reference: Sequence[float]) -> None:
    for curve in curves:
        steps = range(curve.first_step, curve.first_step + len(curve.losses))
        style = "--" if curve.is_false else "-"
        axes.plot(steps, _smooth(curve.losses), color=curve.colour, linewidth=1.4, linestyle=style)
    axes.plot(range(len(reference)), _smooth(reference), color="black", linewidth=1, linestyle=":")
    slots = sorted({curve.slot for curve in curves})
    lines = [
        (Line2D([], [], color=_SHARDS[slot % len(_SHARDS)]), f"shard {slot + 1}") for slot in slots
    ]
    lines += [(Line2D([], [], color=_FALSE, linestyle="--"), "forged: slashed")]
    lines += [(Line2D([], [], color="black", linestyle=":"), "torch fp32, mean of the shards")]
    axes.legend([line for line, _ in lines], [text for _, text in lines], frameon=False)
    axes.set_ylabel(f"training loss, nats per byte\n(mean of {_WINDOW} steps)")


def _plot_audits(axes: Axes, curves: Sequence[Curve], steps_per_segment: int) -> None:
    for row, curve in enumerate(curves):
        for segment in range(len(curve.losses) // steps_per_segment):
            colour = _FALSE if curve.is_false else _AUDITED
            corner = curve.first_step + segment * steps_per_segment, row - 0.36
            fill = colour if segment in curve.audited else _TRAINED
            cell = Rectangle(corner, steps_per_segment, 0.72, facecolor=fill, edgecolor="white")
            axes.add_patch(cell)
    axes.set_yticks(range(len(curves)), [f"lease {c.lease_id}, {c.provider}" for c in curves])
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("step")
    patches = [Patch(color=_TRAINED), Patch(color=_AUDITED), Patch(color=_FALSE)]
    texts = ["trained", "recomputed: equal", "recomputed: false"]
    axes.legend(
        patches, texts, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.3)
    )


def plot_losses(
    path: Path, curves: Sequence[Curve], reference: Sequence[float], steps_per_segment: int
) -> None:
    """Write the picture of ``curves`` beside the mean loss of the ``reference`` run, as PNG."""
    figure = Figure(figsize=(10, 6.4), dpi=120, layout="constrained")
    losses, audits = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (2.4, 0.24 * len(curves))}
    )
    _plot_losses(losses, curves, reference)
    _plot_audits(audits, curves, steps_per_segment)
    for axes in (losses, audits):
        axes.spines[["top", "right"]].set_visible(False)
    losses.set_title("Every shard's loss, and what chance drew to be recomputed", loc="left")
    figure.savefig(path)
