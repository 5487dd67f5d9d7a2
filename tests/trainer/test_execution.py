import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from market.protocol.errors import (
    InsufficientMemory,
    InvalidBlob,
    NondeterministicEnvironment,
)
from market.protocol.program import Kind, Op, Output, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype
from market.protocol.validity import require_valid_program
from tests.trainer.programs import Draft, build_chain, build_outer, build_step, make_inputs
from trainer.exact.carriers import CARRIERS
from trainer.execution import BackendName, Executor, StepResult, Value

PROGRAM = build_step()
Snapshot = list[tuple[Tensor, Tensor | None]]
EXECUTORS: dict[str, Callable[[], Executor]] = {
    "fused int8": lambda: Executor(PROGRAM, carrier=CARRIERS["int8"], threads=2),
    "fused int8 1 thread": lambda: Executor(PROGRAM, carrier=CARRIERS["int8"], threads=1),
    "fused float64": lambda: Executor(PROGRAM, carrier=CARRIERS["float64"]),
    "torch float64": lambda: Executor(PROGRAM, backend="torch", carrier=CARRIERS["float64"]),
    "torch int8": lambda: Executor(PROGRAM, backend="torch", carrier=CARRIERS["int8"]),
}


def get_bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def get_all_bits(result: StepResult) -> list[bytes]:
    tensors = (*result.state.values(), *result.gradients.values(), result.metrics)
    return [get_bits(tensor) for tensor in tensors]


def record(executor: Executor, inputs: dict[str, Tensor]) -> dict[int, Snapshot]:
    values: dict[int, Snapshot] = {}

    def observe(i: int, outputs: tuple[Value, ...]) -> None:
        values[i] = [
            (x.elements.clone(), None if x.exponents is None else x.exponents.clone())
            for x in outputs
        ]

    executor.run_step(inputs, observe)
    return values


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


def test_the_programs_of_these_tests_are_valid() -> None:
    kinds = {instruction.kind for instruction in PROGRAM.instructions}

    require_valid_program(PROGRAM)
    require_valid_program(build_outer())
    require_valid_program(build_chain(3, 10))

    assert kinds == set(Kind)


def test_every_backend_carrier_and_thread_count_gives_the_same_bits(executor: Executor) -> None:
    reference = Executor(PROGRAM, backend="torch", carrier=CARRIERS["float64"])

    for step in range(3):
        results = [e.run_step(make_inputs(step)) for e in (executor, reference)]

        assert get_all_bits(results[0]) == get_all_bits(results[1])


@pytest.mark.parametrize("bits", [8, 14, 24])
@pytest.mark.parametrize("carrier", ["int8", "float64"])
def test_every_width_gives_the_same_bits(bits: int, carrier: str) -> None:
    program = build_step(bits)
    reference = Executor(program, backend="torch", carrier=CARRIERS["float64"])

    result = Executor(program, carrier=CARRIERS[carrier]).run_step(make_inputs())

    assert get_all_bits(result) == get_all_bits(reference.run_step(make_inputs()))


def test_a_step_changes_no_input_and_no_earlier_result(executor: Executor) -> None:
    inputs = make_inputs()
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    first = executor.run_step(inputs)
    bits = get_all_bits(first)

    second = executor.run_step({**inputs, **first.state})
    again = executor.run_step(inputs)

    assert all(torch.equal(inputs[name], tensor) for name, tensor in before.items())
    assert get_all_bits(first) == bits == get_all_bits(again)
    assert get_all_bits(second) != bits


def test_results_come_in_declaration_order(executor: Executor) -> None:
    result = executor.run_step(make_inputs())

    assert list(result.state) == ["w", "w.moment"]
    assert list(result.gradients) == ["w"]
    assert result.metrics.shape == (2,)


def test_released_memory_is_written_again_but_never_under_an_input(executor: Executor) -> None:
    inputs = make_inputs()
    first = executor.run_step(inputs)
    expected = get_all_bits(executor.run_step({**inputs, **first.state}))
    addresses = {tensor.data_ptr() for tensor in first.state.values()}
    executor.release(first)

    second = executor.run_step({**inputs, **first.state})
    third = executor.run_step(inputs)

    assert get_all_bits(second) == expected
    assert {tensor.data_ptr() for tensor in third.state.values()} == addresses


def find_addresses(result: StepResult) -> list[int]:
    tensors = (*result.state.values(), *result.gradients.values(), result.metrics)
    return [tensor.data_ptr() for tensor in tensors]


def test_what_is_spent_is_written_in_place_with_the_same_bits(executor: Executor) -> None:
    inputs = make_inputs()
    first = executor.run_step(inputs)
    expected = get_all_bits(executor.run_step({**inputs, **first.state}))
    addresses = find_addresses(first)

    second = executor.run_step({**inputs, **first.state}, spent=first)

    assert get_all_bits(second) == expected
    assert find_addresses(second) == addresses
    assert first.state == first.gradients == {}


