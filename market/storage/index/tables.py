"""The tables: what is known of the chain's market at the tip, one schema for every database.

Every row is a consequence of the events up to the tip, and can be dropped. What a clock decides is not
stored: see `statuses`."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from market.chain.structs import ChallengeStatus, PostedTerms, Role
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.columns import (
    AddressText,
    Amount,
    Bits,
    Digits,
    Document,
    HashText,
    Named,
    Number,
)


def _refer(column: str) -> ForeignKey:
    """Return a key that is checked at the end of a block, whose rows are written in no order."""
    return ForeignKey(column, deferrable=True, initially="DEFERRED")


class Table(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """A row of the index."""

    type_annotation_map = {int: BigInteger, str: Text}  # noqa: RUF012 - SQLAlchemy's declaration


class DeploymentRow(Table):
    """Whose events these are, and up to which block they are final. One row."""

    __tablename__ = "deployment"

    chain_id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    market: Mapped[AddressText]
    first_block: Mapped[Number]
    final_block: Mapped[int | None] = mapped_column(default=None)


class BlockRow(Table):
    """A recent block: the last is the tip. They are linked without a gap, so any of them can be undone
    but the first."""

    __tablename__ = "blocks"

    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[HashText]
    parent_hash: Mapped[HashText]
    timestamp: Mapped[Number]  # seconds


class EventRow(Table):
    """Something that happened, and what it was about; ``payload`` is its canonical JSON."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_of_job", "job_id", "block_number", "log_index"),
        Index("events_of_lease", "lease_id", "block_number", "log_index"),
        Index("events_of_operator", "operator", "block_number", "log_index"),
    )

    block_number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    log_index: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    block_hash: Mapped[HashText]
    timestamp: Mapped[Number]  # of the block, seconds
    tx_hash: Mapped[HashText]
    name: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[int | None]
    lease_id: Mapped[int | None]
    operator: Mapped[int | None]
    payload: Mapped[str]


class UndoRow(Table):
    """How a row was before a recent block: what the block changed, or null for a new row."""

    __tablename__ = "undo"

    block_number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    table_name: Mapped[str] = mapped_column(String(32))
    key: Mapped[list[Any]] = mapped_column(JSON)  # Any: the type of JSON
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Projected(Table):
    """A row that events make: ``block_number`` is the block that changed it last."""

    __abstract__ = True

    block_number: Mapped[Number] = mapped_column(init=False, sort_order=1)


class ClockRow(Projected):
    """The pauses, in chain time: the market's time is a block's less all that was paused. One row."""

    __tablename__ = "clock"

    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)  # always 1
    paused_at: Mapped[Number] = mapped_column(default=0)  # the last pause
    paused_until: Mapped[Number] = mapped_column(default=0)
    paused_before: Mapped[Number] = mapped_column(
        default=0
    )  # seconds, of all pauses before the last


class JobRow(Projected):
    """A job: its terms and schedule as posted, and how far it is."""

    __tablename__ = "jobs"

    id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    posted_at: Mapped[Number]  # chain time, seconds
    requester: Mapped[AddressText] = mapped_column(index=True)
    spec_hash: Mapped[HashText]
    document: Mapped[str] = mapped_column(String(80))  # the CID that its spec leaves name
    terms: Mapped[PostedTerms] = mapped_column(Document(PostedTerms))
    rounds: Mapped[Number]
    slots: Mapped[Number]
    segments: Mapped[Number]
    steps_per_segment: Mapped[Number]
    seed_block: Mapped[Number]  # derived: the deployment's distance after the post
    escrow: Mapped[Amount]  # derived: not spent yet
    seed: Mapped[int | None] = mapped_column(Digits(64), default=None)
    round: Mapped[Number] = mapped_column(default=0)  # the first that is not closed
    opened_at: Mapped[Number] = mapped_column(default=0)  # of ``round``, the market's time
    leases: Mapped[Number] = mapped_column(default=0)  # ever claimed
    active: Mapped[Number] = mapped_column(
        default=0
    )  # shards under leases that can still cost or earn
    cancelled: Mapped[bool] = mapped_column(default=False)


class RoundRow(Projected):
    """A round that has opened: its slots as bit sets, as the contract's `getRound` answers them."""

    __tablename__ = "rounds"

    job_id: Mapped[Number] = mapped_column(_refer("jobs.id"), primary_key=True, autoincrement=False)
    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    opened_at: Mapped[Number]  # the market's time
    closed_at: Mapped[int | None] = mapped_column(default=None)
    taken: Mapped[Bits] = mapped_column(default=0)
    attested: Mapped[Bits] = mapped_column(default=0)
    abandoned: Mapped[Bits] = mapped_column(default=0)


