"""The contract's events as typed values, with where each stands on the chain."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, get_args

from eth_typing import HexStr
from web3.contract.contract import ContractEvent
from web3.types import LogReceipt

from market.chain.abi import load_contract
from market.chain.structs import (
    Address,
    NamedLeaseStatus,
    PostedTerms,
    SegmentOutcome,
    build_struct,
)
from market.protocol.spec import U64, HexHash, Wei


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and where: events are ordered by block and log index."""

    block_number: int
    log_index: int
    tx_hash: str


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    """Something that happened to a job."""

    job_id: int


@dataclass(frozen=True, slots=True)
class LeaseEvent(Event):
    """Something that happened to a lease."""

    lease_id: int


@dataclass(frozen=True, slots=True)
class JobCreated(JobEvent):
    """A job was posted and escrowed."""

    requester: Address
    spec_hash: HexHash
    spec_leaves: tuple[HexHash, ...]
    terms: PostedTerms


@dataclass(frozen=True, slots=True)
class JobSeeded(JobEvent):
    """A job's seed was drawn, which opened it."""

    seed: U64


@dataclass(frozen=True, slots=True)
class JobClosed(JobEvent):
    """What a job did not spend was refunded."""

    refund: Wei


@dataclass(frozen=True, slots=True)
class ShardClaimed(LeaseEvent):
    """A provider leased a shard."""

    job_id: int
    provider: Address
    round: int
    slot: int
    deadline: int


@dataclass(frozen=True, slots=True)
class TraceCommitted(LeaseEvent):
    """A provider committed to its trace and named its manifest."""

    trace_root: HexHash
    first_base_root: HexHash
    last_base_root: HexHash
    last_slot_root: HexHash
    manifest: HexHash
    draw_block: int


@dataclass(frozen=True, slots=True)
class CommitmentWithdrawn(LeaseEvent):
    """A provider took its commitment back."""

    provider: Address
    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseExpired(LeaseEvent):
    """A lease was not committed in time, and closed."""

    provider: Address
    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseSettled(LeaseEvent):
    """The provider of a final shard was paid."""

    provider: Address
    amount: Wei


@dataclass(frozen=True, slots=True)
class SegmentsDrawn(LeaseEvent):
    """Segments and an auditor were drawn."""

    auditor: Address
    segments: tuple[int, ...]
    audit_deadline: int


@dataclass(frozen=True, slots=True)
class AuditCommitted(LeaseEvent):
    """An auditor fixed its audit."""

    auditor: Address
    commitment: HexHash
    open_deadline: int


@dataclass(frozen=True, slots=True)
class RecordsOpened(LeaseEvent):
    """A provider opened the drawn records."""

    outcomes: tuple[SegmentOutcome, ...]
    reveal_deadline: int


@dataclass(frozen=True, slots=True)
class ShardAttested(LeaseEvent):
    """An audit was equal; the challenge window runs."""

    auditor: Address
    contribution: HexHash


@dataclass(frozen=True, slots=True)
class AuditMismatched(LeaseEvent):
    """An audit differed."""

    auditor: Address
    record_index: int
    claimed_record: HexHash
    audited_record: HexHash


@dataclass(frozen=True, slots=True)
class AuditorReplaced(LeaseEvent):
    """A silent auditor was sent away."""

    auditor: Address
    loss: Wei
    draw_block: int


@dataclass(frozen=True, slots=True)
class LeaseVoided(LeaseEvent):
    """No audit could be had; nobody is paid."""

    provider: Address
    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseSlashed(LeaseEvent):
    """A provider's stake was taken."""

    provider: Address
    reason: NamedLeaseStatus
    amount: Wei
    to_auditor: Wei


@dataclass(frozen=True, slots=True)
class StakeAdded(Event):
    """A provider added stake."""

    provider: Address
    amount: Wei


@dataclass(frozen=True, slots=True)
class StakeRemoved(Event):
    """A provider took stake out."""

    provider: Address
    amount: Wei


@dataclass(frozen=True, slots=True)
class TicketsBought(Event):
    """An auditor listed tickets, numbered in a row."""

    auditor: Address
    first_ticket_id: int
    count: int


@dataclass(frozen=True, slots=True)
class TicketRetired(Event):
    """A ticket is leaving; no draw picks it."""

    ticket_id: int
    auditor: Address


@dataclass(frozen=True, slots=True)
class CreditWithdrawn(Event):
    """A credit was paid."""

    account: Address
    amount: Wei


AnyEvent = (
    JobCreated
    | JobSeeded
    | JobClosed
    | ShardClaimed
    | TraceCommitted
    | CommitmentWithdrawn
    | LeaseExpired
    | LeaseSettled
    | SegmentsDrawn
    | AuditCommitted
    | RecordsOpened
    | ShardAttested
    | AuditMismatched
    | AuditorReplaced
    | LeaseVoided
    | LeaseSlashed
    | StakeAdded
    | StakeRemoved
    | TicketsBought
    | TicketRetired
    | CreditWithdrawn
)
EVENTS: Final[dict[str, type[Event]]] = {kind.__name__: kind for kind in get_args(AnyEvent)}


@cache
def _load_events() -> dict[str, ContractEvent]:
    events = [load_contract().events[name] for name in EVENTS]
    return {event.topic: event for event in events}


def get_topic(kind: type[Event]) -> HexStr:
    """Return the topic under which events of ``kind`` are logged."""
    return load_contract().events[kind.__name__].topic


def decode_events(logs: Iterable[LogReceipt]) -> list[Event]:
    """Return the events in ``logs``, which are all of the market."""
    return [_decode_event(log) for log in logs]


def _decode_event(log: LogReceipt) -> Event:
    decoded = _load_events()[log["topics"][0].to_0x_hex()].process_log(log)
    place = {
        "block_number": decoded["blockNumber"],
        "log_index": decoded["logIndex"],
        "tx_hash": decoded["transactionHash"].to_0x_hex(),
    }
    return build_struct(EVENTS[decoded["event"]], {**place, **decoded["args"]})
