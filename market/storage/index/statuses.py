"""What time and depth make of the rows: statuses that a clock decides, and how final a block is."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from market.chain.structs import ChallengeStatus, JobStatus
from market.protocol.errors import NotFound
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.projection.rows import compute_market_time
from market.storage.index.tables import (
    BlockRow,
    ChallengeRow,
    ClockRow,
    DeploymentRow,
    EventRow,
    JobRow,
    LeaseRow,
)

_HASH_WINDOW: Final = 256  # blocks for which the chain knows a block's hash

# What the end of its clock makes of a status: the one after it, in Solidity too.
_TIMED: Final = (
    LeaseStatus.LEASED,
    LeaseStatus.DRAWN,
    LeaseStatus.REPORTED,
    LeaseStatus.VOTING,
    LeaseStatus.ATTESTED,
)
_DRAWING: Final = (LeaseStatus.COMMITTED, LeaseStatus.CONVENED)
_PENDING: Final = (ChallengeStatus.OPEN, ChallengeStatus.ANSWERED)


class ChainStatus(StrEnum):
    """How sure it is that a block stays."""

    INCLUDED = "included"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Present:
    """When a status is asked for."""

    block: int
    time: int  # the market's


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an index is, and how much it holds."""

    market: str
    tip: int
    final: int | None
    events: int
    jobs: int
    leases: int


def get_progress(session: Session) -> Progress:
    """Return how far the index is."""
    tip = get_tip(session)
    deployment = session.scalars(select(DeploymentRow)).one()
    kinds = (EventRow, JobRow, LeaseRow)
    counts = [session.scalar(select(func.count()).select_from(kind)) or 0 for kind in kinds]
    return Progress(deployment.market, tip.number, deployment.final_block, *counts)


def get_tip(session: Session) -> BlockRow:
    """Return the last block that the tables know."""
    tip = session.scalar(select(BlockRow).order_by(BlockRow.number.desc()).limit(1))
    if tip is None:
        raise NotFound("nothing is indexed yet: `touchstone index run` reads the chain")
    return tip


def get_present(session: Session) -> Present:
    """Return the present as of the tip."""
    tip = get_tip(session)
    time = compute_market_time(session.scalar(select(ClockRow)), tip.timestamp)
    return Present(tip.number, time)


def get_chain_status(session: Session, block: int) -> ChainStatus:
    """Return how sure it is that ``block``, or what it changed, stays."""
    tip = get_tip(session)
    if block > tip.number:
        raise NotFound(f"block {block} is not indexed yet: the last is {tip.number}")
    final = session.scalars(select(DeploymentRow.final_block)).one()
    return ChainStatus.FINAL if final is not None and block <= final else ChainStatus.INCLUDED


def derive_lease_status(lease: LeaseRow, present: Present) -> LeaseStatus:
    """Return what `Leases.status` in Solidity would."""
    stored = lease.status
    if stored in _DRAWING:
        over = present.block > lease.clock + _HASH_WINDOW
    else:
        over = stored in _TIMED and present.time > lease.clock
    if stored is LeaseStatus.ATTESTED and lease.challenges > 0:
        return stored
    return LeaseStatus(stored + 1) if over else stored


def derive_challenge_status(challenge: ChallengeRow, present: Present) -> ChallengeStatus:
    """Return what `Challenges.status` in Solidity would."""
    over = challenge.status in _PENDING and present.time > challenge.clock
    return ChallengeStatus(challenge.status + 1) if over else challenge.status


def derive_job_status(job: JobRow, present: Present) -> JobStatus:
    """Return what `Jobs.status` in Solidity would."""
    if job.cancelled:
        return JobStatus.CANCELLED
    if job.round == job.rounds:
        return JobStatus.COMPLETE
    if job.seed is None and present.block > job.seed_block + _HASH_WINDOW:
        return JobStatus.SEED_LOST
    if present.time > job.terms.deadline:
        return JobStatus.ENDED
    return JobStatus.FUNDED if job.seed is None else JobStatus.OPEN