def test_what_is_spent_but_no_input_is_memory_for_the_results(executor: Executor) -> None:
    inputs = make_inputs()
    first = executor.run_step(inputs)
    expected, addresses = get_all_bits(first), find_addresses(first)

    again = executor.run_step(inputs, spent=first)

    assert get_all_bits(again) == expected
    assert find_addresses(again) == addresses


def test_state_that_two_inputs_share_is_not_written_in_place() -> None:
    executor, inputs = Executor(PROGRAM), make_inputs()
    first = executor.run_step(inputs)
    shared = {**inputs, "w": first.state["w"], "w.moment": first.state["w"]}
    expected = get_all_bits(executor.run_step(shared))
    before = first.state["w"].clone()

    second = executor.run_step(shared, spent=first)

    assert get_all_bits(second) == expected
    assert torch.equal(shared["w"], before)


def build_update(*, late: bool = False, across: bool = False, stored: bool = False) -> Program:
    """Return a step that adds 1 to a matrix ``w`` and gives its total.

    The total is ``late`` if it is read after the addition; ``across`` adds the transposed matrix, and
    ``stored`` keeps the matrix in ``v`` as it is."""
    draft, size = Draft(), 3
    w, v = (draft.declare(Dtype.F32, size, size, role=TensorRole.BASE, name=n) for n in "wv")
    next_w, next_v = (draft.declare(Dtype.F32, size, size) for _ in range(2))
    total = draft.declare(Dtype.F32)
    reads = [draft.view(w), draft.view(v, 1, size) if across else draft.view(v)]
    stores = [
        replace(draft.view(next_w), register=2),
        replace(draft.view(next_v), register=0 if stored else 3),
    ]
    code = ((Op.ADD, 0, 1, 0), (Op.ADD, 1, 0, 0))
    draft.run(Kind.MAP, (size, size), reads, *stores, code=code)
    draft.run(Kind.SUM, (9,), [draft.view(w, 1)], draft.view(total, 0), reduced=1)
    if not late:
        draft.instructions.reverse()
    draft.outputs = [
        Output(OutputKind.NEXT_STATE, next_w, "w", w),
        Output(OutputKind.NEXT_STATE, next_v, "v", v),
        Output(OutputKind.GRADIENT, total, "total"),
    ]
    return draft.finish()


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize(
    ("update", "in_place"),
    [
        ({}, {"w", "v"}),
        ({"late": True}, {"v"}),
        ({"across": True}, {"w"}),
        ({"stored": True}, set()),
    ],
)
def test_an_input_is_overwritten_only_where_nobody_reads_it_again(
    backend: BackendName, update: dict[str, bool], in_place: set[str]
) -> None:
    program = build_update(**update)
    require_valid_program(program)
    executor = Executor(program, backend=backend, carrier=CARRIERS["float64"])
    first = executor.run_step({name: torch.randn(3, 3) for name in "wv"})
    expected = get_all_bits(executor.run_step(first.state))
    inputs = dict(first.state)

    second = executor.run_step(inputs, spent=first)

    assert get_all_bits(second) == expected
    assert {n for n in "wv" if second.state[n].data_ptr() == inputs[n].data_ptr()} == in_place


def test_a_step_after_the_second_allocates_nothing() -> None:
    executor, inputs = Executor(PROGRAM, threads=1), make_inputs()
    result = executor.run_step(inputs)
    result = executor.run_step({**inputs, **result.state}, spent=result)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        executor.run_step({**inputs, **result.state}, spent=result)

    events = profiler.profiler.kineto_results.events()
    assert any(event.name() == "aten::_int_mm" for event in events)
    assert [event.nbytes() for event in events if event.nbytes() > 0] == []


def test_a_step_says_what_it_needs_and_a_machine_without_it_refuses_to_begin() -> None:
    draft, side = Draft(), 1 << 20
    w = draft.declare(Dtype.F32, side, side, role=TensorRole.BASE, name="w")
    between, following = (draft.declare(Dtype.F32, side, side) for _ in range(2))
    for source, target in ((w, between), (between, following)):
        store = replace(draft.view(target), register=1)
        code = ((Op.ADD, 0, 0, 0),)
        draft.run(Kind.MAP, (side, side), [draft.view(source)], store, code=code)
    draft.outputs = [Output(OutputKind.NEXT_STATE, following, "w", w)]

    with pytest.raises(InsufficientMemory) as caught:
        Executor(draft.finish())

    tensor = "4,194,304.0 MiB"
    needed = re.match(
        r"a step takes ([\d,.]+) MiB \((.+) of inputs, (.+) of results", str(caught.value)
    )
    assert needed is not None
    assert float(needed[1].replace(",", "")) > 2 * 2**22
    assert (needed[2], needed[3]) == (tensor, tensor)
    assert re.search(
        r"this machine has [\d,.]+ MiB, of which [\d,.]+ MiB are free", str(caught.value)
    )


