"""A provider's memory of what it left alone: the last decline of each job for each reason, in a file."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from market.protocol.economics import Decline, Reason

DECLINES_FILE: Final = "declines.db"  # in a provider's home

_MOST: Final = 10_000  # rows: the oldest make room
_PATIENCE_S: Final = 10.0  # for another process that has the file
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS decline (
    job_id INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time INTEGER NOT NULL,
    offered TEXT,
    required TEXT,
    detail TEXT NOT NULL,
    PRIMARY KEY (job_id, reason)
)
"""
_ADD: Final = "INSERT OR REPLACE INTO decline VALUES (?, ?, ?, ?, ?, ?)"
_TRIM: Final = """
DELETE FROM decline WHERE rowid IN (SELECT rowid FROM decline ORDER BY time DESC LIMIT -1 OFFSET ?)
"""


@dataclass(frozen=True, slots=True)
class KeptDecline:
    """A decline, and the job that was left alone at that ``time`` (of this machine's clock)."""

    job_id: int
    time: int
    decline: Decline


class DeclineLog:
    """The declines in the file at ``path``, the newest ``most`` of them."""

    def __init__(self, path: Path, most: int = _MOST) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._most = most
        self._database = sqlite3.connect(path, timeout=_PATIENCE_S)
        self._database.execute(_TABLE)
        self._newest: dict[int, Decline] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def add(self, job_id: int, decline: Decline, time: int) -> bool:
        """Write a decline down, if it is another than the last of the job; return whether it is."""
        if self._newest.get(job_id) == decline:
            return False
        self._newest[job_id] = decline
        amounts = [None if n is None else str(n) for n in (decline.offered, decline.required)]
        with self._database:
            row = (job_id, decline.reason, time, *amounts, decline.detail)
            self._database.execute(_ADD, row)
            self._database.execute(_TRIM, (self._most,))
        return True

    def read(self) -> list[KeptDecline]:
        """Return what is kept, the newest first."""
        rows = self._database.execute("SELECT * FROM decline ORDER BY time DESC, job_id DESC")
        return [
            KeptDecline(
                job_id, time, Decline(Reason(reason), _parse(offered), _parse(required), detail)
            )
            for job_id, reason, time, offered, required, detail in rows
        ]


def _parse(amount: str | None) -> int | None:
    return None if amount is None else int(amount)
