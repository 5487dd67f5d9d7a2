"""Planning a partition: who does an instruction, given who has what, and what must travel first.

The planner knows what every rank has and brings what is missing; a strategy decides who does what.
Quantized tensors never travel: whoever multiplies quantizes, so a `quantize` is planned with its `dot`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

from market.protocol.program import Instruction, Kind, Program, Tensor, TensorRole, View
from market.protocol.tensors import Dtype, TensorType
from trainer.parallel.partition import (
    Action,
    Copy,
    Join,
    ProgramPartition,
    Task,
    build_part,
    count_partial_bytes,
    find_part,
    get_operand,
)
from trainer.parallel.spread import (
    Access,
    Placement,
    Spread,
    find_placements,
    find_written_spread,
    is_local,
)

Ranks = frozenset[int]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A way to do an instruction, and the bytes that a rank receives for it."""

    ranks: Ranks
    placement: Placement | None = None
    partial: bool = False
    bytes: int = 0


class Strategy(Protocol):
    """Decides who does an instruction."""

    def place(self, planner: "Planner", instruction: Instruction) -> Proposal:
        """Return who does ``instruction``, which is no `quantize`."""


class _Disagreement(Exception):
    """The instructions that write ``tensor`` would leave it in different hands."""

    def __init__(self, tensor: int) -> None:
        self.tensor = tensor
        super().__init__(tensor)


