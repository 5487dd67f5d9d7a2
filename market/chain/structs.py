"""The contract's structs and views as typed values, named as in Solidity.

Bytes and amounts carry the protocol's JSON form (0x hex, decimal strings), so a face of the service
can show these values as they are."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import PlainSerializer

from market.chain.abi import to_snake_case
from market.protocol.lifecycle import LeaseStatus
from market.protocol.spec import U64, HexHash, Wei

Address = str  # with EIP-55's checksum
T = TypeVar("T")

NO_ADDRESS: Final[Address] = "0x" + "0" * 40


class JobStatus(IntEnum):
    """Where a job is in its life; numbered as in Solidity."""

    NONE = 0
    FUNDED = 1
    SEED_LOST = 2
    OPEN = 3
    ENDED = 4
    COMPLETE = 5
    CANCELLED = 6


class ChallengeStatus(IntEnum):
    """Where a challenge is; numbered as in Solidity. A status that a clock decides is derived there."""

    NONE = 0
    OPEN = 1
    UNANSWERED = 2
    ANSWERED = 3
    UNRULED = 4
    UPHELD = 5
    REJECTED = 6
    DROPPED = 7


class Role(IntEnum):
    """In what an operator's stake answers; numbered as in Solidity."""

    PROVIDER = 0
    AUDITOR = 1


def _show_name(status: IntEnum) -> str:
    return status.name.lower()


NamedLeaseStatus = Annotated[LeaseStatus, PlainSerializer(_show_name, return_type=str)]
NamedJobStatus = Annotated[JobStatus, PlainSerializer(_show_name, return_type=str)]
NamedChallengeStatus = Annotated[ChallengeStatus, PlainSerializer(_show_name, return_type=str)]
NamedRole = Annotated[Role, PlainSerializer(_show_name, return_type=str)]


@dataclass(frozen=True, slots=True)
class Asset:
    """What jobs are paid in."""

    token: Address  # NO_ADDRESS: ether
    ticket_stake: Wei  # of one ticket


@dataclass(frozen=True, slots=True)
class Job:
    """A posted job's stored facts; `Chain.get_job_status` says what the clock makes of them."""

    escrow: Wei  # not spent yet
    leases: int  # ever claimed
    active: int  # shards under leases that can still cost or earn
    round: int  # the first that is not closed
    opened_at: int  # when ``round`` opened, in the market's time
    asset: int
    seeded: bool
    cancelled: bool
    price_per_shard: Wei
    stake_per_shard: Wei
    audit_fee: Wei
    floor_bps: int
    lease_time: int  # seconds
    ramp_time: int
    round_time: int  # seconds until a round may close without all its slots; 0: never
    deadline: int  # the last second to claim, in the market's time
    seed_block: int
    rounds: int
    slots: int
    quorum: int
    segments: int  # of a shard
    samples: int
    requester: Address
    seed: U64
    steps_per_segment: int
    spec_hash: HexHash


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease's stored facts; `Chain.get_status` says what the clock makes of them."""

    operator: int  # the provider
    auditor: int  # an operator; zero until drawn
    tickets: int  # listed when the root was committed
    round: int
    first: int  # slot
    extra: int  # shards less one
    price_bps: int  # of the job's price per shard
    stored: NamedLeaseStatus
    clock: int  # the last second of ``stored``; Committed and Convened: the block that draws
    silences: int
    redraws: int
    challenges: int  # open ones
    seed: U64  # of the drawn segments; zero until drawn
    root: HexHash

    @property
    def count(self) -> int:
        """How many shards it is for."""
        return self.extra + 1

    @property
    def slots(self) -> range:
        """The slots of its shards, in order."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class Round:
    """Sets of a round's slots: bit s is slot s. `list_slots` reads one."""

    taken: int  # under a lease or attested
    attested: int  # once the round is closed: its set
    abandoned: int  # their last lease expired: claiming one earns a bounty


@dataclass(frozen=True, slots=True)
class Challenge:
    """An accusation's stored facts; `Chain.get_challenge_status` says what the clock makes of them."""

    challenger: Address
    lease_id: int
    by_auditor: bool
    stored: NamedChallengeStatus
    position: int  # of the record in the lease's tree
    clock: int  # the last second of ``stored``, in the market's time
    bond: Wei
    opened: HexHash


@dataclass(frozen=True, slots=True)
class Panel:
    """Who votes on a report, a member for each ticket; bit k of a set is member k."""

    members: tuple[int, ...]  # operators
    voted: int
    missing: int  # voted that something cannot be fetched


@dataclass(frozen=True, slots=True)
class PostedTerms:
    """The terms of a job as the contract is given them (`Terms` in Solidity)."""

    asset: int
    price_per_shard: Wei
    floor_bps: int
    ramp_time: int
    audit_fee: Wei
    stake_per_shard: Wei
    poison_value: Wei
    lease_time: int
    round_time: int
    quorum: int
    samples: int
    deadline: int


@dataclass(frozen=True, slots=True)
class RecordOpening:
    """The record after a segment, opened, with its branch to the lease's root."""

    state_root: HexHash
    gradient_root: HexHash
    metrics_root: HexHash
    branch: tuple[HexHash, ...]


@dataclass(frozen=True, slots=True)
class StateOpening:
    """A record with its outcome hidden, and its branch to the lease's root."""

    state_root: HexHash
    outcome: HexHash  # zero in record 0
    branch: tuple[HexHash, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """Whose keys act for an operator, and where its pay goes."""

    owner: Address
    payout: Address


@dataclass(frozen=True, slots=True)
class Account:
    """What an operator has at stake in one role and asset, and has earned."""

    staked: Wei  # everything that can be slashed
    locked: Wei  # answers for leases, at most ``staked``
    earned: Wei  # to be paid out
    leaving: bool  # something is thawing
    thawing: Wei  # part of ``staked``; answers for no new lease
    thawed_at: int  # seconds of the market's time: after it, what is thawing can be withdrawn

    @property
    def free(self) -> int:
        """What can answer for another lease, in base units."""
        return max(0, self.staked - self.locked - self.thawing)


@dataclass(frozen=True, slots=True)
class Ticket:
    """An auditor's ticket."""

    operator: int
    leaving: bool


def list_slots(bits: int) -> list[int]:
    """Return the members of a set of slots, ascending."""
    return [slot for slot in range(bits.bit_length()) if bits >> slot & 1]


def build_struct(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass ``kind`` of ``values``, which have its fields under Solidity's names."""
    hints = _get_hints(cast(Hashable, kind))
    named = {to_snake_case(name): value for name, value in values.items()}
    return kind(**{name: _build_value(hints[name], value) for name, value in named.items()})


@cache
def _get_hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def _build_value(hint: Any, value: Any) -> Any:  # what a type hint, and a decoded value, can be
    if get_origin(hint) is tuple:
        return tuple(_build_value(get_args(hint)[0], element) for element in value)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint(value)
    return build_struct(hint, value) if isinstance(hint, type) and is_dataclass(hint) else value
