"""What a step takes of memory, and where everything lies: known from the program before any is allocated.

A step runs `Unit`s in order. An instruction is alone in its unit, or runs slab by slab with others of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from market.protocol.program import Instruction, Kind, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType

ALIGNMENT: Final = 64  # bytes, of every tensor in the arena

CountBytes = Callable[[TensorType], int]
Split = tuple[tuple[int, int, int], ...]  # axis, its size in a slab, slabs between neighbours


@dataclass(frozen=True, slots=True)
class Unit:
    """Instructions that run together, in order, once for each of ``slabs`` parts of their iterations.

    ``splits`` say how each member's iteration is cut; a tensor in ``internal`` holds one part at a time."""

    members: tuple[int, ...]
    splits: tuple[Split, ...] = ((),)
    slabs: int = 1
    internal: frozenset[int] = frozenset()


@dataclass(slots=True)
class Lifetime:
    """Where a tensor is in the arena, and the first and last moments at which it is touched."""

    tensor: int
    size: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a step takes. ``offsets`` are the places of tensors in the arena.

    The dataset is not counted: it may stay in its file. What never varies has memory of its own."""

    inputs: int
    results: int
    arena: int
    fixed: int
    scratch: int
    offsets: Mapping[int, int] = field(repr=False)

    @property
    def total(self) -> int:
        """The bytes of everything."""
        return self.inputs + self.results + self.arena + self.fixed + self.scratch


def align(size: int) -> int:
    """Return the bytes that ``size`` bytes take in the arena."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def is_input(program: Program, tensor: int) -> bool:
    """Tell whether a tensor is given to the step."""
    return program.tensors[tensor].role is not TensorRole.VALUE


def is_literal(instruction: Instruction) -> bool:
    """Tell whether an instruction writes what stands in the program."""
    return instruction.kind in (Kind.IOTA, Kind.CONST)


def find_varying(program: Program) -> set[int]:
    """Return the tensors that follow from the inputs; the others are the same at every step."""
    varying = {i for i, _ in program.inputs}
    for instruction in program.instructions:
        if any(view.tensor in varying for view in instruction.operands):
            varying.update(view.tensor for view in instruction.outputs)
    return varying


def find_results(program: Program) -> list[int]:
    """Return the tensors that a step computes for its caller."""
    named = {output.tensor for output in program.outputs}
    return [i for i in sorted(named & find_varying(program)) if not is_input(program, i)]


def is_fixed(instruction: Instruction, varying: Collection[int]) -> bool:
    """Tell whether all that an instruction writes is the same at every step."""
    return all(view.tensor not in varying for view in instruction.outputs)


def list_touched(instruction: Instruction) -> Iterator[int]:
    """Return the tensors that an instruction writes or reads."""
    return (view.tensor for view in (*instruction.outputs, *instruction.operands))


