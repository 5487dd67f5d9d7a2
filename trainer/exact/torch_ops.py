"""The exact arithmetic in torch: one function for each kind of instruction, on any device.

Views arrive strided, in the iteration shape (stride 0 where an operand is broadcast); results are
written into the destinations. ``trainer.exact.definition`` says what each function means.
INVARIANT: only torch operations whose result IEEE-754 or integer arithmetic fixes are used: no
sqrt, exp or sum of float32, no fused multiply-add, no Python floats.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Final

import torch
from torch import Tensor

from market.protocol.constants import (
    CANONICAL_NAN,
    POISON_EXPONENT,
    QUANTIZE_BUMPS,
    QUANTIZE_FLOOR,
    SUM_FLOOR,
    SUM_FRACTION_BITS,
)
from market.protocol.philox import MULTIPLIERS, ROUNDS, WEYL
from market.protocol.program import SIGNATURES, MapOp, Op
from trainer.exact.carriers import Carrier

_MAGNITUDE: Final = 0x7FFFFFFF
_INFINITY: Final = 0x7F800000
_I64_MIN: Final = -(2**63)
_I64_MAX: Final = 2**63 - 1
_U32: Final = 0xFFFFFFFF
_SLAB: Final = 2**20  # elements of a map evaluated at a time, which bounds its registers' memory


def run_map(
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Tensor],
    outputs: Sequence[tuple[int, Tensor]],
) -> None:
    """Evaluate ``code`` on each index of the iteration shape and store registers.

    ``operands`` are u8, i16, i32, i64 or f32 views of the iteration shape; ``f32_constants`` are
    binary32 patterns. ``outputs`` are (register, destination view of the iteration shape) pairs;
    f32 stores make NaNs canonical, integer stores wrap. No destination overlaps an operand.
    """
    device = outputs[0][1].device
    constants = [_pattern(x, device) for x in f32_constants]
    constants += [torch.full((), a, dtype=torch.int64, device=device) for a in i64_constants]
    for slab in _split([*operands, *(destination for _, destination in outputs)]):
        registers = [_load(x) for x in slab[: len(operands)]] + constants
        for op, *arguments in code:
            arity = len(SIGNATURES[Op(op)][0])
            registers.append(_OPERATIONS[Op(op)](*(registers[r] for r in arguments[:arity])))
        for (register, _), destination in zip(outputs, slab[len(operands) :], strict=True):
            destination.copy_(canonical(registers[register]))


def run_quantize(x: Tensor, bits: int, q: Tensor, exponents: Tensor) -> None:
    """Quantize the rows of ``x``, an f32 view [..., K], to ``bits`` (8, 14, 16 or 24).

    ``q`` is contiguous, [..., K], i16 for up to 16 bits and i32 for 24; ``exponents`` is contiguous
    i32 [...], 255 for a poison row.
    """
    exponents.copy_(_group_exponent(x, -1, QUANTIZE_BUMPS[bits], QUANTIZE_FLOOR))
    q.copy_(to_fixed_point(x, exponents.unsqueeze(-1), bits - 1))


def run_dot(  # noqa: PLR0913 - two quantized operands
    qa: Tensor,
    ea: Tensor,
    qb: Tensor,
    eb: Tensor,
    bits_a: int,
    bits_b: int,
    out: Tensor,
    carrier: Carrier,
) -> None:
    """Contract the last axis of two quantized operands into ``out``, an f32 view [...].

    ``qa`` and ``qb`` are i16 or i32 views of the whole iteration shape [..., K]; ``ea`` and ``eb``
    the i32 views [...] of their rows' exponents, with stride 0 along the same axes. An axis where
    only ``qa`` moves is one of rows, only ``qb`` of columns, both of the batch.
    """
    batch, rows, columns = sort_axes(qa, qb)
    total = carrier.multiply(
        fold(qa, batch, rows, columns), fold(qb, batch, columns, rows), bits_a, bits_b
    )  # [B, M, N]
    scale_a = unscale(fold(ea.unsqueeze(-1), batch, rows, columns), bits_a - 1)  # [B, M, 1]
    scale_b = unscale(fold(eb.unsqueeze(-1), batch, columns, rows), bits_b - 1)  # [B, N, 1]
    product = total.to(torch.float32) * scale_a * scale_b.transpose(1, 2)
    destination = out.permute(batch + rows + columns)
    destination.copy_(canonical(product).reshape(destination.shape))


def sort_axes(qa: Tensor, qb: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Return the axes of a dot's result: those of the batch, of rows of ``qa`` and of rows of ``qb``."""
    axes = range(qa.dim() - 1)
    columns = [d for d in axes if qa.stride(d) == 0 and qa.shape[d] > 1 and qb.stride(d)]
    rows = [d for d in axes if qb.stride(d) == 0 and qb.shape[d] > 1 and d not in columns]
    return [d for d in axes if d not in columns and d not in rows], rows, columns


