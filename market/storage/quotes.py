"""Quotes: who could take a job, at what price and when, by what the chain shows of other leases.

A quote promises nothing. It says how many leases each price comes from, and nothing where there are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from market.chain.client import Chain
from market.chain.events import Event, JobCreated, ShardsClaimed
from market.chain.structs import Role
from market.protocol.hashing import Hash32
from market.protocol.prices import Percentiles, Ramp, find_percentiles
from market.protocol.spec import JobSpec, Wei

POST_GAS: Final = 195_000  # measured, rounded up: createJob 192,264

_NEWEST: Final = 1_000  # leases in the asset: those that prices come from
_PROGRAM_LEAF, _SCHEDULE_LEAF = 0, 5  # of a spec (docs/protocol.md section 5)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a quote is asked for: a job that is posted, or not yet. Its ramp begins at 0."""

    program_root: Hash32
    asset: int
    shards: int
    steps: int  # of a shard
    ramp: Ramp
    audit_fee: int
    stake_per_shard: int


@dataclass(frozen=True, slots=True)
class PaidLease:
    """What a lease was claimed for."""

    program_root: Hash32
    steps: int  # of a shard
    price: int  # of a shard

    @property
    def price_per_step(self) -> int:
        """What a step pays, rounded down."""
        return self.price // self.steps


class PriceRow(BaseModel):
    """What the newest ``leases`` of a kind were claimed for."""

    of: str
    leases: int
    per_shard: Percentiles | None
    per_step: Percentiles | None


class Quote(BaseModel):
    """Amounts are base units of ``asset``, gas is paid in wei."""

    asset: int
    shards: int
    steps: int
    price_per_shard: Wei
    stake_per_shard: Wei
    operators: int  # with any stake as a provider in the asset
    able_operators: int  # with enough of it free for a shard
    able_shards: int  # that all free stake would do at once
    prices: tuple[PriceRow, ...]
    basis: str | None  # the row that what follows comes from
    median_price: Wei | None  # of a shard like these
    covers_median: bool | None  # whether the full price reaches it
    start_s: int | None  # seconds from the opening of a round until the ramp reaches it
    expected_cost: Wei | None
    most_cost: Wei
    post_gas: int
    post_cost: Wei


def ask_spec(spec: JobSpec) -> Inquiry:
    """Return what to quote for a spec."""
    terms = spec.terms
    return Inquiry(
        program_root=spec.program.root,
        asset=terms.asset,
        shards=spec.rounds * spec.slots,
        steps=spec.steps,
        ramp=Ramp(terms.price_per_shard, terms.floor_bps, terms.ramp_time_s, 0),
        audit_fee=terms.audit_fee,
        stake_per_shard=terms.stake_per_shard,
    )


def ask_job(posted: JobCreated) -> Inquiry:
    """Return what to quote for a posted job."""
    terms = posted.terms
    rounds, slots, segments, steps_per_segment = _read_schedule(posted)
    return Inquiry(
        program_root=posted.spec_leaves[_PROGRAM_LEAF],
        asset=terms.asset,
        shards=rounds * slots,
        steps=segments * steps_per_segment,
        ramp=Ramp(terms.price_per_shard, terms.floor_bps, terms.ramp_time, 0),
        audit_fee=terms.audit_fee,
        stake_per_shard=terms.stake_per_shard,
    )


def compute_quote(chain: Chain, inquiry: Inquiry) -> Quote:
    """Return what the chain shows of a job like the one inquired about."""
    free = _list_free_stakes(chain, inquiry.asset)
    stake = inquiry.stake_per_shard
    able = [amount for amount in free if amount >= stake]
    rows = _list_rows(inquiry, _list_leases(chain, inquiry.asset))
    basis = next((row for row in rows if row.per_step is not None), None)
    median = None
    if basis is not None and basis.per_step is not None:
        median = basis.per_step.p50 * inquiry.steps
    bps = None if median is None else inquiry.ramp.find_bps(median)
    ramp, fees = inquiry.ramp, inquiry.shards * inquiry.audit_fee
    return Quote(
        asset=inquiry.asset,
        shards=inquiry.shards,
        steps=inquiry.steps,
        price_per_shard=ramp.full_price,
        stake_per_shard=stake,
        operators=len(free),
        able_operators=len(able),
        able_shards=sum(amount // stake for amount in able) if stake else 0,
        prices=tuple(rows),
        basis=None if basis is None else basis.of,
        median_price=median,
        covers_median=None if median is None else bps is not None,
        start_s=None if bps is None else ramp.compute_time(bps),
        expected_cost=None if bps is None else inquiry.shards * ramp.compute_price(bps) + fees,
        most_cost=inquiry.shards * ramp.full_price + fees,
        post_gas=POST_GAS,
        post_cost=POST_GAS * chain.rpc.eth.gas_price,
    )


def _list_free_stakes(chain: Chain, asset: int) -> list[int]:
    """Return the free stake of each operator that has stake as a provider."""
    operators = range(1, chain.count_operators() + 1)
    accounts = [chain.get_account(operator, Role.PROVIDER, asset) for operator in operators]
    return [account.free for account in accounts if account.staked > 0]


def _list_leases(chain: Chain, asset: int) -> list[PaidLease]:
    """Return the newest leases in ``asset``, whatever became of them."""
    kinds: tuple[type[Event], ...] = (JobCreated, ShardsClaimed)
    events = chain.find_events(chain.deployment.block, chain.get_height(), kinds)
    jobs = {e.job_id: ask_job(e) for e in events if isinstance(e, JobCreated)}
    claims = [e for e in events if isinstance(e, ShardsClaimed) and jobs[e.job_id].asset == asset]
    return [_build_lease(jobs[claim.job_id], claim.price_bps) for claim in claims[-_NEWEST:]]


def _build_lease(job: Inquiry, price_bps: int) -> PaidLease:
    return PaidLease(job.program_root, job.steps, job.ramp.compute_price(price_bps))


def _list_rows(inquiry: Inquiry, leases: Sequence[PaidLease]) -> list[PriceRow]:
    """Return prices, those of the leases most like the inquiry's first."""
    program = [lease for lease in leases if lease.program_root == inquiry.program_root]
    steps = [lease for lease in leases if lease.steps == inquiry.steps]
    return [
        _build_row("same program", program),
        _build_row(f"{inquiry.steps} steps, any program", steps),
        _build_row("any", leases),
    ]


def _build_row(of: str, leases: Sequence[PaidLease]) -> PriceRow:
    return PriceRow(
        of=of,
        leases=len(leases),
        per_shard=find_percentiles([lease.price for lease in leases]),
        per_step=find_percentiles([lease.price_per_step for lease in leases]),
    )


def _read_schedule(posted: JobCreated) -> tuple[int, int, int, int]:
    leaf = posted.spec_leaves[_SCHEDULE_LEAF]
    rounds, slots, segments, steps = (
        int.from_bytes(leaf[i : i + 8], "big") for i in range(0, 32, 8)
    )
    return rounds, slots, segments, steps
