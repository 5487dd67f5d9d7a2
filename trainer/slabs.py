"""Slabs: a chain of instructions run part by part, so that what lies between them stays in the cache.

A unit's members each split their iteration into the same number of parts. INVARIANT: a tensor that is written
and read in a unit is touched in part s only inside elements [s N / S, (s + 1) N / S), so no part reads what a
later one writes; where nobody else reads it, it needs memory for one part. What an element is computed from
does not change, so the bits do not either: a slab is an instruction like any other, with a smaller shape.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import TensorType
from trainer.plan import Split, Unit, find_varying, is_fixed

LEAST_BYTES: Final = 1 << 23  # of a tensor that starts a unit
LEAST_PART: Final = 1 << 16  # bytes of it in a part
LAUNCH_BYTES: Final = 1 << 16  # what memory moves while an instruction is launched
_NEIGHBOUR: Final = 3  # a unit grows over tensors of that part of its seed's bytes or more
_MAX_SLABS: Final = 1 << 10
_WINDOW: Final = 48  # instructions from the first to the last of a unit
_KINDS: Final = (Kind.MAP, Kind.QUANTIZE, Kind.DOT, Kind.SUM, Kind.MAX, Kind.GATHER)


def slice_instruction(program: Program, unit: Unit, member: int, slab: int) -> Instruction:
    """Return what a member of ``unit`` does in one slab; an internal tensor's elements begin at the slab."""
    instruction = program.instructions[unit.members[member]]
    shape, starts = list(instruction.shape), [0] * len(instruction.shape)
    for axis, size, weight in unit.splits[member]:
        starts[axis] = slab // weight % (shape[axis] // size) * size
        shape[axis] = size

    def move(view: View) -> View:
        offset = view.offset + sum(i * step for i, step in zip(starts, view.strides, strict=True))
        if view.tensor in unit.internal:
            offset -= slab * (program.tensors[view.tensor].type.elements // unit.slabs)
        return replace(view, offset=offset)

    return replace(
        instruction,
        shape=tuple(shape),
        operands=tuple(move(view) for view in instruction.operands),
        outputs=tuple(move(view) for view in instruction.outputs),
    )


def find_split(
    view: View, shape: Sequence[int], kind: TensorType, slabs: int, reach: int = 0
) -> Split | None:
    """Return how an iteration over ``shape`` is split so that its view stays in each part; None if it cannot.

    ``reach`` is how far beyond its view an instruction reads. The parts of axes are in the axes' order."""
    part, rest = divmod(kind.elements, slabs)
    if rest or (kind.bits and part % kind.shape[-1]):
        return None
    split, high = [], view.offset + reach
    for axis, (size, step) in enumerate(zip(shape, view.strides, strict=True)):
        whole = step * size <= part or size == 1
        if whole:
            high += (size - 1) * step
            continue
        if step >= part:
            if step % part:
                return None
            split.append((axis, 1, step // part))
        else:
            if part % step or size % (part // step):
                return None
            split.append((axis, part // step, 1))
            high += (part // step - 1) * step
    return tuple(split) if high < part and _covers(split, shape, slabs) else None


def _covers(split: Sequence[tuple[int, int, int]], shape: Sequence[int], slabs: int) -> bool:
    """Tell whether the axes' parts number the slabs, each once."""
    count = 1
    for axis, size, weight in sorted(split, key=lambda x: x[2]):
        if weight != count:
            return False
        count *= shape[axis] // size
    return count == slabs


def arrange(program: Program) -> list[Unit]:
    """Return the units in which a step runs best: all its instructions but those that never vary."""
    return _Arranger(program).run()


def list_units(program: Program) -> list[Unit]:
    """Return a unit for each instruction that does not stay the same, in the program's order."""
    varying = find_varying(program)
    return [Unit((i,)) for i, x in enumerate(program.instructions) if not is_fixed(x, varying)]


class _Arranger:
    """Finds units: each grows from the largest tensor that is left, while all its members fit together."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._units = list_units(program)
        self._position = {unit.members[0]: at for at, unit in enumerate(self._units)}
        self._outputs = {output.tensor for output in program.outputs}
        self._written: dict[int, set[int]] = {}
        self._read: dict[int, set[int]] = {}
        self._writers: dict[int, set[int]] = {}
        self._users: dict[int, set[int]] = {}
        for number in self._position:
            instruction = program.instructions[number]
            self._written[number] = {view.tensor for view in instruction.outputs}
            self._read[number] = {view.tensor for view in instruction.operands}
            for tensor in self._written[number]:
                self._writers.setdefault(tensor, set()).add(number)
            for tensor in self._written[number] | self._read[number]:
                self._users.setdefault(tensor, set()).add(number)

    def run(self) -> list[Unit]:
        """Return the units, in an order in which every tensor is written before it is read."""
        for seed in sorted(self._writers, key=lambda t: (-self._count_bytes(t), t)):
            if self._count_bytes(seed) < LEAST_BYTES:
                break
            grown = (self._grow(seed, slabs) for slabs in self._list_slabs(seed))
            if found := [unit for unit in grown if unit is not None]:
                best = max(found, key=self._rate)
                if self._rate(best) > 0:
                    self._place(best)
        return self._units

    def _count_bytes(self, tensor: int) -> int:
        return self._program.tensors[tensor].type.nbytes

    def _list_slabs(self, tensor: int) -> Iterator[int]:
        elements = self._program.tensors[tensor].type.elements
        limit = min(self._count_bytes(tensor) // LEAST_PART, _MAX_SLABS)
        return (slabs for slabs in range(2, limit + 1) if elements % slabs == 0)

    def _rate(self, unit: Unit) -> int:
        """Return the bytes that a unit saves, less what its launches cost."""
        kept = sum(self._count_bytes(tensor) for tensor in unit.internal)
        return kept - kept // unit.slabs - LAUNCH_BYTES * unit.slabs * len(unit.members)

    def _grow(self, seed: int, slabs: int) -> Unit | None:
        """Return the unit of ``slabs`` in which ``seed`` and as many others as possible are internal."""
        unit = self._try(self._users[seed], slabs)
        if unit is None or seed not in unit.internal:
            return None
        refused: set[int] = set()
        least = self._count_bytes(seed) // _NEIGHBOUR
        while (tensor := self._find_neighbour(unit, refused, least)) is not None:
            larger = self._try(self._users[tensor].union(unit.members), slabs)
            if larger is None:
                refused.add(tensor)
            else:
                unit = larger
        return unit

    def _find_neighbour(self, unit: Unit, refused: Collection[int], least: int) -> int | None:
        """Return the largest tensor that members and others share, and that might become internal.

        It has at least so many bytes: small ones would tie together what is better cut in different ways."""
        shared = {
            tensor
            for member in unit.members
            for tensor in self._written[member] | self._read[member]
            if tensor in self._writers
            and tensor not in refused
            and self._count_bytes(tensor) >= least
            and tensor not in self._outputs
            and not self._users[tensor].issubset(unit.members)
        }
        return max(shared, key=lambda t: (self._count_bytes(t), -t), default=None)

    def _try(self, members: set[int], slabs: int) -> Unit | None:
        """Return ``members``, and those between them, as a unit; None if they do not fit together."""
        closed = self._close(members)
        if closed is None:
            return None
        ordered = tuple(sorted(closed))
        written = set().union(*(self._written[i] for i in ordered))
        shared = written & set().union(*(self._read[i] for i in ordered))
        splits = []
        for member in ordered:
            split = self._split(member, shared, slabs)
            if split is None:
                return None
            splits.append(split)
        internal = (t for t in shared - self._outputs if self._users[t] <= closed)
        return Unit(ordered, tuple(splits), slabs, frozenset(internal))

    def _split(self, member: int, shared: Collection[int], slabs: int) -> Split | None:
        """Return the one way to cut a member that all its views of ``shared`` tensors ask for."""
        instruction = self._program.instructions[member]
        kept = len(instruction.shape) - instruction.reduced
        kept -= instruction.kind in (Kind.DOT, Kind.QUANTIZE)
        found: set[Split | None] = set()
        for view in (*instruction.outputs, *instruction.operands):
            whole_rows = instruction.kind is Kind.QUANTIZE and view in instruction.outputs
            if view.tensor in shared or whole_rows:
                reach = 0
                if instruction.kind is Kind.GATHER and view is instruction.operands[1]:
                    reach = (instruction.attributes[0] - 1) * instruction.attributes[1]
                kind = self._program.tensors[view.tensor].type
                found.add(find_split(view, instruction.shape, kind, slabs, reach))
        split = found.pop() if len(found) == 1 else None
        return split if split and all(axis < kept for axis, _, _ in split) else None

    def _close(self, members: set[int]) -> set[int] | None:
        """Return ``members`` and what depends on one and is needed by another; None if they cannot run so."""
        closed = set(members)
        while all(self._is_free(i) for i in closed):
            places = [self._position[i] for i in closed]
            if max(places) - min(places) >= _WINDOW:
                return None
            missing = self._find_between(closed, min(places), max(places) + 1)
            if not missing:
                return closed
            closed |= missing
        return None

    def _is_free(self, number: int) -> bool:
        return number in self._position and self._program.instructions[number].kind in _KINDS

    def _find_between(self, members: Collection[int], begin: int, end: int) -> set[int]:
        """Return what, not of ``members``, hands something of theirs directly on to one of them."""
        tainted: dict[int, tuple[int, ...]] = {}  # tensors that follow from a member, by others
        written: set[int] = set()
        missing: set[int] = set()
        for unit in self._units[begin:end]:
            for i in unit.members:
                if i in members:
                    missing.update(n for t in self._read[i] & tainted.keys() for n in tainted[t])
                    written |= self._written[i]
                elif not self._read[i].isdisjoint(written) or self._read[i] & tainted.keys():
                    tainted |= dict.fromkeys(self._written[i], unit.members)
        return missing

    def _place(self, unit: Unit) -> None:
        """Put ``unit`` where its members were, after what they may need and before what may need them."""
        places = [self._position.pop(i) for i in unit.members]
        begin, end = min(places), max(places) + 1
        before, after = [], []
        late: set[int] = set()
        for other in self._units[begin:end]:
            written = set().union(*(self._written[i] for i in other.members))
            if other.members[0] in unit.members:
                late |= written
            elif any(not self._read[i].isdisjoint(late) for i in other.members):
                late |= written
                after.append(other)
            else:
                before.append(other)
        self._units[begin:end] = [*before, unit, *after]
        for at, other in enumerate(self._units):
            if other.slabs == 1:
                self._position[other.members[0]] = at
