"""The processes that torchrun started: how they find each other, exchange tensors, and tell who is lost.

Every process shows by its pulse, in the store that torchrun gives them, that it lives and how many exchanges
it has begun. When an exchange fails or takes too long, the pulses tell which process the others wait for."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from market.protocol.errors import MarketError, ProcessLost

EXCHANGE_TIMEOUT_S: Final = 300.0
_JOIN_TIMEOUT_S: Final = 300.0
_BEAT_S: Final = 0.5
_BEATS: Final = 6  # that a living process does not miss
_LOST: Final = "touchstone/lost"
_VARIABLES: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Store(Protocol):
    """What this module asks of the key-value store of `torch.distributed`."""

    def set(self, key: str, value: str) -> None:
        """Put a value under ``key``."""

    def get(self, key: str) -> bytes:
        """Return what is under ``key``; wait for it if there is nothing."""

    def check(self, keys: list[str]) -> bool:
        """Check whether there is something under each of ``keys``."""

    def delete_key(self, key: str) -> bool:
        """Remove what is under ``key``."""

    def clone(self) -> "Store":
        """Return a connection of its own to the same store."""


class Group:
    """This process among those that run a partition; a `Communicator`."""

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self.rank = rank
        self.world = world
        self.store = store
        self.exchanges = 0  # begun
        self._sent: list[tuple[dist.Work, Tensor]] = []  # what may still be on its way
        self._beats = 0
        self._stopped = threading.Event()
        self._pulse = threading.Thread(target=self._beat, args=(store.clone(),), daemon=True)
        self._pulse.start()

    def close(self) -> None:
        """Leave the group."""
        self._stopped.set()
        self._pulse.join()
        dist.destroy_process_group()

    def maximize(self, values: Tensor) -> None:
        """Replace i32 ``values`` by their maxima over all ranks."""
        self._exchange(lambda: dist.all_reduce(values, dist.ReduceOp.MAX))

    def add(self, values: Tensor) -> None:
        """Replace integers by their sums over all ranks."""
        self._exchange(lambda: dist.all_reduce(values))

    def add_rows(self, values: Tensor) -> Tensor:
        """Return this rank's share of the sums over all ranks; ``values`` is [world, ...], i64."""
        share = torch.empty_like(values[0])
        self._exchange(lambda: dist.reduce_scatter_single(share.view(-1), values.view(-1)))
        return share

    def gather(self, part: Tensor, parts: Tensor) -> None:
        """Write the ``part`` of each rank, as bytes, to ``parts``, [world, bytes]."""
        self._exchange(lambda: dist.all_gather_single(parts.view(-1), part))

    def send(self, values: Tensor, targets: Sequence[int]) -> None:
        """Send bytes to each of ``targets``; they may be overwritten at once, before any is received."""
        kept = values.clone()
        self._exchange(lambda: self._post(kept, targets))

    def receive(self, values: Tensor, source: int) -> None:
        """Overwrite bytes by those that one rank sends."""
        self._exchange(lambda: dist.recv(values, source))

    def broadcast(self, values: Tensor, source: int) -> None:
        """Overwrite bytes, on all ranks but ``source``, by those of ``source``."""
        self._exchange(lambda: dist.broadcast(values, source))

    def has(self, name: str) -> bool:
        """Check whether the store has something under ``name``."""
        with self._reach_store():
            return bool(self.store.check([name]))

    def count_beats(self, rank: int) -> int:
        """Return a number that grows, at least every few seconds, while another process lives."""
        with self._reach_store():
            return self._read_pulses()[rank][0]

    def _post(self, kept: Tensor, targets: Sequence[int]) -> None:
        self._sent = [(work, memory) for work, memory in self._sent if not work.is_completed()]
        for target in targets:
            work = dist.isend(kept, target)
            assert work is not None  # this rank is in the group
            self._sent.append((work, kept))

    def _exchange(self, run: Callable[[], object]) -> None:
        self.exchanges += 1
        try:
            run()
        except RuntimeError as error:  # what torch.distributed raises when a peer fails or is late
            raise ProcessLost(
                f"exchange {self.exchanges} of rank {self.rank} failed: {self._name_lost()}"
            ) from error

    def _name_lost(self) -> str:
        """Return who is to blame: what the first process that noticed found out."""
        with self._reach_store():
            if self.store.check([_LOST]):
                return self.store.get(_LOST).decode()
            silent = self._find_silent()
            pulses = self._read_pulses()
            behind = [rank for rank, pulse in pulses.items() if pulse[1] < self.exchanges]
            names = " and ".join(f"rank {rank}" for rank in silent or behind)
            found = (
                f"{names} {'shows no pulse' if silent else 'is late'}"
                if names
                else "all ranks live"
            )
            self.store.set(_LOST, found)
            return found

    def _find_silent(self) -> list[int]:
        with self._reach_store():
            before = self._read_pulses()
            time.sleep(_BEATS * _BEAT_S)
            after = self._read_pulses()
        return [rank for rank in after if before[rank][0] == after[rank][0]]

    def _beat(self, store: Store) -> None:
        while not self._stopped.wait(_BEAT_S):
            self._beats += 1
            with suppress(RuntimeError):  # the store's process ended: there is nobody to tell
                store.set(_name_pulse(self.rank), f"{self._beats} {self.exchanges}")

    def _read_pulses(self) -> dict[int, tuple[int, int]]:
        """Return the beats and exchanges of the other processes; zeros for one that showed none."""
        pulses = {}
        for rank in range(self.world):
            if rank != self.rank:
                known = self.store.check([_name_pulse(rank)])
                beats, exchanges = self.store.get(_name_pulse(rank)).split() if known else (0, 0)
                pulses[rank] = int(beats), int(exchanges)
        return pulses

    @contextmanager
    def _reach_store(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(
                "the store of the group does not answer: it is where rank 0 is"
            ) from error


def _name_pulse(rank: int) -> str:
    return f"touchstone/pulse/{rank}"


@contextmanager
def join_group(device: str = "cpu", timeout_s: float = EXCHANGE_TIMEOUT_S) -> Iterator[Group]:
    """Join the processes that torchrun started with this one, until the end of the block.

    An exchange that takes longer than ``timeout_s`` fails with ProcessLost, as does one whose peer died."""
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise MarketError(f"{', '.join(missing)} not set: start this command with torchrun")
    joining, timeout = timedelta(seconds=_JOIN_TIMEOUT_S), timedelta(seconds=timeout_s)
    try:
        store, rank, world = next(rendezvous("env://", timeout=joining))
        name = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(name, store=store, rank=rank, world_size=world, timeout=timeout)
    except RuntimeError as error:
        raise ProcessLost(f"the group did not come together: {error}") from error
    group = Group(store, rank, world)
    try:
        yield group
    finally:
        group.close()
