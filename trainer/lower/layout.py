"""Layouts: how the elements of a logical tensor lie in a stored one.

Each logical axis is a product of factors (size, stride), so that permuting, expanding, slicing and
almost every reshaping of a stored tensor gives another layout of it and costs no instruction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Factor = tuple[int, int]  # size and stride in elements
Axis = tuple[Factor, ...]


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return row-major strides in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def simplify(factors: Sequence[Factor]) -> Axis:
    """Drop factors of size 1 and join neighbours that walk like one."""
    result: list[Factor] = []
    for size, stride in factors:
        if size == 1:
            continue
        if result and result[-1][1] == size * stride:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return tuple(result)


def _split(factors: Sequence[Factor], sizes: Sequence[int]) -> list[Factor] | None:
    """Cut ``factors`` into factors of exactly ``sizes``, or None where a cut is not whole."""
    result: list[Factor] = []
    rest = [factor for factor in factors if factor[0] > 1]
    for size in sizes:
        axis, missing = [], size
        while missing > 1:
            have, stride = rest.pop(0)
            taken = min(missing, have)
            if have % taken or missing % taken:
                return None
            axis.append((taken, stride * (have // taken)))
            if have > taken:
                rest.insert(0, (have // taken, stride))
            missing //= taken
        axis = list(simplify(axis)) or [(1, 0)]
        if len(axis) > 1:
            return None
        result += axis
    return result


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each element of a logical tensor is: ``offset`` plus its factors' strides."""

    axes: tuple[Axis, ...]
    offset: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return tuple(math.prod(size for size, _ in axis) for axis in self.axes)

    @property
    def factors(self) -> list[Factor]:
        """All factors from the outermost to the innermost."""
        return [factor for axis in self.axes for factor in axis]

    @property
    def is_dense(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return simplify(self.factors) in ((), ((math.prod(self.shape), 1),))

    def permute(self, order: Sequence[int]) -> "Layout":
        """Return the layout with the axes in another order."""
        return Layout(tuple(self.axes[axis] for axis in order), self.offset)

    def expand(self, shape: Sequence[int]) -> "Layout":
        """Return the layout broadcast to ``shape``, aligned at the last axis."""
        missing = len(shape) - len(self.axes)
        axes: list[Axis] = []
        for size, axis in zip(shape, ((),) * missing + self.axes, strict=True):
            own = math.prod(s for s, _ in axis)
            assert own in (1, size), (self.shape, shape)
            axes.append(axis if own == size else ((size, 0),))
        return Layout(tuple(axes), self.offset)

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> "Layout | None":
        """Return the layout of a slice of one axis, or None if that axis has no single stride."""
        simple = simplify(self.axes[axis]) or ((1, 0),)
        if len(simple) > 1:
            return None
        stride = simple[0][1]
        part = simplify(((max(0, -((start - stop) // step)), stride * step),))
        axes = (*self.axes[:axis], part, *self.axes[axis + 1 :])
        return Layout(axes, self.offset + start * stride)

    def reshape(self, shape: Sequence[int]) -> "Layout | None":
        """Return the layout with another logical shape, or None if its factors cannot be regrouped."""
        rest = list(simplify(self.factors))
        axes: list[Axis] = []
        for size in shape:
            axis, missing = [], size
            while missing > 1:
                have, stride = rest.pop(0)
                taken = math.gcd(have, missing)
                if taken != min(have, missing):
                    return None
                axis.append((taken, stride * (have // taken)))
                if have > taken:
                    rest.insert(0, (have // taken, stride))
                missing //= taken
            axes.append(simplify(axis))
        return Layout(tuple(axes), self.offset)


@dataclass(frozen=True, slots=True)
class Walk:
    """An iteration shape and, for each of several layouts, its strides over it."""

    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def _refine_axis(axes: Sequence[Axis]) -> list[tuple[int, ...]] | None:
    """Return rows (size, stride of each layout) that cut one axis alike for all, or None."""
    marks = {1}
    for axis in axes:
        product = 1
        for size, _ in reversed(simplify(axis)):
            product *= size
            marks.add(product)
    ordered = sorted(marks)
    pairs = list(pairwise(ordered))
    if any(high % low for low, high in pairs):
        return None
    sizes = [high // low for low, high in reversed(pairs)]
    columns = [_split(axis, sizes) for axis in axes]
    if any(column is None for column in columns):
        return None
    strides = [[stride for _, stride in column] for column in columns if column is not None]
    return list(zip(sizes, *strides, strict=True))


def join_rows(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join neighbouring iteration axes that every layout walks like one."""
    result: list[tuple[int, ...]] = []
    for row in rows:
        if row[0] == 1:
            continue
        if result and all(o == row[0] * i for o, i in zip(result[-1][1:], row[1:], strict=True)):
            result[-1] = (result[-1][0] * row[0], *row[1:])
        else:
            result.append(row)
    return result


def align(layouts: Sequence[Layout], first: int = 0, last: int | None = None) -> Walk | None:
    """Return the shortest common iteration over the logical axes ``first`` to ``last`` of ``layouts``."""
    rows: list[tuple[int, ...]] = []
    for axes in zip(*(layout.axes[first:last] for layout in layouts), strict=True):
        refined = _refine_axis(axes)
        if refined is None:
            return None
        rows += refined
    joined = join_rows(rows)
    columns = list(zip(*joined, strict=True)) or [()] * (len(layouts) + 1)
    return Walk(columns[0], tuple(columns[1:]))


def chain(*walks: Walk) -> Walk:
    """Return the iteration over the axes of all ``walks`` of the same layouts, one after another."""
    shape = sum((walk.shape for walk in walks), ())
    strides = zip(*(walk.strides for walk in walks), strict=True)
    return Walk(shape, tuple(sum(parts, ()) for parts in strides))


def dense(shape: Sequence[int]) -> Layout:
    """Return the row-major layout of a tensor of that ``shape``."""
    pairs = zip(shape, dense_strides(shape), strict=True)
    return Layout(tuple(simplify((pair,)) for pair in pairs))


@dataclass(frozen=True, slots=True)
class Renaming:
    """Where the factors of one stored tensor lie in another that holds the same elements reordered.

    ``rows`` are (size, stride there, stride here)."""

    rows: tuple[tuple[int, int, int], ...]

    @staticmethod
    def to_order(factors: Sequence[Factor], unit: int = 1) -> "Renaming":
        """Return the renaming to a tensor in which ``factors`` lie row-major, ``unit`` apart."""
        rows, step = [], unit
        for size, stride in reversed(factors):
            rows.append((size, stride, step))
            step *= size
        return Renaming(tuple(reversed(rows)))

    def rename(self, axes: Sequence[Axis]) -> tuple[Axis, ...] | None:
        """Return the factors of ``axes`` in the other tensor, or None if it cuts across one of them."""
        renamed = [[self._rename_factor(factor) for factor in axis] for axis in axes]
        if any(parts is None for axis in renamed for parts in axis):
            return None
        return tuple(tuple(f for parts in axis for f in parts or ()) for axis in renamed)

    def _rename_factor(self, factor: Factor) -> Axis | None:
        size, stride = factor
        if size == 1:
            return ()
        if stride == 0:
            return (factor,)
        have, there, here = max(
            (row for row in self.rows if row[1] <= stride), key=lambda row: row[1]
        )
        step = stride // there
        inner = min(size, have // step)
        if stride % there or have % step or size % inner:
            return None
        outer = self._rename_factor((size // inner, stride * inner))
        return None if outer is None else (*outer, (inner, step * here))
