"""Sliding windows over the spatial axes of [N, C, spatial..]: views, behind padding that is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.lower.builder import ProgramBuilder, concatenate
from trainer.lower.expressions import f32, i64
from trainer.lower.layout import Layout, simplify
from trainer.lower.values import Lazy, Shape, Value, get_load, insert_axis, load


@dataclass(frozen=True, slots=True)
class Window:
    """The shape of a window and how it moves, each with one number for every spatial axis."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a window's last element lies from its first."""
        return tuple(d * (size - 1) for d, size in zip(self.dilations, self.sizes, strict=True))


def pad(
    builder: ProgramBuilder, value: Value, axis: int, before: int, after: int, fill: float = 0
) -> Value:
    """Return the value with constant borders along one axis; negative widths cut."""
    size = value.shape[axis]
    value = builder.slice(value, axis, max(0, -before), size - max(0, -after))

    def border(width: int) -> list[Lazy]:
        shape = (*value.shape[:axis], width, *value.shape[axis + 1 :])
        constant = f32(fill) if value.kind == "f" else i64(int(fill))
        return [Lazy(shape, value.kind, constant)] if width > 0 else []

    parts = (*border(before), builder.to_lazy(value), *border(after))
    return concatenate(parts, axis)


def spread(builder: ProgramBuilder, value: Value, axis: int, step: int, fill: float = 0) -> Value:
    """Return the value with ``step`` - 1 constants after each element of an axis."""
    if step == 1:
        return value
    apart = pad(builder, insert_axis(value, axis + 1), axis + 1, 0, step - 1, fill)
    shape = (*value.shape[:axis], value.shape[axis] * step, *value.shape[axis + 1 :])
    return builder.reshape(apart, shape)


def unfold(builder: ProgramBuilder, value: Value, window: Window, fill: float = 0) -> Lazy:
    """Return what each window over the padded ``value`` sees: [N, C, positions.., window..]."""
    for axis, width in enumerate(window.paddings, 2):
        value = pad(builder, value, axis, width, width, fill)
    return _slide(builder, value, window.sizes, window.strides, window.dilations)


def unfold_back(
    builder: ProgramBuilder, value: Value, window: Window, sizes: Shape, fill: float = 0
) -> Lazy:
    """Return, for each element of a tensor of spatial ``sizes``, what ``value`` has at the windows over it.

    ``value`` has one element for each window; the result is [N, C, sizes.., window..], where the last
    number of a window axis is the window that sees the element first."""
    rows = zip(sizes, window.strides, window.paddings, window.reach, strict=True)
    for axis, (size, stride, padding, reach) in enumerate(rows, 2):
        before = reach - padding
        value = spread(builder, value, axis, stride, fill)
        after = size + reach - before - value.shape[axis]
        value = pad(builder, value, axis, before, after, fill)
    return _slide(builder, value, window.sizes, (1,) * len(sizes), window.dilations)


def _slide(
    builder: ProgramBuilder,
    value: Value,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Lazy:
    stored = builder.store(value)
    if any(len(simplify(axis)) > 1 for axis in get_load(stored).layout.axes[2:]):
        stored = builder.copy(stored)
    node = get_load(stored)
    positions, windows = [], []
    rows = zip(node.layout.axes[2:], stored.shape[2:], sizes, strides, dilations, strict=True)
    for axis, length, size, stride, dilation in rows:
        step = simplify(axis)[0][1] if simplify(axis) else 0
        positions.append(((((length - dilation * (size - 1) - 1) // stride + 1), step * stride),))
        windows.append(((size, step * dilation),))
    axes = (*node.layout.axes[:2], *positions, *windows)
    return load(node.source, stored.kind, Layout(axes, node.layout.offset))