class Planner:
    """Walks a program in order. ``spreads`` and ``whole`` say who has parts and all of each tensor.

    Tensors in ``joined`` are written whole: their writers' results are joined first."""

    def __init__(self, program: Program, world: int, joined: frozenset[int]) -> None:
        self.program = program
        self.world = world
        self.everyone: Ranks = frozenset(range(world))
        self.tensors = list(program.tensors)
        self.spreads: dict[int, Spread] = {}
        self.whole: dict[int, Ranks] = {i: self.everyone for i, _ in program.inputs}
        self.results = {output.tensor for output in program.outputs}
        self.actions: list[Action] = []
        self.products = [0] * world
        self.latest: dict[int, int] = {}  # when each tensor was last written
        self._joined = joined
        self._writers = Counter(
            tensor
            for instruction in program.instructions
            for tensor in {view.tensor for view in instruction.outputs}
        )
        self._quantizers = {
            i.outputs[0].tensor: i for i in program.instructions if i.kind is Kind.QUANTIZE
        }
        self._quantized: set[tuple[int, Spread | None, int]] = set()

    # -- what there is

    def is_everywhere(self, tensor: int) -> bool:
        """Check whether every rank has, or ends with, all of a tensor."""
        return tensor in self.results or self.whole.get(tensor) == self.everyone

    def get_quantizer(self, view: View) -> Instruction:
        """Return the instruction that writes a quantized operand."""
        return self._quantizers[view.tensor]

    def get_source(self, view: View) -> int:
        """Return the tensor that a quantized operand is made from."""
        return self.get_quantizer(view).operands[0].tensor

    def is_state(self, tensor: int) -> bool:
        """Check whether a tensor is a part of the prestate."""
        return self.program.tensors[tensor].role in (TensorRole.BASE, TensorRole.SLOT)

    def count_join_bytes(self, tensor: int) -> int:
        """Return what it takes that every rank has all of a tensor."""
        if self.is_everywhere(tensor):
            return 0
        return self.tensors[tensor].type.nbytes * (self.world - 1) // self.world

    # -- what a cut would take

    def list_spreads(self, instruction: Instruction) -> list[Spread | None]:
        """Return how the operands are spread, None for those that are not."""
        return [self.spreads.get(view.tensor) for view in instruction.operands]

    def propose(
        self, instruction: Instruction, placement: Placement | None, *, partial: bool = False
    ) -> Proposal | None:
        """Return what an instruction takes under ``placement``; None if it cannot be done so."""
        task = self._draft(instruction, placement, partial=partial)
        if task is None:
            return None
        total = 0
        for view, spread in zip(instruction.operands, task.operands, strict=True):
            if instruction.kind is Kind.DOT:
                total += self._count_quantizing(view, spread)
            elif spread is None:
                total += self.count_join_bytes(view.tensor)
        written = {view.tensor for view in instruction.outputs}
        if partial:
            total += self._share(count_partial_bytes(instruction, self.program))
        elif task.instruction is not instruction:
            total += self._share(sum(self.tensors[tensor].type.nbytes for tensor in written))
        else:
            results = written & self.results
            total += self._share(sum(self.tensors[tensor].type.nbytes for tensor in results))
        return Proposal(self.everyone, placement, partial, total)

    def propose_everyone(self, instruction: Instruction) -> Proposal:
        """Return what it takes that every rank does all of an instruction."""
        tensors = (
            self.get_source(view) if instruction.kind is Kind.DOT else view.tensor
            for view in instruction.operands
        )
        return Proposal(self.everyone, bytes=sum(map(self.count_join_bytes, set(tensors))))

    def _share(self, size: int) -> int:
        return size * (self.world - 1) // self.world

    def _draft(
        self, instruction: Instruction, placement: Placement | None, *, partial: bool
    ) -> Task | None:
        """Return the task of doing an instruction so, its operands held as well as they can be.

        Its outputs are detached where they cannot be spread as the cut would leave them."""
        count = len(instruction.operands)
        held = [self._find_held(instruction, n, placement, partial=partial) for n in range(count)]
        is_whole = instruction.kind in (Kind.QUANTIZE, Kind.SCATTER_ADD)  # they write whole tensors
        for moved in (instruction,) if is_whole else (instruction, _detach(instruction)):
            for operands in (tuple(held), (None,) * count):
                outputs = tuple(
                    self._find_output(moved, view, placement, partial=partial)
                    for view in moved.outputs
                )
                task = Task(moved, self.everyone, placement, operands, outputs, partial)
                if self._is_possible(task):
                    return task
        return None

    def _is_possible(self, task: Task) -> bool:
        written = {view.tensor for view in task.instruction.outputs}
        is_cut = task.placement is not None and not task.partial
        if is_cut and (None in task.outputs or written & self._joined):
            return False
        return all(find_part(task, rank) is not None for rank in range(self.world))

    def _find_held(
        self, instruction: Instruction, number: int, placement: Placement | None, *, partial: bool
    ) -> Spread | None:
        """Return the spread of an operand if each rank has, or can make, the part that it needs."""
        view = instruction.operands[number]
        if instruction.kind is Kind.GATHER and partial and number == 1:
            return self.spreads.get(view.tensor)
        if placement is None:
            return None
        if instruction.kind is Kind.DOT:
            spread = find_written_spread(view, placement, self.tensors[view.tensor].type.elements)
            if self._place_quantizer(self.get_quantizer(view), spread) is None:
                return None
        else:
            spread = self.spreads.get(view.tensor)
        access = get_operand(instruction, number, spread)
        return spread if is_local(instruction.shape, [access], placement, self.world) else None

    def _find_output(
        self, instruction: Instruction, view: View, placement: Placement | None, *, partial: bool
    ) -> Spread | None:
        if placement is None or (partial and instruction.kind is not Kind.QUANTIZE):
            return None
        if view.tensor < 0:  # it will have a tensor of its own
            return placement.spread.scale(view.strides[placement.axis])
        return find_written_spread(view, placement, self.tensors[view.tensor].type.elements)

    def _count_quantizing(self, view: View, spread: Spread | None) -> int:
        """Return what it takes that every rank has its part of a quantized operand."""
        if (view.tensor, spread, 0) in self._quantized:
            return 0
        task = self._draft_quantizer(view, spread)
        moved = 0 if task.operands[0] else self.count_join_bytes(self.get_source(view))
        if task.partial:
            moved += self._share(count_partial_bytes(task.instruction, self.program))
        return moved

    def _draft_quantizer(self, view: View, spread: Spread | None) -> Task:
        """Return the task of quantizing an operand so that it is spread so."""
        quantizer = self.get_quantizer(view)
        placement = self._place_quantizer(quantizer, spread)
        cut = placement is not None and placement.axis == len(quantizer.shape) - 1
        task = self._draft(quantizer, placement, partial=cut)
        assert task is not None  # from a source that every rank has, any cut can be made
        return task

    def _place_quantizer(self, quantizer: Instruction, spread: Spread | None) -> Placement | None:
        """Return the cut under which a `quantize` writes its output so, if there is one."""
        access = Access(quantizer.outputs[0], spread)
        return next(find_placements(quantizer.shape, access), None)

    def find_quantized_spreads(self, view: View) -> Iterator[Spread]:
        """Yield the spreads in which a quantized operand can be made from what each rank has."""
        quantizer = self.get_quantizer(view)
        read, written = quantizer.operands[0], quantizer.outputs[0]
        for placement in find_placements(
            quantizer.shape, Access(read, self.spreads.get(read.tensor))
        ):
            elements = self.tensors[written.tensor].type.elements
            if spread := find_written_spread(written, placement, elements):
                yield spread

    # -- doing it

    def apply(self, instruction: Instruction, proposal: Proposal) -> None:
        """Bring what the ranks lack, and let them do ``instruction``."""
        task = self._draft(instruction, proposal.placement, partial=proposal.partial)
        assert task is not None  # it was proposed
        task = replace(task, ranks=proposal.ranks)
        for view, spread in zip(instruction.operands, task.operands, strict=True):
            if instruction.kind is Kind.DOT:
                self._require_quantized(view, spread, proposal.ranks)
            elif spread is None:
                self.require_whole(view.tensor, proposal.ranks)
        is_joined = any(view.tensor in self._joined for view in instruction.outputs)
        if is_joined and proposal.ranks != self.everyone:
            task = replace(task, instruction=_detach(instruction))
        if task.instruction is instruction:
            self._emit(task)
        else:
            self._write_joined(task, instruction)

    def require_whole(self, tensor: int, ranks: Ranks) -> None:
        """Let each of ``ranks`` have all of a tensor."""
        missing = ranks - self.whole.get(tensor, frozenset())
        if not missing:
            return
        if tensor in self.spreads:
            self.actions.append(Join(tensor, self.spreads[tensor]))
            self.whole[tensor] = self.everyone
        else:
            self.actions.append(Copy(tensor, min(self.whole[tensor]), missing))
            self.whole[tensor] |= missing

    def finish(self) -> ProgramPartition:
        """Let every rank have the results; return the partition."""
        for tensor in sorted(self.results):
            self.require_whole(tensor, self.everyone)
        whole = replace(self.program, tensors=tuple(self.tensors))
        return ProgramPartition(whole, self.world, tuple(self.actions))

    def _require_quantized(self, view: View, spread: Spread | None, ranks: Ranks) -> None:
        lacking = frozenset(r for r in ranks if (view.tensor, spread, r) not in self._quantized)
        if not lacking:
            return
        task = replace(self._draft_quantizer(view, spread), ranks=lacking)
        if task.operands[0] is None:
            self.require_whole(self.get_source(view), lacking)
        self.actions.append(task)
        self._quantized.update((view.tensor, spread, rank) for rank in lacking)

    def _write_joined(self, task: Task, instruction: Instruction) -> None:
        """Do a detached ``task`` into tensors of their own, then copy these to where they belong."""
        outputs = []
        for view in task.instruction.outputs:
            kind = self.tensors[instruction.outputs[-1 - view.tensor].tensor].type
            shape = _get_written_shape(instruction)
            outputs.append(replace(view, tensor=len(self.tensors)))
            self.tensors.append(Tensor(TensorType(kind.dtype, shape)))
        self._emit(replace(task, instruction=replace(task.instruction, outputs=tuple(outputs))))
        for view, own in zip(instruction.outputs, outputs, strict=True):
            self.require_whole(own.tensor, self.everyone)
            shape = self.tensors[own.tensor].type.shape
            read = View(own.tensor, 0, own.strides[: len(shape)])
            write = View(view.tensor, view.offset, view.strides[: len(shape)])
            copy = Instruction(Kind.MAP, shape, (read,), (write,))
            self._emit(Task(copy, self.everyone, None, (None,), (None,)))

    def _emit(self, task: Task) -> None:
        self.actions.append(task)
        if task.instruction.kind is Kind.DOT:
            for rank in task.ranks:
                self.products[rank] += prod(build_part(task, rank).shape)
        for view, spread in zip(task.instruction.outputs, task.outputs, strict=True):
            self._record(view.tensor, spread, task.ranks)

    def _record(self, tensor: int, spread: Spread | None, ranks: Ranks) -> None:
        """Remember who has a tensor now; all that write to it must leave it in the same hands."""
        known = tensor in self.latest
        before = self.spreads.get(tensor), self.whole.get(tensor)
        after = (spread, None) if spread else (None, ranks)
        if known and before != after and tensor not in self._joined:
            raise _Disagreement(tensor)
        self.latest[tensor] = len(self.actions)
        if spread is not None:
            self.spreads[tensor] = spread
        else:
            self.whole[tensor] = ranks


