"""Rules of indexed reads and writes."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from trainer.lower import instructions
from trainer.lower.builder import is_literal_zero
from trainer.lower.expressions import Expr, select
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Value, insert_axis

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
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    if len(axes) != 1 or to.to_kind(indices[axes[0]]) == "b":
        raise to.unsupported("indices along more than one axis, or a mask")
    return _index_select(to, x, axes[0], indices[axes[0]])


@RULES.register("gather")
def _gather(to: Lowering, x: Any, axis: int, index: Any, **_: Any) -> Value:
    source, chosen = to.cast(x, "f"), to.cast(index, "i")
    axis %= len(source.shape)
    for other, size in enumerate(chosen.shape):
        if other != axis:
            source = to.builder.slice(source, other, 0, size)
    return instructions.gather(to.builder, chosen, source, axis)


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
    if not any(accumulate) or len(indices) != 1 or not is_literal_zero(base):
        raise to.unsupported("anything but adding rows to zeros along the first axis")
    chosen = to.cast(indices[0], "i")
    columns = len(base.shape) - 1
    source = to.builder.expand(to.cast(values, "f"), (*chosen.shape, *base.shape[1:]))
    return instructions.scatter_add(to.builder, chosen, source, base.shape[0], columns)


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
