"""What events make of jobs and rounds. The rules are those of Leasing.sol, Closing.sol and Ledger.sol."""

from market.chain.events import JobCancelled, JobCreated, JobRefunded, JobSeeded, RoundClosed
from market.protocol.hashing import Hash32
from market.storage.cid import cid_of_digest
from market.storage.index.projection.rows import Rows, show
from market.storage.index.tables import JobRow, RoundRow

_SCHEDULE_LEAF = 5
_DOCUMENT_LEAF = 7


def create_job(event: JobCreated, rows: Rows) -> None:
    """A job is there, escrowed, and waits for its seed."""
    schedule = Hash32(event.spec_leaves[_SCHEDULE_LEAF])
    rounds, slots, segments, steps = (int.from_bytes(schedule[i : i + 8]) for i in (0, 8, 16, 24))
    terms = event.terms
    job = JobRow(
        id=event.job_id,
        posted_at=rows.block.timestamp,
        requester=event.requester,
        spec_hash=show(event.spec_hash),
        document=str(cid_of_digest(Hash32(event.spec_leaves[_DOCUMENT_LEAF]))),
        terms=terms,
        rounds=rounds,
        slots=slots,
        segments=segments,
        steps_per_segment=steps,
        seed_block=rows.block.number + rows.rules.config.draw_distance,
        escrow=rounds * slots * (terms.price_per_shard + terms.audit_fee),
    )
    rows.add(job, event.job_id)


def seed_job(event: JobSeeded, rows: Rows) -> None:
    """A job's first round is open."""
    job = rows.change(JobRow, event.job_id)
    job.seed = event.seed
    _open_round(job, rows)


def cancel_job(event: JobCancelled, rows: Rows) -> None:
    """Nothing more of a job can be claimed."""
    rows.change(JobRow, event.job_id).cancelled = True


def refund_job(event: JobRefunded, rows: Rows) -> None:
    """A requester is owed what its job cannot spend; bounties that nobody can earn are gone."""
    job = rows.change(JobRow, event.job_id)
    if rows.find(RoundRow, job.id, job.round) is not None:
        rows.change(RoundRow, job.id, job.round).abandoned = 0
    job.escrow -= event.amount
    rows.owe(job.requester, job.terms.asset, event.amount)


def close_round(event: RoundClosed, rows: Rows) -> None:
    """A round has its set, and the next is open."""
    job = rows.change(JobRow, event.job_id)
    closed = rows.change(RoundRow, event.job_id, event.round)
    closed.attested = event.attested
    closed.abandoned = 0
    closed.closed_at = rows.get_time()
    job.round = event.round + 1
    _open_round(job, rows)


def is_over(job: JobRow, time: int) -> bool:
    """Check whether nothing more of a seeded job can be claimed at ``time``, the market's."""
    return job.cancelled or job.round == job.rounds or time > job.terms.deadline


def _open_round(job: JobRow, rows: Rows) -> None:
    job.opened_at = rows.get_time()
    if job.round == job.rounds:
        return
    opened = RoundRow(job_id=job.id, number=job.round, opened_at=job.opened_at)
    rows.add(opened, job.id, job.round)
