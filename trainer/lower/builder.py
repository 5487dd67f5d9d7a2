"""The program builder: values in, a valid program out.

Elementwise values stay expressions until an instruction other than `map`, or several users, need them
stored; then `fusion` joins the maps, and tensors are numbered in the order in which they are written."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from market.protocol.program import Instruction, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType
from trainer.lower.assembly import NamedOutput, assemble, fix_shape
from trainer.lower.drafts import (
    AnyDraft,
    Buffer,
    Draft,
    MapDraft,
    Store,
    find_walk,
    flat_expression,
    is_within_limits,
)
from trainer.lower.expressions import Expr, Load, find_loads, rewrite
from trainer.lower.layout import Layout, dense, dense_strides, simplify
from trainer.lower.values import (
    Lazy,
    Pieces,
    Shape,
    Value,
    change_layouts,
    dense_value,
    expand_lazy,
    find_broadcast_axes,
    find_sources,
    flatten,
    get_load,
    insert_axis,
    is_heavy,
    join_axes,
    load,
    stored_axes,
)

_DTYPES: Final = {"f": Dtype.F32, "i": Dtype.I64, "b": Dtype.U8}


class ProgramBuilder:
    """Collects inputs and drafts of instructions; `build` returns the program."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.drafts: list[AnyDraft] = []
        self.fences: list[int] = []  # places in `drafts`
        self.cache: dict[object, object] = {}  # what `instructions` need not emit twice

    def add_buffer(
        self, dtype: Dtype, elements: int, shape: Shape | None = None, bits: int = 0
    ) -> int:
        """Declare a tensor that an instruction will write, in a shape of its choice if None."""
        self.buffers.append(Buffer(dtype, elements, shape, bits))
        return len(self.buffers) - 1

    def add_input(self, name: str, kind: TensorType, role: TensorRole) -> Lazy:
        """Declare an input tensor; inputs keep the order of their declarations."""
        buffer = self.add_buffer(kind.dtype, kind.elements, kind.shape)
        self.buffers[buffer].role, self.buffers[buffer].name = role, name
        return dense_value(buffer, "f" if kind.dtype is Dtype.F32 else "i", kind.shape)

    def append(self, instruction: Instruction) -> None:
        """Append an instruction whose views name buffers."""
        self.drafts.append(Draft(instruction))

    def fence(self) -> None:
        """Keep the maps before and after here apart: a fused map keeps alive what both parts read."""
        self.fences.append(len(self.drafts))

    # Elementwise values

    def map(self, function: Callable[..., Expr], *values: Value, kind: str = "") -> Value:
        """Return ``function`` of the elements of ``values``, broadcast; nothing is stored yet."""
        shape = np.broadcast_shapes(*(value.shape for value in values))
        if any(isinstance(value, Pieces) for value in values):
            return self._map_pieces(function, values, shape, kind)
        lazy = [self.to_lazy(value) for value in values]
        result = self._map_lazy(function, lazy, shape, kind)
        for value in sorted(lazy, key=lambda v: -len(find_loads([v.expr]))):
            if is_within_limits([result.expr]):
                break
            self.store(value)
            result = self._map_lazy(function, lazy, shape, kind)
        return result

    def _map_lazy(
        self, function: Callable[..., Expr], values: Sequence[Lazy], shape: Shape, kind: str
    ) -> Lazy:
        wide = [expand_lazy(value, shape) for value in values]
        still = [set(find_broadcast_axes(value)) for value in wide]
        common = set.intersection(*still) if still else set()
        for number, axes in enumerate(still):
            if axes - common and is_heavy(wide[number]) and find_sources(wide[number]):
                wide[number] = self._store_narrow(wide[number], sorted(axes))
        expr = function(*(value.expr for value in wide))
        return Lazy(shape, kind or expr.type, expr)

    def _store_narrow(self, value: Value, axes: Sequence[int]) -> Lazy:
        """Return the value stored without the ``axes`` along which it is the same."""
        narrow: Value = value
        for axis in axes:
            narrow = self.slice(narrow, axis, 0, 1)
        return expand_lazy(self.store(narrow), value.shape)

    def _map_pieces(
        self, function: Callable[..., Expr], values: Sequence[Value], shape: Shape, kind: str
    ) -> Value:
        """Apply ``function`` piece by piece if all pieces lie along one axis."""
        axes = {v.axis - len(v.shape) for v in values if isinstance(v, Pieces)}
        if len(axes) > 1:
            return self.map(function, *(self.to_lazy(v) for v in values), kind=kind)
        axis = axes.pop() + len(shape)
        wide = [self.expand(value, shape) for value in values]
        cuts = sorted({c for v in wide if isinstance(v, Pieces) for c in v.cuts})
        parts = []
        for start, stop in pairwise(cuts):
            part = self.map(function, *(self.slice(v, axis, start, stop) for v in wide), kind=kind)
            parts.append(self.to_lazy(part))
        return Pieces(shape, parts[0].kind, axis, tuple(parts))

    # Storing

    def to_lazy(self, value: Value) -> Lazy:
        """Return the value in one piece, stored if it was not."""
        return value if isinstance(value, Lazy) else self.store(value)

    def store(self, value: Value) -> Lazy:
        """Return the value, stored from now on, without repetition along an axis."""
        if isinstance(value, Lazy) and value.is_stored:
            return value
        still = find_broadcast_axes(value)
        if still and find_sources(value):
            narrow = self._store_narrow(value, still)
            if isinstance(value, Lazy):
                value.expr = narrow.expr
            return narrow
        if isinstance(value, Pieces):
            return self._store_pieces(value)
        self._write(value, value, dense(value.shape))
        return value

    def copy(self, value: Lazy, shape: Shape | None = None) -> Lazy:
        """Return the value in a row-major tensor of its own, of that ``shape`` if given."""
        result = Lazy(value.shape, value.kind, value.expr)
        out = dense(value.shape) if shape is None else stored_axes(shape)
        self._write(result, value, out, shape)
        return result

    def _allocate(self, value: Value, shape: Shape | None = None) -> int:
        return self.add_buffer(_DTYPES[value.kind], math.prod(value.shape), shape)

    def _write(self, result: Lazy, value: Lazy, out: Layout, shape: Shape | None = None) -> None:
        """Store ``value`` in a tensor of its own and make ``result`` a load of it."""
        buffer = self._allocate(value, shape)
        self._append_map(value, buffer, out)
        result.expr = get_load(dense_value(buffer, value.kind, value.shape))

    def _append_map(self, value: Lazy, buffer: int, out: Layout) -> None:
        store = Store(buffer, join_axes(out), flat_expression(value.expr))
        draft = MapDraft(math.prod(value.shape), (store,))
        if find_walk(draft, self.buffers) is None:
            if isinstance(value.expr, Load) and self.buffers[buffer].shape is None:
                self._append_slices(value, value.expr, buffer)
                return
            expr = flat_expression(self._copy_loads(value))
            draft.stores = (Store(buffer, join_axes(out), expr),)
        self.drafts.append(draft)

    def _append_slices(self, value: Lazy, node: Load, buffer: int) -> None:
        """Copy a view with more axes than an iteration has, slice by slice of its outermost factor."""
        (count, stride), *rest = simplify(flatten(node.layout).factors)
        inner = math.prod(size for size, _ in rest)
        self.buffers[buffer].shape = (count, inner)
        for number in range(count):
            layout = Layout((tuple(rest),), node.layout.offset + number * stride)
            part = self.copy(load(node.source, value.kind, layout))
            self._append_map(part, buffer, stored_axes((1, inner), number * inner))

    def _copy_loads(self, value: Lazy) -> Expr:
        """Return the value's expression over copies of what lies in factors that do not fit."""
        copies: dict[tuple[int, Layout], Expr] = {}
        for key, node in find_loads([value.expr]).items():
            one = Lazy(value.shape, node.type, node)
            copies[key] = node if node.layout.is_dense else self.copy(one).expr
        return rewrite([value.expr], lambda node: copies[node.source, node.layout])[0]

    def _store_pieces(self, value: Pieces) -> Lazy:
        """Write each part to its slice of one tensor."""
        buffer = self._allocate(value, value.shape)
        strides = dense_strides(value.shape)
        for part, start in zip(value.parts, value.cuts, strict=False):
            out = stored_axes(part.shape, start * strides[value.axis], strides)
            self._append_map(part, buffer, out)
        return dense_value(buffer, value.kind, value.shape)

    # Views

    def expand(self, value: Value, shape: Shape) -> Value:
        """Return the value broadcast to ``shape``."""
        if isinstance(value, Lazy):
            return expand_lazy(value, shape)
        while len(value.shape) < len(shape):
            widened = insert_axis(value, 0)
            assert isinstance(widened, Pieces)
            value = widened
        if shape[value.axis] != value.shape[value.axis]:
            return expand_lazy(self.store(value), shape)
        sizes = [
            (*shape[: value.axis], p.shape[value.axis], *shape[value.axis + 1 :])
            for p in value.parts
        ]
        parts = tuple(expand_lazy(p, s) for p, s in zip(value.parts, sizes, strict=True))
        return Pieces(shape, value.kind, value.axis, parts)

    def reshape(self, value: Value, shape: Shape) -> Lazy:
        """Return the value's elements, in row-major order, with another shape."""
        if value.shape == shape:
            return self.to_lazy(value)
        lazy = self.to_lazy(value)
        moved = change_layouts(lazy, shape, lambda layout: layout.reshape(shape))
        return moved or self.reshape(self.copy(lazy), shape)

    def slice(self, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Return every ``step``-th element of one axis from ``start`` to before ``stop``."""
        if isinstance(value, Pieces):
            if axis == value.axis:
                return self._slice_pieces(value, start, stop, step)
            parts = tuple(self.to_lazy(self.slice(p, axis, start, stop, step)) for p in value.parts)
            return Pieces(
                _cut(value.shape, axis, parts[0].shape[axis]), value.kind, value.axis, parts
            )
        if (start, stop, step) == (0, value.shape[axis], 1):
            return value
        shape = _cut(value.shape, axis, len(range(start, stop, step)))

        def cut(layout: Layout) -> Layout | None:
            return layout.slice(axis, start, stop, step)

        moved = change_layouts(value, shape, cut) or change_layouts(self.copy(value), shape, cut)
        assert moved is not None
        return moved

    def _slice_pieces(self, value: Pieces, start: int, stop: int, step: int) -> Value:
        if step != 1:
            return self.slice(self.store(value), value.axis, start, stop, step)
        parts = []
        for part, low in zip(value.parts, value.cuts, strict=False):
            high = low + part.shape[value.axis]
            if max(low, start) < min(high, stop):
                cut = self.slice(part, value.axis, max(low, start) - low, min(high, stop) - low)
                parts.append(self.to_lazy(cut))
        return concatenate(parts, value.axis)

    # Outputs

    def build(self, outputs: Sequence[NamedOutput]) -> Program:
        """Return the program that computes ``outputs``, without what none of them needs."""
        placed = [self._place(output) for output in outputs]
        return assemble(self.buffers, self.drafts, outputs, placed, self.fences)

    def _place(self, output: NamedOutput) -> int:
        """Return a tensor of the value's own shape that holds it alone, a copy if there is none.

        A state tensor that no step changes is its own next value."""
        value = self.to_lazy(output.value)
        if output.kind is OutputKind.NEXT_STATE and self._is_input(value, output.name):
            return get_load(value).source
        if not value.is_stored and not find_broadcast_axes(value):
            self.store(value)
        if self._is_whole(value):
            buffer = get_load(value).source
            is_written = self.buffers[buffer].role is TensorRole.VALUE
            if is_written and fix_shape(self.buffers, self.drafts, buffer, value.shape):
                return buffer
        return get_load(self.copy(value, value.shape)).source

    def _is_input(self, value: Lazy, name: str) -> bool:
        """Whether the value is exactly the input of that ``name``."""
        return self._is_whole(value) and self.buffers[get_load(value).source].name == name

    def _is_whole(self, value: Lazy) -> bool:
        """Whether the value is exactly one row-major tensor."""
        if not value.is_stored:
            return False
        node = get_load(value)
        return node.layout.is_dense and self.buffers[node.source].elements == math.prod(value.shape)


def _cut(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def concatenate(values: Sequence[Lazy], axis: int) -> Value:
    """Return the values side by side along ``axis``."""
    if len(values) == 1:
        return values[0]
    total = sum(value.shape[axis] for value in values)
    shape = _cut(values[0].shape, axis, total)
    return Pieces(shape, values[0].kind, axis, tuple(values))


def is_literal_zero(value: Value) -> bool:
    """Whether every element is +0 or the integer 0."""
    return isinstance(value, Lazy) and value.constant == 0
