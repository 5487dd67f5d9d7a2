"""The pictures of docs/benchmarks/bits.md, drawn from the figures beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.experiments.bits import (
    LOGITS_ARITHMETICS,
    OUTLIER_CHANNELS,
    OUTLIER_FACTOR,
    BitsReport,
    narrow_role,
)
from trainer.experiments.corpus import BYTES
from trainer.experiments.errors import GradientErrors
from trainer.experiments.loss import Curve, Curves
from trainer.experiments.trials import STEPS_PER_POINT, TORCH_ARITHMETICS
from trainer.lower.precision import ROLES

_COLOURS: Final = ("#2b5d8a", "#c0792b", "#2e9e6b", "#c0392b", "#7b4a8f", "#6b7f2b", "#3a7f8f")
_GREY: Final = "#8a8f96"
_ROLE_LABELS: Final = {
    "weight": "weights",
    "activation": "activations",
    "gradient": "gradients",
    "logits": "logits' gradient",
    "attention": "attention products",
}
_BITS: Final = (8, 14, 16)
_WINDOW: Final = 5  # points of ten steps that a drawn point averages


def plot_all(data: Path, images: Path) -> Iterator[Path]:
    """Write every picture whose figures ``data`` holds; yield their paths."""
    images.mkdir(parents=True, exist_ok=True)
    found = BitsReport.model_validate_json((data / "bits-errors.json").read_text()).errors
    pictures = {
        "bits-roles.png": draw_roles(found),
        "bits-vocabulary.png": draw_vocabularies(found),
        "bits-training.png": draw_training(_read(data / "bits-training.json")),
        "loss-parity.png": draw_parity(_read(data / "loss-10m.json")),
    }
    for name, figure in pictures.items():
        figure.savefig(images / name)
        yield images / name


def _read(path: Path) -> list[Curve]:
    return Curves.model_validate_json(path.read_text()).curves


def _make_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_level(axes: Axes, level: float, text: str) -> None:
    """Draw a horizontal line with its name above it, where no curve is: fp32's left, bf16's right."""
    axes.axhline(level, color=_GREY, linestyle="--", linewidth=1)
    x, side = (0.02, "left") if text == "fp32" else (0.99, "right")
    place = axes.get_yaxis_transform()
    axes.text(x, level * 1.1, text, transform=place, ha=side, va="bottom", color=_GREY, fontsize=9)


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of one panel under all of them."""
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False
    )


def draw_roles(errors: Sequence[GradientErrors]) -> Figure:
    """Draw the gradients' error by the bits of one role, the others with 24, at each place of training."""
    titles = {
        "initial": "initial weights",
        "trained": "after 500 steps",
        "outliers": f"the same, {OUTLIER_CHANNELS} channels {OUTLIER_FACTOR} times the rest",
    }
    found = {(e.weights, e.arithmetic): e.median for e in errors if e.vocabulary == BYTES}
    figure = _make_figure(11, 4.6)
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (place, title) in zip(panels, titles.items(), strict=True):
        for role, colour in zip(ROLES, _COLOURS, strict=False):
            line = [found[place, narrow_role(role, bits)] for bits in _BITS]
            axes.plot(_BITS, line, "o-", color=colour, markersize=8, label=_ROLE_LABELS[role])
        line = [found[place, str(bits)] for bits in (*_BITS, 24)]
        axes.plot((*_BITS, 24), line, "s:", color="black", markersize=4, label="all of these")
        for name in TORCH_ARITHMETICS:
            _draw_level(axes, found[place, name], {"bf16": "bf16 autocast"}.get(name, name))
        axes.set(yscale="log", xticks=(*_BITS, 24), xlabel="bits (of the others: 24)", title=title)
        _clean(axes)
    panels[0].set_ylabel("relative error of a gradient,\nmedian over tensors")
    _add_legend(figure, panels[0])
    return figure


