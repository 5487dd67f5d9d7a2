"""The Triton form against torch's, bit for bit, in Triton's interpreter: on CPU tensors, without a GPU.

What the interpreter cannot show, the machine code that a GPU would run, is compiled and read at the end."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from market.protocol.errors import NondeterministicEnvironment
from market.protocol.program import Op
from tests.trainer.exact.test_fused import (
    INTEGERS,
    draw_code,
    draw_flat,
    draw_quantized,
    make_destinations,
    place,
    require_equal,
)
from tests.trainer.programs import build_step, make_inputs
from trainer.exact import definition, torch_ops, triton_graph, triton_groups, triton_ops
from trainer.exact.carriers import CARRIERS, QUANTIZED_BOUNDS, is_exact, probe_carriers
from trainer.exact.conformance import compute_digest, compute_vectors
from trainer.exact.fused_native import DTYPES, Strided
from trainer.exact.triton_carriers import INTERPRETED, TRITON_CARRIERS, get_digit_type
from trainer.exact.triton_dot import SPAN, Operand, Tile, plan_dot
from trainer.exact.triton_native import Memory, Step
from trainer.exact.triton_quantize import split_digits
from trainer.execution import Executor, StepResult
from trainer.lower.optimizer import AdamW
from trainer.lower.step import DataSpec, lower_step
from trainer.models import Llama, LlamaConfig

# the interpreter computes with numpy, which warns where IEEE-754 has a result
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CPU = torch.device("cpu")
SEEDS = range(4)
MOST_ELEMENTS = 3000
WIDTHS = tuple(QUANTIZED_BOUNDS)
QUICK_VECTORS = (
    *("arithmetic", "unary", "comparisons", "integers", "loads and stores", "strided"),
    *("thresholds", "indexed", "generators"),
)


@pytest.fixture(params=SEEDS)
def rng(request: pytest.FixtureRequest) -> random.Random:
    torch.manual_seed(request.param)
    return random.Random(request.param)


def draw_shape(rng: random.Random, least: int = 0) -> tuple[int, ...]:
    """Draw a shape of few elements: the interpreter is slow."""
    shape = [rng.choice((1, 2, 3, 5, 17, 130)) for _ in range(rng.randint(least, 4))]
    while torch.Size(shape).numel() > MOST_ELEMENTS:
        shape[shape.index(max(shape))] //= 2
    return tuple(shape)


@pytest.fixture(params=["whole groups", "shared groups"])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program reduce whole groups, or many programs share each one."""
    monkeypatch.setattr(triton_groups, "_LONGEST_LINE", 32)
    if request.param == "whole groups":
        monkeypatch.setattr(triton_groups, "ENOUGH_PROGRAMS", 0)


@pytest.mark.parametrize("name", QUICK_VECTORS)
def test_conformance_vectors_give_the_same_bits(name: str) -> None:
    by_triton = compute_vectors(triton_ops, CPU, TRITON_CARRIERS["int8"], (name,))
    by_torch = compute_vectors(torch_ops, CPU, CARRIERS["float64"], (name,))

    assert compute_digest(by_triton) == compute_digest(by_torch)


def test_rounding_to_integers_equals_its_definition_at_every_magnitude() -> None:
    mantissas = [0, 1, 2**22 - 1, 2**22, 2**22 + 1, 2**23 - 1, *(1 << i for i in range(23))]
    patterns = [e << 23 | m | s for e in range(120, 195) for m in mantissas for s in (0, 1 << 31)]
    x = torch.tensor(patterns).to(torch.int32).view(torch.float32)
    out = torch.zeros(len(patterns), dtype=torch.int64)

    triton_ops.run_map([(Op.TO_INT, 0, 0, 0)], (), (), [x], [(1, out)])

    assert out.tolist() == [definition.to_int(pattern) for pattern in patterns]


