"""Recomputation: values of the forward pass that the backward pass reads are computed again, not kept.

A program becomes another with copies of instructions right before their late readers. INVARIANT: a copy reads
the same elements and does the same as its original, so every value, and every output, stays what it was."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from math import prod
from typing import Final

from market.protocol.program import Instruction, Kind, Program, Tensor, View
from market.protocol.tensors import Dtype, TensorType
from trainer.lower.transposition import Matrices, find_matrices, list_aligned, transpose
from trainer.plan import find_varying


class Recompute(StrEnum):
    """What is computed again: nothing, attention where it is large, or all that costs little."""

    NOTHING = "nothing"
    ATTENTION = "attention"
    CHEAP = "cheap"


_LATE: Final = 24  # instructions between two uses of a value that is better not kept meanwhile
_LEAST_BYTES: Final = 1 << 20  # of a value that is worth a thought
_SMALL: Final = 16  # a value that much smaller than what is made of it is kept
_EXPANSION: Final = 4  # elements of a contraction for each of its operands' that make it attention
_NS_PER_BYTE: Final = 0.6  # of one thread, for what is cheap
_NS_PER_BYTE_OF_ATTENTION: Final = 2.5
_LEAST_MATRIX_BYTES: Final = 1 << 24  # of a matrix too large to be in memory whole: 2,048 by 2,048
_KINDS: Final = (
    *(Kind.MAP, Kind.QUANTIZE, Kind.DOT, Kind.SUM, Kind.MAX),
    *(Kind.GATHER, Kind.RANDOM),
)


def recompute_values(program: Program, level: Recompute) -> Program:
    """Return a program with the same outputs that keeps less from its forward pass to its backward pass."""
    if level is Recompute.NOTHING:
        return program
    uses = _Uses(program)
    roots = set()
    for instruction in program.instructions:
        late = [t for t in _list_written(instruction) if uses.find_late(t) is not None]
        if late and uses.is_worth_it(late, level):
            roots.update(late)
    found = ((i, uses.find_transposed(x)) for i, x in enumerate(program.instructions))
    transposed = {i: matrices for i, matrices in found if matrices is not None}
    return _Rewriter(uses, roots, transposed).run() if roots or transposed else program


def _list_written(instruction: Instruction) -> list[int]:
    return list(dict.fromkeys(view.tensor for view in instruction.outputs))


def _list_read(instruction: Instruction) -> list[int]:
    return list(dict.fromkeys(view.tensor for view in instruction.operands))


class _Uses:
    """Who writes and reads each tensor of a program, and when."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.writers: dict[int, list[int]] = {}
        self.readers: dict[int, list[int]] = {}
        for i, instruction in enumerate(program.instructions):
            for tensor in _list_written(instruction):
                self.writers.setdefault(tensor, []).append(i)
            for tensor in _list_read(instruction):
                self.readers.setdefault(tensor, []).append(i)
        self._named = {output.tensor for output in program.outputs}
        self._computed = find_varying(program).intersection(self.writers)

    def count_bytes(self, tensor: int) -> int:
        return self.program.tensors[tensor].type.nbytes

    def find_late(self, tensor: int) -> int | None:
        """Return the first reader long after the use before it, of a tensor that need not be kept."""
        large = self.count_bytes(tensor) >= _LEAST_BYTES
        if not large or tensor in self._named or tensor not in self._computed:
            return None
        last = self.writers[tensor][-1]
        for reader in self.readers.get(tensor, ()):
            if reader - last > _LATE:
                return reader
            last = reader
        return None

    def is_kept(self, tensor: int, at: int, size: int) -> bool:
        """Tell whether a tensor that something of ``size`` bytes is made of is there ``at`` an instruction.

        It is if it is given, small, or read again from there on."""
        readers = self.readers.get(tensor, ())
        return (
            tensor not in self._computed
            or tensor in self._named
            or self.count_bytes(tensor) * _SMALL <= size
            or any(reader >= at for reader in readers)
            or any(self.program.instructions[i].kind not in _KINDS for i in self.writers[tensor])
        )

    def list_needed(self, tensors: Collection[int], at: int) -> list[int]:
        """Return the instructions that compute ``tensors`` again ``at`` an instruction."""
        found: set[int] = set()
        todo = list(tensors)
        while todo:
            tensor = todo.pop()
            for writer in self.writers[tensor]:
                if writer in found:
                    continue
                found.add(writer)
                size = self.count_bytes(tensor)
                reads = _list_read(self.program.instructions[writer])
                todo += [t for t in reads if not self.is_kept(t, at, size)]
        return sorted(found)

    def is_worth_it(self, late: Sequence[int], level: Recompute) -> bool:
        """Tell whether tensors of one instruction should be computed again where they are read late."""
        at = min(at for t in late if (at := self.find_late(t)) is not None)
        needed = [self.program.instructions[i] for i in self.list_needed(late, at)]
        if any(x.kind not in _KINDS for x in needed):
            return False
        price = sum(map(_estimate_ns, needed)) / sum(map(self.count_bytes, late))
        if any(map(self._is_expanding, needed)):
            return price <= _NS_PER_BYTE_OF_ATTENTION
        return level is Recompute.CHEAP and price <= _NS_PER_BYTE

    def find_transposed(self, instruction: Instruction) -> Matrices | None:
        """Return the matrices of which a `quantize` should read transposed copies, if any."""
        if instruction.kind is not Kind.QUANTIZE:
            return None
        tensor = instruction.operands[0].tensor
        matrices = find_matrices(instruction, self.program.tensors[tensor].type)
        if matrices is None or matrices.elements * Dtype.F32.size < _LEAST_MATRIX_BYTES:
            return None
        chain = self._list_chain(tensor, matrices)
        price = sum(map(_estimate_ns, chain)) / self.count_bytes(tensor)
        worth = any(map(self._is_expanding, chain)) and price <= _NS_PER_BYTE_OF_ATTENTION
        return matrices if worth else None

    def _list_chain(self, tensor: int, matrices: Matrices) -> list[Instruction]:
        """Return what computes the transposed matrices of a tensor; nothing if it cannot be done."""
        chain, todo = [], [tensor]
        for written in todo:
            writers = self.writers.get(written, [])
            if len(writers) != 1:
                return []
            instruction = self.program.instructions[writers[0]]
            aligned = list_aligned(self.program, instruction, written)
            if aligned is None or not transpose(
                instruction, written, matrices, dict.fromkeys((*aligned, written), 0)
            ):
                return []
            chain.append(instruction)
            todo += [t for t in aligned if t not in todo]
        return chain

    def _is_expanding(self, instruction: Instruction) -> bool:
        """Tell whether a contraction is much larger than its operands, as scores of queries and keys are."""
        if instruction.kind is not Kind.DOT:
            return False
        operands = sum(self.program.tensors[t].type.elements for t in _list_read(instruction))
        return prod(instruction.shape[:-1]) >= _EXPANSION * operands


