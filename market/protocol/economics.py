"""When a lease is worth its price: the claiming policy of a provider.

Everything is an integer: amounts in base units of the job's asset, times in seconds of the market's clock,
rates in bps. Costs are rounded up and pay down, so a claim never rests on a fraction that is not paid."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from market.protocol.constants import BPS, CONFORMANCE_DIGEST
from market.protocol.hashing import Hash32, compute_digest, encode_u256
from market.protocol.prices import Ramp

YEAR_S: Final = 365 * 86_400
MICROSECONDS: Final = 1_000_000
JOULES_PER_KWH: Final = 3_600_000
WEI_PER_ETHER: Final = 10**18

FINISH_MARGIN_BPS: Final = 13_000  # of the measured time: what must fit into a lease's time

# What a provider without a history expects: one lease in 100 lapses, one in 1,000 is slashed.
_LAPSE_PRIOR: Final = 100
_FAULT_PRIOR: Final = 1_000
_BOUNTY_BPS: Final = 5_000  # of an expiry fee (`Ledger.BOUNTY_BPS`)

# Measured with two samples, rounded up: claim 96,630, commit 62,000, draw 65,990, settle 54,331.
LEASE_GAS: Final = 280_000

Natural = Annotated[int, Field(ge=0)]
_STRICT: Final = ConfigDict(extra="forbid")  # a policy is read from a file that somebody wrote


class Reason(StrEnum):
    """Why a job is not taken."""

    JOB_ENDED = "job_ended"
    REQUESTER_DENIED = "requester_denied"
    ASSET_NOT_ACCEPTED = "asset_not_accepted"
    BLOBS_UNAVAILABLE = "blobs_unavailable"  # the document, a program or the initial state
    DATA_NOT_FETCHED = "data_not_fetched"  # the dataset, or states that the shard begins from
    CONFORMANCE_DIFFERS = "conformance_differs"
    PROGRAM_REFUSED = "program_refused"  # it breaks a rule, or this release cannot run it
    MEMORY_LACKING = "memory_lacking"
    TOO_SLOW = "too_slow"  # for the lease time
    ROUND_NOT_OPEN = "round_not_open"
    SHARDS_TAKEN = "shards_taken"
    PRICE_BELOW_FLOOR = "price_below_floor"
    UNPROFITABLE = "unprofitable"  # at the full price
    RAMP_TOO_SLOW = "ramp_too_slow"  # the job ends before it pays enough
    TOO_MANY_LEASES = "too_many_leases"
    STAKE_LACKING = "stake_lacking"


@dataclass(frozen=True, slots=True)
class AssetPolicy:
    """What a provider asks for in one asset. Amounts are its base units."""

    __pydantic_config__: ClassVar = _STRICT

    energy_price: Natural = 0  # of a kWh
    ether_price: Natural = WEI_PER_ETHER  # of one ether, in which gas is paid
    floor_per_shard: Natural = 0
    floor_per_second: Natural = 0  # of measured training


@dataclass(frozen=True, slots=True)
class Policy:
    """What a provider decided about its machine."""

    __pydantic_config__: ClassVar = _STRICT

    assets: Mapping[int, AssetPolicy]  # those it accepts
    watts: Natural = 0  # while it trains
    capital_bps: Natural = 500  # what a year's use of locked stake should yield
    max_leases: Annotated[int, Field(ge=1)] = 1  # trained at the same time
    jitter: Natural = 12  # s: the most it waits to keep out of other providers' way
    denied: frozenset[str] = field(default_factory=frozenset)  # requesters, with checksum


@dataclass(frozen=True, slots=True)
class History:
    """How a provider's leases ended."""

    settled: int = 0
    lapsed: int = 0  # without pay and for a fee: expired, withdrawn or voided
    slashed: int = 0

    @property
    def lapse_odds(self) -> Fraction:
        """How likely the next one lapses: the count, with one in `_LAPSE_PRIOR` before it."""
        return Fraction(self.lapsed + 1, self._ended + _LAPSE_PRIOR)

    @property
    def fault_odds(self) -> Fraction:
        """How likely the next one is slashed."""
        return Fraction(self.slashed + 1, self._ended + _FAULT_PRIOR)

    @property
    def _ended(self) -> int:
        return self.settled + self.lapsed + self.slashed


@dataclass(frozen=True, slots=True)
class Facts:
    """What a provider knows of itself and of the chain when it looks at an offer."""

    operator: int
    policy: Policy
    history: History
    step_us: int  # microseconds of a step of the job's program, measured on this machine
    backlog: int  # s: the training still to do for leases it holds
    leases: int  # that it still trains
    free_stake: int  # in the job's asset
    gas_price: int  # wei
    expiry_fee_bps: int  # `Config.expiryFeeBps`
    lock_time: int  # s from a commitment to the settlement of a lease that nobody disturbs


