"""Reductions whose terms lie on several ranks: the definitions of `torch_ops`, with integers put together.

INVARIANT: ranks exchange the largest magnitude of a group, then integers scaled by its exponent; maxima and
integer sums are the same in any order, and what follows is rounded once, as it would be by one rank."""

from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from market.protocol.constants import (
    QUANTIZE_BUMPS,
    QUANTIZE_FLOOR,
    SUM_FLOOR,
    SUM_FRACTION_BITS,
)
from trainer.exact.carriers import Carrier
from trainer.exact.torch_ops import (
    canonical,
    compute_exponents,
    find_magnitudes,
    flatten_last,
    fold,
    from_fixed_point,
    order_keys,
    sort_axes,
    to_fixed_point,
    unscale,
)
from trainer.parallel.spread import Spread


class Communicator(Protocol):
    """The processes that run a partition together. Every tensor is contiguous; none is resized."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def world(self) -> int:
        """The number of processes."""

    def maximize(self, values: Tensor) -> None:
        """Replace i32 ``values`` by their maxima over all ranks."""

    def add(self, values: Tensor) -> None:
        """Replace integers by their sums over all ranks."""

    def add_rows(self, values: Tensor) -> Tensor:
        """Return this rank's share of the sums over all ranks; ``values`` is [world, ...], i64."""

    def gather(self, part: Tensor, parts: Tensor) -> None:
        """Write the ``part`` of each rank, as bytes, to ``parts``, [world, bytes]."""

    def send(self, values: Tensor, targets: Sequence[int]) -> None:
        """Send bytes to each of ``targets``; they may be overwritten at once, before any is received."""

    def receive(self, values: Tensor, source: int) -> None:
        """Overwrite bytes by those that one rank sends."""


def quantize(x: Tensor, bits: int, q: Tensor, exponents: Tensor, others: Communicator) -> None:
    """Quantize rows of which this rank has the part ``x``; ``q`` is contiguous, ``exponents`` all rows'."""
    largest = find_magnitudes(x, -1).contiguous()
    others.maximize(largest)
    exponents.copy_(compute_exponents(largest, QUANTIZE_BUMPS[bits], QUANTIZE_FLOOR))
    q.copy_(to_fixed_point(x, exponents.unsqueeze(-1), bits - 1))


def multiply(  # noqa: PLR0913 - two quantized operands
    qa: Tensor,
    ea: Tensor,
    qb: Tensor,
    eb: Tensor,
    bits: tuple[int, ...],
    out: Tensor,
    carrier: Carrier,
    others: Communicator,
) -> None:
    """Contract rows of which this rank has the parts ``qa`` and ``qb``, as `run_dot` does.

    The integers are summed where they are rounded: each rank rounds a share of the result's rows."""
    batch, rows, columns = sort_axes(qa, qb)
    total = carrier.multiply(
        fold(qa, batch, rows, columns), fold(qb, batch, columns, rows), *bits
    )  # [B, M, N]
    count, width = total.shape[0] * total.shape[1], total.shape[2]
    share = -(-count // others.world)
    terms = pad(total.view(count, width), (0, 0, 0, share * others.world - count))
    sums = others.add_rows(terms.view(others.world, share, width))  # [share, N]
    mine = torch.arange(share, device=total.device) + others.rank * share
    mine = mine.clamp(max=count - 1)  # what pads is rounded too, and dropped
    scale_a = unscale(fold(ea.unsqueeze(-1), batch, rows, columns), bits[0] - 1).reshape(-1, 1)
    scale_b = unscale(fold(eb.unsqueeze(-1), batch, columns, rows), bits[1] - 1).squeeze(-1)
    product = canonical(sums.to(torch.float32) * scale_a[mine] * scale_b[mine // total.shape[1]])
    parts = torch.empty((others.world, 4 * share * width), dtype=torch.uint8, device=total.device)
    others.gather(product.view(-1).view(torch.uint8), parts)
    destination = out.permute(batch + rows + columns)
    whole = parts.view(-1).view(torch.float32).view(-1, width)[:count]
    destination.copy_(whole.reshape(destination.shape))


def sum_terms(x: Tensor, reduced: int, out: Tensor, others: Communicator) -> None:
    """Sum the last ``reduced`` axes of ``x``, of which this rank has a part."""
    groups = flatten_last(x, reduced)
    if x.dtype == torch.int64:
        totals = groups.sum(-1)
        others.add(totals)
        out.copy_(totals)
        return
    largest = find_magnitudes(groups, -1).contiguous()
    others.maximize(largest)
    exponents = compute_exponents(largest, 0, SUM_FLOOR)
    terms = to_fixed_point(groups, exponents.unsqueeze(-1), SUM_FRACTION_BITS)
    totals = terms.to(torch.int64).sum(-1)
    others.add(totals)
    out.copy_(from_fixed_point(totals, exponents))


def find_greatest(x: Tensor, reduced: int, out: Tensor, others: Communicator) -> None:
    """Write the greatest by key over the last ``reduced`` axes of ``x``, of which this rank has a part."""
    keys = order_keys(canonical(flatten_last(x, reduced)).view(torch.int32)).amax(-1)
    others.maximize(keys)
    out.copy_(order_keys(keys).view(torch.float32))


def scatter_rows(
    index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor, others: Communicator
) -> None:
    """Add the source rows that this rank has to ``out``, exactly."""
    shape = (prod(x.shape[:reduced]), prod(x.shape[reduced:]))
    sources = x.reshape(shape)
    targets = index.reshape(shape).to(torch.int64).clamp(0, bound - 1)
    largest = find_magnitudes(sources, 0).contiguous()
    others.maximize(largest)
    exponents = compute_exponents(largest, 0, SUM_FLOOR)
    terms = to_fixed_point(sources, exponents, SUM_FRACTION_BITS).to(torch.int64)
    totals = torch.zeros((bound, shape[1]), dtype=torch.int64, device=x.device)
    totals.scatter_add_(0, targets, terms)
    others.add(totals)
    out.copy_(from_fixed_point(totals, exponents).view(out.shape))


def gather_elements(
    positions: Tensor, part: Tensor, spread: Spread, out: Tensor, others: Communicator
) -> None:
    """Read elements of a tensor of which this rank has the flat ``part``: exactly one rank has each."""
    first, last = spread.cuts[others.rank], spread.cuts[others.rank + 1]
    inner = positions % spread.period
    mine = (inner >= first) & (inner < last)
    places = positions // spread.period * (last - first) + inner - first
    values = torch.take(part, places.masked_fill(~mine, 0))
    is_float = values.dtype == torch.float32
    found = canonical(values).view(torch.int32) if is_float else values.to(torch.int64)
    found = found.masked_fill(~mine, 0)
    others.add(found)
    out.copy_(found.view(torch.float32) if is_float else found)
