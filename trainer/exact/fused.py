"""The exact arithmetic in fused kernels: the functions of ``torch_ops``, bit for bit, on CPU tensors.

Each function plans its work, does it on ``threads`` threads and forgets the plan; an executor keeps plans.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from market.protocol.program import MapOp
from trainer.exact import torch_ops
from trainer.exact.carriers import Carrier
from trainer.exact.fused_index import plan_gather, plan_random, plan_scatter_add
from trainer.exact.fused_map import plan_map
from trainer.exact.fused_multiply import (
    Operand,
    count_products,
    get_form,
    get_scratch,
    plan_dot,
    split_digits,
)
from trainer.exact.fused_native import DTYPES, Strided, Table, Work, run_now
from trainer.exact.fused_quantize import Form, plan_quantize
from trainer.exact.fused_reduce import get_reduction, plan_reduce


def run_map(
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Tensor],
    outputs: Sequence[tuple[int, Tensor]],
    threads: int = 1,
) -> None:
    """Evaluate ``code`` as ``torch_ops.run_map`` does."""
    tensors = [*operands, *(tensor for _, tensor in outputs)]
    shape, registers = outputs[0][1].shape, [register for register, _ in outputs]

    def plan(*views: Strided) -> Work:
        stores = list(zip(registers, views[len(operands) :], strict=True))
        return plan_map(shape, code, f32_constants, i64_constants, views[: len(operands)], stores)

    _run(plan, tensors, threads)


def run_quantize(x: Tensor, bits: int, q: Tensor, exponents: Tensor, threads: int = 1) -> None:
    """Quantize as ``torch_ops.run_quantize`` does."""
    form = Form.PLAIN_I32 if q.dtype == torch.int32 else Form.PLAIN_I16
    _run(
        lambda *views: plan_quantize(x.shape, views[0], bits, form, *views[1:]),
        [x, q, exponents],
        threads,
    )


def run_dot(  # noqa: PLR0913 - as in torch_ops
    qa: Tensor,
    ea: Tensor,
    qb: Tensor,
    eb: Tensor,
    bits_a: int,
    bits_b: int,
    out: Tensor,
    carrier: Carrier,
    threads: int = 1,
) -> None:
    """Contract as ``torch_ops.run_dot`` does, on the carrier ``int8``, ``int16`` or ``float64``."""
    operands, rows = [], []
    for entry, (q, e, bits) in enumerate(((qa, ea, bits_a), (qb, eb, bits_b)), 1):
        form = get_form(carrier.name, bits)
        sizes = [size if stride else 1 for size, stride in zip(out.shape, q.stride(), strict=False)]
        stored = tuple(slice(size) for size in sizes)  # one row of those that a stride of 0 repeats
        digits = split_digits(q[stored].reshape(-1, q.shape[-1]), form, bits)
        strides = tuple(
            prod(sizes[axis + 1 :]) if size > 1 else 0 for axis, size in enumerate(sizes)
        )
        operands.append(Operand(digits, bits, Strided(entry, DTYPES[torch.int32], 0, strides)))
        rows.append(e[stored].reshape(-1).contiguous())
    target = Strided(3, DTYPES[out.dtype], 0, out.stride())
    a, b = operands
    count = count_products(out.shape, a, b, target)
    products = torch.empty(count, dtype=torch.int32 if carrier.name == "int8" else torch.float64)
    scratch = torch.empty(threads * get_scratch(out.shape, a, b, target), dtype=torch.uint8)
    addresses = [x.data_ptr() for x in (scratch, *rows, out, products)]
    table = Table(np.array(addresses, dtype=np.int64), threads)
    plan_dot(out.shape, a, b, target, products, 4, table)()


def run_sum(x: Tensor, reduced: int, out: Tensor, threads: int = 1) -> None:
    """Sum as ``torch_ops.run_sum`` does."""
    what = get_reduction(DTYPES[x.dtype], maximum=False)
    _run(lambda *views: plan_reduce(x.shape, reduced, what, *views), [x, out], threads)


def run_max(x: Tensor, reduced: int, out: Tensor, threads: int = 1) -> None:
    """Find maxima as ``torch_ops.run_max`` does."""
    what = get_reduction(DTYPES[x.dtype], maximum=True)
    _run(lambda *views: plan_reduce(x.shape, reduced, what, *views), [x, out], threads)


def run_gather(  # noqa: PLR0913 - as in torch_ops
    index: Tensor,
    source: Tensor,
    offset: int,
    strides: Sequence[int],
    bound: int,
    index_stride: int,
    out: Tensor,
    threads: int = 1,
) -> None:
    """Read as ``torch_ops.run_gather`` does."""

    def plan(index: Strided, source: Strided, target: Strided) -> Work:
        moved = Strided(source.entry, source.dtype, offset, tuple(strides))
        return plan_gather(out.shape, index, moved, bound, index_stride, target)

    _run(plan, [index, source, out], threads)


def run_scatter_add(
    index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor, threads: int = 1
) -> None:
    """Add as ``torch_ops.run_scatter_add`` does."""

    def plan(index: Strided, x_view: Strided, target: Strided) -> Work:
        return plan_scatter_add(x.shape, reduced, index, x_view, bound, target)

    _run(plan, [index, x, out], threads)


def run_random(key: int, c1: int, c2: int, c3: int, out: Tensor) -> None:
    """Draw words as ``torch_ops.run_random`` does."""
    scalars = torch.tensor([key, c1, c2, c3])

    def plan(scalars: Strided, target: Strided) -> Work:
        words = [Strided(scalars.entry, scalars.dtype, i, ()) for i in range(4)]
        return plan_random(out.numel(), words, target)

    _run(plan, [scalars, out], 1)


def _run(plan: Callable[..., Work], tensors: Sequence[Tensor], threads: int) -> None:
    views = [
        Strided(i, DTYPES[tensor.dtype], 0, tensor.stride()) for i, tensor in enumerate(tensors, 1)
    ]
    run_now(plan(*views), [tensor.data_ptr() for tensor in tensors], threads)


def run_iota(start: int, step: int, out: Tensor) -> None:
    """Count as ``torch_ops.run_iota`` does: it is integers alone, so there is nothing to fuse."""
    torch_ops.run_iota(start, step, out)
