"""Rules of views and of what puts tensors side by side: no instruction of their own."""

import math
from collections.abc import Sequence
from typing import Any, Final

from trainer.lower.builder import concatenate
from trainer.lower.expressions import f32, i64
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Lazy, Value, insert_axis, permute

RULES: Final = Rules()


@RULES.register("view", "_unsafe_view", "reshape", "squeeze", "flatten")
def _view(to: Lowering, x: Value, *_arguments: Any) -> Value:
    return to.builder.reshape(x, to.shape)


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
    parts = [to.builder.to_lazy(to.cast(value)) for value in values]
    return concatenate([p for p in parts if math.prod(p.shape)], axis % len(to.shape))


@RULES.register("stack")
def _stack(to: Lowering, values: Sequence[Any], axis: int = 0) -> Value:
    axis %= len(to.shape)
    return _cat(to, [insert_axis(to.cast(value), axis) for value in values], axis)


@RULES.register("constant_pad_nd")
def _pad(to: Lowering, x: Value, widths: Sequence[int], fill: float = 0) -> Value:
    value = to.cast(x)
    for number in range(len(widths) // 2):
        axis = len(value.shape) - 1 - number
        value = _put_between(to, value, axis, widths[2 * number], widths[2 * number + 1], fill)
    return value


def _put_between(
    to: Lowering, value: Value, axis: int, before: int, after: int, fill: float
) -> Value:
    """Return the value with constant borders along one axis; negative widths cut."""
    size = value.shape[axis]
    value = to.builder.slice(value, axis, max(0, -before), size - max(0, -after))

    def border(width: int) -> list[Lazy]:
        shape = (*value.shape[:axis], width, *value.shape[axis + 1 :])
        constant = f32(fill) if value.kind == "f" else i64(int(fill))
        return [Lazy(shape, value.kind, constant)] if width > 0 else []

    parts = (*border(before), to.builder.to_lazy(value), *border(after))
    return concatenate(parts, axis)


@RULES.register("slice_scatter")
def _slice_scatter(to: Lowering, x: Any, source: Any, axis: int = 0, *bounds: Any) -> Value:
    start, stop = (*bounds, None, None)[:2]
    if bounds[2:] not in ((), (1,)):
        raise to.unsupported(f"the step {bounds[2]}")
    base, axis = to.cast(x), axis % len(to.shape)
    size = base.shape[axis]
    low, high = _clip(start, size, 0), _clip(stop, size, size)
    parts = [
        to.builder.slice(base, axis, 0, low) if low else None,
        to.cast(source),
        to.builder.slice(base, axis, high, size) if high < size else None,
    ]
    return concatenate([to.builder.to_lazy(p) for p in parts if p is not None], axis)


@RULES.register("select_scatter")
def _select_scatter(to: Lowering, x: Any, source: Any, axis: int, index: int) -> Value:
    axis %= len(to.shape)
    index %= to.shape[axis]
    return _slice_scatter(to, x, insert_axis(to.cast(source), axis), axis, index, index + 1)
