"""Every instruction but `map`, over values: which views it reads, what it writes.

An operand that is not stored is stored first; a result is a stored value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from market.protocol.constants import (
    MAX_DOT_LENGTH,
    MAX_LITERAL_BYTES,
    MAX_RANK,
    MAX_SUM_TERMS,
)
from market.protocol.program import Instruction, Kind, View
from market.protocol.tensors import Dtype, get_quantized_dtype
from trainer.lower.builder import ProgramBuilder
from trainer.lower.drafts import TooLarge, settle
from trainer.lower.expressions import Constant, i64
from trainer.lower.layout import (
    Axis,
    Layout,
    Renaming,
    Walk,
    align,
    chain,
    dense,
    dense_strides,
    simplify,
)
from trainer.lower.values import Lazy, Value, dense_value, get_load, load, permute

_TABLES: Final[dict[str, np.dtype[Any]]] = {
    "f": np.dtype("<f4"),
    "i": np.dtype("<i8"),
    "b": np.dtype("u1"),
}
_DTYPES: Final = {"f": Dtype.F32, "i": Dtype.I64, "b": Dtype.U8}


@dataclass(frozen=True, slots=True)
class _Rows:
    """A quantized tensor, and where the rows of its source lie in it."""

    buffer: int
    renaming: Renaming


def _find_order(axes: Sequence[Axis]) -> list[tuple[int, int]]:
    """Return the factors that move, joined where they walk like one."""
    moving = [(size, stride) for axis in axes for size, stride in axis if stride and size > 1]
    return list(simplify(moving))


def quantize(builder: ProgramBuilder, value: Lazy, bits: int) -> tuple[int, Layout]:
    """Return a quantized tensor and the layout of the rows of ``value`` in it.

    The last axis is the row; views that read the same rows share one quantized tensor."""
    node = get_load(builder.store(value))
    row = simplify(node.layout.axes[-1]) or ((1, 1),)
    order = _find_order(node.layout.axes[:-1])
    if len(row) > 1 or len(order) >= MAX_RANK:
        value = builder.copy(value)
        node = get_load(value)
        row, order = simplify(node.layout.axes[-1]) or ((1, 1),), _find_order(node.layout.axes[:-1])
    length, stride = row[0]
    canonical = simplify(sorted(order, key=lambda factor: -factor[1]))
    key = ("quantize", node.source, node.layout.offset, canonical, row, bits)
    rows = builder.cache.get(key)
    axes = rows.renaming.rename(node.layout.axes[:-1]) if isinstance(rows, _Rows) else None
    if axes is None:
        shape = (*(size for size, _ in order), length)
        dtype = get_quantized_dtype(bits)
        buffer = builder.add_buffer(dtype, math.prod(shape), shape, bits)
        source = View(node.source, node.layout.offset, (*(s for _, s in order), stride))
        out = View(buffer, 0, dense_strides(shape))
        builder.append(Instruction(Kind.QUANTIZE, shape, (source,), (out,), attributes=(bits, 0)))
        rows = builder.cache[key] = _Rows(buffer, Renaming.to_order(order, unit=length))
        axes = rows.renaming.rename(node.layout.axes[:-1])
    assert isinstance(rows, _Rows)
    assert axes is not None, "factors that are rows of their own"
    return rows.buffer, Layout(axes)


def dot(
    builder: ProgramBuilder,
    a: Value,
    b: Value,
    *,
    batch: int = 0,
    bits: tuple[int, int] = (16, 16),
    out: Layout | None = None,
) -> Lazy:
    """Return the products of rows: a[batch.., M, K], b[batch.., N, K] -> [batch.., M, N].

    ``out`` is the layout in which the result is to lie."""
    values = builder.to_lazy(a), builder.to_lazy(b)
    length = a.shape[-1]
    if length > MAX_DOT_LENGTH:
        raise TooLarge(f"a contraction of {length} terms: at most {MAX_DOT_LENGTH}")
    sources, rows = zip(*map(quantize, (builder, builder), values, bits), strict=True)
    out = out or dense((*a.shape[:-1], *b.shape[batch:-1]))
    walk = _align_rows(rows, out, batch)
    if walk is None or len(walk.shape) >= MAX_RANK:
        plain = [v if get_load(v).layout.is_dense else builder.copy(v) for v in values]
        if all(new is old for new, old in zip(plain, values, strict=True)) and out.is_dense:
            raise TooLarge(f"a product over {len(out.factors)} axes: at most {MAX_RANK - 1}")
        return dot(builder, plain[0], plain[1], batch=batch, bits=bits)
    steps = [(*strides, unit) for strides, unit in zip(walk.strides, (1, 1, 0), strict=True)]
    result = builder.add_buffer(Dtype.F32, math.prod(out.shape))
    settle(builder.buffers[result], walk.shape, walk.strides[2])
    operands = (View(sources[0], 0, steps[0]), View(sources[1], 0, steps[1]))
    target = View(result, 0, steps[2])
    builder.append(Instruction(Kind.DOT, (*walk.shape, length), operands, (target,)))
    return load(result, "f", out)


def _align_rows(rows: Sequence[Layout], out: Layout, batch: int) -> Walk | None:
    """Return the iteration over batch, M and N of two operands' rows and the result."""
    left, right = rows
    m, n = left.shape[batch:], right.shape[batch:]
    wide_left = Layout((*left.axes, *(((size, 0),) for size in n)))
    still = (((size, 0),) for size in m)
    wide_right = Layout((*right.axes[:batch], *still, *right.axes[batch:]))
    return align([wide_left, wide_right, out])


