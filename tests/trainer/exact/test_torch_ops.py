"""The torch form against the definition, on arbitrary bit patterns."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from market.protocol.program import SIGNATURES, MapOp, Op
from tests.trainer.exact import definition_ops
from trainer.exact import torch_ops
from trainer.exact.carriers import CARRIERS, QUANTIZED_BOUNDS, probe_carriers
from trainer.exact.ops import ExactOps

SPECIAL = (0, 1, 0x7FFFFF, 0x800000, 0x33800000, 0x3EFFFFFF, 0x3F000000, 0x3F7FFFFF, 0x3F800000)
SPECIAL += (0x40200000, 0x4B000001, 0x4F000000, 0x5EFFFFFF, 0x5F000000, 0x7F7FFFFF, 0x7F800000)
SPECIAL += (0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7EFF0000, 0x3FFEFF00, 0x3FFEFEFF)
I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-70, 70),
    st.sampled_from((-(2**63), 2**63 - 1, 2**24 + 1, 2**31, 2**32, 2**62 + 2**38, 0xFFFFFFFF)),
)
PATTERNS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([x | sign for x in SPECIAL for sign in (0, 2**31)]),
    st.builds(lambda word: word & 0x83FFFFFF | 0x3C000000, st.integers(0, 2**32 - 1)),
)
WIDTHS = tuple(QUANTIZED_BOUNDS)
EXACT = [name for name, exact in probe_carriers(torch.device("cpu")).items() if exact]
Run = Callable[[ExactOps], list[Tensor]]
many = settings(max_examples=60, deadline=None, derandomize=True)


def require_equal(run: Run) -> None:
    """Require the bits of the definition, and say where they differ."""
    for got, expected in zip(run(torch_ops), run(definition_ops), strict=True):
        x, y = (t.reshape(-1).view(torch.uint8) for t in (got, expected))
        assert torch.equal(x, y), f"{got[got != expected]} is not {expected[got != expected]}"


def floats(data: st.DataObject, *shape: int) -> Tensor:
    """Draw an f32 tensor of bit patterns."""
    count = torch.Size(shape).numel()
    patterns = data.draw(st.lists(PATTERNS, min_size=count, max_size=count))
    return torch.tensor(patterns).to(torch.int32).view(torch.float32).view(shape)


def integers(data: st.DataObject, *shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.tensor(data.draw(st.lists(I64, min_size=count, max_size=count))).view(shape)


@dataclass(frozen=True)
class Code:
    ops: list[MapOp]
    types: str  # of all registers


@st.composite
def codes(draw: st.DrawFn, first: str) -> Code:
    """Draw a well-typed program over registers of the types ``first``."""
    ops: list[MapOp] = []
    types = first
    for op in draw(st.lists(st.sampled_from(Op), min_size=1, max_size=12)):
        operands, result = SIGNATURES[op]
        choices = [[r for r, t in enumerate(types) if t == wanted] for wanted in operands]
        registers = [draw(st.sampled_from(choice)) for choice in choices]
        a, b, c = registers + [0] * (3 - len(registers))
        ops.append((op, a, b, c))
        types += result
    return Code(ops, types)


@pytest.mark.parametrize("op", Op)
@given(st.data())
@many
def test_every_operation_equals_its_definition(op: Op, data: st.DataObject) -> None:
    operands, result = SIGNATURES[op]
    n = data.draw(st.integers(1, 40))
    views = [floats(data, n) if kind == "f" else integers(data, n) for kind in operands]
    a, b, c = [*range(len(views)), 0, 0][:3]
    code = [(op, a, b, c)]

    def run(ops: ExactOps) -> list[Tensor]:
        out = torch.empty(n, dtype=torch.float32 if result == "f" else torch.int64)
        ops.run_map(code, (), (), views, [(len(views), out)])
        return [out]

    require_equal(run)


@given(st.data())
@many
def test_random_programs_equal_their_definition(data: st.DataObject) -> None:
    code = data.draw(codes("ffiifi"))
    shape = data.draw(st.sampled_from([(), (1,), (7,), (3, 5), (2, 1, 9)]))
    views = [floats(data, *shape), floats(data, *shape), integers(data, *shape)]
    views.append(integers(data, *shape).to(torch.int16))
    constants = data.draw(PATTERNS), data.draw(I64)
    dtypes = {"f": (torch.float32,), "i": (torch.uint8, torch.int16, torch.int32, torch.int64)}
    last = [(r, t) for r in range(len(code.types))[-4:] for t in dtypes[code.types[r]]]

    def run(ops: ExactOps) -> list[Tensor]:
        outs = [torch.empty(shape, dtype=dtype) for _, dtype in last]
        destinations = [(r, out) for (r, _), out in zip(last, outs, strict=True)]
        ops.run_map(code.ops, constants[:1], constants[1:], views, destinations)
        return outs

    require_equal(run)


def test_a_map_larger_than_a_slab_is_evaluated_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ops, "_SLAB", 100)  # a limit on memory, not a collaborator
    x = torch.arange(3 * 71 * 5).view(3, 71, 5)
    out = torch.zeros(71, 5, 3, dtype=torch.int64)

    torch_ops.run_map([(Op.IADD, 0, 1, 0)], (), (4,), [x], [(2, out.permute(2, 0, 1))])

    assert torch.equal(out.permute(2, 0, 1), x + 4)


@pytest.mark.parametrize("bits", WIDTHS)
@given(st.data())
@many
def test_quantize_equals_its_definition_within_bounds(bits: int, data: st.DataObject) -> None:
    x = floats(data, data.draw(st.integers(1, 9)), 2, data.draw(st.integers(1, 6))).mT

    def run(ops: ExactOps) -> list[Tensor]:
        q = torch.empty(x.shape, dtype=torch.int32 if bits > 16 else torch.int16)
        exponents = torch.empty(x.shape[:-1], dtype=torch.int32)
        ops.run_quantize(x, bits, q, exponents)
        assert int(q.abs().max()) <= QUANTIZED_BOUNDS[bits]
        return [q, exponents]

    require_equal(run)


@pytest.mark.parametrize("carrier", EXACT)
@pytest.mark.parametrize("bits_a", WIDTHS)
@pytest.mark.parametrize("bits_b", WIDTHS)
@given(st.data())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_dot_equals_its_definition_on_every_exact_carrier(
    carrier: str, bits_a: int, bits_b: int, data: st.DataObject
) -> None:
    batch, m, n, k = (data.draw(st.integers(1, limit)) for limit in (2, 3, 4, 9))
    qa, ea = quantize(floats(data, batch, m, k), bits_a)
    qb, eb = quantize(floats(data, n, batch, k), bits_b)
    shape = (n, batch, m)
    a = qa.expand(*shape, k), ea.expand(shape)
    b = qb.unsqueeze(2).expand(*shape, k), eb.unsqueeze(2).expand(shape)

    def run(ops: ExactOps) -> list[Tensor]:
        out = torch.empty(m, batch, n)
        ops.run_dot(*a, *b, bits_a, bits_b, out.permute(2, 1, 0), CARRIERS[carrier])
        return [out]

    require_equal(run)


def quantize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    q = torch.empty(x.shape, dtype=torch.int32 if bits > 16 else torch.int16)
    exponents = torch.empty(x.shape[:-1], dtype=torch.int32)
    torch_ops.run_quantize(x, bits, q, exponents)
    return q, exponents


@pytest.mark.parametrize("reduced", [0, 1, 2])
@given(st.data())
@many
def test_sums_and_maxima_equal_their_definition(reduced: int, data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    x, a = floats(data, *shape).mT, integers(data, *shape).mT

    def run(ops: ExactOps) -> list[Tensor]:
        outs = [torch.empty(x.shape[: 3 - reduced], dtype=t.dtype) for t in (x, x, a)]
        ops.run_sum(x, reduced, outs[0])
        ops.run_max(x, reduced, outs[1])
        ops.run_sum(a, reduced, outs[2])
        return outs

    require_equal(run)


@given(st.data())
@many
def test_scatter_add_equals_its_definition(data: st.DataObject) -> None:
    rows, columns, bound = (data.draw(st.integers(1, limit)) for limit in (12, 3, 5))
    x = floats(data, rows, 2, columns)
    index = integers(data, rows).view(rows, 1, 1).expand(x.shape)

    def run(ops: ExactOps) -> list[Tensor]:
        by_row = torch.empty(bound, 2, columns)
        by_two_axes = torch.empty(bound, columns)
        ops.run_scatter_add(index, x, 1, bound, by_row)
        ops.run_scatter_add(index, x, 2, bound, by_two_axes)
        return [by_row, by_two_axes]

    require_equal(run)


@given(st.data())
@many
def test_gather_equals_its_definition(data: st.DataObject) -> None:
    source = floats(data, 24)
    index = integers(data, 3, 1).expand(3, 2)

    def run(ops: ExactOps) -> list[Tensor]:
        out = torch.empty(2, 3)
        ops.run_gather(index, source, 3, (0, 1), 5, 4, out.T)
        return [out]

    require_equal(run)


@given(I64, I64, I64, I64, st.integers(1, 13))
@many
def test_generators_equal_their_definition(key: int, c1: int, c2: int, c3: int, n: int) -> None:
    def run(ops: ExactOps) -> list[Tensor]:
        words, sequence = torch.empty(n, dtype=torch.int64), torch.empty(2, n, dtype=torch.int64)
        ops.run_random(key, c1, c2, c3, words)
        ops.run_iota(c1, c2, sequence)
        return [words, sequence]

    require_equal(run)
