"""Transposed copies: matrices that are quantized along their columns, computed again column by column.

Scores of queries and keys are read by rows (the softmax, the queries' gradients) and by columns (the keys'
and values' gradients). Whole they are the largest thing in a program. A copy of their instructions over
permuted axes writes the transposed matrices, so that a run slab by slab needs some rows of the one and some
rows of the other. INVARIANT: axes of an iteration are permuted; every element is computed as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from market.protocol.constants import MAX_RANK
from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import TensorType


@dataclass(frozen=True, slots=True)
class Matrices:
    """A tensor's elements as matrices of so many ``rows`` and ``columns``, one after the other."""

    rows: int
    columns: int

    @property
    def elements(self) -> int:
        """The elements of one matrix."""
        return self.rows * self.columns

    def transpose(self, stride: int) -> int:
        """Return what a step of ``stride`` elements is in the transposed matrices."""
        if stride >= self.elements:
            return stride
        return stride // self.columns if stride >= self.columns else stride * self.rows


def find_matrices(instruction: Instruction, kind: TensorType) -> Matrices | None:
    """Return the matrices of the operand that a `quantize` reads by columns, if it does."""
    view, shape = instruction.operands[0], instruction.shape
    if instruction.kind is not Kind.QUANTIZE or len(shape) < 2 or view.offset or kind.bits:
        return None
    matrices = Matrices(shape[-1], shape[-2])
    across = view.strides[-2:] == (1, shape[-2]) and shape[-2] > 1
    outer = sorted(zip(view.strides[:-2], shape[:-2], strict=True))
    return matrices if across and _is_dense(outer, matrices.elements, kind.elements) else None


def _is_dense(axes: Sequence[tuple[int, int]], least: int, elements: int) -> bool:
    """Tell whether axes (stride, size), least first, lead through all elements in steps of ``least``."""
    for stride, size in axes:
        if stride != least and size > 1:
            return False
        least *= size
    return least == elements


def list_aligned(program: Program, instruction: Instruction, tensor: int) -> list[int] | None:
    """Return the operands that are read element by element as all of ``tensor`` is written.

    None if it is not written so, or if another operand as large is read in another way."""
    targets = [view for view in instruction.outputs if view.tensor == tensor]
    elements = program.tensors[tensor].type.elements
    kept = instruction.shape[: -1 if instruction.kind is Kind.DOT else None]
    if instruction.kind not in (Kind.MAP, Kind.DOT) or len(targets) != 1 or prod(kept) != elements:
        return None
    (target,) = targets
    aligned = []
    for view in instruction.operands:
        if program.tensors[view.tensor].type.elements < elements:
            continue
        if (view.offset, view.strides) != (target.offset, target.strides):
            return None
        aligned.append(view.tensor)
    return aligned


def transpose(
    instruction: Instruction, tensor: int, matrices: Matrices, copies: Mapping[int, int]
) -> Instruction | None:
    """Return the instruction that writes the transposed matrices of ``tensor`` in order; None if none can.

    ``copies`` names the transposed copies of the tensor and of what it is made of element by element."""
    (target,) = (view for view in instruction.outputs if view.tensor == tensor)
    axes = _cut_axes(instruction, target, matrices)
    if axes is None or len(axes) > MAX_RANK:
        return None
    kept = len(axes) - (instruction.kind is Kind.DOT)
    order = sorted(range(kept), key=lambda i: -matrices.transpose(axes[i].step))
    order += range(kept, len(axes))
    turned = tuple(matrices.transpose(axes[i].step) for i in order)

    def move(number: int, view: View) -> View:
        if view.tensor in copies:
            return replace(view, tensor=copies[view.tensor], strides=turned)
        return replace(view, strides=tuple(axes[i].steps[number] for i in order))

    return replace(
        instruction,
        shape=tuple(axes[i].size for i in order),
        operands=tuple(move(n, view) for n, view in enumerate(instruction.operands)),
        outputs=(replace(target, tensor=copies[tensor], strides=turned),),
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of an iteration: its size, and its steps in the output and in each operand."""

    size: int
    step: int
    steps: tuple[int, ...]


def _cut_axes(instruction: Instruction, target: View, matrices: Matrices) -> list[_Axis] | None:
    """Return the iteration's axes, cut where rows and matrices begin; None if they begin within a step."""
    axes = []
    for axis, size in enumerate(instruction.shape):
        steps = tuple(view.strides[axis] for view in instruction.operands)
        pending = [_Axis(size, target.strides[axis], steps)]
        for border in (matrices.elements, matrices.columns):
            last = pending[-1]
            if not last.step < border < last.step * last.size:
                continue
            inner, rest = divmod(border, last.step)
            if rest or last.size % inner:
                return None
            outer = tuple(step * inner for step in last.steps)
            pending[-1:] = [
                _Axis(last.size // inner, border, outer),
                _Axis(inner, last.step, last.steps),
            ]
        axes += pending
    return axes
