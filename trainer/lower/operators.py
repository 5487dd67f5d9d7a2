"""The table: ATen operator -> the rule that lowers it.

A rule takes the lowering and the node's arguments and returns a value, or a tuple of them."""

from typing import Final

from trainer.lower import contractions, elementwise, indexing, views
from trainer.lower.lowering import Rules

OPERATORS: Final = Rules(
    {**elementwise.RULES, **views.RULES, **contractions.RULES, **indexing.RULES}
)
