"""Ranks as threads of one process: a communicator with the interface of the real one."""

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import torch
from torch import Tensor


class Meeting:
    """Where ``world`` threads exchange tensors."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.given: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=60)
        self.mail: dict[tuple[int, int], Queue[Tensor]] = defaultdict(Queue)


class ThreadCommunicator:
    """One thread's place at a meeting. It counts the bytes that reach it, reductions as if by a ring."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.rank = rank
        self.world = meeting.world
        self.received = 0
        self._meeting = meeting

    def _exchange(self, values: Tensor) -> list[Tensor]:
        self._meeting.given[self.rank] = values.clone()
        self._meeting.barrier.wait()
        found = list(self._meeting.given)
        self._meeting.barrier.wait()
        return found

    def maximize(self, values: Tensor) -> None:
        assert values.dtype == torch.int32
        assert values.is_contiguous()
        values.copy_(torch.stack(self._exchange(values)).amax(0))
        self._count(2 * values.nbytes)

    def add(self, values: Tensor) -> None:
        assert not values.dtype.is_floating_point
        assert values.is_contiguous()
        values.copy_(sum(self._exchange(values)))
        self._count(2 * values.nbytes)

    def add_rows(self, values: Tensor) -> Tensor:
        assert values.dtype == torch.int64
        assert values.shape[0] == self.world
        self._count(values.nbytes)
        return sum(given[self.rank] for given in self._exchange(values))

    def gather(self, part: Tensor, parts: Tensor) -> None:
        assert part.dtype == torch.uint8
        assert part.shape == parts.shape[1:]
        parts.copy_(torch.stack(self._exchange(part)))
        self._count(parts.nbytes)

    def send(self, values: Tensor, targets: Sequence[int]) -> None:
        for target in targets:
            self._meeting.mail[self.rank, target].put(values.clone())

    def receive(self, values: Tensor, source: int) -> None:
        values.copy_(self._meeting.mail[source, self.rank].get(timeout=60))
        self.received += values.nbytes

    def _count(self, size: int) -> None:
        self.received += size * (self.world - 1) // self.world


def run_ranks(world: int, work: Callable[[ThreadCommunicator], Any]) -> list[Any]:
    """Return what ``work`` returns on each of ``world`` ranks; raise what one of them raises."""
    meeting = Meeting(world)

    def run(rank: int) -> Any:
        try:
            return work(ThreadCommunicator(meeting, rank))
        finally:
            if sys.exc_info()[0] is not None:
                meeting.barrier.abort()  # the others do not wait

    with ThreadPoolExecutor(world) as pool:
        futures = [pool.submit(run, rank) for rank in range(world)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