@dataclass(frozen=True, slots=True)
class Offer:
    """Shards of a job's round that one lease would be for."""

    job_id: int
    requester: str
    conformance: Hash32  # the arithmetic that its spec names
    asset: int
    is_over: bool  # nothing more can be claimed, ever
    is_open: bool
    round: int
    shards: int  # zero: all are taken
    steps: int  # of a shard
    ramp: Ramp
    stake_per_shard: int
    lease_time: int
    deadline: int  # the last moment to claim
    bounty: int = 0  # for taking shards that somebody abandoned

    @property
    def stake(self) -> int:
        """What the lease would lock."""
        return self.shards * self.stake_per_shard


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim now."""

    price_bps: int
    profit: int  # expected


@dataclass(frozen=True, slots=True)
class Wait:
    """Claim at ``until``, if the shards are still free then."""

    until: int
    price_bps: int  # which the ramp reaches by then


@dataclass(frozen=True, slots=True)
class Decline:
    """Leave the job alone for now: ``offered`` is less than ``required``, in the unit of the reason."""

    reason: Reason
    offered: int | None = None
    required: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a lease would bring and cost, in base units of its asset."""

    pay: int
    bounty: int
    energy: int
    gas: int
    loss: int  # expected: of fees, stake and pay
    capital: int

    @property
    def profit(self) -> int:
        """What is left, on average."""
        return self.pay + self.bounty - self.energy - self.gas - self.loss - self.capital