def test_integers_round_to_the_nearest_float_with_ties_to_even() -> None:
    halves = [(1 << n) + k * (1 << max(n - 24, 0)) for n in range(63) for k in (0, 1, 3, 5)]
    integers = [a + d for a in halves for d in (-1, 0, 1) if a + d < 2**63]
    integers += [-a for a in integers]
    out = torch.zeros(len(integers))

    triton_ops.run_map([(Op.FROM_INT, 0, 0, 0)], (), (), [torch.tensor(integers)], [(1, out)])

    assert (out.view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist() == [
        definition.from_int(a) for a in integers
    ]


def test_random_programs_give_the_same_bits_in_any_view(rng: random.Random) -> None:
    shape = draw_shape(rng)
    ops = [rng.choice(list(Op)) for _ in range(rng.choice((1, 3, 20, 90)))]
    operands = [place(rng, shape, None, dtype) for dtype in (torch.float32, torch.int64)]
    operands += [place(rng, shape, None, rng.choice(INTEGERS)) for _ in range(rng.randint(0, 3))]
    types = ["f", *"i" * (len(operands) - 1), "f", "i"]
    code = draw_code(rng, types, ops)
    registers = [len(types) - 1, *(rng.randrange(len(types)) for _ in range(3))]
    dtypes = [torch.float32 if types[r] == "f" else rng.choice(INTEGERS) for r in registers]
    pairs = [make_destinations(rng, shape, dtype) for dtype in dtypes]

    for ops_module, side in ((torch_ops, 0), (triton_ops, 1)):
        outputs = [(r, pair[side]) for r, pair in zip(registers, pairs, strict=True)]
        ops_module.run_map(code, [0x3DCCCCCD], [23], operands, outputs)

    for expected, got in pairs:
        require_equal(got, expected)


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("bits", WIDTHS)
def test_quantize_gives_the_same_bits(bits: int, rng: random.Random) -> None:
    x = place(rng, draw_shape(rng, 1), None, torch.float32)
    dtype = torch.int32 if bits > 16 else torch.int16
    pairs = [(torch.zeros(x.shape, dtype=dtype), torch.zeros(x.shape[:-1]).int()) for _ in range(2)]

    torch_ops.run_quantize(x, bits, *pairs[0])
    triton_ops.run_quantize(x, bits, *pairs[1])

    require_equal(pairs[1][0], pairs[0][0])
    require_equal(pairs[1][1], pairs[0][1])


@pytest.mark.parametrize("carrier", TRITON_CARRIERS)
def test_dots_give_the_same_bits_for_any_axes_and_widths(carrier: str, rng: random.Random) -> None:
    kinds = [rng.choice("bmn") for _ in range(rng.randint(1, 4))]
    shape = [rng.choice((1, 2, 3, 5, 17)) for _ in kinds]
    length, widths = rng.choice((1, 2, 31, 100)), [rng.choice(WIDTHS) for _ in range(2)]
    operands = []
    for absent, bits in zip("nm", widths, strict=True):
        sizes = [0 if kind == absent else size for kind, size in zip(kinds, shape, strict=True)]
        q, exponents = draw_quantized(sizes, length, bits)
        operands += [q.expand(*shape, length), exponents.expand(shape)]
    expected, got = make_destinations(rng, shape, torch.float32)

    torch_ops.run_dot(*operands, *widths, expected, CARRIERS["float64"])
    triton_ops.run_dot(*operands, *widths, got, TRITON_CARRIERS[carrier])

    require_equal(got, expected)


def multiply(
    a: Tensor, b: Tensor, bits: tuple[int, int], carrier: str, tile: Tile, span: int
) -> Tensor:
    """Return the integer products of the rows of ``a`` and ``b``."""
    out = torch.zeros(len(a), len(b), dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int32)
    memory = Memory([split_digits(a, bits[0]), none, split_digits(b, bits[1]), none, out], CPU)
    views = [
        Strided(entry, DTYPES[torch.int64], 0, strides)
        for entry, strides in ((1, (1, 0)), (3, (0, 1)), (4, (len(b), 1)))
    ]
    operands = Operand(0, bits[0], views[0]), Operand(2, bits[1], views[1])
    shape = len(a), len(b), a.shape[1]
    plan_dot(memory, shape, *operands, views[2], get_digit_type(carrier), tile, span)()
    return out


@pytest.mark.parametrize("carrier", TRITON_CARRIERS)
@pytest.mark.parametrize("tile", [Tile(16, 16, 32, 4, 2), Tile(64, 32, 128, 8, 3)])
@pytest.mark.parametrize("span", [128, SPAN])
def test_no_tile_and_no_span_changes_an_integer(carrier: str, tile: Tile, span: int) -> None:
    torch.manual_seed(3)
    (a, _), (b, _) = draw_quantized((37,), 300, 24), draw_quantized((41,), 300, 16)

    product = multiply(a, b, (24, 16), carrier, tile, span)

    assert torch.equal(product, a.long() @ b.long().T)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_dot_of_the_greatest_integers_and_digits_is_exact(bits: int) -> None:
    bound = QUANTIZED_BOUNDS[bits]
    lowest = -sum(128 << shift for shift in range(0, bits - 8, 8)) - (
        bound >> (bits - 8) << bits - 8
    )
    values = [bound, -bound, lowest if bits > 8 else -bound]
    q = torch.tensor(values, dtype=torch.int32).unsqueeze(1).expand(-1, 2**16)

    product = multiply(q, q, (bits, bits), "int8", Tile(16, 16, 4096, 4, 1), SPAN)

    assert torch.equal(product, q.long() @ q.long().T)


def test_the_carriers_are_exact_here_and_a_wrong_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "trainer.exact.carriers._PROBE_SHAPES", ((2, 3, 5, 130),)
    )  # the rest is slow

    assert probe_carriers(CPU, TRITON_CARRIERS) == {"int8": True, "bf16": True}
    monkeypatch.setattr("trainer.exact.triton_quantize.DIGITS", {8: 1, 14: 1, 16: 1, 24: 1})
    assert not is_exact(TRITON_CARRIERS["int8"], CPU)


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_sums_give_the_same_bits(dtype: torch.dtype, rng: random.Random) -> None:
    shape = draw_shape(rng, 1)
    reduced = rng.randint(1, len(shape))
    x = place(rng, shape, None, dtype)
    expected, got = make_destinations(rng, shape[: len(shape) - reduced], dtype)

    torch_ops.run_sum(x, reduced, expected)
    triton_ops.run_sum(x, reduced, got)

    require_equal(got, expected)


