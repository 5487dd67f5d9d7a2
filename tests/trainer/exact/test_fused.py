"""The fused form against torch's, bit for bit, on hostile values in every kind of view."""

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from market.protocol.program import SIGNATURES, MapOp, Op
from trainer.exact import fused, fused_multiply, torch_ops
from trainer.exact.carriers import CARRIERS, QUANTIZED_BOUNDS
from trainer.exact.fused_registers import BLOCK

INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)
SIZES = (1, 2, 3, 5, 15, 16, 17, 31, 64, 130, 300)
SPECIAL = (0, -(2**31), 0x7F800000, -0x800000, 0x7FC00000, 0x7F800001, 1, 0x7F7FFFFF, 0x5F000000)
MAX_ELEMENTS = 20_000
SEEDS = range(40)


def draw_shape(rng: random.Random, least: int = 0, most: int = 4) -> tuple[int, ...]:
    shape = tuple(rng.choice(SIZES) for _ in range(rng.randint(least, most)))
    while torch.Size(shape).numel() > MAX_ELEMENTS:
        shape = (*shape[:-1], shape[-1] // 2) if shape[-1] > 1 else (shape[0] // 2, *shape[1:])
    return shape


def draw_flat(rng: random.Random, dtype: torch.dtype, count: int) -> Tensor:
    if dtype != torch.float32:
        words = torch.randint(-(2**63), 2**63 - 1, (count,))
        return (words >> rng.choice((0, 0, 40, 58))).to(dtype)
    bits = torch.randint(-(2**31), 2**31, (count,))
    usual = torch.randn(count).mul(rng.choice((1.0, 1e-30, 1e30))).view(torch.int32)
    special = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), (count,))]
    which = torch.rand(count)
    bits = torch.where(which < rng.choice((0.0, 0.3)), bits, usual)
    if rng.random() < 0.3:
        bits = torch.where(which > 0.9, special, bits)
    return bits.to(torch.int32).view(torch.float32)


def place(
    rng: random.Random, shape: Sequence[int], flat: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return a view into larger memory in another order of axes; constant along some axes."""
    axes = list(range(len(shape)))
    rng.shuffle(axes)
    full = [shape[axis] + rng.choice((0, 0, 3)) for axis in axes]
    base = draw_flat(rng, dtype, torch.Size(full).numel()) if flat is None else flat.new_zeros(full)
    view = base.view(full).permute([axes.index(axis) for axis in range(len(shape))])
    for axis, size in enumerate(shape):
        view = view.narrow(axis, 0, size)
    if flat is None:
        repeated = [rng.random() < 0.25 for _ in shape]
        cut = tuple(slice(0, 1) if repeat else slice(None) for repeat in repeated)
        view = view[cut].expand(tuple(shape))
    return view


def make_destinations(
    rng: random.Random, shape: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return two views alike in strides, into memories of their own."""
    state = rng.getstate()
    first = place(rng, shape, torch.zeros(0, dtype=dtype), dtype)
    rng.setstate(state)
    return first, place(rng, shape, torch.zeros(0, dtype=dtype), dtype)


def require_equal(got: Tensor, expected: Tensor) -> None:
    x, y = (t.contiguous().view(-1).view(torch.uint8) for t in (got, expected))
    assert torch.equal(x, y), f"{got[got != expected]} is not {expected[got != expected]}"


@pytest.fixture(params=SEEDS)
def rng(request: pytest.FixtureRequest) -> random.Random:
    torch.manual_seed(request.param)
    return random.Random(request.param)


def draw_code(rng: random.Random, types: list[str], ops: Sequence[Op]) -> list[MapOp]:
    """Draw an operation of each of ``ops``; ``types`` grows by its results."""
    code = []
    for op in ops:
        signature, result = SIGNATURES[op]
        registers = [
            rng.choice([i for i, t in enumerate(types) if t == kind]) for kind in signature
        ]
        a, b, c = (*registers, 0, 0, 0)[:3]
        code.append((int(op), a, b, c))
        types.append(result)
    return code


def check_map(rng: random.Random, shape: Sequence[int], ops: Sequence[Op]) -> None:
    operands = [place(rng, shape, None, torch.float32), place(rng, shape, None, torch.int64)]
    operands += [place(rng, shape, None, rng.choice(INTEGERS)) for _ in range(rng.randint(0, 3))]
    f32_constants, i64_constants = [0x3F800000, rng.getrandbits(31)], [23, rng.getrandbits(63)]
    types = ["f" if x.dtype == torch.float32 else "i" for x in operands] + ["f", "f", "i", "i"]
    code = draw_code(rng, types, ops)
    registers = [len(types) - 1, *(rng.randrange(len(types)) for _ in range(rng.randint(0, 3)))]
    dtypes = [torch.float32 if types[r] == "f" else rng.choice(INTEGERS) for r in registers]
    pairs = [make_destinations(rng, shape, dtype) for dtype in dtypes]

    for run, side, more in ((torch_ops.run_map, 0, {}), (fused.run_map, 1, {"threads": 2})):
        outputs = [(r, pair[side]) for r, pair in zip(registers, pairs, strict=True)]
        run(code, f32_constants, i64_constants, operands, outputs, **more)

    for expected, got in pairs:
        require_equal(got, expected)


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 9 * BLOCK + 1])
def test_every_operation_gives_the_same_bits(op: Op, count: int) -> None:
    rng = random.Random(count)
    torch.manual_seed(count)

    check_map(rng, (count,), [op])


