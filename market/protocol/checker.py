"""Views of a program's tensors: in bounds when read, dense boxes when written, once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from market.protocol.errors import InvalidProgram
from market.protocol.program import Instruction, Program, Tensor, TensorRole, View
from market.protocol.tensors import Dtype, TensorType

Box = tuple[tuple[int, int], ...]  # start and size along each axis of a tensor


@dataclass
class Checker:
    """Walks a program in order; ``boxes`` holds what has been written of each tensor."""

    program: Program
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    at: str = "the program"

    def refuse(self, reason: str) -> NoReturn:
        """Raise InvalidProgram, naming where the walk is and the ``reason``."""
        raise InvalidProgram(f"{self.at}: {reason}")

    def require(self, holds: bool, reason: str) -> None:  # noqa: FBT001
        """Raise InvalidProgram for that ``reason`` unless it ``holds``."""
        if not holds:
            self.refuse(reason)

    def get_tensor(self, index: int) -> Tensor:
        """Return the tensor with that number."""
        self.require(0 <= index < len(self.program.tensors), f"there is no tensor {index}")
        return self.program.tensors[index]

    def is_complete(self, index: int) -> bool:
        """Check whether every element of a tensor is there to be read."""
        tensor = self.get_tensor(index)
        if tensor.role is not TensorRole.VALUE:
            return True
        volume = sum(_compute_volume(box) for box in self.boxes.get(index, ()))
        return volume == tensor.type.elements

    def require_operand(self, view: View, shape: Sequence[int], extra: int = 0) -> Tensor:
        """Return a view's tensor: in bounds (``extra`` is a gather's reach), and written before."""
        tensor = self.get_tensor(view.tensor)
        self.require(len(view.strides) == len(shape), f"a view of tensor {view.tensor} lacks axes")
        self.require(
            view.offset >= 0 and all(stride >= 0 for stride in view.strides),
            f"a view of tensor {view.tensor} goes backwards",
        )
        high = view.offset + extra
        high += sum((s - 1) * stride for s, stride in zip(shape, view.strides, strict=True))
        self.require(
            high < tensor.type.elements,
            f"a view reads element {high} of tensor {view.tensor}, which has {tensor.type.elements}",
        )
        self.require(view.register == 0, "an operand names a register")
        self.require(
            self.is_complete(view.tensor), f"tensor {view.tensor} is read before it is written"
        )
        return tensor

    def require_plain(
        self, view: View, shape: Sequence[int], *dtypes: Dtype, extra: int = 0
    ) -> Tensor:
        """Return the operand of a ``view``, which is not quantized and of one of ``dtypes``, if given."""
        tensor = self.require_operand(view, shape, extra)
        allowed = tensor.type.bits == 0 and (not dtypes or tensor.type.dtype in dtypes)
        self.require(allowed, f"tensor {view.tensor} of type {tensor.type} cannot be read here")
        return tensor

    def write(self, view: View, shape: Sequence[int]) -> Tensor:
        """Mark the dense box that ``view`` writes; ``shape`` has 1 where an axis is reduced."""
        tensor = self.get_tensor(view.tensor)
        self.require(tensor.role is TensorRole.VALUE, f"input {view.tensor} cannot be written")
        box = self._find_box(view, shape, tensor.type)
        for other in self.boxes.get(view.tensor, ()):
            self.require(_are_disjoint(box, other), f"tensor {view.tensor} is written twice")
        self.boxes.setdefault(view.tensor, []).append(box)
        return tensor

    def _find_box(self, view: View, shape: Sequence[int], kind: TensorType) -> Box:
        self.require(len(view.strides) == len(shape), f"a view of tensor {view.tensor} lacks axes")
        self.require(0 <= view.offset < kind.elements, f"offset {view.offset} is out of bounds")
        axes = {stride: axis for axis, stride in enumerate(kind.strides) if kind.shape[axis] > 1}
        sizes = [1] * len(kind.shape)
        for size, stride in zip(shape, view.strides, strict=True):
            if size == 1:
                continue
            axis = axes.pop(stride, None)
            if axis is None:
                self.refuse(f"output stride {stride} is no axis of tensor {view.tensor}, or twice")
            sizes[axis] = size
        starts, rest = [], view.offset
        for stride, size, dimension in zip(kind.strides, sizes, kind.shape, strict=True):
            start, rest = divmod(rest, stride)
            self.require(start + size <= dimension, f"tensor {view.tensor} is written past its end")
            starts.append(start)
        return tuple(zip(starts, sizes, strict=True))

    def write_whole(self, instruction: Instruction, shape: Sequence[int]) -> Tensor:
        """The one output is a tensor of exactly ``shape``, in order."""
        self.require(len(instruction.outputs) == 1, "there must be one output")
        view = instruction.outputs[0]
        tensor = self.write(view, shape)
        self.require(tensor.type.shape == tuple(shape), f"the output is not of shape {shape}")
        return tensor


def _compute_volume(box: Box) -> int:
    volume = 1
    for _, size in box:
        volume *= size
    return volume


def _are_disjoint(a: Box, b: Box) -> bool:
    return any(s + n <= t or t + m <= s for (s, n), (t, m) in zip(a, b, strict=True))
