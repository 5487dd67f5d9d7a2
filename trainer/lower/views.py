"""Rules of views and of what puts tensors side by side: no instruction of their own."""

import math
from collections.abc import Sequence
from typing import Any, Final

from torch import fx

from trainer.lower.builder import concatenate, is_literal_zero
from trainer.lower.layout import Layout
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Value, get_load, insert_axis, load, permute
from trainer.lower.windows import pad, spread

RULES: Final = Rules()


@RULES.register("view", "_unsafe_view", "reshape", "squeeze", "flatten")
def _view(to: Lowering, x: Value, *_arguments: Any) -> Value:
    return to.builder.reshape(x, to.shape)


@RULES.register("as_strided")
def _as_strided(to: Lowering, x: Value, sizes: Any, strides: Any, offset: Any = None) -> Value:
    """A view that functionalization writes for a change in place: of a row-major tensor."""
    source = to.node.args[0]
    if not isinstance(source, fx.Node) or not source.meta["val"].is_contiguous():
        raise to.unsupported("a view of a tensor that is not row-major")
    value = to.builder.store(x)
    if not get_load(value).layout.is_dense:
        value = to.builder.copy(value)
    node = get_load(value)
    axes = tuple(((size, step),) for size, step in zip(sizes, strides, strict=True))
    start = source.meta["val"].storage_offset()
    moved = 0 if offset is None else offset - start
    return load(node.source, value.kind, Layout(axes, node.layout.offset + moved))


@RULES.register("unsqueeze")
def _unsqueeze(to: Lowering, x: Value, axis: int) -> Value:
    return insert_axis(x, axis % len(to.shape))


@RULES.register("permute")
def _permute(_to: Lowering, x: Value, order: Sequence[int]) -> Value:
    return permute(x, [axis % len(order) for axis in order])


@RULES.register("transpose", "t")
def _transpose(_to: Lowering, x: Value, first: int = 0, second: int = -1) -> Value:
    order = list(range(len(x.shape)))
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return permute(x, order)


@RULES.register("expand")
def _expand(to: Lowering, x: Value, *_arguments: Any, **_: Any) -> Value:
    return to.builder.expand(x, to.shape)


@RULES.register("repeat")
def _repeat(to: Lowering, x: Value, times: Sequence[int]) -> Value:
    value = to.builder.reshape(x, (1,) * (len(times) - len(x.shape)) + x.shape)
    pairs = [pair for size in value.shape for pair in (1, size)]
    wide = [pair for n, size in zip(times, value.shape, strict=True) for pair in (n, size)]
    return to.builder.reshape(
        to.builder.expand(to.builder.reshape(value, tuple(pairs)), tuple(wide)), to.shape
    )


def _clip(index: int | None, size: int, default: int) -> int:
    if index is None:
        return default
    return min(max(index + size if index < 0 else index, 0), size)


@RULES.register("slice")
def _slice(
    to: Lowering, x: Value, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> Value:
    axis, size = axis % len(x.shape), x.shape[axis]
    return to.builder.slice(x, axis, _clip(start, size, 0), _clip(stop, size, size), step)


@RULES.register("select")
def _select(to: Lowering, x: Value, axis: int, index: int) -> Value:
    axis, index = axis % len(x.shape), index % x.shape[axis]
    return to.builder.reshape(to.builder.slice(x, axis, index, index + 1), to.shape)


@RULES.register("split_with_sizes", "split")
def _split(to: Lowering, x: Value, sizes: Any, axis: int = 0) -> tuple[Value, ...]:
    axis, size = axis % len(x.shape), x.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    pairs = zip(ends, sizes, strict=True)
    return tuple(to.builder.slice(x, axis, end - length, end) for end, length in pairs)


@RULES.register("cat")
def _cat(to: Lowering, values: Sequence[Any], axis: int = 0) -> Value:
    parts = [to.builder.to_lazy(to.cast(value)) for value in values if math.prod(value.shape)]
    return concatenate(parts, axis % len(to.shape))


@RULES.register("stack")
def _stack(to: Lowering, values: Sequence[Any], axis: int = 0) -> Value:
    axis %= len(to.shape)
    return _cat(to, [insert_axis(to.cast(value), axis) for value in values], axis)


@RULES.register("constant_pad_nd")
def _pad(to: Lowering, x: Value, widths: Sequence[int], fill: float = 0) -> Value:
    value = to.cast(x)
    for number in range(len(widths) // 2):
        axis = len(value.shape) - 1 - number
        before, after = widths[2 * number : 2 * number + 2]
        value = pad(to.builder, value, axis, before, after, fill)
    return value


@RULES.register("slice_scatter")
def _slice_scatter(to: Lowering, x: Any, source: Any, axis: int = 0, *bounds: Any) -> Value:
    start, stop = (*bounds, None, None)[:2]
    step = bounds[2] if len(bounds) > 2 else 1
    base, part, axis = to.cast(x), to.cast(source), axis % len(to.shape)
    size = base.shape[axis]
    low, high = _clip(start, size, 0), _clip(stop, size, size)
    if step != 1:
        if not is_literal_zero(base):
            raise to.unsupported(f"the step {step} into anything but zeros")
        part = to.builder.slice(spread(to.builder, part, axis, step), axis, 0, high - low)
    parts = [
        to.builder.slice(base, axis, 0, low) if low else None,
        part,
        to.builder.slice(base, axis, high, size) if high < size else None,
    ]
    return concatenate([to.builder.to_lazy(p) for p in parts if p is not None], axis)


@RULES.register("_assert_tensor_metadata")
def _assert_nothing(*_: Any, **__: Any) -> None:
    """Lower a check of what tracing already fixed."""


@RULES.register("select_scatter")
def _select_scatter(to: Lowering, x: Any, source: Any, axis: int, index: int) -> Value:
    axis %= len(to.shape)
    index %= to.shape[axis]
    return _slice_scatter(to, x, insert_axis(to.cast(source), axis), axis, index, index + 1)
