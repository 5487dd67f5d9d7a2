"""Assembly: drafts and buffers become a program's tensor table, instructions and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from market.protocol.program import (
    Instruction,
    Output,
    OutputKind,
    Program,
    Tensor,
    TensorRole,
    View,
)
from market.protocol.tensors import TensorType
from trainer.lower.drafts import (
    AnyDraft,
    Buffer,
    Draft,
    MapDraft,
    Store,
    emit_map,
    find_walk,
)
from trainer.lower.fusion import fuse
from trainer.lower.values import Value, stored_axes


@dataclass(frozen=True, slots=True)
class NamedOutput:
    """A result to be: its kind, its name and its value."""

    kind: OutputKind
    name: str
    value: Value


def fix_shape(
    buffers: list[Buffer], drafts: Sequence[AnyDraft], buffer: int, shape: tuple[int, ...]
) -> bool:
    """Give a tensor the ``shape`` in which an output needs it; False if its writer cannot."""
    target = buffers[buffer]
    if target.shape is not None:
        return target.shape == shape
    (writer,) = (d for d in drafts if isinstance(d, MapDraft) and buffer in d.writes)
    old, target.shape = writer.stores, shape
    writer.stores = tuple(
        Store(buffer, stored_axes(shape), s.expr) if s.buffer == buffer else s for s in old
    )
    if find_walk(writer, buffers) is None:
        writer.stores, target.shape = old, None
    return target.shape is not None


def assemble(
    buffers: list[Buffer],
    drafts: list[AnyDraft],
    outputs: Sequence[NamedOutput],
    placed: Sequence[int],
    fences: Sequence[int] = (),
) -> Program:
    """Return the program whose ``outputs`` are in the buffers ``placed``, without what none needs."""
    fused = fuse(drafts, buffers, set(placed), fences)
    instructions = [
        draft.instruction if isinstance(draft, Draft) else emit_map(draft, buffers)
        for draft in fused
    ]
    inputs_first = [n for n, b in enumerate(buffers) if b.role is not TensorRole.VALUE]
    written = [view.tensor for instruction in instructions for view in instruction.outputs]
    order = list(dict.fromkeys((*inputs_first, *written)))
    number = {buffer: index for index, buffer in enumerate(order)}
    inputs = {buffers[b].name: number[b] for b in inputs_first}
    return Program(
        tensors=tuple(_make_tensor(buffers[buffer]) for buffer in order),
        instructions=tuple(_renumber(instruction, number) for instruction in instructions),
        outputs=tuple(
            Output(
                output.kind,
                number[buffer],
                output.name,
                inputs[output.name] if output.kind is OutputKind.NEXT_STATE else 0,
            )
            for output, buffer in zip(outputs, placed, strict=True)
        ),
    )


def _make_tensor(buffer: Buffer) -> Tensor:
    assert buffer.shape is not None
    kind = TensorType(buffer.dtype, buffer.shape, buffer.bits)
    return Tensor(kind, buffer.role, buffer.name, buffer.literal)


def _renumber(instruction: Instruction, number: dict[int, int]) -> Instruction:
    def move(view: View) -> View:
        return replace(view, tensor=number[view.tensor])

    return replace(
        instruction,
        operands=tuple(move(view) for view in instruction.operands),
        outputs=tuple(move(view) for view in instruction.outputs),
    )