def _reduce(builder: ProgramBuilder, kind: Kind, value: Value, axes: Sequence[int]) -> Lazy:
    """Return the reduction over ``axes``, which have size 1 in the result."""
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    node = get_load(builder.to_lazy(permute(builder.store(value), [*kept, *axes])))
    shape = tuple(value.shape[axis] for axis in kept)
    out = dense(shape)
    count = len(kept)
    first = align([Layout(node.layout.axes[:count]), out])
    last = align([Layout(node.layout.axes[count:])])
    assert first is not None
    assert last is not None
    if len(first.shape) + len(last.shape) > MAX_RANK:
        copied = builder.copy(load(node.source, value.kind, node.layout))
        back = np.argsort([*kept, *axes]).tolist()
        return _reduce(builder, kind, permute(copied, back), axes)
    reduced = last.shape or (1,)
    last = Walk(reduced, (last.strides[0] or (0,), (0,) * len(reduced)))
    walk = chain(first, last)
    if math.prod(reduced) > MAX_SUM_TERMS:
        raise TooLarge(f"a reduction of {reduced} terms: at most {MAX_SUM_TERMS}")
    result = builder.add_buffer(_DTYPES[value.kind], math.prod(shape))
    settle(builder.buffers[result], first.shape, first.strides[1])
    operand = View(node.source, node.layout.offset, walk.strides[0])
    target = View(result, 0, walk.strides[1])
    builder.append(Instruction(kind, walk.shape, (operand,), (target,), reduced=len(reduced)))
    narrow = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    return builder.reshape(load(result, value.kind, out), narrow)


def reduce_sum(builder: ProgramBuilder, value: Value, axes: Sequence[int]) -> Lazy:
    """Return the exact sum over ``axes`` (kept with size 1); of integers and booleans an integer."""
    if value.kind != "f":
        stored = builder.store(builder.map(lambda x: x, value, kind="i"))
        is_wide = builder.buffers[get_load(stored).source].dtype is Dtype.I64
        value = stored if is_wide else builder.copy(stored)
    return _reduce(builder, Kind.SUM, value, axes)


def reduce_max(builder: ProgramBuilder, value: Value, axes: Sequence[int]) -> Lazy:
    """Return the maximum over ``axes``, kept with size 1; NaN wins."""
    return _reduce(builder, Kind.MAX, value, axes)


def gather(builder: ProgramBuilder, index: Value, source: Value, axis: int) -> Lazy:
    """Return source[.., index[...], ..]: ``index`` counts along ``axis`` of ``source``.

    Both are broadcast to the result's shape, where ``source`` has size 1 along ``axis``."""
    bound = source.shape[axis]
    chosen = get_load(builder.store(index))
    node = get_load(builder.store(source))
    step = simplify(node.layout.axes[axis]) or ((1, 0),)
    if len(step) > 1:
        node = get_load(builder.copy(builder.to_lazy(source)))
        step = simplify(node.layout.axes[axis])
    rest = Layout((*node.layout.axes[:axis], (), *node.layout.axes[axis + 1 :]), node.layout.offset)
    shape = np.broadcast_shapes(index.shape, rest.shape)
    out = dense(shape)
    walk = align([chosen.layout.expand(shape), rest.expand(shape), out])
    assert walk is not None
    result = builder.add_buffer(builder.buffers[node.source].dtype, math.prod(shape))
    settle(builder.buffers[result], walk.shape, walk.strides[2])
    operands = (
        View(chosen.source, chosen.layout.offset, walk.strides[0]),
        View(node.source, node.layout.offset, walk.strides[1]),
    )
    attributes = (bound, step[0][1])
    out_view = View(result, 0, walk.strides[2])
    builder.append(
        Instruction(Kind.GATHER, walk.shape, operands, (out_view,), attributes=attributes)
    )
    return load(result, source.kind, out)


