"""Drafts: instructions before fusion fixes their iteration shapes and tensor numbers.

A buffer becomes a tensor of the table. A flexible buffer takes the shape in which it is written."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from market.protocol.constants import MAX_MAP_CONSTANTS, MAX_MAP_OPERANDS, MAX_MAP_OPS, MAX_RANK
from market.protocol.errors import UnsupportedOperator
from market.protocol.program import Instruction, Kind, TensorRole, View
from market.protocol.tensors import Dtype
from trainer.lower.expressions import (
    Constant,
    Expr,
    Load,
    find_loads,
    generate,
    iterate,
    rewrite,
)
from trainer.lower.layout import Layout, Walk, align
from trainer.lower.values import fence, flatten

_SPARE_OPS = 8  # an expression may lack some folding that code generation still does


class TooLarge(UnsupportedOperator):
    """More axes, terms or bytes than one instruction may have."""


@dataclass(slots=True)
class Buffer:
    """A tensor to be; ``shape`` is None while its writer is free to choose it."""

    dtype: Dtype
    elements: int
    shape: tuple[int, ...] | None = None
    bits: int = 0
    role: TensorRole = TensorRole.VALUE
    name: str = ""
    literal: bytes = b""


@dataclass(frozen=True, slots=True)
class Store:
    """A map's output: the elements of ``expr`` go to ``layout`` of a buffer, all in flat layouts."""

    buffer: int
    layout: Layout
    expr: Expr


@dataclass(slots=True)
class MapDraft:
    """A map over ``count`` elements; its layouts have one logical axis."""

    count: int
    stores: tuple[Store, ...]

    @property
    def roots(self) -> list[Expr]:
        """The expressions that it stores."""
        return [store.expr for store in self.stores]

    @property
    def reads(self) -> set[int]:
        """The buffers that it reads."""
        return {source for source, _ in find_loads(self.roots)}

    @property
    def writes(self) -> set[int]:
        """The buffers that it writes."""
        return {store.buffer for store in self.stores}


@dataclass(slots=True)
class Draft:
    """Any other instruction; its views name buffers."""

    instruction: Instruction
    reads: set[int] = field(init=False)
    writes: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = {view.tensor for view in self.instruction.operands}
        self.writes = {view.tensor for view in self.instruction.outputs}


AnyDraft = MapDraft | Draft


def is_within_limits(roots: Iterable[Expr]) -> bool:
    """Check that one map can compute ``roots`` together."""
    roots = list(roots)
    nodes = list(iterate(roots))
    loads = len(find_loads(roots))
    constants = len({(n.type, n.value) for n in nodes if isinstance(n, Constant)})
    ops = sum(not isinstance(n, Constant | Load) for n in nodes)
    return (
        loads <= MAX_MAP_OPERANDS
        and constants <= MAX_MAP_CONSTANTS
        and ops <= MAX_MAP_OPS - _SPARE_OPS
    )


def find_walk(draft: MapDraft, buffers: list[Buffer]) -> Walk | None:
    """Return the draft's iteration over its loads, then its stores; None if none serves them all.

    A buffer with a shape is written axis by axis: its store has one factor for each axis."""
    layouts = [layout for _, layout in find_loads(draft.roots)]
    layouts += [store.layout for store in draft.stores]
    fixed = [s.layout.factors for s in draft.stores if buffers[s.buffer].shape is not None]
    walk = align([*layouts, *(fence([size for size, _ in factors]) for factors in fixed)])
    if walk is None or len(walk.shape) > MAX_RANK:
        return None
    if any(len(factors) != len(walk.shape) for factors in fixed):
        return None
    return Walk(walk.shape, walk.strides[: len(layouts)])


def emit_map(draft: MapDraft, buffers: list[Buffer]) -> Instruction:
    """Return the map instruction; flexible outputs take their shapes from it."""
    walk = find_walk(draft, buffers)
    assert walk is not None, "a draft that no iteration serves"
    code = generate(draft.roots)
    found = find_loads(draft.roots)
    strides = dict(zip(found, walk.strides, strict=False))
    operands = tuple(View(s, at.offset, strides[s, at]) for s, at in code.loads)
    outputs = []
    for number, store in enumerate(draft.stores):
        steps = walk.strides[len(found) + number]
        outputs.append(View(store.buffer, store.layout.offset, steps, code.registers[number]))
        settle(buffers[store.buffer], walk.shape, steps)
    return Instruction(
        kind=Kind.MAP,
        shape=walk.shape,
        operands=operands,
        outputs=tuple(outputs),
        code=code.ops,
        f32_constants=code.f32_constants,
        i64_constants=code.i64_constants,
    )


def settle(buffer: Buffer, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Give a flexible buffer the shape in which an instruction writes it."""
    if buffer.shape is None:
        axes = sorted(zip(strides, shape, strict=True), reverse=True)
        buffer.shape = tuple(size for stride, size in axes if stride > 0)


def flat_expression(expr: Expr) -> Expr:
    """Return the expression with all its loads' layouts as one logical axis."""
    return rewrite([expr], lambda node: Load(node.type, node.source, flatten(node.layout)))[0]
