"""What one rank runs: an ordinary program, some of whose instructions stand for exchanges with other ranks.

Such an instruction tells by its views what the exchange reads and writes, which is all that memory planning
asks. INVARIANT: each reads what the one before it writes, so every rank takes part in its exchanges in the
order of the partition, however its other instructions are arranged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from market.protocol.program import Instruction, Kind, Program, Tensor, View
from market.protocol.tensors import Dtype, TensorType
from trainer.parallel.partition import Action, Copy, Join, ProgramPartition, Task, build_part
from trainer.parallel.spread import Spread


@dataclass(frozen=True, slots=True)
class Combine:
    """All ranks run the same instruction, each on a part of what it reduces, and all get the result.

    Its numbers are the rank's. What is quantized in parts is kept as plain integers, with ``exponents`` of
    rows, one tensor of them for each such view. A gather reads a source of which each rank has a part, as
    ``spread`` says; its view is that of the whole."""

    instruction: Instruction
    exponents: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Gather:
    """All ranks send their ``part``, and write all of them to ``whole``."""

    part: int
    whole: int
    spread: Spread


@dataclass(frozen=True, slots=True)
class Move:
    """A rank sends a tensor to each of ``targets``, or receives it from ``source``."""

    tensor: int
    source: int
    targets: tuple[int, ...]


Exchange = Combine | Gather | Move


@dataclass(frozen=True, slots=True)
class RankProgram:
    """The program of one rank: the tensors of the whole one, then its parts. ``exchanges`` by what stands
    for them."""

    program: Program
    exchanges: Mapping[Instruction, Exchange]


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction, or an exchange, and the views of tensors that it reads and writes."""

    reads: tuple[View, ...]
    writes: tuple[View, ...]
    instruction: Instruction | None = None
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True)
class RankSteps:
    """What a rank does, in an order in which it can be done, and its tensors."""

    program: Program
    steps: tuple[Step, ...]

    def build_program(self) -> RankProgram:
        """Return the steps as a program that keeps the exchanges in their order."""
        tensors = list(self.program.tensors)
        last = next((number for number, _ in self.program.inputs), None)
        instructions: list[Instruction] = []
        exchanges: dict[Instruction, Exchange] = {}
        for step in self.steps:
            if step.exchange is None:
                assert step.instruction is not None
                instructions.append(step.instruction)
                continue
            reads = step.reads if last is None else (*step.reads, _see(last))
            last = len(tensors)
            tensors.append(Tensor(TensorType(Dtype.U8, (1,))))
            stand = Instruction(Kind.RANDOM, (1,), reads, (*step.writes, _see(last)))
            instructions.append(stand)
            exchanges[stand] = step.exchange
        whole = replace(self.program, tensors=tuple(tensors), instructions=tuple(instructions))
        return RankProgram(whole, exchanges)


def list_steps(partition: ProgramPartition, rank: int) -> RankSteps:
    """Return what ``rank`` does: nothing whose results neither it nor another rank uses."""
    table = _Table(partition.program, rank)
    steps = [step for action in partition.actions for step in _list_steps(action, table)]
    needed = {output.tensor for output in partition.program.outputs}
    kept: list[Step] = []
    for step in reversed(steps):
        if step.exchange is not None or needed.intersection(v.tensor for v in step.writes):
            kept.append(step)
            needed.update(view.tensor for view in step.reads)
    program = replace(partition.program, tensors=tuple(table.tensors), instructions=())
    return RankSteps(program, tuple(kept[::-1]))


class _Table:
    """The tensors that a rank has, and their numbers."""

    def __init__(self, program: Program, rank: int) -> None:
        self.program = program
        self.rank = rank
        self.tensors: list[Tensor] = list(program.tensors)
        self._numbers: dict[tuple[int, Spread | None], int] = {}
        self._exponents: dict[int, int] = {}

    def add(self, kind: TensorType) -> int:
        """Return the number of a new tensor."""
        self.tensors.append(Tensor(kind))
        return len(self.tensors) - 1

    def find(self, tensor: int, spread: Spread | None) -> int:
        """Return the number of what this rank has of a tensor: all of it, or its part."""
        held = tensor, spread
        if spread is None:
            return tensor
        if held not in self._numbers:
            kind = self.tensors[tensor].type
            elements = kind.elements // spread.period * spread.get_width(self.rank)
            if is_row_cut(kind, spread):
                self._numbers[held] = self.add(TensorType(kind.dtype, (elements,)))
            elif kind.bits:
                shape = (elements // kind.shape[-1], kind.shape[-1])
                self._numbers[held] = self.add(TensorType(kind.dtype, shape, kind.bits))
            else:
                self._numbers[held] = self.add(TensorType(kind.dtype, (elements,)))
        return self._numbers[held]

    def find_exponents(self, tensor: int) -> int:
        """Return the number of the exponents of a tensor whose rows are cut: every rank has them all."""
        if tensor not in self._exponents:
            kind = self.tensors[tensor].type
            rows = TensorType(Dtype.I32, (kind.elements // kind.shape[-1],))
            self._exponents[tensor] = self.add(rows)
        return self._exponents[tensor]

    def renumber(self, views: Sequence[View], spreads: Sequence[Spread | None]) -> tuple[View, ...]:
        """Return ``views`` of what this rank has."""
        pairs = zip(views, spreads, strict=True)
        return tuple(replace(view, tensor=self.find(view.tensor, spread)) for view, spread in pairs)


def is_row_cut(kind: TensorType, spread: Spread | None) -> bool:
    """Check whether it is the rows of a quantized tensor that are cut."""
    return bool(kind.bits) and spread is not None and spread.period == kind.shape[-1]


def _see(tensor: int) -> View:
    """Return a view that stands for a whole tensor."""
    return View(tensor, 0, (0,))


def _list_steps(action: Action, table: _Table) -> Iterator[Step]:
    if isinstance(action, Join):
        part = table.find(action.tensor, action.spread)
        gather = Gather(part, action.tensor, action.spread)
        yield Step((_see(part),), (_see(action.tensor),), exchange=gather)
    elif isinstance(action, Copy):
        views = (_see(action.tensor),)
        move = Move(action.tensor, action.source, tuple(sorted(action.targets)))
        if table.rank == action.source:
            yield Step(views, (), exchange=move)
        elif table.rank in action.targets:
            yield Step((), views, exchange=move)
    elif table.rank in action.ranks:
        yield _localize_task(action, table)


def _localize_task(task: Task, table: _Table) -> Step:
    part = build_part(task, table.rank)
    local = replace(
        part,
        operands=table.renumber(part.operands, task.operands),
        outputs=table.renumber(part.outputs, task.outputs),
    )
    if not task.partial:
        return Step(local.operands, local.outputs, instruction=local)
    kinds = [table.tensors[view.tensor].type for view in part.operands]
    exponents: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    if task.instruction.kind is Kind.DOT:
        exponents = tuple(table.find_exponents(view.tensor) for view in part.operands)
        bits = tuple(kind.bits for kind in kinds)
    elif task.instruction.kind is Kind.QUANTIZE:
        exponents = (table.find_exponents(part.outputs[0].tensor),)
    spread = task.operands[1] if task.instruction.kind is Kind.GATHER else None
    combine = Combine(local, exponents, bits, spread)
    reads = tuple(_see(view.tensor) for view in local.operands)
    writes = tuple(_see(view.tensor) for view in local.outputs)
    more = tuple(map(_see, exponents))
    if task.instruction.kind is Kind.DOT:
        return Step((*reads, *more), writes, exchange=combine)
    return Step(reads, (*writes, *more), exchange=combine)
