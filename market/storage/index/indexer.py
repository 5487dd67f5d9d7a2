"""The indexer: brings the tables to the tip of the chain, block by block, and back where it forks.

INVARIANT: between two transactions the tables are what the events up to the tip make of them."""

import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session, sessionmaker

from market.chain.client import Chain
from market.storage.index.database import bind_deployment, clear_tables
from market.storage.index.payloads import build_event_row
from market.storage.index.projection.fold import apply_event
from market.storage.index.projection.rows import Moment, Rows, Rules
from market.storage.index.source import Header, LoggedEvent, Source
from market.storage.index.tables import BlockRow, EventRow
from market.storage.index.undo import forget_blocks, keep_images, undo_block

WINDOW: Final = 256  # blocks that can be taken back: as many as the EVM itself remembers

logger = logging.getLogger(__name__)


class Indexer:
    """Projects the events of ``chain``'s market into the tables of ``engine``, alone.

    A block is final when it has ``confirmations`` with its own, or when the node says so."""

    def __init__(self, chain: Chain, engine: Engine, confirmations: int) -> None:
        chain.require_deployed()
        assets = tuple(map(chain.get_asset, range(chain.count_assets())))
        self._rules = Rules(chain.get_config(), assets)
        self._source = Source(chain)
        self._deployment = chain.deployment
        self._confirmations = confirmations
        self._sessions = sessionmaker(engine, autoflush=False)
        with self._sessions.begin() as session:
            bind_deployment(session, self._deployment)

    def sync(self) -> int:
        """Bring the tables to the node's latest block; return the tip.

        A node that is behind the tip, on the same chain, changes nothing: the tip waits for it.
        NodeUnavailable, also where the chain changed while it was read, leaves them at some block."""
        head = self._source.get_head()
        while self._advance(head):
            pass
        return self._finalize()

    def clear(self) -> None:
        """Drop every row: the next `sync` replays the chain."""
        with self._sessions.begin() as session:
            clear_tables(session)

    def _advance(self, head: Header) -> bool:
        """Take one step towards ``head``, in one transaction; return whether there may be another."""
        with self._sessions() as session:
            tip = _find_tip(session)
            stood = session.get(BlockRow, head.number)
        following = self._deployment.block if tip is None else tip.number + 1
        if head.number - following >= WINDOW:
            return self._apply_range(tip, following, head.number - WINDOW)
        if head.number < following:
            forked = stood is not None and stood.hash != head.hash
            return forked and self._take_back(tip)
        header = self._source.find_header(following)
        if header is None:  # the chain became shorter since ``head`` was read, or this node lags
            return False
        if tip is not None and header.parent_hash != tip.hash:
            return self._take_back(tip)
        return self._apply_block(header)

    def _apply_block(self, header: Header) -> bool:
        events = self._source.get_block_events(header)
        with self._sessions.begin() as session:
            self._project(session, events)
            keep_images(session, header.number)
            session.add(_build_block(header))
            forget_blocks(session, header.number - WINDOW)
        return True

    def _apply_range(self, tip: BlockRow | None, first: int, last: int) -> bool:
        """Apply blocks that are too deep to be taken back, as many as one query has."""
        header, events = self._source.get_events(first, last)
        if tip is not None and not self._source.stands(tip.number, tip.hash):
            return self._take_back(tip)
        with self._sessions.begin() as session:
            self._project(session, events)
            session.add(_build_block(header))
            forget_blocks(session, header.number)
        logger.info("blocks indexed", extra={"to_block": header.number, "events": len(events)})
        return True

    def _take_back(self, tip: BlockRow | None) -> bool:
        """Undo the tip, or drop everything where it is too deep for that."""
        assert tip is not None
        with self._sessions.begin() as session:
            row = bind_deployment(session, self._deployment)
            if session.get(BlockRow, tip.number - 1) is None:
                clear_tables(session)
                logger.warning("index dropped", extra={"fork_below": tip.number})
                return True
            undo_block(session, tip.number)
            if row.final_block == tip.number:
                logger.warning("final block taken back", extra={"block": tip.number})
                row.final_block = tip.number - 1
        return True

    def _project(self, session: Session, events: Sequence[LoggedEvent]) -> None:
        """Write ``events``, and change the rows as they say, which are written later."""
        rows = Rows(session, self._rules)
        written = []
        for logged in events:
            rows.block = Moment(logged.event.block_number, logged.timestamp)
            apply_event(logged.event, rows)
            written.append(build_event_row(logged, rows))
        if written:
            session.execute(insert(EventRow).execution_options(render_nulls=True), written)

    def _finalize(self) -> int:
        """Write down which block is final now, and return the tip. What was final stays so."""
        finalized = self._source.get_finalized()
        with self._sessions.begin() as session:
            row = bind_deployment(session, self._deployment)
            tip = _find_tip(session)
            number = row.first_block - 1 if tip is None else tip.number
            final = max(number - self._confirmations + 1, min(finalized, number))
            if final >= row.first_block and (row.final_block is None or final > row.final_block):
                row.final_block = final
        return number


def _find_tip(session: Session) -> BlockRow | None:
    return session.scalar(select(BlockRow).order_by(BlockRow.number.desc()).limit(1))


def _build_block(header: Header) -> BlockRow:
    return BlockRow(
        number=header.number,
        hash=header.hash,
        parent_hash=header.parent_hash,
        timestamp=header.timestamp,
    )
