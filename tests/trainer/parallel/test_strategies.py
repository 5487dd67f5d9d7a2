from math import prod

import pytest

from market.protocol.errors import UnsupportedPartition
from market.protocol.program import Kind, OutputKind, Program, TensorRole
from tests.trainer.parallel.models import lower_llama, lower_mlp
from tests.trainer.programs import build_outer, build_step
from trainer.parallel.partition import Copy, Join, ProgramPartition, Task
from trainer.parallel.stages import cut_evenly
from trainer.parallel.strategies import StrategyName, partition

LAYERS = BATCH = 4


@pytest.fixture(scope="module")
def program() -> Program:
    return lower_llama(LAYERS, BATCH)[0]


def count_products(program: Program) -> int:
    dots = (i for i in program.instructions if i.kind is Kind.DOT)
    return sum(prod(dot.shape) for dot in dots)


def count_parameters(program: Program) -> int:
    return sum(kind.elements for kind in program.find_inputs(TensorRole.BASE).values())


def list_travelling(divided: ProgramPartition) -> set[int]:
    """Return the tensors that travel though they are no results."""
    results = {output.tensor for output in divided.program.outputs}
    return {a.tensor for a in divided.actions if isinstance(a, Join | Copy)} - results


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("strategy", [StrategyName.DATA, StrategyName.TENSOR])
def test_each_rank_does_its_share_of_the_multiplications(
    program: Program, strategy: StrategyName, world: int
) -> None:
    divided = partition(program, world, strategy)

    assert [divided.count_products(rank) for rank in range(world)] == [
        count_products(program) // world
    ] * world


def test_each_stage_does_the_multiplications_of_its_layers(program: Program) -> None:
    divided = partition(program, LAYERS, StrategyName.PIPELINE)
    products = [divided.count_products(rank) for rank in range(LAYERS)]

    assert sum(products) == count_products(program)
    assert products[0] == products[1] == products[2]
    assert products[0] < products[3] < 1.5 * products[0]  # the last one has the output layer


def test_the_weights_of_a_layer_are_multiplied_by_one_rank(program: Program) -> None:
    divided = partition(program, 2, StrategyName.PIPELINE)
    users: dict[str, set[int]] = {}
    for task in divided.actions:
        if isinstance(task, Task) and task.instruction.kind is Kind.QUANTIZE:
            name = program.tensors[task.instruction.operands[0].tensor].name
            users.setdefault(".".join(name.split(".")[:2]), set()).update(task.ranks)

    assert [users[f"blocks.{layer}"] for layer in range(LAYERS)] == [{0}, {0}, {1}, {1}]


def test_gradients_are_summed_as_integers_and_no_activations_travel_but_to_a_larger_table(
    program: Program,
) -> None:
    divided = partition(program, 2, StrategyName.DATA)
    summed = {
        view.tensor
        for task in divided.actions
        if isinstance(task, Task) and task.partial and task.instruction.kind is Kind.DOT
        for view in task.instruction.outputs
    }
    matrices = {
        tensor
        for name, tensor in program.find_outputs(OutputKind.GRADIENT).items()
        if len(program.tensors[tensor].type.shape) == 2 and not name.startswith("embedding")
    }

    (scatter,) = (i for i in program.instructions if i.kind is Kind.SCATTER_ADD)

    assert summed == matrices
    assert list_travelling(divided) == {view.tensor for view in scatter.operands}
    assert divided.count_bytes(0) < 8 * count_parameters(program)  # (8 + 4) / 2, and exponents


def test_stages_pass_on_activations_and_gradients_alone(program: Program) -> None:
    divided = partition(program, 2, StrategyName.PIPELINE)
    rows = BATCH * 6

    passed = list_travelling(divided)

    largest = max(program.tensors[tensor].type.elements for tensor in passed)
    assert largest == rows * 32  # the residual stream, or the gradient with respect to it
    assert len(passed) < 8


def test_uneven_parts_are_dealt_out_as_evenly_as_can_be(program: Program) -> None:
    divided = partition(program, 3, StrategyName.DATA)

    assert [divided.count_products(rank) * 4 for rank in range(3)] == [
        count_products(program),
        count_products(program),
        count_products(program) * 2,
    ]


def test_every_micro_batch_is_cut() -> None:
    program, _ = lower_mlp(batch=4, micro_batches=2)

    divided = partition(program, 2, StrategyName.DATA)
    partial = [a for a in divided.actions if isinstance(a, Task) and a.partial]

    assert [divided.count_products(rank) * 2 for rank in range(2)] == [count_products(program)] * 2
    assert sum(task.instruction.kind is Kind.DOT for task in partial) == 8  # 4 matrices, twice


@pytest.mark.parametrize(
    ("strategy", "world", "reason"),
    [
        (StrategyName.DATA, 5, "batches of 4 rows for 5 processes"),
        (StrategyName.PIPELINE, 5, "5 stages for a model of 4 layers"),
    ],
)
def test_more_ranks_than_parts_are_refused(
    program: Program, strategy: StrategyName, world: int, reason: str
) -> None:
    with pytest.raises(UnsupportedPartition, match=reason):
        partition(program, world, strategy)


def test_micro_batches_smaller_than_the_group_are_refused() -> None:
    program, _ = lower_mlp(batch=4, micro_batches=2)

    with pytest.raises(UnsupportedPartition, match="batches of 2 rows for 4 processes"):
        partition(program, 4, StrategyName.DATA)


def test_a_program_without_data_or_layers_is_refused() -> None:
    with pytest.raises(UnsupportedPartition, match="reads no rows of a dataset"):
        partition(build_outer(), 2, StrategyName.DATA)
    with pytest.raises(UnsupportedPartition, match="2 stages for a model of 0 layers"):
        partition(build_step(), 2, StrategyName.PIPELINE)


@pytest.mark.parametrize(
    ("loads", "groups", "cuts"),
    [
        ([1, 1, 1, 1], 2, [2]),
        ([1, 1, 1, 9], 2, [3]),
        ([9, 1, 1, 1], 4, [1, 2, 3]),
        ([2, 3, 4, 5, 6, 7], 3, [3, 5]),
    ],
)
def test_layers_are_cut_so_that_the_busiest_stage_does_least(
    loads: list[int], groups: int, cuts: list[int]
) -> None:
    assert cut_evenly(loads, groups) == cuts
