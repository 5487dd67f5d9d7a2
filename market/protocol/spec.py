"""The job's document: everything a provider needs to reproduce a training run bit for bit.

`JobSpec` is the API's body, the stored document and what a provider parses; the contract keeps its hash."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)

from market.protocol.constants import (
    BPS,
    COLLUSION_DENOMINATOR,
    COLLUSION_NUMERATOR,
    MAX_DOCUMENT_BYTES,
    MAX_ROUNDS,
    MAX_SAMPLES,
    MAX_SEGMENTS,
    MAX_SHARDS,
    MAX_SLOTS,
    MAX_STEPS_PER_SEGMENT,
    MIN_SEGMENTS,
    MIN_STEPS_PER_SEGMENT,
    PUNISHED_DENOMINATOR,
    PUNISHED_NUMERATOR,
)
from market.protocol.errors import InvalidSpec
from market.protocol.hashing import Hash32, Role, compute_digest, encode_u256, hash_leaf
from market.protocol.merkle import compute_root

SPEC_LEAVES: Final = 8


def _parse_hash(value: object) -> object:
    if isinstance(value, str):
        if len(value) != 66 or not value.startswith("0x") or value != value.lower():
            raise ValueError(f"{value!r} is not 32 bytes as 0x and 64 lower-case hex digits")
        return bytes.fromhex(value[2:])
    return value


def _parse_wei(value: object) -> object:
    if isinstance(value, str):
        if not value.isascii() or not value.isdigit() or (len(value) > 1 and value[0] == "0"):
            raise ValueError(f"{value!r} is not an amount of wei in decimal digits")
        return int(value)
    if isinstance(value, float):
        raise ValueError(f"{value!r} is not an integer amount of wei")  # noqa: TRY004 - pydantic's
    return value


HexHash = Annotated[
    Hash32,
    BeforeValidator(_parse_hash),
    Field(min_length=32, max_length=32),
    PlainSerializer(lambda value: "0x" + value.hex(), return_type=str),
]
_ShownWei = Annotated[int, BeforeValidator(_parse_wei), PlainSerializer(str, return_type=str)]
Wei = Annotated[_ShownWei, Field(ge=0, lt=2**96)]
TermsWei = Annotated[_ShownWei, Field(ge=0, lt=2**80)]  # what the contract keeps of one amount
Seconds = Annotated[int, Field(ge=0, lt=2**32)]
# A 64-bit number, which JSON carries as a decimal string: JavaScript loses integers above 2^53.
U64 = Annotated[int, Field(ge=0, lt=2**64), PlainSerializer(str, return_type=str)]
Cid = Annotated[str, StringConstraints(pattern=r"^b[a-z2-7]{58}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProgramRef(_Document):
    """A program's stored form and its root."""

    cid: Cid
    root: HexHash


class DatasetRef(_Document):
    """The dataset tensor's raw bytes and its root."""

    cid: Cid
    root: HexHash


class StateRef(_Document):
    """The initial state's bytes and the roots of its halves."""

    cid: Cid
    base_root: HexHash
    slot_root: HexHash


class Terms(_Document):
    """What the requester pays and asks for; the contract keeps a copy."""

    asset: Annotated[int, Field(ge=0, lt=2**8)] = 0  # in which everything is paid
    price_per_shard: Annotated[TermsWei, Field(ge=1)]  # the most, at the end of a ramp
    floor_bps: Annotated[int, Field(ge=0, le=BPS)] = BPS  # of the price, at the beginning of a ramp
    ramp_time_s: Seconds = 0  # from the opening of a round to the full price
    audit_fee: TermsWei
    stake_per_shard: TermsWei
    poison_value: TermsWei = 0
    lease_time_s: Annotated[Seconds, Field(ge=1)]
    round_time_s: Seconds = 0  # until a round may close without all its slots; 0: never
    quorum: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = None  # None: all slots
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
    deadline: Annotated[int, Field(ge=0, lt=2**40)]


