"""Random numbers in a step (dropout): Philox words from the step's own coordinates, one stream a use.

Stream 0 is the data order and stream 1 the initial weights; a step's own begin at 2."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from trainer.lower import instructions
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import i64
from trainer.lower.values import Lazy, Value

FIRST_STREAM: Final = 2


@dataclass(slots=True)
class Noise:
    """Words under (``seed``, ``step``, ``place``, stream): each call takes the next stream."""

    seed: Value
    step: Value
    place: Value
    _streams: Iterator[int] = field(default_factory=lambda: count(FIRST_STREAM))

    def draw(self, builder: ProgramBuilder, size: int) -> Lazy:
        """Return ``size`` new words, integers in [0, 2^32)."""
        stream = Lazy((), "i", i64(next(self._streams)))
        return instructions.random(builder, (self.seed, self.step, self.place, stream), size)
