"""A program's instructions as Triton kernels, prepared once; on CUDA a step is replayed as one graph.

Preparing plans every launch; the tensors are looked up when it runs, so inputs and results may move.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from market.protocol.errors import NondeterministicEnvironment
from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import Dtype, TensorType
from trainer.exact.fused_native import Strided
from trainer.exact.triton_carriers import INTERPRETED, TRITON_CARRIERS, get_digit_type
from trainer.exact.triton_dot import Operand, plan_dot
from trainer.exact.triton_graph import GraphKeeper
from trainer.exact.triton_index import plan_gather, plan_random, plan_scatter_add
from trainer.exact.triton_map import plan_map
from trainer.exact.triton_native import Memory, Step, run_all
from trainer.exact.triton_quantize import (
    DIGITS,
    get_pitch,
    join_digits,
    plan_quantize,
    view_digits,
)
from trainer.exact.triton_reduce import get_reduction, plan_reduce


class TritonBackend:
    """Runs instructions on CUDA tensors; quantized ones are kept as digits."""

    def __init__(self, program: Program, carrier: str, device: torch.device) -> None:
        if device.type != ("cpu" if INTERPRETED else "cuda"):
            raise NondeterministicEnvironment(f"the Triton kernels run on a GPU, not on {device}")
        if carrier not in TRITON_CARRIERS:
            raise NondeterministicEnvironment(f"no Triton kernel takes the carrier {carrier!r}")
        self._program = program
        self._digit_type: Any = get_digit_type(carrier)
        self._count = len(program.tensors)  # entries of elements; those of exponents follow
        none = torch.empty(0, dtype=torch.uint8, device=device)
        self._memory = Memory([none] * (2 * self._count), device)
        self._steps: dict[Instruction, Step] = {}
        self._is_prepared = False
        self._moving: dict[int, int] = {}  # addresses of what is bound anew for every step
        self._graphs = GraphKeeper()

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes that a tensor of type ``kind`` takes here, without exponents."""
        if not kind.bits:
            return kind.nbytes
        rows = kind.elements // kind.shape[-1]
        return DIGITS[kind.bits] * rows * get_pitch(kind.shape[-1])

    def count_scratch(self, instructions: Sequence[Instruction]) -> int:
        """Return the bytes that ``instructions`` share for maxima and sums of groups."""
        for instruction in instructions:
            if instruction not in self._steps:
                self._steps[instruction] = self._plan(instruction)
        return self._memory.scratch_bytes

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Let ``tensor`` be at ``elements`` (for a quantized tensor: bytes) from now on."""
        if exponents is not None:
            kind = self._program.tensors[tensor].type
            elements = view_digits(elements, kind.bits, kind.shape[-1])
            self._memory.tensors[self._count + tensor] = exponents
        self._memory.tensors[tensor] = elements
        if self._is_prepared:
            self._moving[tensor] = elements.data_ptr()

    def prepare(self, instructions: Sequence[Instruction]) -> list[Callable[[], object]]:
        """Return a function for each of ``instructions``, which share scratch memory."""
        self.count_scratch(instructions)
        self._memory.allocate()
        self._is_prepared = True
        return [self._steps[instruction] for instruction in instructions]

    def replay(self, runs: Sequence[Callable[[], object]]) -> None:
        """Run what was prepared, in order, on the tensors that are bound now."""
        if INTERPRETED:
            run_all(runs)()
        else:
            self._graphs.run(runs, tuple(self._moving.values()))

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat and in the protocol's form, and the exponents of its rows."""
        elements, kind = self._memory.tensors[tensor], self._program.tensors[tensor].type
        if not kind.bits:
            return elements.view(-1), None
        joined = join_digits(elements, kind.bits, kind.shape[-1])
        return joined.reshape(-1), self._memory.tensors[self._count + tensor]

    def _view(self, view: View) -> Strided:
        dtype = self._program.tensors[view.tensor].type.dtype
        return Strided(view.tensor, dtype, view.offset, view.strides)

    def _view_rows(self, view: View) -> Strided:
        """Return a quantized tensor's view by rows, of its exponents."""
        length = self._program.tensors[view.tensor].type.shape[-1]
        strides = tuple(stride // length for stride in view.strides[:-1])
        return Strided(self._count + view.tensor, Dtype.I32, view.offset // length, strides)

    def _get_operand(self, view: View) -> Operand:
        bits = self._program.tensors[view.tensor].type.bits
        return Operand(view.tensor, bits, self._view_rows(view))

    def _plan(self, instruction: Instruction) -> Step:  # noqa: PLR0911 - one for each kind
        shape, kind, memory = instruction.shape, instruction.kind, self._memory
        views = [self._view(view) for view in instruction.operands]
        out = self._view(instruction.outputs[0])
        first, second = instruction.attributes
        if kind is Kind.MAP:
            outputs = [(view.register, self._view(view)) for view in instruction.outputs]
            constants = instruction.f32_constants, instruction.i64_constants
            return plan_map(memory, shape, instruction.code, *constants, views, outputs)
        if kind is Kind.QUANTIZE:
            rows = self._view_rows(instruction.outputs[0])
            return plan_quantize(memory, shape, views[0], first, out.entry, rows)
        if kind is Kind.DOT:
            a, b = (self._get_operand(view) for view in instruction.operands)
            out = Strided(out.entry, out.dtype, out.offset, out.strides[:-1])
            return plan_dot(memory, shape, a, b, out, self._digit_type)
        if kind in (Kind.SUM, Kind.MAX):
            what = get_reduction(views[0].dtype, maximum=kind is Kind.MAX)
            return plan_reduce(memory, shape, instruction.reduced, what, views[0], out)
        if kind is Kind.GATHER:
            return plan_gather(memory, shape, views[0], views[1], (first, second), out)
        if kind is Kind.SCATTER_ADD:
            index, x = views
            return plan_scatter_add(memory, shape, instruction.reduced, index, x, first, out)
        assert kind is Kind.RANDOM
        return plan_random(memory, shape[0], views, out)
