"""The rows that a stretch of blocks reads and changes, kept until all are written at once."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sqlalchemy.orm import Session

from market.chain.deployment import Config
from market.chain.structs import Address, Asset, Role
from market.protocol.errors import ChainError
from market.storage.index.tables import (
    AccountRow,
    ClockRow,
    CreditRow,
    JobRow,
    LeaseRow,
    Projected,
    RoundRow,
)

T = TypeVar("T", bound=Projected)

BPS: Final = 10_000
_CLOCK: Final = 1  # the number of the one row


@dataclass(frozen=True, slots=True)
class Rules:
    """What was fixed at deployment."""

    config: Config
    assets: tuple[Asset, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """The block whose events are applied."""

    number: int
    timestamp: int  # seconds


class Rows:
    """Rows by table and key as ``session`` has them, and as the events since have made them.

    `get` is to read; a row from `change` says that ``block`` changed it."""

    def __init__(self, session: Session, rules: Rules) -> None:
        self.rules = rules
        self.block = Moment(0, 0)
        self._session = session
        self._rows: dict[tuple[type[Projected], Any], Projected | None] = {}

    def find(self, kind: type[T], *key: Any) -> T | None:  # Any: what a key can be
        """Return a row, or None."""
        place = (kind, key)
        if place not in self._rows:
            self._rows[place] = self._session.get(kind, key)
        return cast(T | None, self._rows[place])

    def get(self, kind: type[T], *key: Any) -> T:
        """Return a row; without it, the node has kept an event from us."""
        row = self.find(kind, *key)
        if row is None:
            table, number = kind.__tablename__, self.block.number
            raise ChainError(f"block {number} has events about {key} of {table}, which is unknown")
        return row

    def change(self, kind: type[T], *key: Any) -> T:
        """Return a row that ``block`` changes."""
        row = self.get(kind, *key)
        row.block_number = self.block.number
        return row

    def add(self, row: T, *key: Any) -> T:
        """Add a new row under its ``key``."""
        row.block_number = self.block.number
        self._rows[type(row), key] = row
        self._session.add(row)
        return row

    def change_account(self, operator: int, role: Role, asset: int) -> AccountRow:
        """Return an operator's account, which is empty before its first event."""
        if self.find(AccountRow, operator, role, asset) is None:
            account = AccountRow(operator=operator, role=role, asset=asset)
            self.add(account, operator, role, asset)
        return self.change(AccountRow, operator, role, asset)

    def owe(self, account: Address, asset: int, amount: int) -> None:
        """Credit ``account`` with ``amount`` more."""
        if self.find(CreditRow, account, asset) is None:
            self.add(CreditRow(account=account, asset=asset), account, asset)
        self.change(CreditRow, account, asset).amount += amount

    def change_clock(self) -> ClockRow:
        """Return the pauses so far."""
        if self.find(ClockRow, _CLOCK) is None:
            self.add(ClockRow(number=_CLOCK), _CLOCK)
        return self.change(ClockRow, _CLOCK)

    def get_time(self) -> int:
        """Return the market's time at ``block``."""
        return compute_market_time(self.find(ClockRow, _CLOCK), self.block.timestamp)

    def get_job_of(self, lease_id: int) -> JobRow:
        """Return the job of a lease."""
        return self.get(JobRow, self.get(LeaseRow, lease_id).job_id)

    def change_round_of(self, lease: LeaseRow) -> RoundRow:
        """Return the round of a lease."""
        return self.change(RoundRow, lease.job_id, lease.round)


def compute_market_time(clock: ClockRow | None, timestamp: int) -> int:
    """Return the market's time at ``timestamp`` of the chain (`Clock._now` in Solidity)."""
    if clock is None:
        return timestamp
    if timestamp < clock.paused_until:
        return clock.paused_at - clock.paused_before
    return timestamp - clock.paused_before - (clock.paused_until - clock.paused_at)


def compute_share(amount: int, bps: int) -> int:
    """Return ``bps`` of ``amount``, rounded down."""
    return amount * bps // BPS


def compute_mask(lease: LeaseRow) -> int:
    """Return the bits of a lease's slots."""
    return ((1 << lease.count) - 1) << lease.first


def show(value: bytes) -> str:
    """Return a hash as the tables keep it."""
    return "0x" + value.hex()
