"""Real processes over gloo: rank 0 is this one, the others follow it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from market.protocol.errors import InvalidBlob, MarketError, ProcessLost
from market.protocol.program import Program
from tests.trainer.parallel.models import lower_llama, lower_mlp, make_dataset
from tests.trainer.programs import build_step, make_inputs
from trainer.execution import Executor
from trainer.parallel.group import join_group
from trainer.parallel.lead import Leader
from trainer.parallel.strategies import StrategyName
from trainer.shards import ShardTask, hash_segment, run_segment
from trainer.states import StateRoots

FOLLOWER = [sys.executable, "-m", "tests.trainer.parallel.follower"]
Started = list["subprocess.Popen[str]"]
Job = tuple[Program, dict[str, Tensor]]


@contextmanager
def start_group(
    monkeypatch: pytest.MonkeyPatch, world: int, timeout_s: float
) -> Iterator[tuple[Leader, Started]]:
    """Start the followers as torchrun does, and lead them from this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [*FOLLOWER, str(timeout_s)],
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(1, world)
    ]
    for name, value in {**place, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    try:
        with join_group(timeout_s=timeout_s) as group:
            leader = Leader(group, threads=1)
            yield leader, processes
            leader.end()
            assert [process.wait(60) for process in processes] == [0] * (world - 1)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run_lease(
    executor: Executor, program: Program, state: Mapping[str, Tensor]
) -> list[tuple[StateRoots, object]]:
    """Return the roots that the records after two segments carry."""
    task = ShardTask(program, make_dataset(program), 2**63 + 5, 0, 1, 2)
    records = []
    for segment in range(2):
        end = run_segment(executor, task, dict(state), segment)
        state = end.state
        records.append(hash_segment(program, end))
    return records


JOBS: dict[str, Callable[[], Job]] = {
    "llama": lambda: lower_llama(4, 4),
    "mlp": lambda: lower_mlp(8, 2),
}


@pytest.mark.parametrize(("world", "job"), [(2, "llama"), (4, "mlp")])
def test_a_lease_has_the_same_roots_however_many_processes_do_it(
    monkeypatch: pytest.MonkeyPatch, world: int, job: str
) -> None:
    program, state = JOBS[job]()
    alone = run_lease(Executor(program, threads=1), program, state)

    with start_group(monkeypatch, world, timeout_s=300) as (leader, _):
        together = {
            strategy: run_lease(leader.build_executor(program, strategy), program, state)
            for strategy in StrategyName
        }

    assert together == dict.fromkeys(StrategyName, alone)


def harm_a_follower(
    monkeypatch: pytest.MonkeyPatch, harm: signal.Signals, timeout_s: float
) -> None:
    with start_group(monkeypatch, 2, timeout_s) as (leader, (follower,)):
        executor = leader.build_executor(build_step(), StrategyName.TENSOR)
        executor.run_step(make_inputs())
        follower.send_signal(harm)
        executor.run_step(make_inputs())


@pytest.mark.parametrize(("harm", "timeout_s"), [(signal.SIGKILL, 60), (signal.SIGSTOP, 6)])
def test_a_process_that_dies_or_hangs_is_named(
    monkeypatch: pytest.MonkeyPatch, harm: signal.Signals, timeout_s: float
) -> None:
    with pytest.raises(ProcessLost, match="of rank 0 failed: rank 1 shows no pulse"):
        harm_a_follower(monkeypatch, harm, timeout_s)


def test_a_wrong_input_is_refused_and_the_next_step_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_group(monkeypatch, 1, timeout_s=60) as (leader, _):
        executor = leader.build_executor(build_step(), StrategyName.TENSOR)
        wrong = {**make_inputs(), "w": torch.zeros(2, 2)}

        with pytest.raises(InvalidBlob, match="input w"):
            executor.run_step(wrong)

        assert executor.run_step(make_inputs()).state["w"].shape == (3, 4)


def test_a_group_needs_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)

    with pytest.raises(MarketError, match="start this command with torchrun"), join_group():
        pass