def run_sum(x: Tensor, reduced: int, out: Tensor) -> None:
    """Sum the last ``reduced`` axes of ``x`` (f32 or i64) into ``out``, a view of the others."""
    groups = flatten_last(x, reduced)
    if x.dtype == torch.int64:
        out.copy_(groups.sum(-1))
        return
    exponents = _group_exponent(groups, -1, 0, SUM_FLOOR)
    terms = to_fixed_point(groups, exponents.unsqueeze(-1), SUM_FRACTION_BITS)
    out.copy_(from_fixed_point(terms.to(torch.int64).sum(-1), exponents))


def run_max(x: Tensor, reduced: int, out: Tensor) -> None:
    """Write the greatest by key over the last ``reduced`` axes of ``x`` (f32) to ``out``."""
    keys = order_keys(canonical(flatten_last(x, reduced)).view(torch.int32))
    out.copy_(order_keys(keys.amax(-1)).view(torch.float32))


def run_gather(  # noqa: PLR0913 - a source's view is an offset and strides
    index: Tensor,
    source: Tensor,
    offset: int,
    strides: Sequence[int],
    bound: int,
    index_stride: int,
    out: Tensor,
) -> None:
    """Write ``source[offset + sum(i_d * strides_d) + clamp(index_i) * index_stride]`` for each i.

    ``index`` (integers, clamped to 0..bound - 1) and ``out`` are views of the iteration shape;
    ``source`` is the whole tensor flattened (1-D, contiguous), of the dtype of ``out``. f32 stores
    make NaNs canonical.
    """
    positions = find_positions(index, offset, strides, bound, index_stride)
    out.copy_(canonical(torch.take(source, positions)))


def find_positions(
    index: Tensor, offset: int, strides: Sequence[int], bound: int, index_stride: int
) -> Tensor:
    """Return which elements of its source a gather reads, i64 in its iteration shape."""
    positions = index.to(torch.int64).clamp(0, bound - 1) * index_stride + offset
    for axis, (size, stride) in enumerate(zip(index.shape, strides, strict=True)):
        along = torch.arange(size, device=index.device) * stride
        positions = positions + along.view(-1, *[1] * (index.dim() - 1 - axis))
    return positions


def run_scatter_add(index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor) -> None:
    """Add each element of ``x`` (an f32 view) to row ``clamp(index)`` of ``out``, exactly.

    The first ``reduced`` axes of the iteration shape are source rows, the others columns; ``index``
    (integers, clamped to 0..bound - 1) is a view of that shape; ``out`` is contiguous f32
    [bound, columns...], overwritten whole. A poison column is NaN throughout.
    """
    shape = (prod(x.shape[:reduced]), prod(x.shape[reduced:]))
    sources = x.reshape(shape)
    targets = index.reshape(shape).to(torch.int64).clamp(0, bound - 1)
    exponents = _group_exponent(sources, 0, 0, SUM_FLOOR)
    terms = to_fixed_point(sources, exponents, SUM_FRACTION_BITS).to(torch.int64)
    totals = torch.zeros((bound, shape[1]), dtype=torch.int64, device=x.device)
    totals.scatter_add_(0, targets, terms)
    out.copy_(from_fixed_point(totals, exponents).view(out.shape))


