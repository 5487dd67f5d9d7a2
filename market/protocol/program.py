"""Programs: one training step as a list of instructions over typed tensors (docs/protocol.md section 4).

This module owns the types; `encoding` their bytes and roots, `validity` the rules they must meet."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from market.protocol.hashing import Hash32
from market.protocol.tensors import TensorType


class TensorRole(IntEnum):
    """Where a tensor of a program comes from."""

    VALUE = 0
    BASE = 1
    SLOT = 2
    DATASET = 3
    COUNTERS = 4
    CONTRIBUTION = 5


class Kind(IntEnum):
    """What an instruction does."""

    MAP = 1
    QUANTIZE = 2
    DOT = 3
    SUM = 4
    MAX = 5
    GATHER = 6
    SCATTER_ADD = 7
    RANDOM = 8
    IOTA = 9
    CONST = 10


class Op(IntEnum):
    """A scalar operation of a map."""

    ADD = 1
    SUB = 2
    MUL = 3
    DIV = 4
    SQRT = 5
    NEG = 6
    ABS = 7
    LT = 8
    LE = 9
    EQ = 10
    SELECT = 11
    TO_INT = 12
    FROM_INT = 13
    BITS = 14
    FROM_BITS = 15
    IADD = 16
    ISUB = 17
    IMUL = 18
    IDIV = 19
    IAND = 20
    IOR = 21
    IXOR = 22
    SHL = 23
    SHR = 24
    ILT = 25
    IEQ = 26
    ISELECT = 27


class OutputKind(IntEnum):
    """What a named output of a program is."""

    NEXT_STATE = 1
    GRADIENT = 2
    METRICS = 3


# Register types of each operation: its operands, then its result ("f" binary32, "i" 64-bit integer).
SIGNATURES: Final[dict[Op, tuple[str, str]]] = {
    **dict.fromkeys((Op.ADD, Op.SUB, Op.MUL, Op.DIV), ("ff", "f")),
    **dict.fromkeys((Op.SQRT, Op.NEG, Op.ABS), ("f", "f")),
    **dict.fromkeys((Op.LT, Op.LE, Op.EQ), ("ff", "i")),
    Op.SELECT: ("iff", "f"),
    Op.TO_INT: ("f", "i"),
    Op.FROM_INT: ("i", "f"),
    Op.BITS: ("f", "i"),
    Op.FROM_BITS: ("i", "f"),
    **dict.fromkeys(
        (
            *(Op.IADD, Op.ISUB, Op.IMUL, Op.IDIV, Op.IAND, Op.IOR, Op.IXOR),
            *(Op.SHL, Op.SHR, Op.ILT, Op.IEQ),
        ),
        ("ii", "i"),
    ),
    Op.ISELECT: ("iii", "i"),
}

MapOp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A row of a program's tensor table; inputs are named, a `const` carries its literal bytes."""

    type: TensorType
    role: TensorRole = TensorRole.VALUE
    name: str = ""
    literal: bytes = b""


@dataclass(frozen=True, slots=True)
class View:
    """Elements ``offset + sum(index * stride)`` of a tensor; ``register`` is what a map stores there."""

    tensor: int
    offset: int
    strides: tuple[int, ...]
    register: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation over an iteration shape. ``attributes`` mean what the kind says they mean."""

    kind: Kind
    shape: tuple[int, ...]
    operands: tuple[View, ...] = ()
    outputs: tuple[View, ...] = ()
    reduced: int = 0
    attributes: tuple[int, int] = (0, 0)
    code: tuple[MapOp, ...] = ()
    f32_constants: tuple[int, ...] = ()  # binary32 patterns
    i64_constants: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A named result: the next value of state tensor ``replaces``, a gradient, or the metrics."""

    kind: OutputKind
    tensor: int
    name: str
    replaces: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """A whole step. ``tensors`` lists the inputs first."""

    tensors: tuple[Tensor, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Output, ...]

    @property
    def inputs(self) -> Iterator[tuple[int, Tensor]]:
        """The named tensors that the program is given."""
        return ((i, t) for i, t in enumerate(self.tensors) if t.role is not TensorRole.VALUE)

    def find_inputs(self, *roles: TensorRole) -> dict[str, TensorType]:
        """Return the types of the inputs with one of ``roles`` by name, in declaration order."""
        return {t.name: t.type for _, t in self.inputs if t.role in roles}

    def find_outputs(self, kind: OutputKind) -> dict[str, int]:
        """Return the tensors of the outputs of that ``kind`` by name, in their order."""
        return {output.name: output.tensor for output in self.outputs if output.kind is kind}


@dataclass(frozen=True, slots=True)
class ProgramRoot:
    """A program's root and the levels under it that a dispute opens."""

    root: Hash32
    header: Hash32
    tensors: tuple[Hash32, ...]
    outputs: tuple[Hash32, ...]
    instructions: tuple[Hash32, ...]
