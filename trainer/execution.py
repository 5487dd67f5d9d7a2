"""The executor: runs a program's step, for providers, auditors and replays alike.

INVARIANT: a step is a pure function of its inputs. Inputs are never written, and results are memory that
nothing here writes again until the caller gives it back with ``release``. Everything between lives in one
arena, planned once from the instructions in which each tensor is first written and last read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from market.protocol.errors import InvalidBlob, NondeterministicEnvironment
from market.protocol.program import Instruction, Kind, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType
from trainer.exact import torch_ops
from trainer.exact.carriers import CARRIERS, Carrier, choose_carrier, probe_carriers
from trainer.exact.fused_backend import FusedBackend
from trainer.exact.fused_multiply import is_int8_exact
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.exact.torch_backend import TorchBackend, view_output

FUSED_CARRIERS: Final = ("int8", "float64")

_ALIGNMENT: Final = 64  # bytes, of every tensor in the arena

BackendName = Literal["fused", "torch"]
Observe = Callable[[int, tuple["Value", ...]], None]


@dataclass(frozen=True, slots=True)
class Value:
    """An output of an instruction, valid until the next instruction runs.

    ``elements`` is a view of what it wrote, in its iteration shape without reduced axes (of a `scatter_add`:
    the whole tensor); a quantized tensor has the ``exponents`` of its rows too."""

    elements: Tensor
    exponents: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step computes: the next base and slot tensors in declaration order, gradients, metrics.

    A program without metrics has an empty vector of them."""

    state: dict[str, Tensor]
    gradients: dict[str, Tensor]
    metrics: Tensor


class Backend(Protocol):
    """A way to run instructions on tensors that are bound to memory."""

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes of a tensor's elements."""

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Say where a tensor is from now on (a quantized tensor: as bytes)."""

    def prepare(self, instructions: Sequence[Instruction]) -> list[Callable[[], object]]:
        """Return a function that runs each instruction."""

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat, and its exponents."""


@cache
def choose_default_carrier(device: str, backend: BackendName) -> Carrier:
    """Return the fastest exact carrier: for the fused kernels int8 products wherever they are exact."""
    if backend == "fused":
        return CARRIERS["int8" if is_int8_exact() else "float64"]
    return choose_carrier(probe_carriers(torch.device(device)), torch.device(device))


@dataclass(slots=True)
class _Lifetime:
    """Where a tensor is in the arena, and the first and last instructions that touch it."""

    tensor: int
    size: int
    first: int
    last: int
    offset: int = 0


def _find_lifetimes(
    instructions: Sequence[Instruction], sizes: Mapping[int, int]
) -> list[_Lifetime]:
    lifetimes: dict[int, _Lifetime] = {}
    for i, instruction in enumerate(instructions):
        for view in (*instruction.outputs, *instruction.operands):
            if view.tensor in sizes:
                lifetimes.setdefault(
                    view.tensor, _Lifetime(view.tensor, sizes[view.tensor], i, i)
                ).last = i
    return list(lifetimes.values())


def plan_arena(lifetimes: Sequence[_Lifetime]) -> int:
    """Give each tensor an offset, apart from those alive with it; return the bytes of all."""
    placed: list[_Lifetime] = []
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


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def find_varying(program: Program) -> set[int]:
    """Return the tensors that follow from the inputs; the others are the same at every step."""
    varying = {i for i, _ in program.inputs}
    for instruction in program.instructions:
        if any(view.tensor in varying for view in instruction.operands):
            varying.update(view.tensor for view in instruction.outputs)
    return varying


