"""Bits by need: how many bits each operand of a contraction is quantized to, by what the operand is.

docs/benchmarks/bits.md has what each of them needs."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Final

from torch import fx

from market.protocol.constants import QUANTIZE_BUMPS
from market.protocol.errors import UnsupportedOperator
from trainer.lower.graph import JointGraph

_VIEWS: Final = {
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select"),
    *("unsqueeze", "squeeze", "clone", "alias", "detach", "contiguous", "split", "getitem"),
}
LARGE_VOCABULARY: Final = 8192
_FIRST_OPERAND: Final = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # a bias comes first


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of the operands of contractions, by role: 8, 14, 16 or 24 each.

    A *weight* is a parameter, through views; an *activation* anything else of the forward pass, a
    *gradient* anything of the backward pass. Two kinds of operand have roles of their own: *logits* is the
    gradient of the model's last product with a weight (probabilities less the one that should be 1), and
    *attention* is both operands of a product without a weight, and of its two in the backward pass.

    ``logits`` that are None are 24 from ``LARGE_VOCABULARY`` classes on, where 16 bits lose what pushes the
    others down, else 16."""

    weight: int = 16
    activation: int = 16
    gradient: int = 16
    logits: int | None = None
    attention: int = 16

    def __post_init__(self) -> None:
        for role in ROLES:
            bits = getattr(self, role)
            if bits not in QUANTIZE_BUMPS and not (role == "logits" and bits is None):
                raise UnsupportedOperator(f"{bits} bits for the role {role}: 8, 14, 16 or 24")

    def settle(self, classes: int) -> "Precision":
        """Return what this means for a model of so many ``classes``: no role is None."""
        if self.logits is not None:
            return self
        return replace(self, logits=24 if classes >= LARGE_VOCABULARY else 16)

    def get_bits(self, role: str) -> int:
        """Return the bits of one of `ROLES`, once they are settled."""
        bits: int = getattr(self, role)
        return bits

    @staticmethod
    def uniform(bits: int) -> "Precision":
        """Return the same ``bits`` for every operand."""
        return Precision(*(bits for _ in ROLES))

    @staticmethod
    def parse(text: str) -> "Precision":
        """Return what ``text`` says: bits for every operand (``14``), or by role (``weight=14,logits=24``).

        ``auto`` is the default. A role that is not named keeps its default. Raises UnsupportedOperator."""
        if text == "auto":
            return Precision()
        if text.isdecimal():
            return Precision.uniform(int(text))
        bits: dict[str, int] = {}
        for part in text.split(","):
            role, _, number = part.partition("=")
            if role not in ROLES or role in bits or not number.isdecimal():
                raise UnsupportedOperator(
                    f"{part!r} in the bits {text!r}: a number, or role=number for some of "
                    + ", ".join(ROLES)
                )
            bits[role] = int(number)
        return Precision(**bits)


ROLES: Final = tuple(field.name for field in fields(Precision))
DEFAULT_PRECISION: Final = Precision()


class Roles:
    """What each operand of a joint graph's contractions is."""

    def __init__(self, joint: JointGraph) -> None:
        self._backward = _find_backward(joint.graph)
        nodes = [node for node in joint.graph.nodes if node.op == "placeholder"]
        pairs = zip(nodes, joint.placeholders, strict=True)
        self._weights = {node for node, item in pairs if not isinstance(item, int)}
        forward = [
            (node, set(_find_operands(node)))
            for node in joint.graph.nodes
            if _get_name(node) in _FIRST_OPERAND and node not in self._backward
        ]
        weighted = [pair for pair in forward if pair[1] & self._weights]
        self._last = weighted[-1] if weighted else None
        self._attended = set().union(*(s for _, s in forward if not s & self._weights))

    @property
    def classes(self) -> int:
        """The columns of the last product with a weight; 0 if there is none."""
        return 0 if self._last is None else int(self._last[0].meta["val"].shape[-1])

    def find(self, node: fx.Node, argument: int) -> str:
        """Return the role of a contraction's argument number ``argument``."""
        operand = node.args[argument]
        assert isinstance(operand, fx.Node)
        source = _find_source(operand)
        if source in self._weights:
            return "weight"
        if self._is_attention(node):
            return "attention"
        if operand not in self._backward or source not in self._backward:
            return "activation"
        return "logits" if self._is_of_logits(node, source) else "gradient"

    def _is_attention(self, node: fx.Node) -> bool:
        sources = set(_find_operands(node))
        return bool(sources & self._attended) and not sources & self._weights

    def _is_of_logits(self, node: fx.Node, source: fx.Node) -> bool:
        """Tell whether a gradient is that of the last product: of its size, and used as its gradient is."""
        if self._last is None:
            return False
        last, operands = self._last
        others = set(_find_operands(node)) - {source}
        same = source.meta["val"].numel() == last.meta["val"].numel()
        return bool(others & operands) and same


def _find_backward(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes of the backward pass: those after the loss."""
    nodes = list(graph.nodes)
    (loss, *_) = nodes[-1].args[0]
    return set(nodes[nodes.index(loss) + 1 :])


def _find_operands(node: fx.Node) -> Iterable[fx.Node]:
    """Return the sources of both operands of a product; of another operator, nothing."""
    first = _FIRST_OPERAND.get(_get_name(node))
    operands = () if first is None else node.args[first : first + 2]
    return (_find_source(operand) for operand in operands if isinstance(operand, fx.Node))


def _find_source(node: fx.Node) -> fx.Node:
    """Return what ``node`` is a view of."""
    source = node
    while source.op == "call_function" and _get_name(source) in _VIEWS:
        first = source.args[0]
        assert isinstance(first, fx.Node)
        source = first
    return source


def _get_name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema else getattr(node.target, "__name__", "")