def test_random_programs_give_the_same_bits_in_any_view(rng: random.Random) -> None:
    ops = [rng.choice(list(Op)) for _ in range(rng.choice((1, 3, 20, 90)))]

    check_map(rng, draw_shape(rng), ops)


def test_a_map_may_store_what_it_loads() -> None:
    x = torch.arange(12.0).view(3, 4)
    out = torch.zeros(4, 3)

    fused.run_map([], [], [], [x.t()], [(0, out)])

    assert torch.equal(out, x.t())


@pytest.mark.parametrize("bits", QUANTIZED_BOUNDS)
def test_quantize_gives_the_same_bits(bits: int, rng: random.Random) -> None:
    x = place(rng, draw_shape(rng, 1), None, torch.float32)
    pairs = [
        (
            torch.zeros(x.shape, dtype=torch.int32 if bits > 16 else torch.int16),
            torch.zeros(x.shape[:-1]).int(),
        )
        for _ in range(2)
    ]

    torch_ops.run_quantize(x, bits, *pairs[0])
    fused.run_quantize(x, bits, *pairs[1], threads=2)

    require_equal(pairs[1][0], pairs[0][0])
    require_equal(pairs[1][1], pairs[0][1])


def draw_quantized(sizes: Sequence[int], length: int, bits: int) -> tuple[Tensor, Tensor]:
    """Draw integers [sizes..., length] and exponents; along an axis of size 0 they are constant."""
    bound = QUANTIZED_BOUNDS[bits]
    stored = [max(size, 1) for size in sizes]
    dtype = torch.int32 if bits > 16 else torch.int16
    q = torch.randint(-bound, bound + 1, (*stored, length)).to(dtype)
    exponents = torch.randint(-100, 130, stored, dtype=torch.int32)
    return q, torch.where(torch.rand(stored) < 0.05, 255, exponents).to(torch.int32)


@pytest.mark.parametrize("carrier", ["int8", "int16", "float64"])
def test_dots_give_the_same_bits_for_any_axes_and_widths(
    carrier: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_multiply, "PIECE_BYTES", rng.choice((64, 4096, 1 << 22)))
    kinds = [rng.choice("bmn") for _ in range(rng.randint(1, 4))]
    shape = [rng.choice((1, 2, 3, 5, 17)) for _ in kinds]
    length, widths = (
        rng.choice((1, 2, 31, 100)),
        [rng.choice(list(QUANTIZED_BOUNDS)) for _ in range(2)],
    )
    operands = []
    for absent, bits in zip("nm", widths, strict=True):
        sizes = [0 if kind == absent else size for kind, size in zip(kinds, shape, strict=True)]
        q, exponents = draw_quantized(sizes, length, bits)
        operands += [q.expand(*shape, length), exponents.expand(shape)]
    expected, got = make_destinations(rng, shape, torch.float32)

    torch_ops.run_dot(*operands, *widths, expected, CARRIERS["float64"])
    fused.run_dot(*operands, *widths, got, CARRIERS[carrier], threads=2)

    require_equal(got, expected)