class Executor:
    """Runs the step of ``program`` (one that ``require_valid_program`` accepts), one step at a time."""

    def __init__(
        self,
        program: Program,
        *,
        device: str = "cpu",
        backend: BackendName | None = None,
        carrier: Carrier | None = None,
        threads: int | None = None,
    ) -> None:
        self.program = program
        self.device = torch.device(device)
        self.threads = threads or torch.get_num_threads()
        backend = backend or ("fused" if self.device.type == "cpu" else "torch")
        fused = backend == "fused"
        if fused and self.device.type != "cpu":
            raise NondeterministicEnvironment(f"the fused kernels run on a CPU, not on {device}")
        carrier = carrier or choose_default_carrier(device, backend)
        if fused and carrier.name not in FUSED_CARRIERS:
            raise NondeterministicEnvironment(f"no fused kernel takes the carrier {carrier.name!r}")
        self._backend: Backend = (
            FusedBackend(program, carrier.name, self.threads)
            if fused
            else TorchBackend(program, carrier)
        )
        self._inputs = {tensor.name: (i, tensor.type) for i, tensor in program.inputs}
        self._varying = find_varying(program)
        named = {output.tensor for output in program.outputs}
        self._results = [i for i in sorted(named & self._varying) if not self._is_input(i)]
        self._spare: dict[int, list[Tensor]] = {i: [] for i in self._results}
        self._arena = self._place_tensors()
        self._steps = self._prepare()

    @property
    def arena_bytes(self) -> int:
        """The memory of everything between the inputs and the results of a step."""
        return self._arena.numel()

    def run_step(
        self,
        inputs: Mapping[str, Tensor],
        observe: Observe | None = None,
        after: Callable[[int], None] | None = None,
    ) -> StepResult:
        """Return the results of a step on ``inputs``: every input by name, contiguous, of its type.

        ``observe`` is told the number of every instruction and the values that it wrote, in order;
        ``after`` the number alone, which costs nothing."""
        self._bind_inputs(inputs)
        self._bind_results({tensor.data_ptr() for tensor in inputs.values()})
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            for i, step in enumerate(self._steps):
                if step is not None:
                    step()
                if observe is not None:
                    observe(i, self._read_values(self.program.instructions[i]))
                if after is not None:
                    after(i)
        finally:
            torch.set_num_threads(before)
        return self._collect()

    def release(self, result: StepResult) -> None:
        """Give back the memory of a ``result`` that nobody will read again, for later steps to write."""
        for kind, tensors in (
            (OutputKind.NEXT_STATE, result.state),
            (OutputKind.GRADIENT, result.gradients),
            (OutputKind.METRICS, {"": result.metrics}),
        ):
            for (_, number), tensor in zip(
                self.program.find_outputs(kind).items(), tensors.values(), strict=False
            ):
                spare = self._spare.get(number, [])
                if all(tensor is not other for other in spare):
                    spare.append(tensor)

    def _is_input(self, tensor: int) -> bool:
        return self.program.tensors[tensor].role is not TensorRole.VALUE

    def _allocate(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def _place_tensors(self) -> Tensor:
        """Bind all but inputs and results: to the arena, or to memory of their own if they never vary."""
        sizes = {}
        for i, tensor in enumerate(self.program.tensors):
            if self._is_input(i) or i in self._results:
                continue
            exponents = tensor.type.elements // tensor.type.shape[-1] if tensor.type.bits else 0
            size = _align(self._backend.count_bytes(tensor.type))
            sizes[i] = size, size + _align(exponents * Dtype.I32.size)
        moving = {i: total for i, (_, total) in sizes.items() if i in self._varying}
        lifetimes = _find_lifetimes(self.program.instructions, moving)
        arena = self._allocate(plan_arena(lifetimes) + _ALIGNMENT)
        start = -arena.data_ptr() % _ALIGNMENT
        offsets = {item.tensor: start + item.offset for item in lifetimes}
        for i, (size, total) in sizes.items():
            memory = (
                arena[offsets[i] : offsets[i] + total] if i in offsets else self._allocate(total)
            )
            self._bind(i, memory, size)
        return arena

    def _bind(self, tensor: int, memory: Tensor, size: int) -> None:
        kind = self.program.tensors[tensor].type
        elements = memory[: self._backend.count_bytes(kind)]
        if kind.bits:
            rows = kind.elements // kind.shape[-1]
            exponents = memory[size:].view(torch.int32)[:rows]
            self._backend.bind(tensor, elements, exponents)
        else:
            self._backend.bind(tensor, elements.view(TORCH_DTYPES[kind.dtype]))

    def _prepare(self) -> list[Callable[[], object] | None]:
        """Prepare each instruction, and do those that give the same at every step once and for all."""
        instructions = self.program.instructions
        literal = [i.kind in (Kind.IOTA, Kind.CONST) for i in instructions]
        runnable = [
            i for i, is_literal in zip(instructions, literal, strict=True) if not is_literal
        ]
        prepared = iter(self._backend.prepare(runnable))
        steps: list[Callable[[], object] | None] = []
        for instruction, is_literal in zip(instructions, literal, strict=True):
            step = partial(self._write_literal, instruction) if is_literal else next(prepared)
            if any(view.tensor in self._varying for view in instruction.operands):
                steps.append(step)
            else:
                fixed = all(view.tensor not in self._varying for view in instruction.outputs)
                if fixed:
                    step()
                steps.append(None if fixed else step)
        return steps

    def _write_literal(self, instruction: Instruction) -> None:
        number = instruction.outputs[0].tensor
        out, _ = self._backend.read(number)
        if instruction.kind is Kind.IOTA:
            torch_ops.run_iota(*instruction.attributes, out)
        else:
            literal = bytearray(self.program.tensors[number].literal)
            out.copy_(torch.frombuffer(literal, dtype=out.dtype))

    def _bind_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        if strange := set(inputs) ^ set(self._inputs):
            raise InvalidBlob(f"a step takes {sorted(self._inputs)}: not {sorted(strange)}")
        for name, (number, kind) in self._inputs.items():
            tensor = inputs[name]
            given = tensor.dtype, tuple(tensor.shape), tensor.device.type, tensor.is_contiguous()
            needed = TORCH_DTYPES[kind.dtype], kind.shape, self.device.type, True
            if given != needed:
                raise InvalidBlob(
                    f"input {name}: dtype, shape, device, contiguous are {given}, not {needed}"
                )
            self._backend.bind(number, tensor.view(-1))

    def _bind_results(self, taken: set[int]) -> None:
        self._fresh: dict[int, Tensor] = {}
        for number in self._results:
            spare, kind = self._spare[number], self.program.tensors[number].type
            # INVARIANT: an input that was released by mistake is still not written
            tensor = next((x for x in spare if x.data_ptr() not in taken), None)
            if tensor is None:
                tensor = torch.empty(kind.shape, dtype=TORCH_DTYPES[kind.dtype], device=self.device)
            else:
                self._spare[number] = [x for x in spare if x is not tensor]
            self._fresh[number] = tensor
            self._backend.bind(number, tensor.view(-1))

    def _collect(self) -> StepResult:
        def get(number: int) -> Tensor:
            if number in self._fresh:
                return self._fresh[number]
            elements, _ = self._backend.read(number)
            return elements.view(self.program.tensors[number].type.shape).clone()

        state, gradients, metrics = (
            {name: get(number) for name, number in self.program.find_outputs(kind).items()}
            for kind in (OutputKind.NEXT_STATE, OutputKind.GRADIENT, OutputKind.METRICS)
        )
        empty = torch.empty(0, dtype=torch.float32, device=self.device)
        self._fresh = {}
        return StepResult(state, gradients, next(iter(metrics.values()), empty))

    def _read_values(self, instruction: Instruction) -> tuple[Value, ...]:
        values = []
        for view in instruction.outputs:
            elements, exponents = self._backend.read(view.tensor)
            if exponents is not None:
                exponents = exponents.view(instruction.shape[:-1])
            values.append(Value(view_output(elements, instruction, view), exponents))
        return tuple(values)
