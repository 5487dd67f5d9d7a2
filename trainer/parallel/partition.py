"""A program divided over ranks: what each rank does of it, and what travels between them.

INVARIANT: whatever the partition, every element of every tensor has the bits that the program gives it. A
part of an instruction is the same instruction on fewer indices; what is reduced in parts is reduced as
integers, which are exact in any order.
"""

import json
from dataclasses import dataclass, replace
from math import prod

from market.protocol.program import Instruction, Kind, Program
from market.protocol.tensors import Dtype
from trainer.parallel.spread import Access, Part, Placement, Spread, localize


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction, done by each of ``ranks``: its part under ``placement``, or all of it if that is None.

    ``operands`` and ``outputs`` say how each view's tensor is held. A ``partial`` task reduces over an axis
    that is cut, so the ranks put their integers together."""

    instruction: Instruction
    ranks: frozenset[int]
    placement: Placement | None
    operands: tuple[Spread | None, ...]
    outputs: tuple[Spread | None, ...]
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """Every rank gets all parts of a tensor."""

    tensor: int
    spread: Spread


@dataclass(frozen=True, slots=True)
class Copy:
    """The ``targets`` get a whole tensor from ``source``."""

    tensor: int
    source: int
    targets: frozenset[int]


Action = Task | Join | Copy


@dataclass(frozen=True, slots=True)
class ProgramPartition:
    """A program, whose tensors may be followed by temporary ones, and what ``world`` ranks do in order."""

    program: Program
    world: int
    actions: tuple[Action, ...]

    @property
    def is_staged(self) -> bool:
        """Whether tensors travel from rank to rank, and none in parts."""
        exchanged = [a for a in self.actions if not isinstance(a, Task) or a.partial]
        return bool(exchanged) and all(isinstance(action, Copy) for action in exchanged)

    def encode(self) -> bytes:
        """Return bytes that two processes share only if they divide a program alike."""
        return json.dumps([_list_numbers(action) for action in self.actions]).encode()

    def count_products(self, rank: int) -> int:
        """Return the multiply-adds that ``rank`` does in a step."""
        total = 0
        for action in self.actions:
            if isinstance(action, Task) and action.instruction.kind is Kind.DOT:
                total += prod(build_part(action, rank).shape) if rank in action.ranks else 0
        return total

    def count_bytes(self, rank: int) -> int:
        """Return the bytes that ``rank`` receives in a step, if reductions go around a ring."""
        return sum(self._count_bytes(action, rank) for action in self.actions)

    def _count_bytes(self, action: Action, rank: int) -> int:
        if isinstance(action, Task):
            whole = count_partial_bytes(action.instruction, self.program) if action.partial else 0
            return whole * (self.world - 1) // self.world
        size = self.program.tensors[action.tensor].type.nbytes
        if isinstance(action, Copy):
            return size if rank in action.targets else 0
        spread = action.spread
        return size - size // spread.period * spread.get_width(rank)


def _list_numbers(action: Action) -> list[object]:
    """Return all that tells one action from another in a partition of one program."""
    if isinstance(action, Join):
        return [action.tensor, _list_cuts(action.spread)]
    if isinstance(action, Copy):
        return [action.tensor, action.source, sorted(action.targets)]
    instruction, cut = action.instruction, action.placement
    views = (*instruction.operands, *instruction.outputs)
    return [
        int(instruction.kind),
        [view.tensor for view in views],
        sorted(action.ranks),
        None if cut is None else [cut.axis, _list_cuts(cut.spread)],
        [_list_cuts(spread) for spread in (*action.operands, *action.outputs)],
        action.partial,
    ]


def _list_cuts(spread: Spread | None) -> list[int]:
    return [] if spread is None else [spread.period, *spread.cuts]


def count_partial_bytes(instruction: Instruction, program: Program) -> int:
    """Return the bytes that a partial instruction moves, per rank, were there infinitely many ranks."""
    kind = program.tensors[instruction.outputs[0].tensor].type
    results = kind.elements
    if instruction.kind is Kind.QUANTIZE:
        return 2 * 4 * (results // kind.shape[-1])
    if instruction.kind is Kind.DOT:  # integers are summed by the rank that rounds them
        return (8 + 4) * prod(instruction.shape[:-1])
    if instruction.kind is Kind.SCATTER_ADD:
        return 2 * (4 * prod(instruction.shape[instruction.reduced :]) + 8 * results)
    if instruction.kind is Kind.GATHER:
        return 2 * (4 if kind.dtype is Dtype.F32 else 8) * prod(instruction.shape)
    kept = prod(instruction.shape[: len(instruction.shape) - instruction.reduced])
    if instruction.kind is Kind.MAX:
        return 2 * 4 * kept
    return 2 * (8 if kind.dtype is Dtype.I64 else 12) * kept


def get_operand(instruction: Instruction, number: int, spread: Spread | None) -> Access:
    """Return how an instruction reads an operand whose tensor is held so."""
    is_source = instruction.kind is Kind.GATHER and number == 1
    return Access(
        instruction.operands[number], spread, instruction.attributes if is_source else (1, 0)
    )


def _get_output(instruction: Instruction, number: int, spread: Spread | None) -> Access:
    is_table = instruction.kind is Kind.SCATTER_ADD
    return Access(
        instruction.outputs[number], spread, instruction.attributes if is_table else (1, 0)
    )


def find_part(task: Task, rank: int) -> Instruction | None:
    """Return the instruction that ``rank`` does of ``task``, with the program's numbers of the tensors.

    None if it has not all that the part touches, or if no backend could run the part."""
    whole = task.instruction
    operands = task.operands
    if task.partial and whole.kind is Kind.GATHER:
        operands = (operands[0], None)  # it reads what it has of the source, and zero elsewhere
    accesses = [get_operand(whole, n, spread) for n, spread in enumerate(operands)]
    accesses += [_get_output(whole, n, spread) for n, spread in enumerate(task.outputs)]
    part = localize(whole.shape, accesses, task.placement, rank)
    if part is None or (whole.kind in _BY_ROW and part.origins.count(len(whole.shape) - 1) != 1):
        return None
    count = len(whole.operands)
    return replace(
        whole,
        shape=part.shape,
        operands=part.views[:count],
        outputs=part.views[count:],
        reduced=_count_reduced(whole, part),
        attributes=_localize_attributes(whole, part),
    )


_BY_ROW = (Kind.QUANTIZE, Kind.DOT)  # their last axis is a row, which stays one axis


def build_part(task: Task, rank: int) -> Instruction:
    """Return the instruction that ``rank`` does of a ``task`` that was planned."""
    part = find_part(task, rank)
    assert part is not None
    return part


def _count_reduced(whole: Instruction, part: Part) -> int:
    rank = len(whole.shape)
    rows_first = whole.kind is Kind.SCATTER_ADD
    first, last = (0, whole.reduced) if rows_first else (rank - whole.reduced, rank)
    return sum(first <= origin < last for origin in part.origins)


def _localize_attributes(whole: Instruction, part: Part) -> tuple[int, int]:
    if whole.kind is Kind.GATHER:
        return whole.attributes[0], part.reaches[1]
    if whole.kind is Kind.SCATTER_ADD:
        return whole.attributes[0], part.reaches[2]
    return whole.attributes
