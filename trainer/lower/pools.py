"""Rules of two-dimensional pools: reductions over windows.

A maximum remembers where it was by the flat index of its first occurrence, as torch does."""

import math
from collections.abc import Sequence
from typing import Any, Final

from market.protocol.program import Op
from trainer.lower import instructions
from trainer.lower.contractions import find_first
from trainer.lower.expressions import Expr, apply, f32, select
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Lazy, Shape, Value
from trainer.lower.windows import Window, unfold, unfold_back

RULES: Final = Rules()
_WINDOW_AXES: Final = [4, 5]  # of [N, C, positions (2), window (2)]


def _make_window(
    to: Lowering, sizes: Sequence[int], stride: Sequence[int], padding: Any = 0, dilation: Any = 1
) -> Window:
    def widen(numbers: Any) -> tuple[int, ...]:
        listed = [numbers] if isinstance(numbers, int) else list(numbers)
        return tuple(listed if len(listed) == 2 else listed * 2)

    if len(to.shape) != 4:
        raise to.unsupported(f"{len(to.shape)} axes: only [batch, channels, height, width]")
    return Window(widen(sizes), widen(stride or sizes), widen(padding), widen(dilation))


# Averages


def _average_over(
    to: Lowering, sizes: Any, stride: Any = (), padding: Any = 0, *options: Any
) -> tuple[Window, int]:
    """Return the windows of an average and what their sums are divided by."""
    defaults: tuple[Any, ...] = (False, True, None)
    is_rounded_up, counts_padding, divisor = (*options, *defaults[len(options) :])
    window = _make_window(to, sizes, stride, padding)
    if is_rounded_up or not (counts_padding or not any(window.paddings)):
        raise to.unsupported("ceil_mode, or averages that do not count the padding")
    return window, math.prod(window.sizes) if divisor is None else divisor


@RULES.register("avg_pool2d")
def _average_pool(to: Lowering, x: Any, *geometry: Any) -> Value:
    window, divisor = _average_over(to, *geometry)
    rows = unfold(to.builder, to.cast(x, "f"), window)
    total = instructions.reduce_sum(to.builder, rows, _WINDOW_AXES)
    return to.map(lambda a: a / divisor, to.builder.reshape(total, to.shape))


@RULES.register("avg_pool2d_backward")
def _average_pool_backward(to: Lowering, flow: Any, _x: Any, *geometry: Any) -> Value:
    window, divisor = _average_over(to, *geometry)
    share = to.builder.map(lambda g: g / divisor, to.cast(flow, "f"))
    rows = unfold_back(to.builder, share, window, to.shape[2:])
    total = instructions.reduce_sum(to.builder, rows, _WINDOW_AXES)
    return to.builder.reshape(total, to.shape)


def _cut_evenly(to: Lowering, whole: Shape, parts: Shape) -> tuple[int, int]:
    """Return the sizes of the windows that cut an image into as many ``parts``."""
    if any(size % count for size, count in zip(whole[-2:], parts[-2:], strict=True)):
        raise to.unsupported(f"{whole[-2:]} into {parts[-2:]} windows of different sizes")
    return whole[-2] // parts[-2], whole[-1] // parts[-1]


@RULES.register("_adaptive_avg_pool2d")
def _adaptive_pool(to: Lowering, x: Any, _sizes: Any) -> Value:
    return _average_pool(to, x, _cut_evenly(to, x.shape, to.shape))


@RULES.register("_adaptive_avg_pool2d_backward")
def _adaptive_pool_backward(to: Lowering, flow: Any, x: Any) -> Value:
    return _average_pool_backward(to, flow, x, _cut_evenly(to, to.shape, flow.shape))


# Maxima


def _maximize_over(
    to: Lowering, sizes: Any, stride: Any = (), padding: Any = 0, *rest: Any
) -> Window:
    defaults: tuple[Any, ...] = (1, False)
    dilation, is_rounded_up = (*rest, *defaults[len(rest) :])
    if is_rounded_up:
        raise to.unsupported("ceil_mode")
    return _make_window(to, sizes, stride, padding, dilation)


@RULES.register("max_pool2d_with_indices")
def _max_pool(to: Lowering, x: Any, *geometry: Any) -> tuple[Value, Value]:
    image = to.cast(x, "f")
    window = _maximize_over(to, *geometry)
    rows = unfold(to.builder, image, window, -math.inf)
    highest = instructions.reduce_max(to.builder, rows, _WINDOW_AXES)
    index = _find_first(to, rows, highest, window, image.shape[3])
    return to.builder.reshape(highest, to.shape), index


def _find_first(to: Lowering, rows: Lazy, highest: Lazy, window: Window, width: int) -> Value:
    """Return the flat index, in its image, of the first maximum of each window."""
    count = math.prod(window.sizes)
    places = to.builder.reshape(
        instructions.iota(to.builder, count, 0, -1), (1, 1, 1, 1, *window.sizes)
    )

    first = find_first(to, rows, highest, places, _WINDOW_AXES)
    corners = [
        to.builder.reshape(
            instructions.iota(to.builder, size, -padding, stride), (size,) + (1,) * (1 - axis)
        )
        for axis, (size, stride, padding) in enumerate(
            zip(to.shape[2:], window.strides, window.paddings, strict=True)
        )
    ]
    down, along = window.dilations

    def locate(place: Expr, row: Expr, column: Expr) -> Expr:
        inside = apply(Op.IDIV, place, window.sizes[1])
        across = place - inside * window.sizes[1]
        return (row + inside * down) * width + (column + across * along)

    return to.builder.map(locate, to.builder.reshape(first, to.shape), *corners, kind="i")


@RULES.register("max_pool2d_with_indices_backward")
def _max_pool_backward(to: Lowering, flow: Any, _x: Any, *rest: Any) -> Value:
    *geometry, index = rest
    window = _maximize_over(to, *geometry)
    flows = unfold_back(to.builder, to.cast(flow, "f"), window, to.shape[2:])
    chosen = unfold_back(to.builder, to.cast(index, "i"), window, to.shape[2:], -1)
    area = math.prod(to.shape[2:])
    places = to.builder.reshape(instructions.iota(to.builder, area), (1, 1, *to.shape[2:], 1, 1))

    def take(g: Expr, at: Expr, place: Expr) -> Expr:
        return select(at.equals(place), g, f32(0.0))

    taken = to.builder.map(take, flows, chosen, places)
    total = instructions.reduce_sum(to.builder, taken, _WINDOW_AXES)
    return to.builder.reshape(total, to.shape)