@pytest.mark.parametrize("carrier", ["int8", "int16", "float64"])
def test_a_dot_of_the_greatest_integers_is_exact(carrier: str) -> None:
    q = torch.full((3, 2**16), 32639, dtype=torch.int16)
    q[1] *= -1
    q[2] = -127 * 256 - 128  # the low digit of least value
    exponents = torch.tensor([0, 1, 2], dtype=torch.int32)
    operands = (
        *(q[:, None].expand(3, 3, -1), exponents[:, None].expand(3, 3)),
        *(q[None].expand(3, 3, -1), exponents[None].expand(3, 3)),
    )
    expected, got = torch.zeros(3, 3), torch.zeros(3, 3)

    torch_ops.run_dot(*operands, 16, 16, expected, CARRIERS["float64"])
    fused.run_dot(*operands, 16, 16, got, CARRIERS[carrier])

    require_equal(got, expected)


@pytest.mark.parametrize("carrier", ["int8", "int16"])
def test_a_dot_of_several_blocks_of_rows_columns_and_terms_is_exact(carrier: str) -> None:
    torch.manual_seed(5)
    a, b = draw_quantized((487,), 1031, 16), draw_quantized((45,), 1031, 14)
    operands = (
        *(a[0][:, None].expand(487, 45, -1), a[1][:, None].expand(487, 45)),
        *(b[0][None].expand(487, 45, -1), b[1][None].expand(487, 45)),
    )
    expected, got = torch.zeros(487, 45), torch.zeros(487, 45)

    torch_ops.run_dot(*operands, 16, 14, expected, CARRIERS["float64"])
    fused.run_dot(*operands, 16, 14, got, CARRIERS[carrier], threads=2)

    require_equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_sums_give_the_same_bits(dtype: torch.dtype, rng: random.Random) -> None:
    shape = draw_shape(rng, 1)
    reduced = rng.randint(1, len(shape))
    x = place(rng, shape, None, dtype)
    expected, got = make_destinations(rng, shape[: len(shape) - reduced], dtype)

    torch_ops.run_sum(x, reduced, expected)
    fused.run_sum(x, reduced, got, threads=2)

    require_equal(got, expected)


def test_maxima_give_the_same_bits(rng: random.Random) -> None:
    shape = draw_shape(rng, 1)
    reduced = rng.randint(1, len(shape))
    x = place(rng, shape, None, torch.float32)
    expected, got = make_destinations(rng, shape[: len(shape) - reduced], torch.float32)

    torch_ops.run_max(x, reduced, expected)
    fused.run_max(x, reduced, got, threads=2)

    require_equal(got, expected)


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.float32])
def test_gathers_give_the_same_bits(dtype: torch.dtype, rng: random.Random) -> None:
    shape, bound = draw_shape(rng), rng.choice((1, 2, 50))
    index = place(rng, shape, None, rng.choice(INTEGERS))
    steps = [rng.choice((0, 1, 7)) for _ in shape]
    reach = sum(step * size for step, size in zip(steps, shape, strict=True)) + bound * 5 + 3
    source = draw_flat(rng, dtype, reach)
    expected, got = make_destinations(rng, shape, dtype)

    torch_ops.run_gather(index, source, 3, steps, bound, 5, expected)
    fused.run_gather(index, source, 3, steps, bound, 5, got, threads=2)

    require_equal(got, expected)


def test_scattered_sums_give_the_same_bits(rng: random.Random) -> None:
    shape, bound = draw_shape(rng, 1), rng.choice((1, 2, 50, 3000))
    reduced = rng.randint(1, len(shape))
    index = place(rng, shape, None, torch.int64) % rng.choice((3, 60))
    x = place(rng, shape, None, torch.float32)
    expected, got = (torch.zeros(bound, *shape[reduced:]) for _ in range(2))

    torch_ops.run_scatter_add(index, x, reduced, bound, expected)
    fused.run_scatter_add(index, x, reduced, bound, got, threads=2)

    require_equal(got, expected)


def test_random_words_are_the_same(rng: random.Random) -> None:
    counters = [rng.getrandbits(64) - 2**63 for _ in range(4)]
    expected = torch.zeros(rng.randint(1, 70), dtype=torch.int64)
    got = expected.clone()

    torch_ops.run_random(*counters, expected)
    fused.run_random(*counters, got)

    require_equal(got, expected)
