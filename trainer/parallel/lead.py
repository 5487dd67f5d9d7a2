"""Rank 0 leads: it is the provider, with keys, chain and blobs. The other ranks follow its commands.

A command is a JSON document in the store; programs and tensors are broadcast as bytes. A follower trusts
rank 0 no more than a provider trusts a requester: it decodes and checks a program before it runs it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from market.protocol.encoding import decode_program, encode_program
from market.protocol.errors import ProcessLost
from market.protocol.program import Program
from market.protocol.validity import require_valid_program
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.execution import After, Executor, Observe, StepResult
from trainer.parallel.executor import ParallelExecutor
from trainer.parallel.group import Group
from trainer.parallel.strategies import StrategyName

_PATIENCE_S: Final = 4.0  # between looks at the leader's pulse
_LEAST_PAUSE_S: Final = 0.0002  # between looks for a command,
_MOST_PAUSE_S: Final = 0.05  # which become rarer while none comes
_PIECE_BYTES: Final = 1 << 28  # of a broadcast


class _Command(BaseModel):
    """What the followers do next: divide a program of ``size`` bytes, run a step of one, or end.

    ``sent`` names the inputs of a step that are broadcast; the others are as they were after the last one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["program", "step", "end"]
    size: int = 0
    strategy: StrategyName = StrategyName.DATA
    program: int = 0
    sent: tuple[str, ...] = ()


class _Commands:
    """The commands of rank 0, in order."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._count = 0

    def give(self, command: _Command) -> None:
        """Let the followers have ``command`` next."""
        store, number = self._group.store, self._count
        try:
            store.set(_name_command(number), command.model_dump_json())
            if number > 1:  # the one before it may not have been heard yet
                store.delete_key(_name_command(number - 2))
        except RuntimeError as error:
            raise ProcessLost(f"command {number} was not given: no store answers") from error
        self._count += 1

    def hear(self) -> _Command:
        """Return the next command, however long it takes; raise ProcessLost if the leader is gone."""
        store, name = self._group.store, _name_command(self._count)
        beats, looked, pause = -1, time.monotonic(), _LEAST_PAUSE_S
        while not self._group.has(name):
            time.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)
            if time.monotonic() - looked > _PATIENCE_S:
                beats, before, looked = self._group.count_beats(0), beats, time.monotonic()
                if beats == before:
                    raise ProcessLost("rank 0, which leads, shows no pulse")
        self._count += 1
        return _Command.model_validate_json(store.get(name))


def _name_command(number: int) -> str:
    return f"touchstone/command/{number}"


class Leader:
    """Rank 0's side: builds executors whose steps the whole group runs."""

    def __init__(self, group: Group, threads: int | None) -> None:
        self._group = group
        self._threads = threads
        self._commands = _Commands(group)
        self._programs = 0

    def build_executor(self, program: Program, strategy: StrategyName) -> Executor:
        """Return what runs the steps of ``program`` on all ranks."""
        data = torch.frombuffer(bytearray(encode_program(program)), dtype=torch.uint8)
        self._commands.give(_Command(kind="program", size=data.numel(), strategy=strategy))
        _broadcast(self._group, [data])
        number, self._programs = self._programs, self._programs + 1
        return _LeadExecutor(program, strategy, self._group, number, self)

    def announce_step(self, number: int, sent: Mapping[str, Tensor]) -> None:
        """Let the followers run a step of a program with these inputs and what they know of the others."""
        self._commands.give(_Command(kind="step", program=number, sent=tuple(sent)))
        _broadcast(self._group, list(sent.values()))

    @property
    def threads(self) -> int | None:
        """The threads of each rank's arithmetic."""
        return self._threads

    def end(self) -> None:
        """Let the followers end."""
        with suppress(ProcessLost):  # they end by themselves when the store is gone
            self._commands.give(_Command(kind="end"))


class _LeadExecutor(ParallelExecutor):
    """Rank 0's executor: the followers run each step with it."""

    def __init__(
        self, program: Program, strategy: StrategyName, group: Group, number: int, leader: Leader
    ) -> None:
        super().__init__(program, strategy, group, threads=leader.threads)
        self._number = number
        self._leader = leader
        self._known: dict[str, tuple[Tensor, int]] = {}  # what followers have, and its version

    def run_step(
        self,
        inputs: Mapping[str, Tensor],
        observe: Observe | None = None,
        after: After | None = None,
        *,
        spent: StepResult | None = None,
    ) -> StepResult:
        """Return the results of a step on ``inputs``, run by all ranks."""
        self.require_inputs(inputs)
        self.require_unobserved(observe)
        sent = {name: x for name, x in inputs.items() if not self._is_known(name, x)}
        self._leader.announce_step(self._number, sent)
        result = super().run_step(inputs, None, after, spent=spent)
        self._known = {
            name: (tensor, tensor._version) for name, tensor in {**inputs, **result.state}.items()
        }
        return result

    def _is_known(self, name: str, tensor: Tensor) -> bool:
        known, version = self._known.get(name, (None, 0))
        return tensor is known and tensor._version == version


def follow(group: Group, threads: int | None) -> None:
    """Do as rank 0 commands until it ends."""
    commands = _Commands(group)
    followers: list[_Follower] = []
    while (command := commands.hear()).kind != "end":
        if command.kind == "program":
            data = torch.empty(command.size, dtype=torch.uint8)
            _broadcast(group, [data])
            program = decode_program(data.numpy().tobytes())
            require_valid_program(program)
            followers.append(_Follower(program, command.strategy, group, threads))
        else:
            followers[command.program].run_step(group, command.sent)


class _Follower:
    """One program on a rank that follows, and what its next step begins from."""

    def __init__(
        self, program: Program, strategy: StrategyName, group: Group, threads: int | None
    ) -> None:
        self._types = {tensor.name: tensor.type for _, tensor in program.inputs}
        self._executor = ParallelExecutor(program, strategy, group, threads=threads)
        self._known: dict[str, Tensor] = {}
        self._last: StepResult | None = None

    def run_step(self, group: Group, sent: Sequence[str]) -> None:
        """Run this rank's part of a step."""
        for name in sent:
            kind = self._types[name]
            self._known[name] = torch.empty(kind.shape, dtype=TORCH_DTYPES[kind.dtype])
        _broadcast(group, [self._known[name] for name in sent])
        self._last = self._executor.run_step(self._known, spent=self._last)
        self._known.update(self._last.state)


def _broadcast(group: Group, tensors: Sequence[Tensor]) -> None:
    """Let all ranks have what rank 0 has in ``tensors``."""
    for tensor in tensors:
        for piece in torch.split(tensor.reshape(-1).view(torch.uint8), _PIECE_BYTES):
            group.broadcast(piece, 0)
