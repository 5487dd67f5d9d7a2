"""The executor: runs a program's step, for providers, auditors and replays alike.

INVARIANT: a step is a pure function of its inputs. An input is written only if it is memory of an earlier
result that the caller hands over as ``spent``; a result is memory that nothing here writes again until the
caller gives it back. Everything between lives in one arena, planned once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal

import torch
from torch import Tensor

from market.protocol.errors import InvalidBlob, NondeterministicEnvironment
from market.protocol.program import Instruction, OutputKind, Program
from trainer.exact.carriers import CARRIERS, Carrier, choose_carrier, probe_carriers
from trainer.exact.fused_backend import FusedBackend
from trainer.exact.fused_multiply import is_int8_exact
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.exact.torch_backend import TorchBackend, view_output
from trainer.plan import MemoryPlan, find_results, is_input
from trainer.slabs import arrange, list_units
from trainer.workspace import Backend, Replaying, Workspace

FUSED_CARRIERS: Final = ("int8", "int16", "float64")

BackendName = Literal["fused", "torch", "triton"]
Observe = Callable[[int, tuple["Value", ...]], None]
After = Callable[[int], None]


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


def choose_default_backend(device: torch.device) -> BackendName:
    """Return the fastest backend that is installed and runs on ``device``."""
    if device.type == "cpu":
        return "fused"
    has_triton = device.type == "cuda" and find_spec("triton") is not None
    return (
        "triton" if has_triton and torch.cuda.get_device_capability(device) >= (8, 0) else "torch"
    )


@cache
def choose_default_carrier(device: str, backend: BackendName) -> Carrier:
    """Return the fastest exact carrier: for the fused kernels 8-bit products if exact, else 16-bit ones."""
    if backend == "fused":
        return CARRIERS["int8" if is_int8_exact() else "int16"]
    if backend == "triton":
        from trainer.exact.triton_carriers import choose_triton_carrier  # needs a GPU's packages

        return choose_triton_carrier(torch.device(device))
    return choose_carrier(probe_carriers(torch.device(device)), torch.device(device))


class Executor:
    """Runs the step of ``program`` (one that ``require_valid_program`` accepts), one step at a time.

    Raises InsufficientMemory, before it allocates any, unless the machine has what a step takes."""

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
        backend = backend or choose_default_backend(self.device)
        fused = backend == "fused"
        if fused and self.device.type != "cpu":
            raise NondeterministicEnvironment(f"the fused kernels run on a CPU, not on {device}")
        carrier = carrier or choose_default_carrier(device, backend)
        if fused and carrier.name not in FUSED_CARRIERS:
            raise NondeterministicEnvironment(f"no fused kernel takes the carrier {carrier.name!r}")
        self.carrier = carrier
        self._backend = backend
        self._inputs = {tensor.name: (i, tensor.type) for i, tensor in program.inputs}
        self._spare: dict[int, list[Tensor]] = {i: [] for i in find_results(program)}
        # a GPU's cache is larger than a slab, and its launches cost more than one saves
        units = arrange(program) if self.device.type == "cpu" else list_units(program)
        self._workspace = Workspace(program, units, self._build_backend(), self.device)
        self._observed: Workspace | None = None

    def _build_backend(self) -> Backend:
        """Return what runs the program's instructions."""
        if self._backend == "fused":
            return FusedBackend(self.program, self.carrier.name, self.threads)
        if self._backend == "triton":
            from trainer.exact.triton_backend import TritonBackend  # needs a GPU's packages

            return TritonBackend(self.program, self.carrier.name, self.device)
        return TorchBackend(self.program, self.carrier)

    @property
    def memory(self) -> MemoryPlan:
        """What a step takes of memory."""
        return self._workspace.plan

    @property
    def arena_bytes(self) -> int:
        """The memory of everything between the inputs and the results of a step."""
        return self.memory.arena

    def run_step(
        self,
        inputs: Mapping[str, Tensor],
        observe: Observe | None = None,
        after: After | None = None,
        *,
        spent: StepResult | None = None,
    ) -> StepResult:
        """Return the results of a step on ``inputs``: every input by name, contiguous, of its type.

        ``spent`` is an earlier result that nobody will read again, though its state may be among the inputs:
        it is emptied, and its memory written, in place where that is safe. ``observe`` is told the number of
        every instruction and the values that it wrote, in order; its first use takes memory for all of them.
        ``after`` is told the number alone of each that has run, as often as it runs, which costs nothing."""
        workspace = self._workspace if observe is None else self._prepare_observed()
        self._bind_inputs(workspace, inputs)
        results = self._bind_results(workspace, inputs, spent)
        with _use_threads(self.threads):
            if observe is not None:
                self._run_observed(workspace, observe, after)
            elif after is None and isinstance(workspace.backend, Replaying):
                workspace.backend.replay([run for _, run in workspace.steps])
            else:
                for number, run in workspace.steps:
                    run()
                    if after is not None:
                        after(number)
        return self._collect(workspace, inputs, results)

    def release(self, result: StepResult) -> None:
        """Give back the memory of a ``result`` that nobody will read again, for later steps to write."""
        for number, tensor in self._list_numbered(result):
            if all(tensor is not other for other in self._spare[number]):
                self._spare[number].append(tensor)

    def _list_numbered(self, result: StepResult) -> Iterator[tuple[int, Tensor]]:
        """Return the tensors of a result that a step writes, with their numbers."""
        for kind, tensors in (
            (OutputKind.NEXT_STATE, result.state),
            (OutputKind.GRADIENT, result.gradients),
            (OutputKind.METRICS, {"": result.metrics}),
        ):
            numbers = self.program.find_outputs(kind).values()
            for number, tensor in zip(numbers, tensors.values(), strict=False):
                if number in self._spare:
                    yield number, tensor

    def _prepare_observed(self) -> Workspace:
        """Return a workspace whose values are all there to be read, instruction after instruction."""
        if self._observed is None:
            units = list_units(self.program)
            self._observed = (
                self._workspace
                if units == self._workspace.units
                else Workspace(self.program, units, self._build_backend(), self.device)
            )
        return self._observed

    def _run_observed(self, workspace: Workspace, observe: Observe, after: After | None) -> None:
        runs = dict(workspace.steps)
        for i, instruction in enumerate(self.program.instructions):
            if i in runs:
                runs[i]()
            observe(i, _read_values(workspace.backend, instruction))
            if after is not None:
                after(i)

    def require_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        """Raise InvalidBlob unless ``inputs`` are what a step takes."""
        if strange := set(inputs) ^ set(self._inputs):
            raise InvalidBlob(f"a step takes {sorted(self._inputs)}: not {sorted(strange)}")
        for name, (_, kind) in self._inputs.items():
            tensor = inputs[name]
            given = tensor.dtype, tuple(tensor.shape), tensor.device.type, tensor.is_contiguous()
            needed = TORCH_DTYPES[kind.dtype], kind.shape, self.device.type, True
            if given != needed:
                raise InvalidBlob(
                    f"input {name}: dtype, shape, device, contiguous are {given}, not {needed}"
                )

    def _bind_inputs(self, workspace: Workspace, inputs: Mapping[str, Tensor]) -> None:
        self.require_inputs(inputs)
        for name, (number, _) in self._inputs.items():
            workspace.backend.bind(number, inputs[name].view(-1))

    def _bind_results(
        self, workspace: Workspace, inputs: Mapping[str, Tensor], spent: StepResult | None
    ) -> dict[int, Tensor]:
        """Return where each result will be: in memory that is spent, spare or new."""
        in_place = {} if spent is None else self._take(workspace, inputs, spent)
        taken = {_get_memory(tensor) for tensor in inputs.values()}
        results = {}
        for number, spare in self._spare.items():
            kind = self.program.tensors[number].type
            # INVARIANT: an input that was given back is not written, unless in place
            free = (x for x in spare if _get_memory(x) not in taken)
            tensor = in_place[number] if number in in_place else next(free, None)
            if tensor is None:
                tensor = torch.empty(kind.shape, dtype=TORCH_DTYPES[kind.dtype], device=self.device)
            self._spare[number] = [x for x in spare if x is not tensor]
            workspace.backend.bind(number, tensor.view(-1))
            results[number] = tensor
        return results

    def _take(
        self, workspace: Workspace, inputs: Mapping[str, Tensor], spent: StepResult
    ) -> dict[int, Tensor]:
        """Empty what is ``spent`` into the spare memory; return what of it will be written in place."""
        given = dict(self._list_numbered(spent))
        self.release(spent)
        spent.state.clear()
        spent.gradients.clear()
        names = {number: name for name, (number, _) in self._inputs.items()}
        users = Counter(_get_memory(tensor) for tensor in inputs.values())
        in_place = {}
        for number, replaced in workspace.replaced.items():
            memory = _get_memory(inputs[names[replaced]])
            if number in given and _get_memory(given[number]) == memory and users[memory] == 1:
                in_place[number] = given[number]
        return in_place

    def _collect(
        self, workspace: Workspace, inputs: Mapping[str, Tensor], results: Mapping[int, Tensor]
    ) -> StepResult:
        def get(number: int) -> Tensor:
            if number in results:
                return results[number]
            if is_input(self.program, number):
                return inputs[self.program.tensors[number].name]
            elements, _ = workspace.backend.read(number)
            return elements.view(self.program.tensors[number].type.shape).clone()

        state, gradients, metrics = (
            {name: get(number) for name, number in self.program.find_outputs(kind).items()}
            for kind in (OutputKind.NEXT_STATE, OutputKind.GRADIENT, OutputKind.METRICS)
        )
        empty = torch.empty(0, dtype=torch.float32, device=self.device)
        return StepResult(state, gradients, next(iter(metrics.values()), empty))


@contextmanager
def _use_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _get_memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _read_values(backend: Backend, instruction: Instruction) -> tuple[Value, ...]:
    values = []
    for view in instruction.outputs:
        elements, exponents = backend.read(view.tensor)
        if exponents is not None:
            exponents = exponents.view(instruction.shape[:-1])
        values.append(Value(view_output(elements, instruction, view), exponents))
    return tuple(values)
