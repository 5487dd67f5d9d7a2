"""Divided steps in one process: ranks are threads, and every rank ends with the bits of one process alone."""

from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from market.protocol.errors import UnsupportedPartition
from market.protocol.program import Kind, Op, Output, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype
from market.protocol.validity import require_valid_program
from tests.trainer.parallel.models import get_bits, lower_llama, lower_mlp, make_dataset, run_steps
from tests.trainer.parallel.threads import ThreadCommunicator, run_ranks
from tests.trainer.programs import Draft, build_step, make_inputs
from trainer.execution import Executor
from trainer.parallel.executor import ParallelExecutor
from trainer.parallel.strategies import StrategyName

Job = tuple[Program, Mapping[str, Tensor]]
JOBS: dict[str, Callable[[], Job]] = {
    "llama": lambda: lower_llama(4, 4),
    "mlp": lambda: lower_mlp(4, 2),
    "by hand": lambda: (build_step(), {n: x for n, x in make_inputs().items() if n[0] == "w"}),
}


@cache
def run_alone(job: str) -> list[dict[str, bytes]]:
    program, state = JOBS[job]()
    return run_steps(Executor(program, threads=1), state)


@pytest.mark.parametrize(
    ("job", "world", "strategy"),
    [
        ("llama", 3, StrategyName.DATA),  # 4 rows, 4 heads, 32 and 40 features and 4 layers: uneven
        ("llama", 3, StrategyName.TENSOR),
        ("llama", 3, StrategyName.PIPELINE),
        ("mlp", 2, StrategyName.DATA),  # dropout and micro-batches
        ("mlp", 4, StrategyName.TENSOR),
        ("mlp", 2, StrategyName.PIPELINE),
        ("by hand", 4, StrategyName.DATA),  # every kind of instruction, 5 rows
        ("by hand", 2, StrategyName.TENSOR),
    ],
)
def test_every_rank_returns_the_bits_of_one_process(
    job: str, world: int, strategy: StrategyName
) -> None:
    program, state = JOBS[job]()

    results = run_ranks(
        world,
        lambda others: run_steps(ParallelExecutor(program, strategy, others, threads=1), state),
    )

    assert results == [run_alone(job)] * world


def test_torch_s_operations_give_the_same_bits_as_the_fused_kernels() -> None:
    program, state = JOBS["by hand"]()

    results = run_ranks(
        2,
        lambda others: run_steps(
            ParallelExecutor(program, StrategyName.DATA, others, backend="torch"), state
        ),
    )

    assert results == [run_alone("by hand")] * 2


def build_join(columns: int) -> Program:
    """Return a step that joins a product of its batch, and as many columns of ones, in one matrix."""
    draft = Draft()
    w = draft.declare(Dtype.F32, columns, 4, role=TensorRole.BASE, name="w")
    data = draft.declare(Dtype.U8, 8, 4, role=TensorRole.DATASET, name="tokens")
    rows = draft.declare(Dtype.I64, 6)
    draft.run(Kind.IOTA, (6,), [], draft.view(rows), attributes=(0, 1))
    batch = draft.declare(Dtype.U8, 6, 4)
    reads = [draft.view(rows, 1, 0), draft.view(data, 0, 1)]
    draft.run(Kind.GATHER, (6, 4), reads, draft.view(batch), attributes=(8, 4))
    x = draft.declare(Dtype.F32, 6, 4)
    convert = draft.view(x, 4, 1, register=1)
    draft.run(Kind.MAP, (6, 4), [draft.view(batch)], convert, code=((Op.FROM_INT, 0, 0, 0),))
    y = draft.multiply(
        draft.quantize(draft.view(x), 6, 4), draft.quantize(draft.view(w), columns, 4)
    )
    both = draft.declare(Dtype.F32, 6, columns + 3)
    left, right = draft.view(both, columns + 3, 1), draft.view(both, columns + 3, 1, offset=columns)
    draft.run(Kind.MAP, (6, columns), [draft.view(y)], left)
    draft.run(Kind.MAP, (6, 3), [], right, f32_constants=(0x3F800000,))
    draft.outputs = [
        Output(OutputKind.NEXT_STATE, w, "w", w),
        Output(OutputKind.GRADIENT, both, "both"),
    ]
    return draft.finish()


@pytest.mark.parametrize("strategy", [StrategyName.DATA, StrategyName.TENSOR])
def test_a_matrix_written_by_instructions_that_are_cut_apart_is_whole(
    strategy: StrategyName,
) -> None:
    program = build_join(5)
    require_valid_program(program)
    inputs = {"w": torch.randn(5, 4), "tokens": make_dataset(program)}

    results = run_ranks(
        2,
        lambda others: get_bits(ParallelExecutor(program, strategy, others).run_step(inputs)),
    )

    assert results == [get_bits(Executor(program).run_step(inputs))] * 2


@pytest.mark.parametrize("strategy", StrategyName)
def test_the_bytes_that_are_counted_are_those_that_arrive(strategy: StrategyName) -> None:
    program, state = JOBS["llama"]()

    def count(others: ThreadCommunicator) -> tuple[int, int]:
        executor = ParallelExecutor(program, strategy, others, threads=1)
        others.received = 0
        run_steps(executor, state)
        return others.received // 2, executor.partition.count_bytes(others.rank)

    for arrived, counted in run_ranks(2, count):
        assert arrived == pytest.approx(counted, rel=0.002)


def test_ranks_that_divide_a_program_in_different_ways_refuse_it() -> None:
    program, ways = build_step(), (StrategyName.DATA, StrategyName.TENSOR)

    with pytest.raises(UnsupportedPartition, match="is it another release"):
        run_ranks(2, lambda others: ParallelExecutor(program, ways[others.rank], others, threads=1))


def test_a_rank_keeps_less_between_inputs_and_results() -> None:
    program, _ = JOBS["llama"]()

    sizes = run_ranks(
        4,
        lambda others: ParallelExecutor(program, StrategyName.DATA, others, threads=1).arena_bytes,
    )

    assert max(sizes) < Executor(program, threads=1).arena_bytes * 0.75


def test_a_divided_step_refuses_an_observer() -> None:
    def run(others: ThreadCommunicator) -> None:
        executor = ParallelExecutor(build_step(), StrategyName.TENSOR, others, threads=1)
        executor.run_step(make_inputs(), observe=print)

    with pytest.raises(UnsupportedPartition, match="no rank has every value"):
        run_ranks(2, run)