def run_random(key: int, c1: int, c2: int, c3: int, out: Tensor) -> None:
    """Fill ``out`` (contiguous i64 [n]) with Philox words under ``key`` at (e / 4, c1, c2, c3).

    The arguments are the values of the i64 scalars, of either sign.
    """
    blocks = torch.arange((out.numel() + 3) // 4, device=out.device) & _U32
    words = [blocks, *(torch.full_like(blocks, c & _U32) for c in (c1, c2, c3))]
    keys = (key & _U32, key >> 32 & _U32)
    for i in range(ROUNDS):
        key0, key1 = ((k + i * w) & _U32 for k, w in zip(keys, WEYL, strict=True))
        product0, product1 = words[0] * MULTIPLIERS[0], words[2] * MULTIPLIERS[1]
        words = [
            product1 >> 32 & _U32 ^ words[1] ^ key0,
            product1 & _U32,
            product0 >> 32 & _U32 ^ words[3] ^ key1,
            product0 & _U32,
        ]
    out.copy_(torch.stack(words, -1).view(-1)[: out.numel()])


def run_iota(start: int, step: int, out: Tensor) -> None:
    """Fill ``out`` (contiguous i64) with ``start + step * flat index``, wrapping."""
    out.copy_((torch.arange(out.numel(), device=out.device) * step + start).view(out.shape))


def _pattern(x: int, device: torch.device) -> Tensor:
    """Return the f32 scalar with the bits of ``x``."""
    signed = x - 2**32 if x >= 2**31 else x
    return torch.full((), signed, dtype=torch.int32, device=device).view(torch.float32)


def _split(views: Sequence[Tensor]) -> Iterable[tuple[Tensor, ...]]:
    """Cut views of one shape into slabs of about ``_SLAB`` elements along their longest axis."""
    shape = views[0].shape
    if prod(shape) <= _SLAB:
        return [tuple(views)]
    axis = max(range(len(shape)), key=lambda d: shape[d])
    size = max(1, shape[axis] * _SLAB // prod(shape))
    return zip(*(torch.split(view, size, axis) for view in views), strict=True)


def _load(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.to(torch.int64)


def canonical(x: Tensor) -> Tensor:
    """Return an f32 tensor with canonical NaNs, or an integer tensor as it is."""
    if x.dtype != torch.float32:
        return x
    return torch.where(torch.isnan(x), _pattern(CANONICAL_NAN, x.device), x)


def _to_int(x: Tensor) -> Tensor:
    rounded = torch.round(x)
    limit = _pattern(0x5F000000, x.device)  # 2^63
    fits = (rounded >= -limit) & (rounded < limit)  # false on NaN
    a = torch.where(fits, rounded, torch.zeros_like(rounded)).to(torch.int64)
    return a.masked_fill(rounded >= limit, _I64_MAX).masked_fill(rounded < -limit, _I64_MIN)


def _idiv(a: Tensor, b: Tensor) -> Tensor:
    quotient = torch.div(a, b.clamp(min=1), rounding_mode="floor")
    return torch.where(b > 0, quotient, 0)


_OPERATIONS: Final[dict[Op, Callable[..., Tensor]]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.DIV: lambda x, y: x / y,
    # float32's own sqrt differs between vector libraries; through binary64 it is rounded correctly
    Op.SQRT: lambda x: x.to(torch.float64).sqrt().to(torch.float32),
    Op.NEG: lambda x: -x,
    Op.ABS: lambda x: x.abs(),
    Op.LT: lambda x, y: (x < y).to(torch.int64),
    Op.LE: lambda x, y: (x <= y).to(torch.int64),
    Op.EQ: lambda x, y: (x == y).to(torch.int64),
    Op.SELECT: lambda a, x, y: torch.where(a != 0, x, y),
    Op.TO_INT: _to_int,
    Op.FROM_INT: lambda a: a.to(torch.float32),
    Op.BITS: lambda x: canonical(x).view(torch.int32).to(torch.int64),
    Op.FROM_BITS: lambda a: a.to(torch.int32).view(torch.float32),
    Op.IADD: lambda a, b: a + b,
    Op.ISUB: lambda a, b: a - b,
    Op.IMUL: lambda a, b: a * b,
    Op.IDIV: _idiv,
    Op.IAND: lambda a, b: a & b,
    Op.IOR: lambda a, b: a | b,
    Op.IXOR: lambda a, b: a ^ b,
    Op.SHL: lambda a, b: a << (b & 63),
    Op.SHR: lambda a, b: a >> (b & 63),
    Op.ILT: lambda a, b: (a < b).to(torch.int64),
    Op.IEQ: lambda a, b: (a == b).to(torch.int64),
    Op.ISELECT: lambda a, b, c: torch.where(a != 0, b, c),
}


def _group_exponent(x: Tensor, dim: int, bump: int, floor: int) -> Tensor:
    """Return the i32 exponents of groups along ``dim``, 255 where one is poison."""
    return compute_exponents(find_magnitudes(x, dim), bump, floor)


def find_magnitudes(x: Tensor, dim: int) -> Tensor:
    """Return the i32 pattern of the largest magnitude along ``dim``."""
    return (x.view(torch.int32) & _MAGNITUDE).amax(dim)


def compute_exponents(largest: Tensor, bump: int, floor: int) -> Tensor:
    """Return the i32 exponents of groups whose ``largest`` magnitudes are these, 255 where one is poison."""
    exponents = (((largest + bump) >> 23) - 126).clamp(min=floor)
    return exponents.masked_fill(largest >= _INFINITY, POISON_EXPONENT)


def to_fixed_point(x: Tensor, exponents: Tensor, fraction_bits: int) -> Tensor:
    """Return ``x * 2^(fraction_bits - exponent)`` rounded to integers, as f32; 0 where poison."""
    poison = exponents == POISON_EXPONENT
    scale = _power_of_two(fraction_bits - exponents.masked_fill(poison, 0))
    return (x * scale).round_().masked_fill_(poison, 0)


def from_fixed_point(totals: Tensor, exponents: Tensor) -> Tensor:
    """Return ``totals * 2^(exponent - 38)`` as f32, NaN where poison."""
    return canonical(totals.to(torch.float32) * unscale(exponents, SUM_FRACTION_BITS))


def unscale(exponents: Tensor, fraction_bits: int) -> Tensor:
    """Return 2^(exponent - fraction_bits) as f32, NaN where poison."""
    poison = exponents == POISON_EXPONENT
    scale = _power_of_two(exponents.masked_fill(poison, 0) - fraction_bits)
    return torch.where(poison, _pattern(CANONICAL_NAN, exponents.device), scale)


def _power_of_two(k: Tensor) -> Tensor:
    """Return 2^k as f32 for i32 ``k`` in [-126, 127]."""
    return ((k + 127) << 23).view(torch.float32)


def order_keys(patterns: Tensor) -> Tensor:
    """Map i32 patterns to keys whose order is that of ``max``; its own inverse."""
    return torch.where(patterns < 0, patterns ^ _MAGNITUDE, patterns)


def flatten_last(x: Tensor, reduced: int) -> Tensor:
    """Merge the last ``reduced`` axes into one."""
    kept = x.dim() - reduced
    return x.reshape(*x.shape[:kept], prod(x.shape[kept:]))


def fold(view: Tensor, batch: list[int], own: list[int], other: list[int]) -> Tensor:
    """Return [..., K] as [batch, own, K]; along the axes in ``other`` the operand is constant."""
    for axis in other:
        view = view.narrow(axis, 0, 1)
    view = view.permute(*batch, *own, *other, -1)
    sizes = prod(view.shape[: len(batch)]), prod(view.shape[len(batch) : -1])
    return view.reshape(*sizes, view.shape[-1])
