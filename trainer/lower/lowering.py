"""The walk over a joint graph: each node becomes a constant, a value, or an error that names it.

What depends on no parameter and no data is computed here, once; the rest is lowered by the table."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, fx

from market.protocol.errors import UnsupportedOperator
from market.protocol.program import Op
from trainer.lower.builder import ProgramBuilder
from trainer.lower.drafts import TooLarge
from trainer.lower.expressions import Constant, Expr, apply, f32, i64, invert
from trainer.lower.graph import JointGraph, describe_origin
from trainer.lower.instructions import literal
from trainer.lower.layout import Layout, Renaming, dense
from trainer.lower.noise import Noise
from trainer.lower.precision import Precision, Roles
from trainer.lower.recipes import to_int_truncated
from trainer.lower.values import Lazy, Pieces, Shape, Value, is_cheap

_KINDS: Final = {
    torch.float32: "f",
    torch.bool: "b",
    **dict.fromkeys((torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8), "i"),
}
_CASTS: Final[dict[tuple[str, str], Callable[[Expr], Expr]]] = {
    ("f", "i"): to_int_truncated,
    ("f", "b"): lambda x: invert(x.equals(0.0)),
    ("i", "b"): lambda x: invert(x.equals(0)),
    ("i", "f"): lambda x: apply(Op.FROM_INT, x),
    ("b", "f"): lambda x: apply(Op.FROM_INT, x),
    ("b", "i"): lambda x: x,
}
_VIEWS: Final = {
    *("view", "_unsafe_view", "reshape", "squeeze", "flatten", "unsqueeze", "permute"),
    *("transpose", "t", "clone", "alias", "detach", "contiguous"),
}
_EMPTY: Final = ("empty", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided")

Rule = Callable[..., Any]
_AnyRule = TypeVar("_AnyRule", bound=Rule)


class Rules(dict[str, Rule]):
    """ATen operators, all overloads alike, and the rules that lower them."""

    def register(self, *names: str) -> Callable[[_AnyRule], _AnyRule]:
        """Return a decorator that makes a function the rule of the operators ``names``."""

        def add(function: _AnyRule) -> _AnyRule:
            self.update(dict.fromkeys(names, function))
            return function

        return add


class Lowering:
    """What the rules see: the builder, and the node at hand with the type of its result."""

    def __init__(
        self, joint: JointGraph, builder: ProgramBuilder, precision: Precision, noise: Noise
    ) -> None:
        self.joint = joint
        self.builder = builder
        self.noise = noise
        self._roles = Roles(joint)
        self.precision = precision.settle(self._roles.classes)
        self.node: fx.Node = next(iter(joint.graph.nodes))
        self._known: dict[fx.Node, Any] = {}

    # The node at hand

    @property
    def name(self) -> str:
        """The node's operator, without its overload."""
        return _get_name(self.node)

    @property
    def shape(self) -> Shape:
        """The shape of the node's result."""
        return tuple(self._example.shape)

    @property
    def kind(self) -> str:
        """The kind of the node's result."""
        return self._find_kind(self._example.dtype)

    @property
    def _example(self) -> Tensor:
        example = self.node.meta["val"]
        first = example[0] if isinstance(example, list | tuple) else example
        assert isinstance(first, Tensor)
        return first

    def _find_kind(self, dtype: torch.dtype) -> str:
        kind = _KINDS.get(dtype)
        if kind is None:
            raise self.unsupported(f"{dtype}: only float32, integers and booleans")
        return kind

    def unsupported(self, what: str) -> UnsupportedOperator:
        """Return the error that says what of the node at hand has no lowering."""
        return UnsupportedOperator(
            f"{self.node.target} {describe_origin(self.node)} has no lowering for {what}"
        )

    # Its arguments

    def to_value(self, item: Any) -> Value:
        """Return an argument, a tensor or a number, as a value."""
        if isinstance(item, Lazy | Pieces):
            return item
        if isinstance(item, Tensor):
            self._find_kind(item.dtype)
            return literal(self.builder, item.detach().numpy())
        if isinstance(item, bool):
            return Lazy((), "b", i64(int(item)))
        return Lazy((), "f", f32(item)) if isinstance(item, float) else Lazy((), "i", i64(item))

    def to_kind(self, item: Any) -> str:
        """Return the kind of an argument."""
        return self.to_value(item).kind

    def cast(self, item: Any, kind: str = "") -> Value:
        """Return an argument as a value of ``kind``: by default that of the result."""
        kind = kind or self.kind
        if isinstance(item, int | float):
            return Lazy((), kind, f32(item) if kind == "f" else i64(int(item)))
        value = self.to_value(item)
        if value.kind == kind:
            return value
        if isinstance(value, Lazy) and isinstance(value.expr, Constant) and kind == "f":
            return Lazy(value.shape, kind, f32(value.expr.value))
        return self.builder.map(_CASTS[value.kind, kind], value, kind=kind)

    def find_bits(self, argument: int) -> int:
        """Return the bits to which the node's argument number ``argument`` is quantized."""
        return self.precision.get_bits(self._roles.find(self.node, argument))

    def find_common_kind(self, *items: Any) -> str:
        """Return the kind in which operands are compared."""
        return "f" if "f" in {self.to_kind(item) for item in items} else "i"

    def map(self, function: Callable[..., Expr], *items: Any) -> Value:
        """Return an elementwise function of arguments in the type of the result."""
        return self.builder.map(function, *(self.cast(item) for item in items), kind=self.kind)

    # Its users

    def find_out_layout(self) -> Layout:
        """Return the layout in which the node's users want its elements to lie.

        That is the row-major order at the end of the views that follow it."""
        out, node = dense(self.shape), self.node
        final = out
        while len(node.users) == 1:
            (user,) = node.users
            moved = _follow(user, final)
            if moved is None:
                break
            final, node = moved, user
        order = [factor for axis in final.axes for factor in axis]
        axes = Renaming.to_order(order).rename(out.axes)
        return out if axes is None else Layout(axes)

    # The walk

    def run(
        self, table: Rules, inputs: Sequence[Value], parameters: Mapping[str, Value]
    ) -> list[Any]:
        """Return the values of the graph's results: the loss, then each gradient or None."""
        placeholders = iter(self.joint.placeholders)
        for node in self.joint.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                item = next(placeholders)
                named = parameters[item] if isinstance(item, str) else item
                self._known[node] = inputs[named] if isinstance(named, int) else named
            elif node.op == "output":
                return list(self._resolve(node.args[0]))
            else:
                self._known[node] = self._lower_within_limits(node, table)
        raise AssertionError("a graph has an output")

    def _lower_within_limits(self, node: fx.Node, table: Rules) -> Any:
        try:
            return self._keep(node, self._lower(node, table))
        except TooLarge as error:
            raise self.unsupported(str(error)) from error

    def _resolve(self, item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [self._resolve(part) for part in item]
        return self._known[item] if isinstance(item, fx.Node) else item

    def _lower(self, node: fx.Node, table: Rules) -> Any:
        arguments = [self._resolve(argument) for argument in node.args]
        options = {name: self._resolve(argument) for name, argument in node.kwargs.items()}
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        name = _get_name(node)
        is_random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if not (is_random or any(_has_value(item) for item in (*arguments, *options.values()))):
            return self._fold(node, name, arguments, options)
        lower = table.get(name)
        if lower is None:
            raise UnsupportedOperator(
                f"{node.target} {describe_origin(node)} has no lowering; supported operators: "
                + ", ".join(sorted(table))
            )
        return lower(self, *arguments, **options)

    def _fold(self, node: fx.Node, name: str, arguments: list[Any], options: Any) -> Any:
        """Compute what depends on no parameter and no data."""
        if name in _EMPTY:
            return torch.zeros(self.shape, dtype=self._example.dtype)
        assert isinstance(node.target, torch._ops.OpOverload)
        return node.target(*arguments, **options)

    def _keep(self, node: fx.Node, value: Any) -> Any:
        """Return the node's value, stored if several users would otherwise each compute it."""
        if isinstance(value, Lazy | Pieces) and not _is_stored(value):
            users = _find_users(node)
            is_needed = any(_get_name(user) in _FORCING for user in users)
            if len(users) > 1 and (is_needed or not is_cheap(value)):
                return self.builder.store(value)
        return value


_FORCING: Final = {
    *("mm", "bmm", "addmm", "sum", "mean", "amax", "amin", "var", "_softmax", "_log_softmax"),
    *(
        "native_layer_norm",
        "gather",
        "embedding",
        "embedding_dense_backward",
        "index_put",
        "output",
    ),
}


def _is_stored(value: Value) -> bool:
    return isinstance(value, Lazy) and (value.is_stored or isinstance(value.expr, Constant))


def _has_value(item: Any) -> bool:
    if isinstance(item, list | tuple):
        return any(_has_value(part) for part in item)
    return isinstance(item, Lazy | Pieces)


def _get_name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.removeprefix("aten::")
    return node.op


def _find_users(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that use the elements of ``node``, looking through views."""
    found = []
    for user in node.users:
        found += _find_users(user) if _get_name(user) in _VIEWS else [user]
    return found


def _follow(user: fx.Node, layout: Layout) -> Layout | None:
    """Return the layout that a view of ``layout`` has, or None if ``user`` is no such view."""
    name = _get_name(user)
    if name in ("clone", "alias", "contiguous"):
        return layout
    if name in ("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze"):
        return layout.reshape(tuple(user.meta["val"].shape))
    if name == "permute":
        order = user.args[1]
        assert isinstance(order, list | tuple)
        return layout.permute([int(str(axis)) % len(order) for axis in order])
    return None