def count_tensor_bytes(
    kind: TensorType, count_bytes: CountBytes, slabs: int = 1
) -> tuple[int, int]:
    """Return the bytes of a tensor's elements, and of them with the exponents of its rows."""
    elements = align(count_bytes(kind) // slabs)
    rows = kind.elements // kind.shape[-1] if kind.bits else 0
    return elements, elements + align(rows // slabs * Dtype.I32.size)


def find_lifetimes(
    program: Program, units: Sequence[Unit], sizes: Mapping[int, int]
) -> list[Lifetime]:
    """Return when each tensor of ``sizes`` is alive.

    INVARIANT: what a unit in slabs touches is alive from its first member to its last, unless it is
    internal: the next slab reads it again."""
    lifetimes: dict[int, Lifetime] = {}
    begin = 0
    for unit in units:
        end = begin + len(unit.members) - 1
        for moment, member in enumerate(unit.members, begin):
            for tensor in list_touched(program.instructions[member]):
                if tensor in sizes:
                    first, last = (moment, moment) if tensor in unit.internal else (begin, end)
                    lifetimes.setdefault(
                        tensor, Lifetime(tensor, sizes[tensor], first, last)
                    ).last = last
        begin = end + 1
    return list(lifetimes.values())


def plan_arena(lifetimes: Sequence[Lifetime]) -> int:
    """Give each tensor an offset, apart from those alive with it; return the bytes of all."""
    placed: list[Lifetime] = []
    for item in sorted(lifetimes, key=lambda x: (-x.size, x.first)):
        rivals = sorted(
            (x for x in placed if x.first <= item.last and item.first <= x.last),
            key=lambda x: x.offset,
        )
        for rival in rivals:
            if item.offset + item.size <= rival.offset:
                break
            item.offset = max(item.offset, rival.offset + rival.size)
        placed.append(item)
    return max((x.offset + x.size for x in placed), default=0)


def _place(
    lifetimes: Sequence[Lifetime], overwritten: Mapping[int, int]
) -> tuple[int, dict[int, int]]:
    """Return the bytes of the arena, and each tensor's offset: of one written over another, the other's."""
    shared: dict[int, Lifetime] = {}
    first_of: dict[int, int] = {}
    for item in lifetimes:
        first_of[item.tensor] = item.tensor
        if item.tensor in overwritten:
            first_of[item.tensor] = first_of[overwritten[item.tensor]]
        place = shared.setdefault(first_of[item.tensor], item)
        place.last = max(place.last, item.last)
    arena = plan_arena(list(shared.values()))
    return arena, {tensor: shared[first].offset for tensor, first in first_of.items()}


def plan_memory(
    program: Program, units: Sequence[Unit], count_bytes: CountBytes, scratch: int
) -> MemoryPlan:
    """Return what a step of ``program`` in ``units`` takes, where a tensor takes ``count_bytes``."""
    results, varying = set(find_results(program)), find_varying(program)
    slabs = {tensor: unit.slabs for unit in units for tensor in unit.internal}
    sizes = {
        i: count_tensor_bytes(tensor.type, count_bytes, slabs.get(i, 1))[1]
        for i, tensor in enumerate(program.tensors)
        if not is_input(program, i) and i not in results
    }
    moving = {i: n for i, n in sizes.items() if i in varying}
    lifetimes = find_lifetimes(program, units, moving)
    arena, offsets = _place(lifetimes, find_overwritten(program, units, moving))
    return MemoryPlan(
        inputs=sum(t.type.nbytes for _, t in program.inputs if t.role is not TensorRole.DATASET),
        results=sum(program.tensors[i].type.nbytes for i in results),
        arena=arena,
        fixed=sum(size for i, size in sizes.items() if i not in varying),
        scratch=scratch,
        offsets=offsets,
    )


def find_replaced(program: Program, units: Sequence[Unit]) -> dict[int, int]:
    """Return the results that a step may write over the input that they replace, and those inputs."""
    places = _Places(program, units)
    named = {output.tensor for output in program.outputs}
    return {
        output.tensor: output.replaces
        for output in program.outputs
        if output.kind is OutputKind.NEXT_STATE
        and output.replaces not in named
        and places.can_overwrite(output.tensor, output.replaces)
    }


def find_overwritten(
    program: Program, units: Sequence[Unit], sizes: Mapping[int, int]
) -> dict[int, int]:
    """Return the tensors of ``sizes`` that are written over another, which nobody reads again, and those."""
    places, found = _Places(program, units), {}
    for unit in units:
        for member in unit.members:
            instruction = program.instructions[member]
            dying = dict.fromkeys(view.tensor for view in instruction.operands)
            for view in instruction.outputs:
                over = (
                    t
                    for t in dying
                    if sizes.get(t) == sizes.get(view.tensor, -1)
                    and places.can_overwrite(view.tensor, t)
                )
                if (tensor := next(over, None)) is not None:
                    found[view.tensor] = tensor
                    del dying[tensor]
    return found


class _Places:
    """Who writes and reads each tensor, and the place of each instruction in its unit's turn."""

    def __init__(self, program: Program, units: Sequence[Unit]) -> None:
        self._program = program
        self._turn = {i: at for at, unit in enumerate(units) for i in unit.members}
        self._internal = {t for unit in units for t in unit.internal}
        self._writers: dict[int, set[int]] = {}
        self._readers: dict[int, set[int]] = {}
        for i, instruction in enumerate(program.instructions):
            for view in instruction.outputs:
                self._writers.setdefault(view.tensor, set()).add(i)
            for view in instruction.operands:
                self._readers.setdefault(view.tensor, set()).add(i)

    def can_overwrite(self, tensor: int, old: int) -> bool:
        """Tell whether ``tensor`` may be written where ``old`` is.

        INVARIANT: one `map` writes it, which reads the other, if at all, at the element that it writes; all
        other users of the other come before, in an earlier unit or, if it is internal, in the same slab."""
        writers, tensors = self._writers.get(tensor, set()), self._program.tensors
        kinds = {
            (t.type.dtype, t.type.elements, t.type.bits) for t in (tensors[tensor], tensors[old])
        }
        if len(writers) != 1 or len(kinds) != 1:
            return False
        (writer,) = writers
        users = self._writers.get(old, set()) | self._readers.get(old, set()) - {writer}
        internal = {tensor, old} <= self._internal
        earlier = (
            user < writer if internal else self._turn[user] < self._turn[writer] for user in users
        )
        return _is_in_place(self._program.instructions[writer], tensor, old) and all(earlier)


def _is_in_place(instruction: Instruction, tensor: int, old: int) -> bool:
    """Tell whether a map that stores computed registers reads ``old`` where it writes ``tensor``."""
    computed = all(view.register >= len(instruction.operands) for view in instruction.outputs)
    places = {
        (view.offset, view.strides)
        for view in (*instruction.outputs, *instruction.operands)
        if view.tensor in (tensor, old)
    }
    return instruction.kind is Kind.MAP and computed and len(places) == 1
