"""Scalar expressions and the map code that they become.

An expression is a DAG over loads and constants; equal parts become one register."""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from market.protocol.constants import CANONICAL_NAN
from market.protocol.program import SIGNATURES, MapOp, Op
from trainer.lower.layout import Layout


def round_to_f32(value: float) -> int:
    """Return the binary32 pattern of a Python number, rounded once."""
    if math.isnan(value):
        return CANONICAL_NAN
    try:
        packed = struct.pack(">f", value)
    except OverflowError:
        packed = struct.pack(">f", math.copysign(math.inf, value))
    return int.from_bytes(packed, "big")


@dataclass(frozen=True, eq=False, slots=True)
class Expr:
    """A scalar of type "f" (binary32) or "i" (64-bit integer)."""

    type: str

    def __add__(self, other: "Operand") -> "Expr":
        return apply(Op.ADD if self.type == "f" else Op.IADD, self, other)

    def __sub__(self, other: "Operand") -> "Expr":
        return apply(Op.SUB if self.type == "f" else Op.ISUB, self, other)

    def __mul__(self, other: "Operand") -> "Expr":
        return apply(Op.MUL if self.type == "f" else Op.IMUL, self, other)

    def __truediv__(self, other: "Operand") -> "Expr":
        return apply(Op.DIV, self, other)

    def __lt__(self, other: "Operand") -> "Expr":
        return apply(Op.LT if self.type == "f" else Op.ILT, self, other)

    def __le__(self, other: "Operand") -> "Expr":
        if self.type == "f":
            return apply(Op.LE, self, other)
        return invert(lift(other, "i") < self)

    def equals(self, other: "Operand") -> "Expr":
        """Return 1 where both are equal, else 0."""
        return apply(Op.EQ if self.type == "f" else Op.IEQ, self, other)


Operand = Expr | float


@dataclass(frozen=True, eq=False, slots=True)
class Load(Expr):
    """The element of buffer ``source`` at the iteration's place in ``layout``."""

    source: int
    layout: Layout


@dataclass(frozen=True, eq=False, slots=True)
class Constant(Expr):
    """A literal: a binary32 pattern or an integer."""

    value: int


@dataclass(frozen=True, eq=False, slots=True)
class Apply(Expr):
    """An operation on scalars."""

    op: Op
    arguments: tuple[Expr, ...]


def f32(value: float) -> Constant:
    """Return a binary32 literal."""
    return Constant("f", round_to_f32(value))


def i64(value: int) -> Constant:
    """Return an integer literal."""
    return Constant("i", value)


def lift(value: Operand, letter: str) -> Expr:
    """Return a Python number as a literal of the type ``letter``; an expression as it is."""
    if isinstance(value, Expr):
        return value
    return f32(value) if letter == "f" else i64(int(value))


def apply(op: Op, *operands: Operand) -> Expr:
    """Return ``op`` of ``operands``; x * 1 and x / 1, which change nothing, are x."""
    letters, result = SIGNATURES[op]
    arguments = tuple(lift(o, t) for o, t in zip(operands, letters, strict=True))
    assert all(a.type == t for a, t in zip(arguments, letters, strict=True)), (op, arguments)
    if op in (Op.MUL, Op.DIV):
        for kept, other in ((0, 1), (1, 0))[: 1 if op is Op.DIV else 2]:
            one = arguments[other]
            if isinstance(one, Constant) and one.value == _ONE:
                return arguments[kept]
    return Apply(result, op, arguments)


def invert(condition: Expr) -> Expr:
    """Return 1 for 0 and 0 for 1."""
    return apply(Op.IXOR, condition, 1)


def select(condition: Expr, yes: Operand, no: Operand) -> Expr:
    """Return ``yes`` where ``condition`` is not 0, else ``no``, with the type of the expressions."""
    kinds = [o.type for o in (yes, no) if isinstance(o, Expr)]
    op = Op.ISELECT if kinds and kinds[0] == "i" else Op.SELECT
    return apply(op, condition, yes, no)


