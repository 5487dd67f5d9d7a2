"""How elements are spread over ranks, and what part of an instruction each rank can do with its own.

A tensor is flat memory, so a spread is a rule on flat indices that no reshaping disturbs: rows, columns and
heads are all of the form ``index mod period``. INVARIANT: every rank has at least one element of each period,
and a part of an instruction touches only elements that its rank has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from market.protocol.program import View


@dataclass(frozen=True, slots=True)
class Spread:
    """Index i is with the rank r for which ``cuts[r] <= i mod period < cuts[r + 1]``."""

    period: int
    cuts: tuple[int, ...]

    @property
    def world(self) -> int:
        """The number of ranks."""
        return len(self.cuts) - 1

    @property
    def is_even(self) -> bool:
        """Whether every rank has as much as every other."""
        return len({self.get_width(rank) for rank in range(self.world)}) == 1

    def get_width(self, rank: int) -> int:
        """Return how many indices of a period ``rank`` has."""
        return self.cuts[rank + 1] - self.cuts[rank]

    def scale(self, factor: int) -> "Spread":
        """Return the spread of elements whose indices here are counted in units of ``factor``."""
        return Spread(self.period * factor, tuple(cut * factor for cut in self.cuts))


def divide(size: int, world: int) -> Spread:
    """Return ``size`` indices in contiguous ranges, as even as they can be."""
    return Spread(size, tuple(rank * size // world for rank in range(world + 1)))


@dataclass(frozen=True, slots=True)
class Placement:
    """A cut through an iteration: the rank that does an index is that of its coordinate on ``axis``."""

    axis: int
    spread: Spread


@dataclass(frozen=True, slots=True)
class Access:
    """A view as an instruction uses it; ``spread`` is None where a rank has the whole tensor.

    ``reach`` is an axis that the iteration does not name, as size and stride: a gather's index, or the
    rows that a scatter-add writes."""

    view: View
    spread: Spread | None = None
    reach: tuple[int, int] = (1, 0)


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of a refined iteration: its ``origin`` is the instruction's axis that it is a factor of."""

    size: int
    strides: tuple[int, ...]
    origin: int
    is_cut: bool = False

    def factor(self, inner: int, *, is_cut: bool = False) -> list["_Axis"]:
        """Return this axis as an outer one and one of ``inner`` indices."""
        outer = tuple(stride * inner for stride in self.strides)
        last = _Axis(inner, self.strides, self.origin, is_cut)
        return (
            [last]
            if inner == self.size
            else [
                _Axis(self.size // inner, outer, self.origin),
                last,
            ]
        )


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank does of an instruction: its iteration, and views of the memory that the rank has.

    ``origins`` tells which axis of the instruction each axis is a factor of; ``reaches`` are the strides of
    the accesses' further axes."""

    shape: tuple[int, ...]
    origins: tuple[int, ...]
    views: tuple[View, ...]
    reaches: tuple[int, ...]


def _refine(axes: list[_Axis], access: int, period: int) -> list[_Axis] | None:
    """Factor axes that run across ``period``; None if one cannot be."""
    refined: list[_Axis] = []
    for axis in axes:
        stride = axis.strides[access]
        if stride % period == 0 or axis.size == 1 or axis.size * stride <= period:
            refined.append(axis)
        elif period % stride == 0 and axis.size % (period // stride) == 0 and not axis.is_cut:
            refined += axis.factor(period // stride)
        else:
            return None
    return refined


def _build_axes(
    shape: Sequence[int], accesses: Sequence[Access], placement: Placement | None
) -> list[_Axis] | None:
    axes: list[_Axis] = []
    for number, size in enumerate(shape):
        axis = _Axis(size, tuple(access.view.strides[number] for access in accesses), number)
        if placement is not None and number == placement.axis:
            axes += axis.factor(placement.spread.period, is_cut=True)
        else:
            axes.append(axis)
    refined: list[_Axis] | None = axes
    for number, access in enumerate(accesses):
        if access.spread is not None and refined is not None:
            refined = _refine(refined, number, access.spread.period)
    return refined


def _localize_view(
    access: Access, axes: Sequence[tuple[int, int]], start: int, rank: int
) -> tuple[View, int] | None:
    """Return a view over ``axes`` (sizes and strides) from element ``start`` on, in the rank's memory."""
    view, spread = access.view, access.spread
    strides = [stride for _, stride in axes]
    if spread is None:
        return View(view.tensor, start, tuple(strides), view.register), access.reach[1]
    period, width = spread.period, spread.get_width(rank)
    low = high = start % period
    local = []
    for size, stride in (*axes, access.reach):
        if stride % period == 0:
            local.append(stride // period * width)
        else:
            local.append(stride)
            high += (size - 1) * stride
    if low < spread.cuts[rank] or high >= spread.cuts[rank + 1]:
        return None
    offset = start // period * width + low - spread.cuts[rank]
    return View(view.tensor, offset, tuple(local[:-1]), view.register), local[-1]


def localize(
    shape: Sequence[int], accesses: Sequence[Access], placement: Placement | None, rank: int
) -> Part | None:
    """Return what ``rank`` does of an instruction; None if that touches elements that it does not have."""
    refined = _build_axes(shape, accesses, placement)
    if refined is None:
        return None
    sizes = [axis.size for axis in refined]
    starts = [access.view.offset for access in accesses]
    for number, axis in enumerate(refined):
        if axis.is_cut and placement is not None:
            sizes[number] = placement.spread.get_width(rank)
            first = placement.spread.cuts[rank]
            pairs = zip(starts, axis.strides, strict=True)
            starts = [start + first * stride for start, stride in pairs]
    found = []
    for number, (access, start) in enumerate(zip(accesses, starts, strict=True)):
        steps = [axis.strides[number] for axis in refined]
        local = _localize_view(access, list(zip(sizes, steps, strict=True)), start, rank)
        if local is None:
            return None
        found.append(local)
    views, reaches = zip(*found, strict=True) if found else ((), ())
    return Part(tuple(sizes), tuple(axis.origin for axis in refined), views, reaches)


def is_local(
    shape: Sequence[int], accesses: Sequence[Access], placement: Placement | None, world: int
) -> bool:
    """Check that every rank has all that its part of an instruction touches."""
    return all(localize(shape, accesses, placement, rank) is not None for rank in range(world))


def find_placements(shape: Sequence[int], access: Access) -> Iterator[Placement]:
    """Yield the cuts through an iteration under which each rank touches only what it has of one tensor."""
    spread = access.spread
    if spread is None:
        return
    for axis, (size, stride) in enumerate(zip(shape, access.view.strides, strict=True)):
        if stride % spread.period == 0:
            continue
        inner = size if size * stride <= spread.period else spread.period // stride
        cuts = [
            -((access.view.offset % spread.period - cut) // stride) for cut in spread.cuts[1:-1]
        ]
        cuts = [0, *cuts, inner]
        if inner == 0 or size % inner or any(a >= b for a, b in pairwise(cuts)):
            continue
        placement = Placement(axis, Spread(inner, tuple(cuts)))
        if is_local(shape, [access], placement, spread.world):
            yield placement


def find_written_spread(view: View, placement: Placement, elements: int) -> Spread | None:
    """Return how what ``view`` writes under ``placement`` is spread over its tensor, if it is at all."""
    stride = view.strides[placement.axis]
    if stride == 0:
        return None
    spread = placement.spread.scale(stride)
    return spread if elements % spread.period == 0 else None