def scatter_add(
    builder: ProgramBuilder, index: Value, source: Value, bound: int, columns: int
) -> Lazy:
    """Return [bound, columns..]: the rows of ``source`` added up where ``index`` says.

    ``index`` has the shape of ``source`` without its last ``columns`` axes."""
    rows = len(source.shape) - columns
    chosen, node = get_load(builder.store(index)), get_load(builder.store(source))
    wide = Layout((*chosen.layout.axes, *((),) * columns))
    first = align([wide, node.layout], 0, rows)
    assert first is not None
    last = [align([node.layout], axis, axis + 1) for axis in range(rows, rows + columns)]
    sizes = source.shape[rows:]
    steps = tuple(step.strides[0][0] if step and step.shape else 0 for step in last)
    if any(step is None or len(step.shape) > 1 for step in last):
        copied = builder.copy(builder.to_lazy(source))
        return scatter_add(builder, index, copied, bound, columns)
    lead = first if first.shape else Walk((1,), ((0,), (0,)))
    shape = (bound, *sizes)
    result = builder.add_buffer(Dtype.F32, math.prod(shape), shape)
    strides = dense_strides(shape)
    still = (0,) * len(lead.shape)
    instruction = Instruction(
        Kind.SCATTER_ADD,
        (*lead.shape, *sizes),
        (
            View(chosen.source, chosen.layout.offset, (*lead.strides[0], *(0,) * columns)),
            View(node.source, node.layout.offset, (*lead.strides[1], *steps)),
        ),
        (View(result, 0, (*still, *strides[1:])),),
        reduced=len(lead.shape),
        attributes=(bound, strides[0]),
    )
    builder.append(instruction)
    return dense_value(result, "f", shape)


def random(builder: ProgramBuilder, counters: Sequence[Value], count: int) -> Lazy:
    """Return ``count`` Philox words under the scalars key, c1, c2, c3, as integers."""
    nodes = [get_load(builder.store(value)) for value in counters]
    operands = tuple(View(node.source, node.layout.offset, (0,)) for node in nodes)
    result = builder.add_buffer(Dtype.I64, count, (count,))
    builder.append(Instruction(Kind.RANDOM, (count,), operands, (View(result, 0, (1,)),)))
    return dense_value(result, "i", (count,))


def iota(builder: ProgramBuilder, count: int, start: int = 0, step: int = 1) -> Lazy:
    """Return start, start + step, .. as ``count`` integers."""
    key = ("iota", count, start, step)
    if key not in builder.cache:
        result = builder.add_buffer(Dtype.I64, count, (count,))
        out = (View(result, 0, (1,)),)
        builder.append(Instruction(Kind.IOTA, (count,), outputs=out, attributes=(start, step)))
        builder.cache[key] = result
    buffer = builder.cache[key]
    assert isinstance(buffer, int)
    return dense_value(buffer, "i", (count,))


def literal(builder: ProgramBuilder, table: np.ndarray) -> Lazy:
    """Return an array as a value: a literal scalar, `iota`, or a `const` of what is not repeated."""
    kind = {"f": "f", "b": "b"}.get(table.dtype.kind, "i")
    table = np.asarray(table, _TABLES[kind], order="C")
    if kind == "f":
        table = np.where(np.isnan(table), np.float32(np.nan), table)
    core = _drop_repeats(table)
    if core.size == 1:
        pattern = (
            int(core.view(np.uint32).reshape(-1)[0]) if kind == "f" else int(core.reshape(-1)[0])
        )
        constant = Constant("f", pattern) if kind == "f" else i64(pattern)
        return Lazy(table.shape, kind, constant)
    values = core.reshape(-1)
    if kind == "i" and (progression := _find_progression(values)) is not None:
        value = builder.reshape(iota(builder, values.size, *progression), core.shape)
    else:
        value = _add_literal(builder, core, kind)
    expanded = builder.expand(value, table.shape)
    assert isinstance(expanded, Lazy)
    return expanded


def _drop_repeats(table: np.ndarray) -> np.ndarray:
    """Return the table with size 1 along the axes on which it repeats."""
    bits = table.view(np.uint32) if table.dtype.kind == "f" else table
    for axis in range(table.ndim):
        first = bits.take([0], axis=axis)
        if np.array_equal(np.broadcast_to(first, bits.shape), bits):
            bits = first
    return np.asarray(bits, order="C").view(table.dtype)


def _find_progression(values: np.ndarray) -> tuple[int, int] | None:
    start, step = int(values[0]), int(values[1]) - int(values[0])
    expected = start + step * np.arange(values.size, dtype=np.int64)
    return (start, step) if np.array_equal(values, expected) else None


def _add_literal(builder: ProgramBuilder, core: np.ndarray, kind: str) -> Lazy:
    shape = tuple(size for size in core.shape if size > 1)
    data = core.tobytes()
    if len(data) > MAX_LITERAL_BYTES:
        raise TooLarge(f"a constant of {len(data)} bytes: at most {MAX_LITERAL_BYTES}")
    key = ("literal", kind, shape, data)
    if key not in builder.cache:
        buffer = builder.add_buffer(_DTYPES[kind], core.size, shape)
        builder.buffers[buffer].literal = data
        out = View(buffer, 0, dense_strides(shape))
        builder.append(Instruction(Kind.CONST, shape, outputs=(out,)))
        builder.cache[key] = buffer
    source = builder.cache[key]
    assert isinstance(source, int)
    return builder.reshape(dense_value(source, kind, shape), core.shape)
