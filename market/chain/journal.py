"""What an account has sent, on disk: every call, its nonce, and whatever was signed for it.

INVARIANT: what a method has written is on disk when it returns."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from eth_typing import HexStr

from market.chain.signing import Attempt, Call, Fees
from market.protocol.errors import MarketError, NodeUnavailable, NotFound

_POLL_S: Final = 0.02
_CREATION_S: Final = 10
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,
    target TEXT,
    function TEXT NOT NULL,
    data BLOB NOT NULL,
    value TEXT NOT NULL,
    nonce INTEGER NOT NULL UNIQUE,
    status TEXT NOT NULL,
    block_number INTEGER,
    block_hash BLOB
);
CREATE INDEX IF NOT EXISTS entry_status ON entry (status);
CREATE TABLE IF NOT EXISTS attempt (
    tx_hash TEXT PRIMARY KEY,
    entry INTEGER NOT NULL REFERENCES entry ON DELETE CASCADE,
    nonce INTEGER NOT NULL,
    gas INTEGER NOT NULL,
    tip TEXT NOT NULL,
    fee_limit TEXT NOT NULL,
    raw BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS attempt_entry ON attempt (entry);
"""


class EntryStatus(StrEnum):
    """How far a call has come. Only a final one is there to stay."""

    PENDING = "pending"
    INCLUDED = "included"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Entry:
    """A call that was signed, and the block it is in, if there is one."""

    id: int
    key: str | None
    call: Call
    nonce: int
    status: EntryStatus
    block_number: int | None
    block_hash: bytes | None


class Journal:
    """The entries of one account on one chain, in a file, or in memory if there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._lock_file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        self.path = path
        name = ":memory:" if path is None else path
        self._database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        is_new = path is not None and path.stat().st_size == 0
        try:
            with self.hold(_CREATION_S) if is_new else nullcontext():  # two may be first at once
                for statement in _SCHEMA.split(";"):
                    self._execute(statement)
        except MarketError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and release it if it is held."""
        self._database.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def hold(self, patience_s: float) -> Iterator[None]:
        """Keep other processes out; raise NodeUnavailable if one is in for so long."""
        if self._lock_file is None:
            yield
            return
        deadline = time.monotonic() + patience_s
        while not _lock(self._lock_file):
            if time.monotonic() > deadline:
                raise NodeUnavailable(f"another process sends by this key: it holds {self.path}")
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def add(self, key: str, call: Call, attempt: Attempt) -> Entry:
        """Write down that ``attempt`` is about to be sent to make ``call`` happen."""
        with self._write():
            ((entry_id,),) = self._execute(
                "INSERT INTO entry (key, target, function, data, value, nonce, status)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (
                    key,
                    call.to,
                    call.function,
                    call.data,
                    str(call.value),
                    attempt.nonce,
                    EntryStatus.PENDING,
                ),
            )
            self._insert_attempt(entry_id, attempt)
        return Entry(entry_id, key, call, attempt.nonce, EntryStatus.PENDING, None, None)

    def add_attempt(self, entry: Entry, attempt: Attempt) -> Entry:
        """Write down another attempt at an entry; a new nonce takes the place of the old one."""
        with self._write():
            self._execute("UPDATE entry SET nonce = ? WHERE id = ?", (attempt.nonce, entry.id))
            self._insert_attempt(entry.id, attempt)
        return replace(entry, nonce=attempt.nonce)

    def set_pending(self, entry: Entry) -> None:
        """Write down that the entry is in no block."""
        self._place(entry, EntryStatus.PENDING, None, None)

    def set_mined(self, entry: Entry, status: EntryStatus, number: int, block_hash: bytes) -> None:
        """Write down the block that the entry is in."""
        self._place(entry, status, number, block_hash)

    def remove(self, entry: Entry) -> None:
        """Forget an entry that can never happen."""
        self._execute("DELETE FROM entry WHERE id = ?", (entry.id,))

    def release(self, key: str) -> None:
        """Make ``key`` free for another call."""
        self._execute("UPDATE entry SET key = NULL WHERE key = ?", (key,))

    def find(self, key: str) -> Entry | None:
        """Return the entry under ``key``."""
        return next(self._select("WHERE key = ?", key), None)

    def get(self, key: str) -> Entry:
        """Return the entry under ``key``; raise NotFound if there is none."""
        entry = self.find(key)
        if entry is None:
            raise NotFound(f"nothing was sent as {key}")
        return entry

    def list_unfinished(self, below: int) -> list[Entry]:
        """Return the entries that are not final and whose nonce is less than ``below``."""
        rest = "WHERE status != ? AND nonce < ? ORDER BY nonce"
        return list(self._select(rest, EntryStatus.FINAL, below))

    def list_from(self, nonce: int) -> list[Entry]:
        """Return the entries with that nonce and higher ones."""
        return list(self._select("WHERE nonce >= ? ORDER BY nonce", nonce))

    def count_unmined(self, count: int) -> int:
        """Return how many entries are in no block, where the account has sent ``count``."""
        statement = "SELECT count(*) FROM entry WHERE status = ? OR nonce >= ?"
        ((unmined,),) = self._execute(statement, (EntryStatus.PENDING, count))
        return int(unmined)

    def list_attempts(self, entry: Entry) -> list[Attempt]:
        """Return what was signed for the entry with its nonce, the latest first."""
        rows = self._execute(
            "SELECT nonce, gas, tip, fee_limit, tx_hash, raw FROM attempt"
            " WHERE entry = ? AND nonce = ? ORDER BY rowid DESC",
            (entry.id, entry.nonce),
        )
        return [
            Attempt(nonce, gas, Fees(int(tip), int(limit)), HexStr(tx_hash), raw)
            for nonce, gas, tip, limit, tx_hash, raw in rows
        ]

    def find_free_nonce(self, lowest: int) -> int:
        """Return the first nonce from ``lowest`` on that no entry has."""
        nonce = lowest
        for entry in self.list_from(lowest):
            if entry.nonce != nonce:
                break
            nonce += 1
        return nonce

    def _execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise MarketError(f"{self.path or 'the journal'} cannot be used: {error}") from error

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def _insert_attempt(self, entry_id: int, attempt: Attempt) -> None:
        fees = attempt.fees
        self._execute(
            "INSERT INTO attempt (tx_hash, entry, nonce, gas, tip, fee_limit, raw)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                attempt.tx_hash,
                entry_id,
                attempt.nonce,
                attempt.gas,
                str(fees.tip),
                str(fees.limit),
                attempt.raw,
            ),
        )

    def _place(
        self, entry: Entry, status: EntryStatus, number: int | None, block_hash: bytes | None
    ) -> None:
        self._execute(
            "UPDATE entry SET status = ?, block_number = ?, block_hash = ? WHERE id = ?",
            (status, number, block_hash, entry.id),
        )

    def _select(self, rest: str, *values: object) -> Iterator[Entry]:
        columns = "id, key, target, function, data, value, nonce, status, block_number, block_hash"
        rows = self._execute(f"SELECT {columns} FROM entry {rest}", values)
        return map(_read_entry, rows)


def _read_entry(row: tuple[Any, ...]) -> Entry:  # the columns' types
    id_, key, target, function, data, value, nonce, status, number, block_hash = row
    call = Call(target, function, data, int(value))
    return Entry(id_, key, call, nonce, EntryStatus(status), number, block_hash)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