_ONE: Final = round_to_f32(1.0)


def iterate(roots: Sequence[Expr]) -> Iterator[Expr]:
    """Yield each node below ``roots`` once, arguments before what uses them."""
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, is_ready = stack.pop()
        if is_ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            if isinstance(node, Apply):
                stack += [(argument, False) for argument in reversed(node.arguments)]


def rewrite(roots: Sequence[Expr], change: Callable[[Load], Expr]) -> list[Expr]:
    """Return ``roots`` with every load replaced by what ``change`` makes of it."""
    done: dict[int, Expr] = {}
    for node in iterate(roots):
        if isinstance(node, Load):
            done[id(node)] = change(node)
        elif isinstance(node, Apply):
            arguments = tuple(done[id(a)] for a in node.arguments)
            is_same = all(a is b for a, b in zip(arguments, node.arguments, strict=True))
            done[id(node)] = node if is_same else Apply(node.type, node.op, arguments)
        else:
            done[id(node)] = node
    return [done[id(root)] for root in roots]


def find_loads(roots: Sequence[Expr]) -> dict[tuple[int, Layout], Load]:
    """Return the distinct loads below ``roots`` in the order of their first use."""
    found: dict[tuple[int, Layout], Load] = {}
    for node in iterate(roots):
        if isinstance(node, Load):
            found.setdefault((node.source, node.layout), node)
    return found


def find_ops(root: Expr) -> list[Op]:
    """Return the operations below ``root``, each node once."""
    return [node.op for node in iterate([root]) if isinstance(node, Apply)]


@dataclass(frozen=True, slots=True)
class Code:
    """Map code: the loads in operand order, constants, operations and each root's register."""

    loads: tuple[tuple[int, Layout], ...]
    f32_constants: tuple[int, ...]
    i64_constants: tuple[int, ...]
    ops: tuple[MapOp, ...]
    registers: tuple[int, ...]


def _number(roots: Sequence[Expr]) -> tuple[dict[int, int], list[tuple[object, ...]]]:
    """Give equal expressions equal numbers; return them by node and the key of each number."""
    numbers: dict[tuple[object, ...], int] = {}
    by_node: dict[int, int] = {}
    for node in iterate(roots):
        key: tuple[object, ...]
        if isinstance(node, Load):
            key = ("load", node.source, node.layout)
        elif isinstance(node, Constant):
            key = (node.type, node.value)
        else:
            assert isinstance(node, Apply)
            key = (node.op, *(by_node[id(a)] for a in node.arguments))
        by_node[id(node)] = numbers.setdefault(key, len(numbers))
    return by_node, list(numbers)


def generate(roots: Sequence[Expr]) -> Code:
    """Return the code that computes ``roots``."""
    by_node, keys = _number(roots)
    loads = [n for n, key in enumerate(keys) if key[0] == "load"]
    floats = [n for n, key in enumerate(keys) if key[0] == "f"]
    integers = [n for n, key in enumerate(keys) if key[0] == "i"]
    operations = [n for n, key in enumerate(keys) if isinstance(key[0], Op)]
    order = [*loads, *floats, *integers, *operations]
    register = {number: position for position, number in enumerate(order)}
    ops = []
    for number in operations:
        op, *arguments = keys[number]
        used = [register[a] for a in arguments if isinstance(a, int)]
        assert isinstance(op, Op)
        a, b, c = (*used, 0, 0)[:3]
        ops.append((int(op), a, b, c))
    return Code(
        loads=tuple(keys[n][1:] for n in loads),  # type: ignore[misc]  # keys made by _number
        f32_constants=tuple(keys[n][1] for n in floats),  # type: ignore[misc]
        i64_constants=tuple(keys[n][1] for n in integers),  # type: ignore[misc]
        ops=tuple(ops),
        registers=tuple(register[by_node[id(root)]] for root in roots),
    )
