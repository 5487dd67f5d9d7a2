"""Rules of indexed reads and writes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from trainer.lower import instructions
from trainer.lower.builder import is_literal_zero
from trainer.lower.expressions import Expr, select
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Shape, Value, insert_axis, permute

RULES: Final = Rules()


@RULES.register("embedding")
def _embedding(to: Lowering, weight: Any, index: Any, *_options: Any) -> Value:
    return _index_select(to, weight, 0, index)


@RULES.register("index_select")
def _index_select(to: Lowering, x: Any, axis: int, index: Any) -> Value:
    """Read along ``axis`` at an index tensor of any rank, whose axes take its place."""
    source, chosen = to.to_value(x), to.cast(index, "i")
    axis %= len(source.shape)
    after = len(source.shape) - axis - 1
    rank = len(chosen.shape)
    if rank == 0:
        chosen, rank = to.builder.reshape(chosen, (1,)), 1
    for _ in range(rank - 1):
        source = insert_axis(source, axis + 1)
    chosen = to.builder.reshape(chosen, (*(1,) * axis, *chosen.shape, *(1,) * after))
    return to.builder.reshape(instructions.gather(to.builder, chosen, source, axis), to.shape)


@RULES.register("index")
def _index(to: Lowering, x: Any, indices: Sequence[Any]) -> Value:
    axes = _find_indexed(to, indices)
    source = to.to_value(x)
    chosen = _join_indices(to, indices, source.shape)
    count = math.prod(source.shape[axis] for axis in axes)
    joined = (*source.shape[: axes[0]], count, *source.shape[axes[-1] + 1 :])
    return _index_select(to, to.builder.reshape(source, joined), axes[0], chosen)


def _find_indexed(to: Lowering, indices: Sequence[Any]) -> list[int]:
    """Return the axes that have an index: neighbours, and no masks."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    is_mask = any(to.to_kind(indices[axis]) == "b" for axis in axes)
    if is_mask or axes != list(range(axes[0], axes[-1] + 1)):
        raise to.unsupported("a mask, or indices along axes that are not neighbours")
    return axes


def _join_indices(to: Lowering, indices: Sequence[Any], shape: Shape) -> Value:
    """Return indices of several axes as one index along these axes together; they may count from the end."""
    named = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    (axis, index), *rest = named
    joined = _count_from_start(to, index, shape[axis])
    for axis, index in rest:
        size, chosen = shape[axis], _count_from_start(to, index, shape[axis])
        joined = to.builder.map(lambda a, b, n=size: a * n + b, joined, chosen)
    return joined


def _count_from_start(to: Lowering, index: Any, size: int) -> Value:
    if isinstance(index, Tensor):
        return to.cast(torch.where(index < 0, index + size, index), "i")
    return to.builder.map(lambda n: select(n < 0, n + size, n), to.cast(index, "i"))


@RULES.register("gather")
def _gather(to: Lowering, x: Any, axis: int, index: Any, **_: Any) -> Value:
    source, chosen = to.cast(x, "f"), to.cast(index, "i")
    axis %= len(source.shape)
    for other, size in enumerate(chosen.shape):
        if other != axis:
            source = to.builder.slice(source, other, 0, size)
    return instructions.gather(to.builder, chosen, source, axis)


@RULES.register("flip")
def _flip(to: Lowering, x: Any, axes: Sequence[int]) -> Value:
    value = to.to_value(x)
    for axis in axes:
        axis, size = axis % len(value.shape), value.shape[axis]
        shape = tuple(size if a == axis else 1 for a in range(len(value.shape)))
        index = to.builder.reshape(instructions.iota(to.builder, size, size - 1, -1), shape)
        value = instructions.gather(to.builder, index, value, axis)
    return value


@RULES.register("embedding_dense_backward")
def _embedding_backward(to: Lowering, gradient: Any, index: Any, rows: int, *options: Any) -> Value:
    padding, is_scaled = options
    if is_scaled:
        raise to.unsupported("gradients scaled by frequency")
    source, chosen = to.cast(gradient, "f"), to.cast(index, "i")
    if padding >= 0:
        is_kept = to.builder.map(lambda n: n.equals(padding), chosen, kind="b")
        wide = to.builder.reshape(is_kept, (*chosen.shape, 1))
        source = to.builder.map(lambda skip, g: select(skip, 0.0, g), wide, source)
    return instructions.scatter_add(to.builder, chosen, source, rows, 1)


@RULES.register("index_put", "_unsafe_index_put")
def _index_put(
    to: Lowering, x: Any, indices: Sequence[Any], values: Any, *accumulate: bool
) -> Value:
    base = to.cast(x, "f")
    if not any(accumulate) or not is_literal_zero(base):
        raise to.unsupported("anything but adding to zeros")
    axes = _find_indexed(to, indices)
    chosen = _join_indices(to, indices, base.shape)
    first, rank = axes[0], len(chosen.shape)
    before, after = base.shape[:first], base.shape[axes[-1] + 1 :]
    source = to.builder.expand(to.cast(values, "f"), (*before, *chosen.shape, *after))
    order = [*range(first, first + rank), *range(first), *range(first + rank, len(source.shape))]
    count = math.prod(base.shape[axis] for axis in axes)
    columns = len(before) + len(after)
    total = instructions.scatter_add(to.builder, chosen, permute(source, order), count, columns)
    back = [*range(1, 1 + first), 0, *range(1 + first, 1 + columns)]
    return to.builder.reshape(permute(total, back), base.shape)


@RULES.register("scatter")
def _scatter(to: Lowering, x: Any, axis: int, index: Any, source: Any) -> Value:
    """Write one element of each line: where the line's own index says."""
    return _scatter_lines(to, x, axis, index, source, lambda _, new: new)


@RULES.register("scatter_add")
def _scatter_add(to: Lowering, x: Any, axis: int, index: Any, source: Any) -> Value:
    return _scatter_lines(to, x, axis, index, source, lambda old, new: old + new)


def _scatter_lines(
    to: Lowering, x: Any, axis: int, index: Any, source: Any, join: Callable[[Expr, Expr], Expr]
) -> Value:
    base, chosen = to.cast(x), to.cast(index, "i")
    axis %= len(base.shape)
    expected = (*base.shape[:axis], 1, *base.shape[axis + 1 :])
    if chosen.shape != expected:
        raise to.unsupported(f"an index of shape {chosen.shape}: only one element of each line")
    counted = instructions.iota(to.builder, base.shape[axis])
    places = to.builder.reshape(
        counted, tuple(n if a == axis else 1 for a, n in enumerate(base.shape))
    )

    def put(place: Expr, at: Expr, old: Expr, new: Expr) -> Expr:
        return select(place.equals(at), join(old, new), old)

    return to.builder.map(put, places, chosen, base, to.cast(source), kind=to.kind)