def compute_training_time(facts: Facts, offer: Offer) -> int:
    """Return the seconds of training that the lease takes, by the measured step."""
    return -(-offer.shards * offer.steps * facts.step_us // MICROSECONDS)


def estimate_lease(facts: Facts, offer: Offer, price_bps: int) -> Estimate:
    """Return what the lease would bring if it were claimed at ``price_bps``.

    INVARIANT: the profit never falls as ``price_bps`` rises."""
    asset, training = facts.policy.assets[offer.asset], compute_training_time(facts, offer)
    pay = offer.shards * offer.ramp.compute_price(price_bps)
    fee = offer.shards * (offer.stake_per_shard * facts.expiry_fee_bps // BPS)
    locked = facts.backlog + training + facts.lock_time
    # The odds add up to less than one, so a unit more of pay adds at most one to the loss.
    lapse, fault = facts.history.lapse_odds, facts.history.fault_odds
    return Estimate(
        pay=pay,
        bounty=offer.bounty,
        energy=_divide_up(facts.policy.watts * training * asset.energy_price, JOULES_PER_KWH),
        gas=_divide_up(LEASE_GAS * facts.gas_price * asset.ether_price, WEI_PER_ETHER),
        loss=-(-((fee + pay) * lapse + (offer.stake + pay) * fault) // 1),
        capital=_divide_up(offer.stake * facts.policy.capital_bps * locked, BPS * YEAR_S),
    )


def compute_floor(facts: Facts, offer: Offer) -> int:
    """Return the least pay that the policy takes for the lease, whatever it costs."""
    asset = facts.policy.assets[offer.asset]
    by_time = asset.floor_per_second * compute_training_time(facts, offer)
    return max(asset.floor_per_shard * offer.shards, by_time)


def find_refusal(policy: Policy, offer: Offer, now: int) -> Decline | None:
    """Return why no price would make this provider take the job now, as far as the chain tells.

    It can be asked before anything of the job is fetched."""
    checks = (
        (offer.is_over or now > offer.deadline, Reason.JOB_ENDED, ""),
        (offer.requester in policy.denied, Reason.REQUESTER_DENIED, offer.requester),
        (offer.asset not in policy.assets, Reason.ASSET_NOT_ACCEPTED, f"asset {offer.asset}"),
        (
            offer.conformance != CONFORMANCE_DIGEST,
            Reason.CONFORMANCE_DIFFERS,
            offer.conformance.hex(),
        ),
        (not offer.is_open, Reason.ROUND_NOT_OPEN, ""),
        (offer.shards == 0, Reason.SHARDS_TAKEN, ""),
    )
    found = (Decline(reason, detail=detail) for holds, reason, detail in checks if holds)
    return next(found, None)


def decide_claim(facts: Facts, offer: Offer, now: int) -> Claim | Wait | Decline:
    """Decide on an offer at ``now``; what the machine can fetch and run was checked before.

    A claim is at the floor or above it, and its expected profit is not negative."""
    refusal = find_refusal(facts.policy, offer, now) or _find_delay(facts, offer)
    if refusal is not None:
        return refusal
    bps = _find_price(facts, offer)
    if isinstance(bps, Decline):
        return bps
    reached = offer.ramp.compute_time(bps)
    if reached > offer.deadline:
        return Decline(Reason.RAMP_TOO_SLOW, offer.deadline, reached)
    due = min(reached + compute_jitter(facts, offer), offer.deadline)
    busy = _find_congestion(facts, offer)
    if busy is not None:
        return busy
    if now < due:
        return Wait(due, offer.ramp.compute_bps(due))
    bps = offer.ramp.compute_bps(now)
    return Claim(bps, estimate_lease(facts, offer, bps).profit)


def compute_jitter(facts: Facts, offer: Offer) -> int:
    """Return how long the provider lets others go first in this round: its own number, no more than a ramp.

    Where the price does not rise, waiting earns nothing: there `choose_slots` keeps providers apart."""
    most = min(facts.policy.jitter, offer.ramp.ramp_time)
    return _draw(b"jitter", facts.operator, offer.job_id, offer.round) % (most + 1)


def fit_shards(facts: Facts, offer: Offer, most: int) -> int:
    """Return how many shards like the offer's one fit its time and stake: 1 to ``most``."""
    seconds = offer.lease_time * BPS // FINISH_MARGIN_BPS - facts.backlog
    by_time = seconds * MICROSECONDS // (offer.steps * facts.step_us)
    by_stake = facts.free_stake // offer.stake_per_shard if offer.stake_per_shard else most
    return max(1, min(most, by_time, by_stake))


def choose_slots(
    operator: int, job_id: int, round_: int, slots: int, taken: int, most: int
) -> range:
    """Return up to ``most`` neighbouring free slots of a round; each operator looks from its own place on.

    Bit s of ``taken`` is slot s of ``slots``; where all are, there are none."""
    place = _draw(b"slots", operator, job_id, round_) % _divide_up(slots, most) * most
    order = (*range(place, slots), *range(place))
    first = next((slot for slot in order if not taken >> slot & 1), slots)
    limit = min(first + most, slots)
    end = next((slot for slot in range(first, limit) if taken >> slot & 1), limit)
    return range(first, end)


def compute_bounty(stake_per_shard: int, expiry_fee_bps: int, abandoned: int) -> int:
    """Return what claiming ``abandoned`` shards that others gave up earns at once (`Ledger._bountyOf`)."""
    return abandoned * (stake_per_shard * expiry_fee_bps // BPS * _BOUNTY_BPS // BPS)


def _find_delay(facts: Facts, offer: Offer) -> Decline | None:
    """Return by how much the shards would come too late, with a margin."""
    needed = (facts.backlog + compute_training_time(facts, offer)) * FINISH_MARGIN_BPS
    if needed > offer.lease_time * BPS:
        return Decline(Reason.TOO_SLOW, offer.lease_time, _divide_up(needed, BPS))
    return None


def _find_price(facts: Facts, offer: Offer) -> int | Decline:
    """Return the least share of the full price at which the lease is worth taking."""
    full, floor = estimate_lease(facts, offer, BPS), compute_floor(facts, offer)
    if full.pay < floor:
        return Decline(Reason.PRICE_BELOW_FLOOR, full.pay, floor)
    if full.profit < 0:
        gains = full.pay + full.bounty
        return Decline(Reason.UNPROFITABLE, gains, gains - full.profit)

    def is_enough(bps: int) -> bool:
        found = estimate_lease(facts, offer, bps)
        return found.pay >= floor and found.profit >= 0

    lowest = offer.ramp.floor_bps
    return lowest + bisect_left(range(lowest, BPS), True, key=is_enough)  # noqa: FBT003 - what is sought


def _find_congestion(facts: Facts, offer: Offer) -> Decline | None:
    """Return what the provider has too little of at the moment."""
    limit = facts.policy.max_leases
    if facts.leases >= limit:
        return Decline(Reason.TOO_MANY_LEASES, limit, facts.leases + 1)
    if facts.free_stake < offer.stake:
        return Decline(Reason.STAKE_LACKING, facts.free_stake, offer.stake)
    return None


def _draw(purpose: bytes, *numbers: int) -> int:
    data = b"touchstone " + purpose + b"".join(map(encode_u256, numbers))
    return int.from_bytes(compute_digest(data)[:8], "big")


def _divide_up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)
