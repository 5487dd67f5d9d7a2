"""The definition behind the signatures of ``torch_ops``: element by element, slowly."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from market.protocol.program import MapOp
from trainer.exact import definition
from trainer.exact.carriers import Carrier


def run_map(
    code: Sequence[MapOp],
    f32_constants: Sequence[int],
    i64_constants: Sequence[int],
    operands: Sequence[Tensor],
    outputs: Sequence[tuple[int, Tensor]],
) -> None:
    columns = [to_integers(x) for x in operands]
    count = outputs[0][1].numel()
    elements = zip(*columns, strict=True) if columns else [()] * count
    registers = [
        definition.evaluate_map(code, (*element, *f32_constants, *i64_constants))
        for element in elements
    ]
    for register, destination in outputs:
        store([values[register] for values in registers], destination)


def run_quantize(x: Tensor, bits: int, q: Tensor, exponents: Tensor) -> None:
    rows = [definition.quantize(row, bits) for row in to_rows(x, 1)]
    store([a for integers, _ in rows for a in integers], q)
    store([exponent for _, exponent in rows], exponents)


def run_dot(
    qa: Tensor,
    ea: Tensor,
    qb: Tensor,
    eb: Tensor,
    bits_a: int,
    bits_b: int,
    out: Tensor,
    carrier: Carrier,
) -> None:
    del carrier  # the definition needs none
    rows = zip(to_rows(qa, 1), to_integers(ea), to_rows(qb, 1), to_integers(eb), strict=True)
    store([definition.dot(a, x, bits_a, b, y, bits_b) for a, x, b, y in rows], out)


def run_sum(x: Tensor, reduced: int, out: Tensor) -> None:
    add = definition.sum_f32 if x.dtype == torch.float32 else definition.sum_i64
    store([add(row) for row in to_rows(x, reduced)], out)


def run_max(x: Tensor, reduced: int, out: Tensor) -> None:
    store([definition.max_f32(row) for row in to_rows(x, reduced)], out)


def run_gather(
    index: Tensor,
    source: Tensor,
    offset: int,
    strides: Sequence[int],
    bound: int,
    index_stride: int,
    out: Tensor,
) -> None:
    elements = to_integers(source)
    views = (
        offset + sum(i * stride for i, stride in zip(place, strides, strict=True))
        for place in product(*map(range, out.shape))
    )
    positions = [
        definition.gather_position(view, i, bound, index_stride)
        for view, i in zip(views, to_integers(index), strict=True)
    ]
    store([elements[position] for position in positions], out)


def run_scatter_add(index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor) -> None:
    order = [*range(reduced, x.dim()), *range(reduced)]
    columns = zip(
        to_rows(index.permute(order), reduced), to_rows(x.permute(order), reduced), strict=True
    )
    results = [definition.scatter_add(targets, patterns, bound) for targets, patterns in columns]
    store([column[row] for row in range(bound) for column in results], out)


def run_random(key: int, c1: int, c2: int, c3: int, out: Tensor) -> None:
    store([definition.random_word(key, c1, c2, c3, e) for e in range(out.numel())], out)


def run_iota(start: int, step: int, out: Tensor) -> None:
    store([definition.iota(start, step, i) for i in range(out.numel())], out)


def to_integers(x: Tensor) -> list[int]:
    """Return the elements of ``x`` in row-major order: patterns of f32, the integers themselves."""
    if x.dtype == torch.float32:
        x = x.contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    return x.reshape(-1).tolist()


def to_rows(x: Tensor, reduced: int) -> Iterator[list[int]]:
    """Return the elements of each group of the last ``reduced`` axes."""
    length = prod(x.shape[x.dim() - reduced :])
    elements = to_integers(x)
    return (elements[i : i + length] for i in range(0, len(elements), length))


def store(values: Sequence[int], destination: Tensor) -> None:
    """Store values as an output does: NaNs canonical, integers modulo their size."""
    if destination.dtype == torch.float32:
        patterns = [definition.wrap(definition.canonical(x), 32) for x in values]
        stored = torch.tensor(patterns, dtype=torch.int32).view(torch.float32)
    else:
        bits = destination.dtype.itemsize * 8
        stored = torch.tensor([definition.wrap(a, bits) for a in values]).to(destination.dtype)
    destination.copy_(stored.view(destination.shape))