def _estimate_ns(instruction: Instruction) -> float:
    """Return about how long one thread computes, from measurements of the fused kernels."""
    if instruction.kind is Kind.DOT:
        return prod(instruction.shape[:-1]) * (0.5 + 0.012 * instruction.shape[-1])
    return prod(instruction.shape) * (0.5 + 0.07 * len(instruction.code))


class _Rewriter:
    """Writes a program again, with copies of what computes ``roots`` before each late reader of them."""

    def __init__(
        self, uses: _Uses, roots: Collection[int], transposed: Mapping[int, Matrices]
    ) -> None:
        self._uses = uses
        self._roots = roots
        self._transposed = transposed
        self._turned: dict[
            int, tuple[int, int]
        ] = {}  # a tensor's transposed copy, and its last use
        self._tensors = list(uses.program.tensors)
        self._instructions: list[Instruction] = []
        self._current: dict[int, int] = {}  # the last copy of a tensor
        self._touched: dict[int, int] = {}  # when a tensor or its copy was last written or read

    def run(self) -> Program:
        """Return the program, without what nothing needs any more."""
        for at, instruction in enumerate(self._uses.program.instructions):
            if at in self._transposed:
                self._append_transposed(instruction, at)
            else:
                reads = {tensor: self._find(tensor, at) for tensor in _list_read(instruction)}
                self._instructions.append(_rename(instruction, reads))
            self._touched |= dict.fromkeys(_list_written(instruction), at)
        program = self._uses.program
        return _prune(Program(tuple(self._tensors), tuple(self._instructions), program.outputs))

    def _find(self, tensor: int, at: int, size: int = 0) -> int:
        """Return where a tensor is to be read ``at`` an instruction, for something of ``size`` bytes."""
        stale = at - self._touched.get(tensor, at) > _LATE
        if stale and (tensor in self._roots or (size and not self._uses.is_kept(tensor, at, size))):
            self._copy(tensor, at)
        self._touched[tensor] = at
        return self._current.get(tensor, tensor)

    def _copy(self, tensor: int, at: int) -> None:
        """Compute a tensor again, and with it what else its instructions write for late readers."""
        copied, writers = self._list_together(tensor, at)
        size = self._uses.count_bytes(tensor)
        numbers = {}
        for original in copied:
            numbers[original] = len(self._tensors)
            self._tensors.append(self._tensors[original])
        for writer in writers:
            instruction = self._uses.program.instructions[writer]
            reads = {t: self._find(t, at, size) for t in _list_read(instruction)}
            outputs = tuple(view for view in instruction.outputs if view.tensor in numbers)
            self._instructions.append(
                _rename(replace(instruction, outputs=outputs), reads | numbers)
            )
        self._current |= numbers
        self._touched |= dict.fromkeys(copied, at)

    def _append_transposed(self, instruction: Instruction, at: int) -> None:
        """Let a `quantize` read the transposed matrices of its operand."""
        (view,), matrices = instruction.operands, self._transposed[at]
        strides = tuple(map(matrices.transpose, view.strides))
        turned = View(self._find_transposed(view.tensor, matrices, at), 0, strides)
        self._instructions.append(replace(instruction, operands=(turned,)))

    def _find_transposed(self, tensor: int, matrices: Matrices, at: int) -> int:
        """Return the transposed matrices of a tensor, computed for this reader or one shortly before."""
        number, touched = self._turned.get(tensor, (0, -_LATE - 1))
        if at - touched > _LATE:
            (writer,) = self._uses.writers[tensor]
            instruction = self._uses.program.instructions[writer]
            aligned = list_aligned(self._uses.program, instruction, tensor) or []
            copies = {t: self._find_transposed(t, matrices, at) for t in aligned}
            size = self._uses.count_bytes(tensor)
            reads = {t: self._find(t, at, size) for t in _list_read(instruction) if t not in copies}
            number = len(self._tensors)
            turned = transpose(instruction, tensor, matrices, {**copies, tensor: number})
            assert turned is not None  # `find_transposed` has tried
            shape = turned.shape[: -1 if turned.kind is Kind.DOT else None]
            self._tensors.append(Tensor(TensorType(self._tensors[tensor].type.dtype, shape)))
            self._instructions.append(_rename(turned, reads))
        self._turned[tensor] = number, at
        return number

    def _list_together(self, tensor: int, at: int) -> tuple[list[int], list[int]]:
        """Return the tensors to compute again with one, and all the instructions that write any of them."""
        copied, todo = {tensor}, [tensor]
        writers: set[int] = set()
        while todo:
            new = set(self._uses.writers[todo.pop()]) - writers
            writers |= new
            for other in {
                t for i in new for t in _list_written(self._uses.program.instructions[i])
            }:
                wanted = any(reader >= at for reader in self._uses.readers.get(other, ()))
                stale = at - self._touched[other] > _LATE
                if other in self._roots and other not in copied and wanted and stale:
                    copied.add(other)
                    todo.append(other)
        return sorted(copied), sorted(writers)