def _get_written_shape(instruction: Instruction) -> tuple[int, ...]:
    """Return the iteration shape of a `map`, `dot`, `sum`, `max` or `gather` without reduced axes."""
    reduced = 1 if instruction.kind is Kind.DOT else instruction.reduced
    return instruction.shape[: len(instruction.shape) - reduced]


def _detach(instruction: Instruction) -> Instruction:
    """Return an instruction whose outputs are tensors of their own: output n is number ``-1 - n``."""
    shape = _get_written_shape(instruction)
    strides = TensorType(Dtype.F32, shape).strides + (0,) * (len(instruction.shape) - len(shape))
    outputs = tuple(
        View(-1 - number, 0, strides, view.register)
        for number, view in enumerate(instruction.outputs)
    )
    return replace(instruction, outputs=outputs)


def plan(program: Program, world: int, strategy: Strategy) -> ProgramPartition:
    """Return the partition of a valid ``program`` over ``world`` ranks that ``strategy`` makes."""
    joined: frozenset[int] = frozenset()
    while True:
        planner = Planner(program, world, joined)
        try:
            for instruction in program.instructions:
                if instruction.kind is not Kind.QUANTIZE:
                    planner.apply(instruction, strategy.place(planner, instruction))
            return planner.finish()
        except _Disagreement as found:
            joined |= {found.tensor}
