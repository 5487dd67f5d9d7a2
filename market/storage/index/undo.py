"""Taking blocks back: how every row was before each recent block is kept beside it, by table and key.

So there is no inverse of the projection, and none that could disagree with it."""

from typing import Any

from sqlalchemy import Table as SqlTable
from sqlalchemy import delete, insert, inspect, select, update
from sqlalchemy.orm import Session

from market.storage.index.tables import (
    BlockRow,
    EventRow,
    Projected,
    Table,
    UndoRow,
)


def keep_images(session: Session, number: int) -> None:
    """Write down how the rows that block ``number`` changed were before, and write the rows."""
    changed = [row for row in (*session.new, *session.dirty) if isinstance(row, Projected)]
    images = [_build_image(row) for row in changed]
    session.flush()
    rows = [
        {"block_number": number, "number": place, **image} for place, image in enumerate(images)
    ]
    if rows:
        session.execute(insert(UndoRow).execution_options(render_nulls=True), rows)


def undo_block(session: Session, number: int) -> None:
    """Make every row what it was before block ``number``, which is the tip."""
    images = select(UndoRow).where(UndoRow.block_number == number)
    for image in session.scalars(images):
        table = Table.metadata.tables[image.table_name]
        places = [col == key for col, key in zip(table.primary_key, image.key, strict=True)]
        if image.before is None:
            session.execute(delete(table).where(*places))
        else:
            session.execute(update(table).where(*places).values(image.before))
    session.execute(delete(EventRow).where(EventRow.block_number == number))
    session.execute(delete(BlockRow).where(BlockRow.number == number))
    session.execute(delete(UndoRow).where(UndoRow.block_number == number))


def forget_blocks(session: Session, before: int) -> None:
    """Forget how to take back the blocks up to ``before``, and all of them but the last."""
    session.execute(delete(BlockRow).where(BlockRow.number < before))
    session.execute(delete(UndoRow).where(UndoRow.block_number <= before))


def _build_image(row: Projected) -> dict[str, Any]:  # the values of a table's row
    state = inspect(row)
    table: SqlTable = state.mapper.local_table  # type: ignore[assignment]  # no table is a join
    key = [getattr(row, column.key) for column in table.primary_key]
    before = None
    if state.persistent:
        histories = {attribute.key: attribute.history for attribute in state.attrs}
        before = {name: past.deleted[0] for name, past in histories.items() if past.deleted}
    return {"table_name": table.name, "key": key, "before": before}
