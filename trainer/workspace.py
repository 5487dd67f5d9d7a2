"""A program's tensors placed in memory, and its instructions made ready to run there."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from market.protocol.program import Instruction, Kind, Program
from market.protocol.tensors import TensorType
from trainer.exact import torch_ops
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.memory import read_memory, require_memory
from trainer.plan import (
    ALIGNMENT,
    Unit,
    count_tensor_bytes,
    find_replaced,
    find_results,
    find_varying,
    is_fixed,
    is_input,
    is_literal,
    plan_memory,
)
from trainer.slabs import slice_instruction

Run = Callable[[], object]


class Backend(Protocol):
    """A way to run instructions on tensors that are bound to memory.

    A map reads an element of all its operands before it writes that element of any output: an operand and
    an output with the same view may be the same memory."""

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes of a tensor's elements."""

    def count_scratch(self, instructions: Sequence[Instruction]) -> int:
        """Return about how many bytes preparing and running instructions take besides."""

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Say where a tensor is from now on (a quantized tensor: as bytes)."""

    def prepare(self, instructions: Sequence[Instruction]) -> list[Run]:
        """Return a function that runs each instruction."""

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat, and its exponents."""


@runtime_checkable
class Replaying(Protocol):
    """A backend that runs a step as a whole faster than one instruction after the other."""

    def replay(self, runs: Sequence[Run]) -> None:
        """Run what was prepared, in order, on the tensors that are bound now."""


class Workspace:
    """A program in ``units`` on a ``backend`` and a ``device``.

    Raises InsufficientMemory, before it allocates any, unless what a step takes is there."""

    def __init__(
        self, program: Program, units: Sequence[Unit], backend: Backend, device: torch.device
    ) -> None:
        self.program = program
        self.units = units
        self.backend = backend
        self._device = device
        parts = list(self._slice_units())
        scratch = backend.count_scratch([part for _, part in parts])
        self.plan = plan_memory(program, units, backend.count_bytes, scratch)
        self.replaced = find_replaced(program, units)
        require_memory(self.plan, read_memory(device))
        self._arena = self._place_tensors()
        self.steps = self._prepare(parts)

    def _slice_units(self) -> Iterator[tuple[int, Instruction]]:
        """Return what runs in a step, in order: numbers of instructions, and what to do of each."""
        for unit in self.units:
            for slab in range(unit.slabs):
                for at, member in enumerate(unit.members):
                    yield member, slice_instruction(self.program, unit, at, slab)

    def _allocate(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def _place_tensors(self) -> Tensor:
        """Bind all but inputs and results: to the arena, or to memory of their own if they never vary."""
        arena = self._allocate(self.plan.arena + ALIGNMENT)
        start = -arena.data_ptr() % ALIGNMENT
        slabs = {tensor: unit.slabs for unit in self.units for tensor in unit.internal}
        results = set(find_results(self.program))
        for i, tensor in enumerate(self.program.tensors):
            if is_input(self.program, i) or i in results:
                continue
            parts = slabs.get(i, 1)
            size, total = count_tensor_bytes(tensor.type, self.backend.count_bytes, parts)
            if i in self.plan.offsets:
                first = start + self.plan.offsets[i]
                self._bind(i, arena[first : first + total], size, parts)
            else:
                self._bind(i, self._allocate(total), size, parts)
        return arena

    def _bind(self, tensor: int, memory: Tensor, size: int, parts: int) -> None:
        kind = self.program.tensors[tensor].type
        elements = memory[: self.backend.count_bytes(kind) // parts]
        if kind.bits:
            rows = kind.elements // kind.shape[-1] // parts
            self.backend.bind(tensor, elements, memory[size:].view(torch.int32)[:rows])
        else:
            self.backend.bind(tensor, elements.view(TORCH_DTYPES[kind.dtype]))

    def _prepare(self, parts: Sequence[tuple[int, Instruction]]) -> list[tuple[int, Run]]:
        """Prepare what runs at each step, and do once and for all what gives the same at every step."""
        varying = find_varying(self.program)
        fixed = [x for x in self.program.instructions if is_fixed(x, varying)]
        wanted = list(dict.fromkeys((*fixed, *(part for _, part in parts))))
        literals = {x: partial(self._write_literal, x) for x in wanted if is_literal(x)}
        computed = [x for x in wanted if not is_literal(x)]
        runs = literals | dict(zip(computed, self.backend.prepare(computed), strict=True))
        for instruction in fixed:
            runs[instruction]()
        return [(number, runs[part]) for number, part in parts]

    def _write_literal(self, instruction: Instruction) -> None:
        number = instruction.outputs[0].tensor
        out, _ = self.backend.read(number)
        if instruction.kind is Kind.IOTA:
            torch_ops.run_iota(*instruction.attributes, out)
        else:
            literal = bytearray(self.program.tensors[number].literal)
            out.copy_(torch.frombuffer(literal, dtype=out.dtype))