class JobSpec(_Document):
    """One job. Its identity is `spec_hash`, a Merkle root whose leaves a contract can open."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    model: Annotated[str, StringConstraints(max_length=4096)] = ""
    program: ProgramRef
    outer: ProgramRef
    dataset: DatasetRef
    initial_state: StateRef
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    segments: Annotated[int, Field(ge=MIN_SEGMENTS, le=MAX_SEGMENTS)]
    steps_per_segment: Annotated[int, Field(ge=MIN_STEPS_PER_SEGMENT, le=MAX_STEPS_PER_SEGMENT)]
    conformance: HexHash
    terms: Terms

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        if self.rounds * self.slots > MAX_SHARDS:
            raise ValueError(
                f"{self.rounds} rounds of {self.slots} slots: at most {MAX_SHARDS} shards"
            )
        if self.terms.samples > self.segments:
            raise ValueError(f"{self.terms.samples} samples of {self.segments} segments")
        self._check_quorum()
        least = compute_minimum_stake(self.terms, self.segments)
        if self.terms.stake_per_shard < least:
            raise ValueError(
                f"a stake of {self.terms.stake_per_shard} wei makes cheating pay: at least {least}"
            )
        return self

    def _check_quorum(self) -> None:
        round_time, lease_time = self.terms.round_time_s, self.terms.lease_time_s
        if self.quorum > self.slots:
            raise ValueError(f"a quorum of {self.quorum} in rounds of {self.slots} slots")
        if round_time == 0 and self.quorum != self.slots:
            raise ValueError(f"a quorum of {self.quorum} of {self.slots} slots needs round_time_s")
        if 0 < round_time < lease_time:
            raise ValueError(
                f"a round of {round_time} s leaves a lease less than its {lease_time} s"
            )

    @property
    def quorum(self) -> int:
        """The attested slots without which no round closes."""
        return self.slots if self.terms.quorum is None else self.terms.quorum

    @property
    def document(self) -> bytes:
        """The canonical JSON: sorted keys, no spaces, ASCII."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def steps(self) -> int:
        """Steps of one shard."""
        return self.segments * self.steps_per_segment

    @property
    def escrow(self) -> int:
        """What the requester pays in: full price and audit fee of every shard, in wei."""
        return self.rounds * self.slots * (self.terms.price_per_shard + self.terms.audit_fee)

    @property
    def leaf_values(self) -> list[Hash32]:
        """The eight values under the spec hash (docs/protocol.md section 5)."""
        schedule = (self.rounds, self.slots, self.segments, self.steps_per_segment)
        return [
            self.program.root,
            self.outer.root,
            self.dataset.root,
            self.initial_state.base_root,
            self.initial_state.slot_root,
            Hash32(b"".join(number.to_bytes(8, "big") for number in schedule)),
            self.conformance,
            compute_digest(self.document),
        ]

    @property
    def spec_hash(self) -> Hash32:
        """The job's identity on chain."""
        return compute_spec_hash(self.leaf_values)


def compute_spec_hash(values: list[Hash32]) -> Hash32:
    """Return the root over the eight values of a spec."""
    leaves = [hash_leaf(Role.SPEC, encode_u256(i) + value) for i, value in enumerate(values)]
    return compute_root(leaves)


def compute_minimum_stake(terms: Terms, segments: int) -> int:
    """Return the least stake per shard under which cheating never pays: ``S >= (R + V) / wq - R``.

    m independent draws from n segments find one lie with probability q = (1 - r) (1 - (1 - 1/n)^m), r
    the share of tickets that collude; w of those that are drawn are punished even if they withhold what
    they published. contracts/src/libraries/StakeRule.sol derives the rule."""
    caught = (COLLUSION_DENOMINATOR - COLLUSION_NUMERATOR) * PUNISHED_NUMERATOR
    draws: int = segments**terms.samples
    missing: int = (segments - 1) ** terms.samples  # of these draws
    gain = (terms.price_per_shard + terms.poison_value) * COLLUSION_DENOMINATOR
    loss = -(-gain * PUNISHED_DENOMINATOR * draws // (caught * (draws - missing)))
    return max(0, loss - terms.price_per_shard)


def decode_spec(data: bytes) -> JobSpec:
    """Return the spec whose canonical document is ``data``; raise InvalidSpec if it is not one."""
    spec = parse_spec(data)
    if spec.document != data:
        raise InvalidSpec("the document is not in its canonical form (sorted keys, no spaces)")
    return spec


def parse_spec(data: bytes | str) -> JobSpec:
    """Return the spec that any JSON ``data`` describes; raise InvalidSpec with the fields at fault."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidSpec(f"a document of {len(data)} bytes: at most {MAX_DOCUMENT_BYTES}")
    with report_faults():
        return JobSpec.model_validate_json(data)


@contextmanager
def report_faults() -> Iterator[None]:
    """Raise InvalidSpec naming the fields at fault where building a spec finds some."""
    try:
        yield
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'spec'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InvalidSpec(faults) from error