@pytest.mark.usefixtures("division")
def test_maxima_give_the_same_bits(rng: random.Random) -> None:
    shape = draw_shape(rng, 1)
    reduced = rng.randint(1, len(shape))
    x = place(rng, shape, None, torch.float32)
    expected, got = make_destinations(rng, shape[: len(shape) - reduced], torch.float32)

    torch_ops.run_max(x, reduced, expected)
    triton_ops.run_max(x, reduced, got)

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
    triton_ops.run_gather(index, source, 3, steps, bound, 5, got)

    require_equal(got, expected)


def test_scattered_sums_give_the_same_bits(rng: random.Random) -> None:
    shape, bound = draw_shape(rng, 1), rng.choice((1, 2, 50))
    reduced = rng.randint(1, len(shape))
    index = place(rng, shape, None, torch.int64) % rng.choice((3, 60))
    x = place(rng, shape, None, torch.float32)
    expected, got = (torch.zeros(bound, *shape[reduced:]) for _ in range(2))

    torch_ops.run_scatter_add(index, x, reduced, bound, expected)
    triton_ops.run_scatter_add(index, x, reduced, bound, got)

    require_equal(got, expected)


def get_bits(result: StepResult) -> list[Tensor]:
    tensors = (*result.state.values(), *result.gradients.values(), result.metrics)
    return [tensor.reshape(-1).view(torch.int32) for tensor in tensors]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("carrier", TRITON_CARRIERS)
def test_a_step_of_every_kind_of_instruction_gives_the_same_bits(bits: int, carrier: str) -> None:
    program = build_step(bits)
    executor = Executor(program, backend="triton", carrier=TRITON_CARRIERS[carrier])

    result = executor.run_step(make_inputs())
    again = executor.run_step({**make_inputs(1), **result.state})

    reference = Executor(program, backend="torch", carrier=CARRIERS["float64"])
    expected = reference.run_step(make_inputs())
    second = reference.run_step({**make_inputs(1), **expected.state})
    for got, wanted in ((result, expected), (again, second)):
        assert all(map(torch.equal, get_bits(got), get_bits(wanted)))


