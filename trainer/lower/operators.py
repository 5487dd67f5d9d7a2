"""The table: ATen operator -> the rule that lowers it.

A rule takes the lowering and the node's arguments and returns a value, or a tuple of them."""

from typing import Final

from trainer.lower import (
    chances,
    contractions,
    convolutions,
    elementwise,
    indexing,
    pools,
    views,
)
from trainer.lower.lowering import Rules

OPERATORS: Final = Rules(
    {
        **elementwise.RULES,
        **views.RULES,
        **contractions.RULES,
        **convolutions.RULES,
        **pools.RULES,
        **indexing.RULES,
        **chances.RULES,
    }
)
