"""Dots on torch's matrix products: all digit products of two operands in one call, then one combining pass.

The digits of a row lie one after the other, so a row of integers in d digits is d rows of a matrix, and the
product of two such matrices holds all digit products of an element side by side. Large results are made a
piece at a time, so that products are combined while they are still in the cache.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import Final

import torch
from torch import Tensor

from market.protocol.tensors import Dtype
from trainer.exact.fused_dot import plan_combine
from trainer.exact.fused_int16 import plan_int16
from trainer.exact.fused_native import Strided, Table, Work, collapse_axes, prepare
from trainer.exact.fused_quantize import F64_DIGIT_BITS, I8_DIGITS, Form

PIECE_BYTES: Final = 1 << 21  # of products made before they are combined,
PIECE_ROWS: Final = 256  # but at least so many rows

Step = Callable[[], object]

FORM_DTYPES: Final = {
    Form.DIGITS_I8: torch.int8,
    Form.PLAIN_I16: torch.int16,
    Form.WHOLE_F64: torch.float64,
    Form.DIGITS_F64: torch.float64,
}

_I8_DIGIT_BITS: Final = 8
_PROBED_SHAPES: Final = ((64, 64, 1024), (34, 130, 515), (2, 6, 32), (256, 64, 128), (32, 32, 8192))


@dataclass(frozen=True, slots=True)
class Operand:
    """A quantized operand of a dot: ``digits`` [rows, digits, K], and the view of ``exponents`` by rows."""

    digits: Tensor
    bits: int
    exponents: Strided  # the digits' view is the same


@dataclass(frozen=True, slots=True)
class _Axes:
    """Axes of one class: sizes, and strides in a's rows, b's rows and the result's elements."""

    sizes: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def count(self) -> int:
        return prod(self.sizes)

    def narrow(self, size: int) -> "_Axes":
        """Return these axes with the first cut to ``size``."""
        return _Axes((size, *self.sizes[1:]), self.a, self.b, self.out)


@cache
def is_int8_exact() -> bool:
    """Tell whether this machine multiplies full-range digits exactly (CPUs before VNNI saturate silently)."""
    for m, n, k in _PROBED_SHAPES:
        extremes = torch.tensor([-128, 127]).repeat(m + n, k)[:, :k]
        kinds = [
            extremes,
            extremes.flip(0),
            torch.full_like(extremes, -128),
            torch.full_like(extremes, 127),
        ]
        row = torch.arange(len(extremes)).unsqueeze(1) * 7919 % 5
        column = torch.arange(k).unsqueeze(0)
        digits = ((row * 31 + 1) * (column * 40503 + 77) * 2654435761 >> 13) % 256 - 128
        for kind, values in enumerate(kinds):
            digits = torch.where(row == kind, values[: len(digits)], digits)
        x, y = digits[:m].to(torch.int8), digits[m : m + n].to(torch.int8)
        expected = x.to(torch.float64) @ y.to(torch.float64).T
        if not torch.equal(torch._int_mm(x, y.T).to(torch.float64), expected):
            return False
    return True


def get_form(carrier: str, bits: int) -> Form:
    """Return the form in which ``carrier`` takes integers of ``bits`` bits."""
    if carrier == "int8":
        return Form.DIGITS_I8
    if bits > 16:
        return Form.DIGITS_F64
    return Form.PLAIN_I16 if carrier == "int16" else Form.WHOLE_F64


def get_digits(form: Form, bits: int) -> int:
    """Return how many digits an integer of ``bits`` bits has in ``form``."""
    return {Form.DIGITS_I8: I8_DIGITS[bits], Form.DIGITS_F64: 2}.get(form, 1)


def join_digits(digits: Tensor, form: Form, bits: int) -> Tensor:
    """Return the integers of [rows, digits, K], in the protocol's dtype."""
    width = _I8_DIGIT_BITS if form is Form.DIGITS_I8 else F64_DIGIT_BITS
    total = digits[:, 0].to(torch.int64)
    for digit in range(1, digits.shape[1]):
        total = (total << width) + digits[:, digit].to(torch.int64)
    return total.to(torch.int32 if bits > 16 else torch.int16)