def _rename(instruction: Instruction, numbers: Mapping[int, int]) -> Instruction:
    def move(view: View) -> View:
        return replace(view, tensor=numbers.get(view.tensor, view.tensor))

    return replace(
        instruction,
        operands=tuple(map(move, instruction.operands)),
        outputs=tuple(map(move, instruction.outputs)),
    )


def _prune(program: Program) -> Program:
    """Drop what no output needs, and number the tensors in the order in which they are written."""
    needed = {output.tensor for output in program.outputs}
    kept: list[Instruction] = []
    for instruction in reversed(program.instructions):
        outputs = tuple(view for view in instruction.outputs if view.tensor in needed)
        if outputs:
            kept.append(replace(instruction, outputs=outputs))
            needed.update(_list_read(instruction))
    kept.reverse()
    inputs = [i for i, _ in program.inputs]
    written = [t for instruction in kept for t in _list_written(instruction)]
    order = list(dict.fromkeys((*inputs, *written)))
    numbers = {old: new for new, old in enumerate(order)}
    return Program(
        tuple(program.tensors[i] for i in order),
        tuple(_rename(instruction, numbers) for instruction in kept),
        tuple(
            replace(output, tensor=numbers[output.tensor], replaces=numbers[output.replaces])
            for output in program.outputs
        ),
    )
