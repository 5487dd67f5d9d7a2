"""Values: what the lowering knows of a tensor before it is stored, and views of it.

A lazy value is an expression over loads whose layouts all have the value's shape; pieces are lazy
values side by side along an axis. Views of both only change the layouts of their loads."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from market.protocol.program import Op
from trainer.lower.expressions import Constant, Expr, Load, find_loads, find_ops, rewrite
from trainer.lower.layout import Layout, dense, dense_strides

Shape = tuple[int, ...]
_SLOW: Final = (Op.DIV, Op.SQRT)
_CHEAP_OPS: Final = 3


@dataclass(slots=True)
class Lazy:
    """An elementwise value; ``kind`` is "f" (binary32), "i" (integer) or "b" (0 or 1).

    Mutable so that storing it spares its other users the computation."""

    shape: Shape
    kind: str
    expr: Expr

    @property
    def is_stored(self) -> bool:
        """Whether it is a view of a stored tensor."""
        return isinstance(self.expr, Load)

    @property
    def constant(self) -> int | None:
        """The one literal that all elements are, or None."""
        return self.expr.value if isinstance(self.expr, Constant) else None


@dataclass(slots=True)
class Pieces:
    """Values side by side along ``axis``."""

    shape: Shape
    kind: str
    axis: int
    parts: tuple[Lazy, ...]

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where each part starts, and the end."""
        cuts = [0]
        for part in self.parts:
            cuts.append(cuts[-1] + part.shape[self.axis])
        return tuple(cuts)


Value = Lazy | Pieces


def load(source: int, kind: str, layout: Layout) -> Lazy:
    """Return the value that a stored tensor holds in that ``layout``."""
    return Lazy(layout.shape, kind, Load("f" if kind == "f" else "i", source, layout))


def get_load(value: Lazy) -> Load:
    """Return the load of a stored value."""
    assert isinstance(value.expr, Load), "the value is not stored"
    return value.expr


def change_layouts(
    value: Lazy, shape: Shape, change: Callable[[Layout], Layout | None]
) -> Lazy | None:
    """Return a view: every load's layout changed alike, or None where one of them cannot be."""
    layouts = {key: change(key[1]) for key in find_loads([value.expr])}
    if any(layout is None for layout in layouts.values()):
        return None

    def move(node: Load) -> Expr:
        layout = layouts[node.source, node.layout]
        assert layout is not None
        return Load(node.type, node.source, layout)

    return Lazy(shape, value.kind, rewrite([value.expr], move)[0])


def permute(value: Value, order: Sequence[int]) -> Value:
    """Return the value with its axes in another order."""
    shape = tuple(value.shape[axis] for axis in order)
    if isinstance(value, Pieces):
        parts = (permute(part, order) for part in value.parts)
        lazy = tuple(part for part in parts if isinstance(part, Lazy))
        return Pieces(shape, value.kind, list(order).index(value.axis), lazy)
    moved = change_layouts(value, shape, lambda layout: layout.permute(order))
    assert moved is not None
    return moved


def expand_lazy(value: Lazy, shape: Shape) -> Lazy:
    """Return the value broadcast to ``shape``."""
    if value.shape == shape:
        return value
    moved = change_layouts(value, shape, lambda layout: layout.expand(shape))
    assert moved is not None
    return moved


def insert_axis(value: Value, axis: int) -> Value:
    """Return the value with an axis of size 1 before ``axis``."""
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    if isinstance(value, Pieces):
        parts = tuple(p for p in (insert_axis(p, axis) for p in value.parts) if isinstance(p, Lazy))
        return Pieces(shape, value.kind, value.axis + (axis <= value.axis), parts)
    moved = change_layouts(
        value, shape, lambda at: Layout((*at.axes[:axis], (), *at.axes[axis:]), at.offset)
    )
    assert moved is not None
    return moved


def find_sources(value: Value) -> list[Layout]:
    """Return the layouts of all loads of a value or of its parts."""
    parts = value.parts if isinstance(value, Pieces) else (value,)
    return [layout for part in parts for _, layout in find_loads([part.expr])]


def find_broadcast_axes(value: Value) -> list[int]:
    """Return the axes along which every element is the same."""
    layouts = find_sources(value)
    return [
        axis
        for axis, size in enumerate(value.shape)
        if size > 1
        and not (isinstance(value, Pieces) and axis == value.axis)
        and all(stride == 0 for at in layouts for _, stride in at.axes[axis])
    ]


def is_heavy(value: Lazy) -> bool:
    """Whether computing it again for each element of a larger shape is waste."""
    ops = find_ops(value.expr)
    return len(ops) > _CHEAP_OPS or any(op in _SLOW for op in ops)


def is_cheap(value: Value) -> bool:
    """Whether several users may each compute it: a few operations on one tensor of its size."""
    if isinstance(value, Pieces) or is_heavy(value):
        return False
    full = [at for _, at in find_loads([value.expr]) if all(stride for _, stride in at.factors)]
    return len(full) <= 1


def flatten(layout: Layout) -> Layout:
    """Return the layout as one logical axis."""
    flat = layout.reshape((math.prod(layout.shape),))
    assert flat is not None
    return flat


def fence(sizes: Sequence[int]) -> Layout:
    """Return one logical axis of factors of ``sizes``, no two neighbours of which walk like one."""
    return Layout((tuple((size, (number + 1) % 2) for number, size in enumerate(sizes)),))


def stored_axes(
    shape: Sequence[int], offset: int = 0, strides: Sequence[int] | None = None
) -> Layout:
    """Return one logical axis with a factor for each axis of a stored tensor of more than 1 element."""
    steps = dense_strides(shape) if strides is None else strides
    pairs = zip(shape, steps, strict=True)
    return Layout((tuple((size, step) for size, step in pairs if size > 1),), offset)


def dense_value(source: int, kind: str, shape: Shape) -> Lazy:
    """Return the whole of a stored row-major tensor."""
    return load(source, kind, dense(shape))


def join_axes(layout: Layout) -> Layout:
    """Return the layout as one logical axis with the same factors."""
    return Layout((tuple(layout.factors),), layout.offset)