def split_digits(q: Tensor, form: Form, bits: int) -> Tensor:
    """Return [rows, digits, K] of integers [rows, K]."""
    width = _I8_DIGIT_BITS if form is Form.DIGITS_I8 else F64_DIGIT_BITS
    rest, digits = q.to(torch.int64), []
    for _ in range(get_digits(form, bits) - 1):
        higher = (rest + (1 << (width - 1))) >> width
        digits.append(rest - (higher << width))
        rest = higher
    return torch.stack([rest, *reversed(digits)], 1).to(FORM_DTYPES[form])


def plan_dot(  # noqa: PLR0913 - two operands, the result, and memory for the products
    shape: Sequence[int],
    a: Operand,
    b: Operand,
    out: Strided,
    products: Tensor,
    entry: int,
    table: Table,
) -> Step:
    """Return a function that contracts ``a`` and ``b`` into ``out``; ``shape`` lacks the contracted axis.

    ``products``, entry ``entry`` of ``table``, is memory for at least ``count_products`` i32 or f64 (as the
    digits are)."""
    batch, rows, columns = _classify(shape, a.exponents.strides, b.exponents.strides, out.strides)
    if _is_int16(a, b):
        return prepare(_plan_int16(batch, rows, columns, a, b, out), table)
    outer = batch if batch.sizes else rows
    steps: list[Step] = []
    per_index = _count_elements(batch, rows, columns, a, b) // outer.sizes[0]
    size = _find_piece(batch, rows, per_index * products.itemsize)
    for start in range(0, outer.sizes[0], size):
        piece = outer.narrow(min(size, outer.sizes[0] - start))
        parts = (piece, rows) if batch.sizes else (batch, piece)
        steps += _plan_piece(
            *(*parts, columns),
            _shift(a, start * outer.a[0]),
            _shift(b, start * outer.b[0]),
            Strided(out.entry, out.dtype, out.offset + start * outer.out[0], ()),
            products,
            entry,
            table,
        )
    if len(steps) == 2:
        multiply, combine = steps
        return lambda: (multiply(), combine())
    return lambda: _run_all(steps)


def _is_int16(a: Operand, b: Operand) -> bool:
    return a.digits.dtype == b.digits.dtype == torch.int16


def _plan_int16(
    batch: _Axes, rows: _Axes, columns: _Axes, a: Operand, b: Operand, out: Strided
) -> Work:
    axes = [(part.sizes, (part.a, part.b, part.out)) for part in (batch, rows, columns)]
    digits = a.digits.data_ptr(), b.digits.data_ptr()
    exponents, bits = (a.exponents, b.exponents), (a.bits, b.bits)
    return plan_int16(axes, a.digits.shape[-1], digits, exponents, bits, out)


def get_scratch(shape: Sequence[int], a: Operand, b: Operand, out: Strided) -> int:
    """Return the bytes of scratch memory that ``plan_dot`` needs for each thread."""
    if not _is_int16(a, b):
        return 0
    axes = _classify(shape, a.exponents.strides, b.exponents.strides, out.strides)
    return _plan_int16(*axes, a, b, out).scratch


def count_products(shape: Sequence[int], a: Operand, b: Operand, out: Strided) -> int:
    """Return the elements of memory that ``plan_dot`` needs for products."""
    if _is_int16(a, b):
        return 0
    batch, rows, columns = _classify(shape, a.exponents.strides, b.exponents.strides, out.strides)
    total, outer = _count_elements(batch, rows, columns, a, b), batch if batch.sizes else rows
    wide = 4 if a.digits.dtype == torch.int8 else 8
    per_index = total // outer.sizes[0]
    return min(total, _find_piece(batch, rows, per_index * wide) * per_index)


