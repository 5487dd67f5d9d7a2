"""Bits by need: how many bits each operand of a contraction is quantized to, by what the operand is.

An operand is a *weight* (a parameter, through views), an *activation* (anything else of the forward pass)
or a *gradient* (anything of the backward pass). docs/benchmarks/bits.md has what each of them needs."""

from dataclasses import dataclass
from typing import Final

from torch import fx

from market.protocol.constants import QUANTIZE_BUMPS
from market.protocol.errors import UnsupportedOperator

_VIEWS: Final = {
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select"),
    *("unsqueeze", "squeeze", "clone", "alias", "detach", "contiguous", "split", "getitem"),
}


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of the operands of contractions, by role: 8, 14, 16 or 24 each."""

    weight: int = 16
    activation: int = 16
    gradient: int = 16

    def __post_init__(self) -> None:
        for role in ("weight", "activation", "gradient"):
            if getattr(self, role) not in QUANTIZE_BUMPS:
                raise UnsupportedOperator(
                    f"{getattr(self, role)} bits for a {role}: 8, 14, 16 or 24"
                )

    @staticmethod
    def uniform(bits: int) -> "Precision":
        """Return the same ``bits`` for every operand."""
        return Precision(bits, bits, bits)


DEFAULT_PRECISION: Final = Precision()


def find_backward(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes of the backward pass: those after the loss."""
    nodes = list(graph.nodes)
    (loss, *_) = nodes[-1].args[0]
    return set(nodes[nodes.index(loss) + 1 :])


def find_role(node: fx.Node, backward: set[fx.Node]) -> str:
    """Return what an operand of a contraction is: ``weight``, ``activation`` or ``gradient``."""
    source = node
    while source.op == "call_function" and _get_name(source) in _VIEWS:
        first = source.args[0]
        assert isinstance(first, fx.Node)
        source = first
    if source.op == "placeholder":
        return "weight"
    return "gradient" if node in backward and source in backward else "activation"


def _get_name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema else getattr(node.target, "__name__", "")