def test_an_observer_sees_what_every_instruction_wrote(executor: Executor) -> None:
    reference = Executor(PROGRAM, backend="torch", carrier=CARRIERS["float64"])
    inputs = make_inputs()

    seen, expected = record(executor, inputs), record(reference, inputs)

    assert list(seen) == list(range(len(PROGRAM.instructions)))
    for i, values in seen.items():
        for (x, exponents), (y, other) in zip(values, expected[i], strict=True):
            assert x.shape == y.shape
            assert x.dtype == y.dtype
            assert get_bits(x) == get_bits(y)
            assert (exponents is None) == (other is None)
            assert exponents is None or (other is not None and torch.equal(exponents, other))


def test_observed_values_are_the_results(executor: Executor) -> None:
    values: dict[int, tuple[Tensor, ...]] = {}

    result = executor.run_step(
        make_inputs(),
        lambda i, outputs: values.update({i: tuple(x.elements.clone() for x in outputs)}),
    )

    update = next(i for i, x in enumerate(PROGRAM.instructions) if len(x.operands) == 4 and x.code)
    assert torch.equal(values[update][0], result.state["w"])
    assert torch.equal(
        torch.cat([values[len(values) - 2][0], values[len(values) - 1][0]]), result.metrics
    )


def test_a_state_that_is_not_finite_runs_to_its_end(executor: Executor) -> None:
    inputs = make_inputs()
    inputs["w"] = torch.full_like(inputs["w"], float("inf"))
    inputs["w"][0, 0] = float("nan")

    result = executor.run_step(inputs)
    result = executor.run_step({**inputs, **result.state})

    patterns = result.state["w"].view(torch.int32)
    assert torch.equal(patterns, torch.full_like(patterns, 0x7FC00000))


def test_an_outer_step_runs_and_an_unchanged_tensor_is_the_input_itself() -> None:
    inputs = {
        "w": torch.zeros(2, 3),
        "kept": torch.tensor([3, 4], dtype=torch.int32),
        "0/w": torch.ones(2, 3),
        "1/w": torch.full((2, 3), 2.0),
    }

    result = Executor(build_outer()).run_step(inputs)

    assert torch.equal(result.state["w"], torch.full((2, 3), 3.0))
    assert result.state["kept"] is inputs["kept"]
    assert result.metrics.shape == (0,)


def test_memory_between_instructions_is_reused() -> None:
    short, long = Executor(build_chain(4, 1000)), Executor(build_chain(40, 1000))

    assert long.arena_bytes == short.arena_bytes < 3 * 4096
    assert torch.equal(
        long.run_step({"w": torch.ones(1000)}).state["w"], torch.full((1000,), 2.0**40)
    )


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("w", torch.zeros(4, 3)),
        ("w", torch.zeros(3, 4, dtype=torch.float64)),
        ("w.moment", torch.zeros(4, 3).t()),
        ("tokens", torch.zeros(63, dtype=torch.uint8)),
        ("counters", torch.zeros(4, dtype=torch.int32)),
        ("stranger", torch.zeros(1)),
    ],
)
def test_an_input_of_another_type_is_refused_by_name(name: str, tensor: Tensor) -> None:
    inputs = {**make_inputs(), name: tensor}

    with pytest.raises(InvalidBlob, match=name):
        Executor(PROGRAM).run_step(inputs)


def test_a_missing_input_is_refused_by_name() -> None:
    inputs = make_inputs()
    del inputs["tokens"]

    with pytest.raises(InvalidBlob, match="tokens"):
        Executor(PROGRAM).run_step(inputs)


def test_a_carrier_without_fused_kernels_is_refused() -> None:
    with pytest.raises(NondeterministicEnvironment, match="bf16"):
        Executor(PROGRAM, carrier=CARRIERS["bf16"])


def test_the_process_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()

    Executor(PROGRAM, threads=before + 1).run_step(make_inputs())

    assert torch.get_num_threads() == before


def test_kernels_compile_in_a_fresh_process_into_the_directory_it_names(tmp_path: Path) -> None:
    script = (
        "from tests.trainer.programs import build_chain\n"
        "from trainer.execution import Executor\n"
        "import torch\n"
        "print(Executor(build_chain(1, 8)).run_step({'w': torch.ones(8)}).state['w'].sum().item())\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["16.0"]
    assert list(tmp_path.glob("kernels-*/**/*.nbc"))


def test_a_processor_without_vnni_takes_another_carrier_and_gives_the_same_bits() -> None:
    script = (
        "from tests.trainer.programs import build_step, make_inputs\n"
        "from trainer.execution import Executor\n"
        "import torch\n"
        "result = Executor(build_step()).run_step(make_inputs())\n"
        "print(result.state['w'].view(torch.int32).tolist(), result.metrics.view(torch.int32).tolist())\n"
    )
    capped = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    expected = Executor(PROGRAM).run_step(make_inputs())

    done = subprocess.run(
        [sys.executable, "-c", script], env=capped, capture_output=True, text=True, check=True
    )

    state, metrics = (x.view(torch.int32).tolist() for x in (expected.state["w"], expected.metrics))
    assert done.stdout.strip() == f"{state} {metrics}"