def test_an_observer_sees_quantized_values_in_the_protocols_form() -> None:
    program = build_step()
    seen: list[list[Tensor]] = [[], []]
    backends = ("triton", TRITON_CARRIERS["int8"]), ("torch", CARRIERS["float64"])

    for values, (backend, carrier) in zip(seen, backends, strict=True):
        executor = Executor(program, backend=backend, carrier=carrier)  # type: ignore[arg-type]
        executor.run_step(
            make_inputs(), lambda _, xs, into=values: into.extend(x.elements.clone() for x in xs)
        )

    for got, expected in zip(*seen, strict=True):
        require_equal(got, expected)


def test_a_training_step_of_a_decoder_equals_the_fused_one() -> None:
    config = LlamaConfig(vocab=31, d_model=16, layers=1, heads=2, kv_heads=1, d_ff=24, length=8)
    lowered = lower_step(Llama(config), None, DataSpec(400, 2, config.length), AdamW())
    tokens = (torch.arange(400) * 7919 % 31).to(torch.uint8)
    state = {**lowered.initial_base, **lowered.initial_slot}
    inputs = {**state, "tokens": tokens, "counters": torch.tensor([5, 0, 1, 0])}

    result = Executor(lowered.program, backend="triton", carrier=TRITON_CARRIERS["int8"]).run_step(
        inputs
    )

    expected = Executor(lowered.program, backend="fused").run_step(inputs)
    assert all(map(torch.equal, get_bits(result), get_bits(expected)))


def test_these_tests_interpret_kernels() -> None:
    assert INTERPRETED


def test_a_step_becomes_a_graph_where_its_tensors_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    class Graph:
        """Stands for CUDA's, for which no device is here."""

        def __init__(self, steps: Sequence[Step]) -> None:
            done.append(f"capture {len(steps)}")

        def replay(self) -> None:
            done.append("replay")

    monkeypatch.setattr(triton_graph, "_capture", Graph)
    keeper = triton_graph.GraphKeeper()
    steps = [lambda: done.append("first"), lambda: done.append("second")]

    for places in ((1, 2), (1, 3), (1, 2), (1, 3), (1, 2)):
        keeper.run(steps, places)

    eager = ["first", "second"]
    assert done == [*eager, *eager, *["capture 2", "replay"] * 2, "replay"]


def test_a_carrier_that_the_kernels_lack_is_refused() -> None:
    with pytest.raises(NondeterministicEnvironment, match="float64"):
        Executor(build_step(), backend="triton", carrier=CARRIERS["float64"])


def run_apart(arguments: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python where kernels are compiled, not interpreted."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, "PYTHONPATH": paths, **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_compiled_kernels_refuse_a_cpu() -> None:
    script = (
        "from tests.trainer.programs import build_step\n"
        "from trainer.exact.carriers import CARRIERS\n"
        "from trainer.execution import Executor\n"
        "Executor(build_step(), backend='triton', carrier=CARRIERS['int8'])\n"
    )

    done = run_apart(["-c", script])

    assert "NondeterministicEnvironment: the Triton kernels run on a GPU, not on cpu" in done.stderr


@pytest.mark.parametrize(
    ("capability", "carrier", "product"),
    [("90", "int8", r"wgmma\S*\.s32\.s8\.s8"), ("80", "bf16", r"mma\.sync\S*\.bf16\.bf16")],
)
def test_machine_code_rounds_where_the_definition_does_and_nowhere_else(
    capability: str, carrier: str, product: str, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("compile_kernels.py")

    done = run_apart([str(script), capability, carrier], TRITON_CACHE_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    text = "\n".join(path.read_text() for path in tmp_path.glob("**/*.ptx"))
    floats = set(re.findall(r"^\s*(?:@!?%p\d+ )?(\w+\S*\.f32\S*)", text, re.MULTILINE))
    rounded = {
        name for name in floats if name.split(".")[0] in ("add", "sub", "mul", "div", "sqrt")
    }
    assert rounded == {f"{name}.rn.f32" for name in ("add", "sub", "mul", "div", "sqrt")}
    assert not [name for name in floats if "ftz" in name or "fma" in name or "approx" in name]
    assert {"cvt.rn.f32.s64", "cvt.rzi.s64.f32"} <= floats
    assert re.search(product, text)
    assert re.search(r"(atom|red)\S*\.add\.u64", text)
    assert re.search(r"(atom|red)\S*\.max\.s32", text)
