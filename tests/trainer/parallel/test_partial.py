"""Reductions in parts against the same reductions by one process, on hostile values."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.parallel.threads import ThreadCommunicator, run_ranks
from trainer.exact import torch_ops
from trainer.exact.carriers import CARRIERS
from trainer.parallel import partial
from trainer.parallel.spread import Spread

ROWS, TERMS = 40, 22
CUTS = (0, 3, 14, TERMS)  # uneven parts of the terms
CARRIER = CARRIERS["float64"]


def draw_hostile(*shape: int, seed: int = 0) -> Tensor:
    """Return rows of random patterns, of zeros, of one magnitude, with an infinity, NaN or subnormals."""
    draw = random.Random(seed)
    count = torch.Size(shape).numel()
    patterns = torch.tensor([draw.getrandbits(32) - 2**31 for _ in range(count)], dtype=torch.int32)
    x = patterns.view(torch.float32).view(shape).clone()
    x = torch.where(torch.isnan(x), torch.tensor(float("nan")), x)
    usual = torch.tensor([draw.gauss(0, 1) for _ in range(count)]).view(shape)
    x[5:30] = usual[5:30]
    x[10] = 0
    x[11] = -0.0
    x[12, 4] = float("inf")
    x[13, 20] = float("nan")
    x[14] *= 1e-40
    return x


def run_parts(work: Callable[[ThreadCommunicator, slice], Any]) -> list[Any]:
    return run_ranks(3, lambda others: work(others, slice(*CUTS[others.rank : others.rank + 2])))


def get_bits(x: Tensor) -> list[int]:
    return x.contiguous().view(-1).view(torch.int32).tolist()


@pytest.mark.parametrize("bits", [8, 14, 16, 24])
def test_rows_quantized_in_parts_are_the_rows_quantized_whole(bits: int) -> None:
    x, dtype = draw_hostile(ROWS, TERMS), torch.int32 if bits > 16 else torch.int16
    q, exponents = torch.empty(ROWS, TERMS, dtype=dtype), torch.empty(ROWS, dtype=torch.int32)
    torch_ops.run_quantize(x, bits, q, exponents)

    def quantize(others: ThreadCommunicator, part: slice) -> tuple[Tensor, Tensor]:
        mine = torch.empty(ROWS, part.stop - part.start, dtype=dtype)
        mine_exponents = torch.empty(ROWS, dtype=torch.int32)
        partial.quantize(x[:, part], bits, mine, mine_exponents, others)
        return mine, mine_exponents

    parts = run_parts(quantize)

    assert torch.equal(torch.cat([mine for mine, _ in parts], 1), q)
    assert all(torch.equal(mine_exponents, exponents) for _, mine_exponents in parts)


@pytest.mark.parametrize("bits", [(16, 16), (24, 14)])
def test_a_product_in_parts_is_the_product(bits: tuple[int, int]) -> None:
    rows, columns, out = ROWS, 7, torch.empty(ROWS, 7)
    shape = (rows, columns, TERMS)
    quantized = []
    for number, (size, width) in enumerate(zip((rows, columns), bits, strict=True)):
        x = draw_hostile(ROWS, TERMS, seed=number)[:size]
        q = torch.empty(size, TERMS, dtype=torch.int32 if width > 16 else torch.int16)
        exponents = torch.empty(size, dtype=torch.int32)
        torch_ops.run_quantize(x, width, q, exponents)
        quantized.append((q.unsqueeze(1 - number), exponents.unsqueeze(1 - number)))
    (qa, ea), (qb, eb) = [(q.expand(shape), e.expand(shape[:2])) for q, e in quantized]
    torch_ops.run_dot(qa, ea, qb, eb, *bits, out, CARRIER)

    def multiply(others: ThreadCommunicator, part: slice) -> Tensor:
        mine = torch.empty(rows, columns)
        operands = qa[..., part], ea, qb[..., part], eb
        partial.multiply(*operands, bits, mine, CARRIER, others)
        return mine

    assert [get_bits(mine) for mine in run_parts(multiply)] == [get_bits(out)] * 3


@pytest.mark.parametrize("name", ["sum", "max"])
def test_a_reduction_in_parts_is_the_reduction(name: str) -> None:
    whole, part_of = {
        "sum": (torch_ops.run_sum, partial.sum_terms),
        "max": (torch_ops.run_max, partial.find_greatest),
    }[name]
    x, out = draw_hostile(ROWS, TERMS), torch.empty(ROWS)
    whole(x, 1, out)

    def reduce(others: ThreadCommunicator, part: slice) -> Tensor:
        mine = torch.empty(ROWS)
        part_of(x[:, part], 1, mine, others)
        return mine

    assert [get_bits(mine) for mine in run_parts(reduce)] == [get_bits(out)] * 3


def test_integers_in_parts_wrap_like_the_whole() -> None:
    x, out = torch.full((2, TERMS), 2**62), torch.empty(2, dtype=torch.int64)
    torch_ops.run_sum(x, 1, out)

    def reduce(others: ThreadCommunicator, part: slice) -> Tensor:
        mine = torch.empty(2, dtype=torch.int64)
        partial.sum_terms(x[:, part], 1, mine, others)
        return mine

    assert all(torch.equal(mine, out) for mine in run_parts(reduce))


def test_rows_scattered_in_parts_are_the_rows_scattered() -> None:
    x = draw_hostile(ROWS, TERMS).T  # 22 source rows, some of whose columns are poison
    index = torch.arange(TERMS).remainder(7).unsqueeze(1).expand(TERMS, ROWS) - 1
    out = torch.empty(5, ROWS)
    torch_ops.run_scatter_add(index, x, 1, 5, out)

    def scatter(others: ThreadCommunicator, part: slice) -> Tensor:
        mine = torch.empty(5, ROWS)
        partial.scatter_rows(index[part], x[part], 1, 5, mine, others)
        return mine

    assert [get_bits(mine) for mine in run_parts(scatter)] == [get_bits(out)] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_elements_gathered_from_parts_are_the_elements(dtype: torch.dtype) -> None:
    source = draw_hostile(ROWS, TERMS)
    source = source if dtype is torch.float32 else source.view(torch.int32).to(dtype)
    positions = torch.arange(0, ROWS * TERMS, 7)
    expected = torch.take(source, positions)
    spread = Spread(TERMS, CUTS)

    def gather(others: ThreadCommunicator, part: slice) -> Tensor:
        mine = torch.empty(len(positions), dtype=dtype)
        own = source[:, part].contiguous().view(-1)
        partial.gather_elements(positions, own, spread, mine, others)
        return mine

    for mine in run_parts(gather):
        assert torch.equal(mine.view(torch.uint8), expected.view(torch.uint8))
