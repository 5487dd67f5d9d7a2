"""What Alembic runs: the migrations, on the connection that it was given."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import TypeDecorator

from market.storage.index.tables import Table


def _render_type(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write a type of ours into a new revision as the database's: a revision never changes."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False  # as usual


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_item=_render_type,
    render_as_batch=True,  # SQLite cannot alter a table
)
with context.begin_transaction():
    context.run_migrations()