def draw_vocabularies(errors: Sequence[GradientErrors]) -> Figure:
    """Draw the error by vocabulary, for the bits of the logits' gradient."""
    titles = {
        "initial, small model": "initial weights, synthetic tokens",
        "trained": "after 500 steps, pieces of words",
    }
    found = {(e.weights, e.arithmetic, e.vocabulary): e.median for e in errors}
    figure = _make_figure(11, 4.4)
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (place, title) in zip(panels, titles.items(), strict=True):
        sizes = sorted({n for weights, name, n in found if (weights, name) == (place, "logits=16")})
        for name, colour in zip(LOGITS_ARITHMETICS, ("black", _GREY, *_COLOURS), strict=False):
            line = [(n, found[place, name, n]) for n in sizes]
            label = name.replace("bf16", "bf16 autocast").replace("logits=", "exact, ")
            label += "" if name in TORCH_ARITHMETICS else " bits"
            style = "--" if name in TORCH_ARITHMETICS else "-"
            axes.plot(*zip(*line, strict=True), f"o{style}", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="classes", title=title)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        _clean(axes)
    panels[0].set_ylabel("relative error of a gradient,\nmedian over tensors")
    _add_legend(figure, panels[0])
    return figure


def _smooth(values: Sequence[float]) -> list[float]:
    parts = [values[max(0, i - _WINDOW // 2) : i + _WINDOW // 2 + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _find_steps(curve: Curve) -> list[float]:
    return [(i + 0.5) * STEPS_PER_POINT for i in range(len(curve.training))]


def draw_training(curves: Sequence[Curve]) -> Figure:
    """Draw how far each arithmetic's losses are from those of fp32, in training and on held-out text."""
    whole = Curves(curves=list(curves))
    reference = next(curve for curve in curves if curve.arithmetic == "fp32")
    others = [curve for curve in curves if curve is not reference]
    gaps = {curve.arithmetic: (whole.find_gap(curve) or 0) * 100 for curve in others}
    figure = _make_figure(11, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    shown = [curve for curve in others if curve.arithmetic in ("8", "14", "16", "24", "bf16")]
    for curve, colour in zip(shown, _COLOURS, strict=False):
        gap = [x - y for x, y in zip(curve.training, reference.training, strict=True)]
        label = curve.arithmetic if curve.arithmetic == "bf16" else f"{curve.arithmetic} bits"
        left.plot(_find_steps(curve), _smooth(gap), color=colour, linewidth=1.4, label=label)
    left.axhline(0, color="black", linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss less that of fp32,\nnats (mean of 50 steps)")
    left.legend(frameon=False, fontsize=8)
    names = sorted(gaps, key=lambda name: gaps[name], reverse=True)
    right.plot([gaps[name] for name in names], range(len(names)), "o", color=_COLOURS[0])
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(names)), [name.replace(",", ", ") for name in names])
    right.set_xlabel("held-out loss against fp32, %")
    for axes in (left, right):
        _clean(axes)
    return figure


def draw_parity(curves: Sequence[Curve]) -> Figure:
    """Draw the losses of a long run in each arithmetic, and below their distance from fp32."""
    reference = next(curve for curve in curves if curve.arithmetic == "fp32")
    figure = _make_figure(9, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    styles = {
        "16": ("exact, 16 bits", "-", _COLOURS[0]),
        "bf16": ("bf16 autocast", "-", _COLOURS[1]),
    }
    for curve in curves:
        label, style, colour = styles.get(curve.arithmetic, ("fp32", "--", "black"))
        label += f": {curve.held_out:.4f} held out"
        steps, losses = _find_steps(curve), _smooth(curve.training)
        top.plot(steps, losses, style, color=colour, linewidth=1.2, label=label)
        gap = [x - y for x, y in zip(curve.training, reference.training, strict=True)]
        bottom.plot(steps, _smooth(gap), style, color=colour, linewidth=1.2)
    top.set_ylabel("training loss, nats per byte\n(mean of 50 steps)")
    bottom.set(xlabel="step", ylabel="less that of fp32")
    top.legend(frameon=False)
    for axes in (top, bottom):
        _clean(axes)
    return figure
