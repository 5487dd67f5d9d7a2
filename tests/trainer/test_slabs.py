from itertools import product

import pytest

from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import Dtype, TensorType
from tests.trainer.decoders import lower_decoder, make_decoder_inputs
from tests.trainer.test_execution import get_all_bits
from trainer import slabs
from trainer.exact.carriers import CARRIERS
from trainer.execution import BackendName, Executor
from trainer.plan import Unit
from trainer.slabs import arrange, find_split, list_units, slice_instruction

F32 = Dtype.F32


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small tensors be worth a slab: at the size at which they are, tests would take minutes."""
    monkeypatch.setattr(slabs, "LEAST_BYTES", 1 << 14)
    monkeypatch.setattr(slabs, "LEAST_PART", 1 << 10)
    monkeypatch.setattr(slabs, "LAUNCH_BYTES", 1 << 8)


def list_elements(view: View, instruction: Instruction) -> list[int]:
    """Return the elements that an operand's or an output's view goes through, in order."""
    ends = (
        range(0, n * step, step) if step else [0]
        for n, step in zip(instruction.shape, view.strides, strict=True)
    )
    return [view.offset + sum(index) for index in product(*ends)]


@pytest.mark.parametrize(
    ("shape", "strides", "slabs", "expected"),
    [
        ((8, 16), (16, 1), 4, ((0, 2, 1),)),
        ((8, 16), (16, 1), 32, ((0, 1, 4), (1, 4, 1))),
        ((128,), (1,), 4, ((0, 32, 1),)),
        ((2, 4, 16), (64, 16, 1), 4, ((0, 1, 2), (1, 2, 1))),
        ((16, 8), (1, 16), 4, ((1, 2, 1),)),  # another order of axes
        ((8, 8), (16, 1), 4, ((0, 2, 1),)),  # half of each row
        ((8, 16), (16, 1), 3, None),
        ((8, 16), (0, 1), 4, None),  # each part reads it all
        ((4, 16), (16, 1), 4, None),  # only half of the parts
        ((16, 8), (1, 16), 32, ((0, 4, 1), (1, 1, 4))),
    ],
)
def test_an_iteration_is_split_where_its_view_is(shape, strides, slabs, expected):
    assert find_split(View(0, 0, strides), shape, TensorType(F32, (128,)), slabs) == expected


def test_a_view_that_begins_in_a_later_part_or_reaches_one_cannot_be_split():
    kind = TensorType(F32, (8, 16))

    assert find_split(View(0, 8, (16, 1)), (8, 8), kind, 8) == ((0, 1, 1),)
    assert find_split(View(0, 8, (16, 1)), (8, 8), kind, 8, reach=1) is None
    assert find_split(View(0, 16, (16, 1)), (7, 16), kind, 8) is None


def test_rows_of_a_quantized_tensor_stay_whole():
    kind = TensorType(Dtype.I16, (8, 16), 16)

    assert find_split(View(0, 0, (16, 1)), (8, 16), kind, 8) == ((0, 1, 1),)
    assert find_split(View(0, 0, (16, 1)), (8, 16), kind, 16) is None


def check_unit(program: Program, unit: Unit) -> None:
    """Assert that parts stay apart where they must, and that together they write what the whole does."""
    instructions = [program.instructions[i] for i in unit.members]
    shared = {v.tensor for x in instructions for v in x.outputs}
    shared &= {v.tensor for x in instructions for v in x.operands}
    assert unit.internal <= shared
    for at, whole in enumerate(instructions):
        written: list[list[int]] = [[] for _ in whole.outputs]
        for slab in range(unit.slabs):
            part = slice_instruction(program, unit, at, slab)
            for n, view in enumerate((*part.outputs, *part.operands)):
                size = program.tensors[view.tensor].type.elements // unit.slabs
                begin = slab * size if view.tensor in unit.internal else 0
                found = [e + begin for e in list_elements(view, part)]
                own = range(slab * size, (slab + 1) * size)
                assert view.tensor not in shared or all(e in own for e in found)
                if n < len(written):
                    written[n] += found
        for view, found in zip(whole.outputs, written, strict=True):
            assert sorted(found) == sorted(list_elements(view, whole))


@pytest.mark.usefixtures("small")
def test_slabs_of_a_unit_touch_what_they_share_each_in_its_own_part():
    program = lower_decoder().program

    units = [unit for unit in arrange(program) if unit.slabs > 1]

    kinds = {program.instructions[i].kind for unit in units for i in unit.members}
    assert {Kind.MAP, Kind.QUANTIZE, Kind.DOT, Kind.SUM, Kind.MAX} <= kinds
    for unit in units:
        check_unit(program, unit)


@pytest.mark.usefixtures("small")
def test_units_run_every_instruction_once_and_write_before_they_read():
    program = lower_decoder().program

    members = [i for unit in arrange(program) for i in unit.members]

    assert sorted(members) == sorted(i for unit in list_units(program) for i in unit.members)
    at = {number: place for place, number in enumerate(members)}
    writers = {v.tensor: i for i in members for v in program.instructions[i].outputs}
    for number in members:
        for view in program.instructions[number].operands:
            assert at[writers.get(view.tensor, number)] <= at[number]


@pytest.mark.parametrize(
    ("backend", "carrier"), [("fused", "int8"), ("fused", "float64"), ("torch", "float64")]
)
def test_a_step_in_slabs_gives_the_same_bits_in_less_memory(
    backend: BackendName, carrier: str, request: pytest.FixtureRequest
) -> None:
    step = lower_decoder()
    inputs = make_decoder_inputs(step)
    plain = Executor(step.program, backend="fused", carrier=CARRIERS["float64"])
    request.getfixturevalue("small")

    executor = Executor(step.program, backend=backend, carrier=CARRIERS[carrier])

    assert executor.arena_bytes < plain.arena_bytes
    state = {**step.initial_base, **step.initial_slot}
    for _ in range(2):
        found, expected = (e.run_step({**inputs, **state}) for e in (executor, plain))
        assert get_all_bits(found) == get_all_bits(expected)
        state = expected.state


@pytest.mark.usefixtures("small")
def test_an_observer_of_a_step_in_slabs_sees_whole_values_in_order() -> None:
    step = lower_decoder()
    inputs, program = make_decoder_inputs(step), step.program
    executor = Executor(program, backend="fused", carrier=CARRIERS["float64"])
    order, largest = [], []

    result = executor.run_step(
        inputs,
        lambda i, values: (
            order.append(i),
            largest.append(max(value.elements.numel() for value in values)),
        ),
    )

    assert order == list(range(len(program.instructions)))
    assert max(largest) >= 2 * 2 * 64 * 64
    assert get_all_bits(result) == get_all_bits(executor.run_step(inputs))


@pytest.mark.usefixtures("small")
def test_who_listens_hears_of_an_instruction_in_slabs_each_time_it_runs() -> None:
    step = lower_decoder()
    executor = Executor(step.program, backend="fused", carrier=CARRIERS["float64"])
    heard: list[int] = []

    executor.run_step(make_decoder_inputs(step), after=heard.append)

    expected = [
        i for unit in arrange(step.program) for _ in range(unit.slabs) for i in unit.members
    ]
    assert heard == expected
