"""The contract's structs and views as typed values, named as in Solidity.

Bytes and amounts carry the protocol's JSON form (0x hex, decimal strings), so a face of the service
can show these values as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import IntEnum
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

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
    CLOSED = 5


def _show_name(status: IntEnum) -> str:
    return status.name.lower()


NamedLeaseStatus = Annotated[LeaseStatus, PlainSerializer(_show_name, return_type=str)]
NamedJobStatus = Annotated[JobStatus, PlainSerializer(_show_name, return_type=str)]


@dataclass(frozen=True, slots=True)
class Job:
    """A posted job's stored facts; `Chain.get_job_status` says what the clock makes of them."""

    escrow: Wei
    seed: U64
    round: int  # the first with a shard that is not attested
    attested: int  # shards of ``round`` that are
    active: int  # leases that can still cost or earn
    price_per_shard: Wei
    stake_per_lease: Wei
    lease_time: int  # seconds
    slots: int
    audit_fee: Wei
    deadline: int  # the last second to claim
    rounds: int
    segments: int
    samples: int
    seeded: bool
    closed: bool
    requester: Address
    seed_block: int
    steps_per_segment: int
    spec_hash: HexHash
    base_root: HexHash
    slot_root: HexHash


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease's stored facts; `Chain.get_status` says what the clock makes of them."""

    provider: Address
    job_id: int
    shard: int  # round times slots plus slot
    stored: NamedLeaseStatus
    deadline: int  # the last second of ``stored``, where a clock ends it
    auditor: Address  # NO_ADDRESS until drawn
    draw_block: int
    tickets: int  # listed when the trace was committed
    silences: int
    redrawn: bool
    trace: HexHash
    audit: HexHash
    segments: int  # drawn: bit i is segment i


@dataclass(frozen=True, slots=True)
class PostedTerms:
    """The terms of a job as the contract keeps them."""

    price_per_shard: Wei
    audit_fee: Wei
    stake_per_lease: Wei
    poison_value: Wei
    lease_time: int
    samples: int
    deadline: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What a provider committed to: its trace's root, and halves of its first and last states."""

    root: HexHash
    first_base_root: HexHash
    last_base_root: HexHash
    last_slot_root: HexHash


@dataclass(frozen=True, slots=True)
class StateOpening:
    """The first or last record of a trace, with its branch to the trace root."""

    base_root: HexHash
    slot_root: HexHash
    outcome: HexHash  # zero in record 0
    branch: tuple[HexHash, ...]


@dataclass(frozen=True, slots=True)
class RecordOpening:
    """A drawn record, with its branch to the trace root."""

    state_root: HexHash
    gradient_root: HexHash
    metrics_root: HexHash
    branch: tuple[HexHash, ...]


@dataclass(frozen=True, slots=True)
class SegmentOutcome:
    """How a segment ended (`Outcome` in Solidity)."""

    state_root: HexHash
    gradient_root: HexHash
    metrics_root: HexHash


@dataclass(frozen=True, slots=True)
class Stake:
    """What an address has at stake, and how much of it answers for open leases."""

    staked: Wei
    locked: Wei

    @property
    def free(self) -> int:
        """What can be taken out or answer for another lease, in wei."""
        return self.staked - self.locked


@dataclass(frozen=True, slots=True)
class Ticket:
    """An auditor's ticket."""

    owner: Address
    leaving: bool


def build_struct(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass ``kind`` of ``values``, which have its fields under Solidity's names."""
    hints = get_type_hints(kind)
    named = {to_snake_case(name): value for name, value in values.items()}
    return kind(**{name: _build_value(hints[name], value) for name, value in named.items()})


def _build_value(hint: Any, value: Any) -> Any:  # what a type hint, and a decoded value, can be
    if get_origin(hint) is tuple:
        return tuple(_build_value(get_args(hint)[0], element) for element in value)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint(value)
    return build_struct(hint, value) if isinstance(hint, type) and is_dataclass(hint) else value
