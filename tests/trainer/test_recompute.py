from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from market.protocol.program import Instruction, Kind, Op, Output, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype
from market.protocol.validity import require_valid_program
from tests.trainer.decoders import lower_decoder, make_decoder_inputs
from tests.trainer.programs import Draft
from tests.trainer.test_execution import get_all_bits
from trainer.exact.carriers import CARRIERS
from trainer.execution import Executor
from trainer.lower import recompute
from trainer.lower.recompute import Recompute, recompute_values
from trainer.plan import plan_memory
from trainer.slabs import arrange, list_units

LENGTH = 64
SCORES = 2 * 2 * LENGTH * LENGTH  # elements: batch, heads, queries, keys


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small values be worth computing again: at the size at which they are, tests would take minutes."""
    monkeypatch.setattr(recompute, "_LEAST_BYTES", 1 << 10)
    monkeypatch.setattr(recompute, "_EXPANSION", 2)


def make_executor(program: Program) -> Executor:
    return Executor(program, backend="fused", carrier=CARRIERS["float64"])


def count_arena(program: Program) -> int:
    return plan_memory(program, list_units(program), lambda kind: kind.nbytes, 0).arena


def find_distances(program: Program, elements: int) -> list[int]:
    """Return how many instructions lie between uses, one after the other, of values of so many elements."""
    uses: dict[int, list[int]] = {}
    for i, instruction in enumerate(program.instructions):
        for view in (*instruction.outputs, *instruction.operands):
            if program.tensors[view.tensor].type.elements == elements:
                uses.setdefault(view.tensor, []).append(i)
    return [b - a for found in uses.values() for a, b in pairwise(found)]


def train(program: Program, steps: int = 2) -> list[list[bytes]]:
    step, executor = lower_decoder(), make_executor(program)
    state, found = {**step.initial_base, **step.initial_slot}, []
    for _ in range(steps):
        result = executor.run_step({**make_decoder_inputs(step), **state})
        found.append(get_all_bits(result))
        state = result.state
    return found


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("level", [Recompute.ATTENTION, Recompute.CHEAP])
def test_what_is_computed_again_is_equal_and_takes_less_memory(level: Recompute) -> None:
    program = lower_decoder().program

    found = recompute_values(program, level)

    require_valid_program(found)
    assert train(found) == train(program)
    assert count_arena(found) < count_arena(program)
    assert found.find_inputs(*TensorRole) == program.find_inputs(*TensorRole)


@pytest.mark.usefixtures("small")
def test_scores_are_not_kept_from_the_forward_pass() -> None:
    program = lower_decoder().program

    found = recompute_values(program, Recompute.ATTENTION)

    assert max(find_distances(program, SCORES)) > 50
    assert max(find_distances(found, SCORES)) < 30


@pytest.mark.usefixtures("small")
def test_cheap_values_save_more_than_attention_alone() -> None:
    program = lower_decoder().program

    cheap, attention = (
        recompute_values(program, level) for level in (Recompute.CHEAP, Recompute.ATTENTION)
    )

    assert count_arena(cheap) < count_arena(attention)


def test_small_values_are_kept_and_the_program_stays_what_it_was() -> None:
    program = lower_decoder().program

    assert recompute_values(program, Recompute.CHEAP) is program
    assert recompute_values(program, Recompute.NOTHING) is program


@pytest.mark.usefixtures("small")
def test_transposed_copies_let_every_score_live_in_a_block_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = lower_decoder().program
    monkeypatch.setattr(recompute, "_LEAST_MATRIX_BYTES", 1)
    monkeypatch.setattr("trainer.slabs.LEAST_BYTES", 1 << 14)
    monkeypatch.setattr("trainer.slabs.LEAST_PART", 1 << 10)
    monkeypatch.setattr("trainer.slabs.LAUNCH_BYTES", 1 << 6)

    found = recompute_values(program, Recompute.ATTENTION)

    require_valid_program(found)
    assert train(found) == train(program)
    internal = {t: unit.slabs for unit in arrange(found) for t in unit.internal}
    scores = [t for t, x in enumerate(found.tensors) if x.type.elements == SCORES]
    assert len(scores) > 20
    assert all(internal[t] > 4 for t in scores)  # parts of one head of one sequence
    across = [x for x in found.instructions if x.kind is Kind.QUANTIZE and reads_scores(found, x)]
    assert len(across) > 4
    assert all(x.operands[0].strides[-1] == 1 for x in across)


def reads_scores(program: Program, instruction: Instruction) -> bool:
    return program.tensors[instruction.operands[0].tensor].type.elements == SCORES


def build_late(writer: Kind = Kind.MAP) -> Program:
    """Return a step that reads ``x``, the double of its state, before and after a long chain.

    With another ``writer`` the chain's end is read through that kind of instruction."""
    draft, size = Draft(), 1 << 19
    w = draft.declare(Dtype.F32, size, role=TensorRole.BASE, name="w")

    def add(a: int, b: int) -> int:
        out = draft.declare(Dtype.F32, size)
        store = replace(draft.view(out), register=2)
        views = [draft.view(a), draft.view(b)]
        draft.run(Kind.MAP, (size,), views, store, code=((Op.ADD, 0, 1, 0),))
        return out

    doubled = add(w, w)
    last = add(doubled, w)
    for _ in range(30):
        last = add(last, last)
    draft.outputs = [Output(OutputKind.NEXT_STATE, add(doubled, last), "w", w)]
    if writer is not Kind.MAP:
        draft.outputs.append(Output(OutputKind.GRADIENT, doubled, "doubled"))
    return draft.finish()


def test_a_late_reader_gets_a_copy_right_before_it() -> None:
    program = build_late()

    found = recompute_values(program, Recompute.CHEAP)

    require_valid_program(found)
    assert len(found.instructions) == len(program.instructions) + 1
    copy, reader = found.instructions[-2:]
    assert copy.code == program.instructions[0].code
    assert (
        reader.operands[0].tensor
        == copy.outputs[0].tensor
        != program.instructions[0].outputs[0].tensor
    )
    inputs = {"w": torch.randn(1 << 19)}
    expected, result = (make_executor(p).run_step(inputs) for p in (program, found))
    assert get_all_bits(result) == get_all_bits(expected)


def test_an_output_is_never_computed_again() -> None:
    program = build_late(Kind.SUM)

    assert recompute_values(program, Recompute.CHEAP) is program
