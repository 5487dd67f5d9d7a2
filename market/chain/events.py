"""The contract's events as typed values, with where each stands on the chain."""

from dataclasses import dataclass
from typing import Annotated, Final, get_args

from pydantic import PlainSerializer

from market.chain.structs import (
    Address,
    NamedChallengeStatus,
    NamedLeaseStatus,
    NamedRole,
    PostedTerms,
    RecordOpening,
    StateOpening,
)
from market.protocol.spec import U64, HexHash, Wei

Bits = Annotated[int, PlainSerializer(hex, return_type=str)]  # up to 256


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
class ChallengeEvent(Event):
    """Something that happened to a challenge."""

    challenge_id: int


@dataclass(frozen=True, slots=True)
class OperatorEvent(Event):
    """Something that an operator did."""

    operator: int


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
class JobCancelled(JobEvent):
    """A requester lets nothing more be claimed."""


@dataclass(frozen=True, slots=True)
class JobRefunded(JobEvent):
    """What a job cannot spend any more was credited to its requester."""

    amount: Wei


@dataclass(frozen=True, slots=True)
class RoundClosed(JobEvent):
    """A round is over; ``attested`` is its set, bit s for slot s."""

    round: int
    attested: Bits


@dataclass(frozen=True, slots=True)
class ShardsClaimed(LeaseEvent):
    """A provider leased slots of a round."""

    job_id: int
    operator: int
    round: int
    first: int
    count: int
    price_bps: int
    bounty: Wei
    deadline: int


@dataclass(frozen=True, slots=True)
class TraceCommitted(LeaseEvent):
    """A provider committed to its traces and named its manifest."""

    root: HexHash
    manifest: HexHash
    draw_block: int


@dataclass(frozen=True, slots=True)
class CommitmentWithdrawn(LeaseEvent):
    """A provider took its commitment back."""

    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseExpired(LeaseEvent):
    """A lease was not committed in time, and closed."""

    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseSettled(LeaseEvent):
    """Provider and auditor of a final lease were paid."""

    pay: Wei
    fee: Wei


@dataclass(frozen=True, slots=True)
class SegmentsDrawn(LeaseEvent):
    """Segments and an auditor were drawn."""

    auditor: int
    segments: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True)
class ShardsAttested(LeaseEvent):
    """An audit was equal; the challenge window runs."""

    auditor: int
    deadline: int


@dataclass(frozen=True, slots=True)
class AuditDeclined(LeaseEvent):
    """A drawn auditor gave the audit up early."""

    auditor: int
    draw_block: int


@dataclass(frozen=True, slots=True)
class AuditorReplaced(LeaseEvent):
    """An auditor that was silent or wrong was sent away."""

    auditor: int
    loss: Wei
    draw_block: int  # zero where the lease is void


@dataclass(frozen=True, slots=True)
class LeaseVoided(LeaseEvent):
    """No audit could be had; nobody is paid."""

    fee: Wei


@dataclass(frozen=True, slots=True)
class LeaseSlashed(LeaseEvent):
    """A provider's stake was taken."""

    reason: NamedLeaseStatus
    amount: Wei
    rewarded: Wei


@dataclass(frozen=True, slots=True)
class WithholdingReported(LeaseEvent):
    """An auditor says that what it must read cannot be fetched."""

    auditor: int
    grace_deadline: int


@dataclass(frozen=True, slots=True)
class PanelConvened(LeaseEvent):
    """A block was fixed that draws a panel."""

    draw_block: int


@dataclass(frozen=True, slots=True)
class PanelDrawn(LeaseEvent):
    """A panel was drawn, a member for each ticket."""

    members: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True)
class PanelVoted(LeaseEvent):
    """A panelist said whether everything can be fetched."""

    member: int
    available: bool
    votes: int


@dataclass(frozen=True, slots=True)
class ReportRejected(LeaseEvent):
    """A panel did not believe a report."""

    auditor: int
    loss: Wei


