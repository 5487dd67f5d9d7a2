"""The exact arithmetic in Triton kernels: the functions of ``torch_ops``, bit for bit, on CUDA tensors.

Each function plans its work, does it and forgets the plan; an executor keeps plans.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from market.protocol.program import MapOp
from market.protocol.tensors import Dtype
from trainer.exact import torch_ops
from trainer.exact.carriers import Carrier
from trainer.exact.fused_native import DTYPES, Strided
from trainer.exact.triton_carriers import get_digit_type
from trainer.exact.triton_dot import Operand, plan_dot
from trainer.exact.triton_index import plan_gather, plan_random, plan_scatter_add
from trainer.exact.triton_map import plan_map
from trainer.exact.triton_native import Memory, Step
from trainer.exact.triton_quantize import join_digits, plan_quantize, split_digits
from trainer.exact.triton_reduce import get_reduction, plan_reduce


def run_map(
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Tensor],
    outputs: Sequence[tuple[int, Tensor]],
) -> None:
    """Evaluate ``code`` as ``torch_ops.run_map`` does."""
    tensors = [*operands, *(tensor for _, tensor in outputs)]
    shape, registers = outputs[0][1].shape, [register for register, _ in outputs]

    def plan(memory: Memory, *views: Strided) -> Step:
        stores = list(zip(registers, views[len(operands) :], strict=True))
        loads = views[: len(operands)]
        return plan_map(memory, shape, code, f32_constants, i64_constants, loads, stores)

    _run(plan, tensors)


def run_quantize(x: Tensor, bits: int, q: Tensor, exponents: Tensor) -> None:
    """Quantize as ``torch_ops.run_quantize`` does."""
    length = x.shape[-1]
    digits = split_digits(torch.zeros_like(q).view(-1, length), bits)
    _run(
        lambda memory, view, _, rows: plan_quantize(memory, x.shape, view, bits, 1, rows),
        [x, digits, exponents],
    )
    q.copy_(join_digits(digits, bits, length).view(q.shape))


def run_dot(  # noqa: PLR0913 - as in torch_ops
    qa: Tensor,
    ea: Tensor,
    qb: Tensor,
    eb: Tensor,
    bits_a: int,
    bits_b: int,
    out: Tensor,
    carrier: Carrier,
) -> None:
    """Contract as ``torch_ops.run_dot`` does, on the carrier ``int8`` or ``bf16``."""
    tensors: list[Tensor] = []
    operands: list[Operand] = []
    for q, e, bits in ((qa, ea, bits_a), (qb, eb, bits_b)):
        sizes = [size if stride else 1 for size, stride in zip(out.shape, q.stride(), strict=False)]
        stored = tuple(slice(size) for size in sizes)  # one row of those that a stride of 0 repeats
        digits = split_digits(q[stored].reshape(-1, q.shape[-1]), bits)
        strides = tuple(prod(sizes[axis + 1 :]) if n > 1 else 0 for axis, n in enumerate(sizes))
        entry = len(tensors)
        view = Strided(entry + 1, DTYPES[torch.int32], 0, strides)
        operands.append(Operand(entry, bits, view))
        tensors += [digits, e[stored].reshape(-1).contiguous()]
    a, b = operands
    shape, dtype = (*out.shape, qa.shape[-1]), get_digit_type(carrier.name)
    _run(
        lambda memory, *views: plan_dot(memory, shape, a, b, views[-1], dtype),
        [*tensors, out],
    )


def run_sum(x: Tensor, reduced: int, out: Tensor) -> None:
    """Sum as ``torch_ops.run_sum`` does."""
    what = get_reduction(DTYPES[x.dtype], maximum=False)
    _run(lambda memory, *views: plan_reduce(memory, x.shape, reduced, what, *views), [x, out])


def run_max(x: Tensor, reduced: int, out: Tensor) -> None:
    """Find maxima as ``torch_ops.run_max`` does."""
    what = get_reduction(DTYPES[x.dtype], maximum=True)
    _run(lambda memory, *views: plan_reduce(memory, x.shape, reduced, what, *views), [x, out])


def run_gather(  # noqa: PLR0913 - as in torch_ops
    index: Tensor,
    source: Tensor,
    offset: int,
    strides: Sequence[int],
    bound: int,
    index_stride: int,
    out: Tensor,
) -> None:
    """Read as ``torch_ops.run_gather`` does."""

    def plan(memory: Memory, index: Strided, source: Strided, target: Strided) -> Step:
        moved = Strided(source.entry, source.dtype, offset, tuple(strides))
        return plan_gather(memory, out.shape, index, moved, (bound, index_stride), target)

    _run(plan, [index, source, out])


def run_scatter_add(index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor) -> None:
    """Add as ``torch_ops.run_scatter_add`` does."""

    def plan(memory: Memory, index: Strided, x_view: Strided, target: Strided) -> Step:
        return plan_scatter_add(memory, x.shape, reduced, index, x_view, bound, target)

    _run(plan, [index, x, out])


def run_random(key: int, c1: int, c2: int, c3: int, out: Tensor) -> None:
    """Draw words as ``torch_ops.run_random`` does."""
    scalars = torch.tensor([key, c1, c2, c3], device=out.device)

    def plan(memory: Memory, scalars: Strided, target: Strided) -> Step:
        words = [Strided(scalars.entry, scalars.dtype, i, ()) for i in range(4)]
        return plan_random(memory, out.numel(), words, target)

    _run(plan, [scalars, out])


def run_iota(start: int, step: int, out: Tensor) -> None:
    """Count as ``torch_ops.run_iota`` does: it is integers alone, done once, so there is nothing to fuse."""
    torch_ops.run_iota(start, step, out)


def _run(plan: Callable[..., Step], tensors: Sequence[Tensor]) -> None:
    memory = Memory(tensors, tensors[0].device)
    views = [
        Strided(i, DTYPES.get(x.dtype, Dtype.U8), 0, x.stride()) for i, x in enumerate(tensors)
    ]  # digits, which have no type of their own, are bytes
    step = plan(memory, *views)
    memory.allocate()
    step()