class LeaseRow(Projected):
    """A lease: a range of slots of a round, and its stored status; `statuses` knows what time makes of it."""

    __tablename__ = "leases"
    __table_args__ = (Index("leases_of_shard", "job_id", "round", "first"),)

    id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[Number] = mapped_column(_refer("jobs.id"))
    operator: Mapped[Number] = mapped_column(_refer("operators.id"), index=True)
    round: Mapped[Number]
    first: Mapped[Number]  # slot
    count: Mapped[Number]  # shards
    price_bps: Mapped[Number]  # of the job's price per shard
    bounty: Mapped[Amount]  # earned by claiming what somebody abandoned
    claimed_at: Mapped[Number]  # chain time, seconds
    status: Mapped[LeaseStatus] = mapped_column(Named(LeaseStatus), index=True)
    clock: Mapped[Number]  # as in the contract: a time, or a block where one draws
    auditor: Mapped[int | None] = mapped_column(default=None)  # operator, since the last draw
    root: Mapped[str | None] = mapped_column(String(66), default=None)
    manifest: Mapped[str | None] = mapped_column(String(66), default=None)
    segments: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True), default=None)
    challenges: Mapped[Number] = mapped_column(default=0)  # open ones
    panels: Mapped[Number] = mapped_column(default=0)  # ever drawn
    rewarded: Mapped[Amount] = mapped_column(default=0)  # to whoever had it slashed


class ChallengeRow(Projected):
    """An accusation of one record."""

    __tablename__ = "challenges"

    id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    lease_id: Mapped[Number] = mapped_column(_refer("leases.id"), index=True)
    challenger: Mapped[AddressText]
    by_auditor: Mapped[bool]
    position: Mapped[Number]
    bond: Mapped[Amount]
    status: Mapped[ChallengeStatus] = mapped_column(Named(ChallengeStatus))
    clock: Mapped[Number]  # the end of ``status``, the market's time


class PanelRow(Projected):
    """A panel drawn for a lease, numbered from 1."""

    __tablename__ = "panels"

    lease_id: Mapped[Number] = mapped_column(
        _refer("leases.id"), primary_key=True, autoincrement=False
    )
    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[Number]
    deadline: Mapped[Number]  # the market's time
    withheld: Mapped[bool | None] = mapped_column(default=None)  # what it found; null until counted


class SeatRow(Projected):
    """A seat of a panel, and its vote: whether everything could be fetched, null until it votes."""

    __tablename__ = "seats"
    __table_args__ = (
        ForeignKeyConstraint(
            ["lease_id", "panel"],
            ["panels.lease_id", "panels.number"],
            deferrable=True,
            initially="DEFERRED",
        ),
    )

    lease_id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    panel: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    operator: Mapped[Number] = mapped_column(_refer("operators.id"), index=True)
    available: Mapped[bool | None] = mapped_column(default=None)


class OperatorRow(Projected):
    """Who provides and audits: its cold key, and where it is paid."""

    __tablename__ = "operators"

    id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[AddressText] = mapped_column(index=True)
    payout: Mapped[AddressText]
    proposed: Mapped[str | None] = mapped_column(
        String(42), default=None
    )  # owner, until it accepts


class WorkerRow(Projected):
    """A hot key that an operator named, and whether it may act."""

    __tablename__ = "workers"

    operator: Mapped[Number] = mapped_column(
        _refer("operators.id"), primary_key=True, autoincrement=False
    )
    worker: Mapped[AddressText] = mapped_column(primary_key=True)
    authorized: Mapped[bool]


class AccountRow(Projected):
    """An operator's stake in one role and asset, as the contract's `getAccount` answers it.

    No event carries ``locked`` and most of what changes ``staked`` and ``earned``: they are derived by
    the contract's rules from jobs, leases, panels and the deployment's constants."""

    __tablename__ = "accounts"

    operator: Mapped[Number] = mapped_column(
        _refer("operators.id"), primary_key=True, autoincrement=False
    )
    role: Mapped[Role] = mapped_column(Named(Role), primary_key=True)
    asset: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    staked: Mapped[Amount] = mapped_column(default=0)
    locked: Mapped[Amount] = mapped_column(default=0)
    earned: Mapped[Amount] = mapped_column(default=0)
    leaving: Mapped[bool] = mapped_column(default=False)  # something is thawing
    thawing: Mapped[Amount] = mapped_column(default=0)  # part of ``staked``
    thawed_at: Mapped[Number] = mapped_column(default=0)  # the market's time


class TicketRow(Projected):
    """A ticket: what a draw picks its auditor by."""

    __tablename__ = "tickets"

    asset: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    operator: Mapped[Number] = mapped_column(_refer("operators.id"), index=True)
    leaving: Mapped[bool] = mapped_column(default=False)


class CreditRow(Projected):
    """What an account can withdraw: a requester's refunds, a challenger's bonds and rewards. Derived."""

    __tablename__ = "credits"

    account: Mapped[AddressText] = mapped_column(primary_key=True)
    asset: Mapped[Number] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[Amount] = mapped_column(default=0)


class SettlementRow(Projected):
    """A price paid: what a settled lease cost, for how many shards."""

    __tablename__ = "settlements"

    lease_id: Mapped[Number] = mapped_column(
        _refer("leases.id"), primary_key=True, autoincrement=False
    )
    asset: Mapped[Number]
    provider: Mapped[Number]  # operators
    auditor: Mapped[Number]
    shards: Mapped[Number]
    pay: Mapped[Amount]
    fee: Mapped[Amount]  # the auditor's
    settled_at: Mapped[Number] = mapped_column(index=True)  # chain time, seconds
