"""A program's instructions as torch operations, on any device."""

from collections.abc import Callable, Sequence
from math import prod

from torch import Tensor

from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import Dtype, TensorType
from trainer.exact import torch_ops
from trainer.exact.carriers import Carrier
from trainer.exact.fused_native import TORCH_DTYPES


class TorchBackend:
    """Runs instructions as torch operations, on any device."""

    def __init__(self, program: Program, carrier: Carrier) -> None:
        self._program = program
        self._carrier = carrier
        self._elements: dict[int, Tensor] = {}
        self._exponents: dict[int, Tensor] = {}

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes of a tensor's elements."""
        return kind.nbytes

    def count_scratch(self, instructions: Sequence[Instruction]) -> int:
        """Return about how many bytes the temporary tensors of one instruction take at once."""
        return max(map(self._count_temporary, instructions), default=0)

    def _count_temporary(self, instruction: Instruction) -> int:
        shape = instruction.shape[: -1 if instruction.kind is Kind.DOT else None]
        registers = max(4, len(instruction.operands) + len(instruction.code))
        return prod(shape) * registers * Dtype.I64.size

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Say where a tensor is from now on (a quantized tensor: as bytes)."""
        self._elements[tensor] = elements.view(
            TORCH_DTYPES[self._program.tensors[tensor].type.dtype]
        ).view(-1)
        if exponents is not None:
            self._exponents[tensor] = exponents

    def prepare(self, instructions: Sequence[Instruction]) -> list[Callable[[], object]]:
        """Return a function that runs each instruction."""
        return [self._bind_instruction(instruction) for instruction in instructions]

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat, and its exponents."""
        return self._elements[tensor], self._exponents.get(tensor)

    def _bind_instruction(self, instruction: Instruction) -> Callable[[], object]:
        return lambda: self._run(instruction)

    def _view(self, view: View, shape: Sequence[int]) -> Tensor:
        return view_elements(self._elements[view.tensor], view, shape)

    def _view_exponents(self, view: View, shape: Sequence[int]) -> Tensor:
        length = self._program.tensors[view.tensor].type.shape[-1]
        strides = [stride // length for stride in view.strides[:-1]]
        exponents = self._exponents[view.tensor]
        return exponents.as_strided(
            shape[:-1], strides, exponents.storage_offset() + view.offset // length
        )

    def _run(self, instruction: Instruction) -> None:
        shape, kind, outputs = instruction.shape, instruction.kind, instruction.outputs
        first, second = instruction.attributes
        out = view_output(self._elements[outputs[0].tensor], instruction, outputs[0])
        views = [
            self._view(view, shape) for view in instruction.operands if kind is not Kind.RANDOM
        ]
        if kind is Kind.MAP:
            stores = [(view.register, self._view(view, shape)) for view in outputs]
            constants = instruction.f32_constants, instruction.i64_constants
            torch_ops.run_map(instruction.code, *constants, views, stores)
        elif kind is Kind.QUANTIZE:
            torch_ops.run_quantize(views[0], first, out, self._view_exponents(outputs[0], shape))
        elif kind is Kind.DOT:
            a, b = instruction.operands
            bits = [self._program.tensors[view.tensor].type.bits for view in (a, b)]
            exponents = [self._view_exponents(view, shape) for view in (a, b)]
            operands = views[0], exponents[0], views[1], exponents[1]
            torch_ops.run_dot(*operands, bits[0], bits[1], out, self._carrier)
        elif kind is Kind.SUM:
            torch_ops.run_sum(views[0], instruction.reduced, out)
        elif kind is Kind.MAX:
            torch_ops.run_max(views[0], instruction.reduced, out)
        elif kind is Kind.GATHER:
            source = instruction.operands[1]
            flat, strides = self._elements[source.tensor], source.strides
            torch_ops.run_gather(views[0], flat, source.offset, strides, first, second, out)
        elif kind is Kind.SCATTER_ADD:
            torch_ops.run_scatter_add(views[0], views[1], instruction.reduced, first, out)
        else:
            scalars = [
                int(self._elements[view.tensor][view.offset]) for view in instruction.operands
            ]
            torch_ops.run_random(scalars[0], scalars[1], scalars[2], scalars[3], out)


def view_elements(flat: Tensor, view: View, shape: Sequence[int]) -> Tensor:
    """Return a view, of ``shape``, of a tensor's flat elements."""
    strides = view.strides[: len(shape)]
    return flat.as_strided(shape, strides, flat.storage_offset() + view.offset)


def view_output(flat: Tensor, instruction: Instruction, view: View) -> Tensor:
    """Return what ``instruction`` writes of a tensor: in its iteration shape, without reduced axes."""
    shape, kind = instruction.shape, instruction.kind
    if kind is Kind.SCATTER_ADD:
        return flat.view(instruction.attributes[0], *shape[instruction.reduced :])
    kept = len(shape) - (1 if kind is Kind.DOT else instruction.reduced)
    return view_elements(flat, view, shape[:kept])
