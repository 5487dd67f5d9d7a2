"""What an index knows, to be compared: with a fresh one, and with the contract itself."""

from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from market.chain.client import Chain
from market.chain.structs import Account, Challenge, Round, Ticket
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.statuses import (
    derive_challenge_status,
    derive_job_status,
    derive_lease_status,
    get_present,
)
from market.storage.index.tables import (
    AccountRow,
    ChallengeRow,
    CreditRow,
    JobRow,
    LeaseRow,
    OperatorRow,
    PanelRow,
    RoundRow,
    SeatRow,
    Table,
    TicketRow,
    WorkerRow,
)

_HOW = ("blocks", "undo", "deployment")  # tables about how far an index is and came


def read_tables(engine: Engine) -> dict[str, list[Any]]:
    """Return all that was projected, and the tip."""
    with engine.connect() as connection:
        tables = [t for t in Table.metadata.sorted_tables if t.name not in _HOW]
        found = {
            t.name: sorted((tuple(row) for row in connection.execute(select(t))), key=repr)
            for t in tables
        }
        blocks = Table.metadata.tables["blocks"]
        newest = select(blocks).order_by(blocks.c.number.desc()).limit(1)
        return {**found, "tip": [tuple(connection.execute(newest).one())]}


def compare_with_contract(session: Session, chain: Chain) -> None:
    """Assert that every row says what the contract's views do."""
    for job in session.scalars(select(JobRow)):
        _compare_job(job, chain)
    for shards in session.scalars(select(RoundRow)):
        kept = Round(shards.taken, shards.attested, shards.abandoned)
        assert kept == chain.get_round(shards.job_id, shards.number), shards
    for lease in session.scalars(select(LeaseRow)):
        _compare_lease(lease, chain)
        _compare_panel(session, lease, chain)
    challenges = session.scalars(select(ChallengeRow)).all()
    assert len(challenges) == chain.count_challenges()
    for challenge in challenges:
        _compare_challenge(challenge, chain)
    _compare_operators(session, chain)
    for credit in session.scalars(select(CreditRow)):
        assert credit.amount == chain.get_credit(credit.account, credit.asset), credit


def compare_statuses(session: Session, chain: Chain) -> None:
    """Assert that what time makes of the rows is what the contract says now."""
    present = get_present(session)
    assert present.time == chain.get_time()
    for job in session.scalars(select(JobRow)):
        assert derive_job_status(job, present) == chain.get_job_status(job.id), job
    for lease in session.scalars(select(LeaseRow)):
        assert derive_lease_status(lease, present) == chain.get_status(lease.id), lease
    for challenge in session.scalars(select(ChallengeRow)):
        status = chain.get_challenge_status(challenge.id)
        assert derive_challenge_status(challenge, present) == status, challenge


def _compare_job(job: JobRow, chain: Chain) -> None:
    real = chain.get_job(job.id)
    names = ("escrow", "leases", "active", "round", "opened_at", "cancelled", "seed_block")
    names += ("rounds", "slots", "segments", "steps_per_segment", "requester")
    for name in names:
        assert getattr(job, name) == getattr(real, name), (name, job, real)
    assert (job.seed or 0, job.seed is not None) == (real.seed, real.seeded)
    assert bytes.fromhex(job.spec_hash[2:]) == real.spec_hash
    assert job.terms.deadline == real.deadline


def _compare_lease(lease: LeaseRow, chain: Chain) -> None:
    real = chain.get_lease(lease.id)
    names = ("operator", "round", "first", "count", "price_bps", "clock", "challenges")
    for name in names:
        assert getattr(lease, name) == getattr(real, name), (name, lease, real)
    assert lease.status == real.stored
    assert (lease.auditor or 0) == real.auditor
    assert lease.root is None or bytes.fromhex(lease.root[2:]) == real.root
    if lease.status is LeaseStatus.DRAWN:
        assert tuple(lease.segments or ()) == chain.get_drawn_segments(lease.id)


def _compare_panel(session: Session, lease: LeaseRow, chain: Chain) -> None:
    real = chain.get_panel(lease.id)
    if lease.panels == 0:
        assert real.members == ()
        return
    panel = session.get_one(PanelRow, (lease.id, lease.panels))
    places = [(lease.id, panel.number, number) for number in range(panel.size)]
    seats = [session.get_one(SeatRow, place) for place in places]
    assert tuple(seat.operator for seat in seats) == real.members
    voted = [seat.number for seat in seats if seat.available is not None]
    missing = [seat.number for seat in seats if seat.available is False]
    assert (sum(1 << k for k in voted), sum(1 << k for k in missing)) == (real.voted, real.missing)


def _compare_challenge(row: ChallengeRow, chain: Chain) -> None:
    real = chain.get_challenge(row.id)
    place = (row.challenger, row.lease_id, row.by_auditor, row.status, row.position, row.clock)
    assert Challenge(*place, row.bond, real.opened) == real


def _compare_operators(session: Session, chain: Chain) -> None:
    operators = session.scalars(select(OperatorRow)).all()
    assert len(operators) == chain.count_operators()
    for operator in operators:
        real = chain.get_operator(operator.id)
        assert (operator.owner, operator.payout) == (real.owner, real.payout)
    for worker in session.scalars(select(WorkerRow)):
        assert worker.authorized == chain.is_worker(worker.operator, worker.worker)
    for row in session.scalars(select(AccountRow)):
        kept = Account(row.staked, row.locked, row.earned, row.leaving, row.thawing, row.thawed_at)
        assert kept == chain.get_account(row.operator, row.role, row.asset), row
    tickets = session.scalars(select(TicketRow)).all()
    assert len(tickets) == chain.count_tickets(0)
    for ticket in tickets:
        assert Ticket(ticket.operator, ticket.leaving) == chain.get_ticket(0, ticket.id)
