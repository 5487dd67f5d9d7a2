"""The interface of the exact instructions: what ``torch_ops`` and ``fused`` both implement.

``torch_ops`` documents the shapes; arguments are positional.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from market.protocol.program import MapOp
from trainer.exact.carriers import Carrier


class ExactOps(Protocol):
    """A module of exact instructions; all of them give the same bits."""

    def run_map(
        self,
        code: Sequence[MapOp],
        f32_constants: Sequence[int],
        i64_constants: Sequence[int],
        operands: Sequence[Tensor],
        outputs: Sequence[tuple[int, Tensor]],
        /,
    ) -> None:
        """Evaluate ``code`` and store registers."""

    def run_quantize(self, x: Tensor, bits: int, q: Tensor, exponents: Tensor, /) -> None:
        """Quantize rows."""

    def run_dot(  # noqa: PLR0913 - see torch_ops
        self,
        qa: Tensor,
        ea: Tensor,
        qb: Tensor,
        eb: Tensor,
        bits_a: int,
        bits_b: int,
        out: Tensor,
        carrier: Carrier,
        /,
    ) -> None:
        """Contract the last axis."""

    def run_sum(self, x: Tensor, reduced: int, out: Tensor, /) -> None:
        """Sum the last axes."""

    def run_max(self, x: Tensor, reduced: int, out: Tensor, /) -> None:
        """Take the maximum over the last axes."""

    def run_gather(  # noqa: PLR0913 - see torch_ops
        self,
        index: Tensor,
        source: Tensor,
        offset: int,
        strides: Sequence[int],
        bound: int,
        index_stride: int,
        out: Tensor,
        /,
    ) -> None:
        """Read at clamped indices."""

    def run_scatter_add(
        self, index: Tensor, x: Tensor, reduced: int, bound: int, out: Tensor, /
    ) -> None:
        """Add at clamped indices."""

    def run_random(self, key: int, c1: int, c2: int, c3: int, out: Tensor, /) -> None:
        """Fill with Philox words."""

    def run_iota(self, start: int, step: int, out: Tensor, /) -> None:
        """Fill with an arithmetic sequence."""