def _find_piece(batch: _Axes, rows: _Axes, index_bytes: int) -> int:
    """Return how many outermost indices a piece has: for few rows a product would repack all columns."""
    least = 1 if batch.sizes else -(-PIECE_ROWS * rows.sizes[0] // rows.count)
    return max(least, PIECE_BYTES // index_bytes)


def _run_all(steps: Sequence[Step]) -> None:
    for step in steps:
        step()


def _shift(operand: Operand, rows: int) -> Operand:
    view = operand.exponents
    return Operand(
        operand.digits,
        operand.bits,
        Strided(view.entry, view.dtype, view.offset + rows, view.strides),
    )


def _count_elements(batch: _Axes, rows: _Axes, columns: _Axes, a: Operand, b: Operand) -> int:
    return batch.count * rows.count * columns.count * a.digits.shape[1] * b.digits.shape[1]


def _classify(
    shape: Sequence[int], a: Sequence[int], b: Sequence[int], out: Sequence[int]
) -> tuple[_Axes, _Axes, _Axes]:
    """Sort the axes into those of the batch, of rows (only ``a`` moves) and of columns (only ``b`` does).

    Rows and columns have at least one axis."""
    axes = range(len(shape))
    columns = [d for d in axes if shape[d] > 1 and a[d] == 0 and b[d] != 0]
    rows = [d for d in axes if shape[d] > 1 and b[d] == 0]
    batch = [d for d in axes if shape[d] > 1 and d not in columns and d not in rows]
    return (
        _collect(batch, shape, a, b, out),
        _collect(rows, shape, a, b, out, 1),
        _collect(columns, shape, a, b, out, 1),
    )


def _collect(
    axes: Sequence[int],
    shape: Sequence[int],
    a: Sequence[int],
    b: Sequence[int],
    out: Sequence[int],
    least: int = 0,
) -> _Axes:
    if len(axes) < least or not axes:
        return _Axes((1,) * least, (0,) * least, (0,) * least, (0,) * least)
    sizes, strides = collapse_axes(
        [shape[d] for d in axes], [[view[d] for d in axes] for view in (a, b, out)]
    )
    return _Axes(sizes, *strides)


def _plan_piece(  # noqa: PLR0913 - as plan_dot
    batch: _Axes,
    rows: _Axes,
    columns: _Axes,
    a: Operand,
    b: Operand,
    out: Strided,
    products: Tensor,
    entry: int,
    table: Table,
) -> Iterator[Step]:
    digits_a, digits_b = a.digits.shape[1], b.digits.shape[1]
    m, n = rows.count * digits_a, columns.count * digits_b
    target = products[: batch.count * m * n].view(batch.count, m, n)
    if products.dtype == torch.float64:
        yield from _multiply_wide(batch, rows, columns, a, b, target)
    else:
        yield from _multiply_each(batch, rows, columns, a, b, target)
    dense = [prod(batch.sizes[i + 1 :]) * m * n for i in range(len(batch.sizes))]
    dense += [prod(rows.sizes[i + 1 :]) * digits_a * n for i in range(len(rows.sizes))]
    dense += [prod(columns.sizes[i + 1 :]) * digits_b for i in range(len(columns.sizes))]
    dtype = Dtype.I64 if products.dtype == torch.float64 else Dtype.I32
    work = plan_combine(
        (*batch.sizes, *rows.sizes, *columns.sizes),
        Strided(entry, dtype, 0, tuple(dense)),
        (digits_a, digits_b, F64_DIGIT_BITS if dtype is Dtype.I64 else _I8_DIGIT_BITS),
        n,
        (
            _restride(a.exponents, (*batch.a, *rows.a, *columns.a)),
            _restride(b.exponents, (*batch.b, *rows.b, *columns.b)),
        ),
        (a.bits, b.bits),
        _restride(out, (*batch.out, *rows.out, *columns.out)),
    )
    yield prepare(work, table)


def _restride(view: Strided, strides: tuple[int, ...]) -> Strided:
    return Strided(view.entry, view.dtype, view.offset, strides)


def _multiply_each(
    batch: _Axes, rows: _Axes, columns: _Axes, a: Operand, b: Operand, target: Tensor
) -> Iterator[Step]:
    """One integer product for each index of the batch."""
    triples = []
    for i, index in enumerate(product(*map(range, batch.sizes))):
        offset_a = a.exponents.offset + sum(x * s for x, s in zip(index, batch.a, strict=True))
        offset_b = b.exponents.offset + sum(x * s for x, s in zip(index, batch.b, strict=True))
        matrix_a, gather_a = _view_matrix(a.digits, offset_a, rows.sizes, rows.a)
        matrix_b, gather_b = _view_matrix(b.digits, offset_b, columns.sizes, columns.b)
        yield from (gather for gather in (gather_a, gather_b) if gather is not None)
        triples.append((matrix_a, matrix_b.t(), target[i]))
    # torch 2.13's _int_mm gives wrong integers for one term and more than one column
    multiply = torch._int_mm if a.digits.shape[-1] > 1 else _multiply_outer
    if len(triples) == 1:
        x, y, z = triples[0]
        yield lambda: multiply(x, y, out=z)
        return

    def multiply_all() -> None:
        for x, y, z in triples:
            multiply(x, y, out=z)

    yield multiply_all


def _multiply_outer(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
    return torch.mul(x.to(torch.int32), y.to(torch.int32), out=out)


def _view_matrix(
    digits: Tensor, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[Tensor, Step | None]:
    """Return the matrix of a view's digits, and how to fill it where it is not one in memory."""
    sizes, (strides,) = collapse_axes(sizes, [strides])  # as the result's strides may not allow
    count, length = digits.shape[1:]
    total = prod(sizes) * count
    if len(sizes) == 1 and (strides[0] == 1 or sizes[0] == 1):
        return digits.as_strided(
            (total, length), (length, 1), digits.storage_offset() + offset * count * length
        ), None
    source = digits.as_strided(
        (*sizes, count, length),
        (*(s * count * length for s in strides), length, 1),
        digits.storage_offset() + offset * count * length,
    )
    matrix = torch.empty((total, length), dtype=digits.dtype)
    target = matrix.view(source.shape)
    return matrix, lambda: target.copy_(source)


def _multiply_wide(
    batch: _Axes, rows: _Axes, columns: _Axes, a: Operand, b: Operand, target: Tensor
) -> Iterator[Step]:
    """One batched product of binary64 integers, exact because every partial sum stays below 2^53."""
    source_a, gather_a = _view_batch(a, batch.sizes, batch.a, rows.sizes, rows.a)
    source_b, gather_b = _view_batch(b, batch.sizes, batch.b, columns.sizes, columns.b)
    yield from (gather for gather in (gather_a, gather_b) if gather is not None)
    if len(target) == 1:
        x, y, z = source_a[0], source_b[0].t(), target[0]
        yield lambda: torch.mm(x, y, out=z)
    else:
        y = source_b.mT
        yield lambda: torch.bmm(source_a, y, out=target)


def _view_batch(
    operand: Operand,
    batch: tuple[int, ...],
    batch_strides: tuple[int, ...],
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[Tensor, Step | None]:
    digits = operand.digits
    sizes, (strides,) = collapse_axes(sizes, [strides])  # as the result's strides may not allow
    count, length = digits.shape[1:]
    shape = (prod(batch), prod(sizes) * count, length)
    source = digits.as_strided(
        (*batch, *sizes, count, length),
        (*(s * count * length for s in (*batch_strides, *strides)), length, 1),
        digits.storage_offset() + operand.exponents.offset * count * length,
    )
    simple_rows = len(sizes) == 1 and (count == 1 or strides[0] == 1 or sizes[0] == 1)
    if len(batch) <= 1 and simple_rows and digits.dtype == torch.float64:
        row_step = length if count > 1 else strides[0] * length
        batch_step = batch_strides[0] * count * length if batch else 0
        return digits.as_strided(shape, (batch_step, row_step, 1), source.storage_offset()), None
    matrix = torch.empty(
        shape, dtype=torch.float64
    )  # whole 16-bit integers may meet wider ones here
    target = matrix.view(source.shape)
    return matrix, lambda: target.copy_(source)
