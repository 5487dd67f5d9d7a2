"""What `touchstone program show` does."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from market.commands.output import build_facts, build_table, emit
from market.protocol.encoding import compute_program_root, decode_program
from market.protocol.program import Instruction, Kind, Program, TensorRole
from market.protocol.validity import require_valid_program


class ProgramSummary(BaseModel):
    """A program in figures."""

    root: str
    instructions: dict[str, int]
    tensors: int
    multiply_adds: int
    map_operations: int
    state_bytes: int
    constant_bytes: int
    parameters: int


def _count_volume(instruction: Instruction) -> int:
    volume = 1
    for size in instruction.shape:
        volume *= size
    return volume


def summarize_program(found: Program) -> ProgramSummary:
    """Return the figures of a program's step."""
    kinds = Counter(instruction.kind for instruction in found.instructions)
    volumes = [(i, _count_volume(i)) for i in found.instructions]
    base, slot = (found.find_inputs(role) for role in (TensorRole.BASE, TensorRole.SLOT))
    return ProgramSummary(
        root="0x" + compute_program_root(found).root.hex(),
        instructions={kind.name.lower(): kinds[kind] for kind in Kind if kinds[kind]},
        tensors=len(found.tensors),
        multiply_adds=sum(volume for i, volume in volumes if i.kind is Kind.DOT),
        map_operations=sum(len(i.code) * volume for i, volume in volumes if i.kind is Kind.MAP),
        state_bytes=sum(kind.nbytes for kind in (*base.values(), *slot.values())),
        constant_bytes=sum(len(tensor.literal) for tensor in found.tensors),
        parameters=sum(kind.elements for kind in base.values()),
    )


def show_program(file: Path, *, listing: bool, as_json: bool) -> None:
    """Print the figures of the program in ``file``, and its instructions if ``listing``."""
    found = decode_program(file.read_bytes())
    require_valid_program(found)
    summary = summarize_program(found)
    facts: dict[str, object] = {
        "root": summary.root,
        "parameters": f"{summary.parameters:,}",
        "state": f"{summary.state_bytes / 2**20:.1f} MiB",
        "constants": f"{summary.constant_bytes / 2**10:.1f} KiB",
        "multiply-adds a step": f"{summary.multiply_adds / 1e9:.3f} G",
        "map operations a step": f"{summary.map_operations / 1e9:.3f} G",
        **{f"{name} instructions": count for name, count in summary.instructions.items()},
    }
    tables = [build_facts(str(file), facts)]
    if listing:
        rows = [(n, *_describe(found, i)) for n, i in enumerate(found.instructions)]
        tables.append(build_table("instructions", ("", "kind", "shape", "reads", "writes"), rows))
    emit(summary, *tables, as_json=as_json)


def _describe(found: Program, instruction: Instruction) -> tuple[str, str, str, str]:
    def name(tensor: int) -> str:
        return found.tensors[tensor].name or f"%{tensor}"

    ops = f" ({len(instruction.code)} ops)" if instruction.code else ""
    return (
        instruction.kind.name.lower() + ops,
        " x ".join(map(str, instruction.shape)),
        ", ".join(name(view.tensor) for view in instruction.operands),
        ", ".join(name(view.tensor) for view in instruction.outputs),
    )