@dataclass(frozen=True, slots=True)
class RecordChallenged(ChallengeEvent):
    """A record was accused."""

    lease_id: int
    challenger: Address
    by_auditor: bool
    position: int
    bond: Wei
    deadline: int


@dataclass(frozen=True, slots=True)
class ChallengeAnswered(ChallengeEvent):
    """A provider opened the accused record and the one before it."""

    before: StateOpening
    opened: RecordOpening
    deadline: int


@dataclass(frozen=True, slots=True)
class ChallengeClosed(ChallengeEvent):
    """A challenge was decided or dropped."""

    lease_id: int
    outcome: NamedChallengeStatus


@dataclass(frozen=True, slots=True)
class OperatorRegistered(OperatorEvent):
    """Somebody became an operator."""

    owner: Address
    payout: Address


@dataclass(frozen=True, slots=True)
class OwnerProposed(OperatorEvent):
    """An operator was offered to another owner."""

    owner: Address


@dataclass(frozen=True, slots=True)
class OwnerChanged(OperatorEvent):
    """An operator has another owner."""

    owner: Address


@dataclass(frozen=True, slots=True)
class PayoutChanged(OperatorEvent):
    """An operator's pay goes to another address."""

    payout: Address


@dataclass(frozen=True, slots=True)
class WorkerChanged(OperatorEvent):
    """A key may act for an operator, or no longer."""

    worker: Address
    authorized: bool


@dataclass(frozen=True, slots=True)
class StakeAdded(OperatorEvent):
    """An operator has more stake."""

    role: NamedRole
    asset: int
    amount: Wei


@dataclass(frozen=True, slots=True)
class StakeThawing(OperatorEvent):
    """Stake is out of use and leaves after ``until``."""

    role: NamedRole
    asset: int
    amount: Wei
    until: int


@dataclass(frozen=True, slots=True)
class StakeWithdrawn(OperatorEvent):
    """Thawed stake was sent to the owner."""

    role: NamedRole
    asset: int
    amount: Wei


@dataclass(frozen=True, slots=True)
class EarningsPaid(OperatorEvent):
    """What an operator earned was sent to its payout address."""

    role: NamedRole
    asset: int
    amount: Wei
    payout: Address


@dataclass(frozen=True, slots=True)
class TicketsBought(OperatorEvent):
    """An auditor listed tickets, numbered in a row."""

    asset: int
    first_ticket_id: int
    count: int


@dataclass(frozen=True, slots=True)
class TicketRetired(OperatorEvent):
    """A ticket is leaving; no draw picks it."""

    asset: int
    ticket_id: int


@dataclass(frozen=True, slots=True)
class CreditWithdrawn(Event):
    """A credit was paid."""

    account: Address
    asset: int
    amount: Wei


@dataclass(frozen=True, slots=True)
class Burned(Event):
    """Forfeited fees and stakes were destroyed."""

    asset: int
    amount: Wei


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The market stands still, at most ``until``, in chain time."""

    until: int


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A pause was ended early."""

    paused_seconds: int


AnyEvent = (
    JobCreated
    | JobSeeded
    | JobCancelled
    | JobRefunded
    | RoundClosed
    | ShardsClaimed
    | TraceCommitted
    | CommitmentWithdrawn
    | LeaseExpired
    | LeaseSettled
    | SegmentsDrawn
    | ShardsAttested
    | AuditDeclined
    | AuditorReplaced
    | LeaseVoided
    | LeaseSlashed
    | WithholdingReported
    | PanelConvened
    | PanelDrawn
    | PanelVoted
    | ReportRejected
    | RecordChallenged
    | ChallengeAnswered
    | ChallengeClosed
    | OperatorRegistered
    | OwnerProposed
    | OwnerChanged
    | PayoutChanged
    | WorkerChanged
    | StakeAdded
    | StakeThawing
    | StakeWithdrawn
    | EarningsPaid
    | TicketsBought
    | TicketRetired
    | CreditWithdrawn
    | Burned
    | Paused
    | Resumed
)
EVENTS: Final[dict[str, type[Event]]] = {kind.__name__: kind for kind in get_args(AnyEvent)}
