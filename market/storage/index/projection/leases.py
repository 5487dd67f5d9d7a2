"""What events make of leases on their way from claim to pay. The rules are those of Leasing.sol,
Audits.sol and Closing.sol."""

from market.chain.events import (
    AuditDeclined,
    AuditorReplaced,
    CommitmentWithdrawn,
    LeaseExpired,
    LeaseSettled,
    LeaseSlashed,
    LeaseVoided,
    SegmentsDrawn,
    ShardsAttested,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.structs import Role
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.projection.jobs import is_over
from market.storage.index.projection.rows import Rows, compute_mask, show
from market.storage.index.projection.stakes import (
    change_auditor,
    change_provider,
    close_panel,
    compute_stake,
    dismiss_auditor,
    unlock,
)
from market.storage.index.tables import JobRow, LeaseRow, RoundRow, SettlementRow


def claim(event: ShardsClaimed, rows: Rows) -> None:
    """A provider holds slots of a round, for which its stake answers."""
    job = rows.change(JobRow, event.job_id)
    job.leases += 1
    job.active += event.count
    lease = LeaseRow(
        id=event.lease_id,
        job_id=event.job_id,
        operator=event.operator,
        round=event.round,
        first=event.first,
        count=event.count,
        price_bps=event.price_bps,
        bounty=event.bounty,
        claimed_at=rows.block.timestamp,
        status=LeaseStatus.LEASED,
        clock=event.deadline,
    )
    rows.add(lease, event.lease_id)
    shards = rows.change(RoundRow, event.job_id, event.round)
    shards.taken |= compute_mask(lease)
    shards.abandoned &= ~compute_mask(lease)
    account = change_provider(lease, rows)
    account.locked += compute_stake(lease, job)
    account.earned += event.bounty


def commit(event: TraceCommitted, rows: Rows) -> None:
    """A lease has a root, and a block that will draw for it."""
    lease = rows.change(LeaseRow, event.lease_id)
    lease.root = show(event.root)
    lease.manifest = show(event.manifest)
    _enter(lease, LeaseStatus.COMMITTED, event.draw_block)


def withdraw(event: CommitmentWithdrawn, rows: Rows) -> None:
    """A lease is over, for a fee."""
    _reopen(event.lease_id, LeaseStatus.WITHDRAWN, event.fee, rows)


def expire(event: LeaseExpired, rows: Rows) -> None:
    """A lease is over, for a fee; rescuing its shards earns a bounty while they can be claimed."""
    lease = _reopen(event.lease_id, LeaseStatus.LAPSED, event.fee, rows)
    job = rows.get(JobRow, lease.job_id)
    if lease.round == job.round and not is_over(job, rows.get_time()):
        rows.change_round_of(lease).abandoned |= compute_mask(lease)


def draw(event: SegmentsDrawn, rows: Rows) -> None:
    """An auditor has a lease to audit, for which its stake answers."""
    lease = rows.change(LeaseRow, event.lease_id)
    lease.auditor = event.auditor
    lease.segments = list(event.segments)
    _enter(lease, LeaseStatus.DRAWN, event.deadline)
    change_auditor(lease, rows).locked += compute_stake(lease, rows.get(JobRow, lease.job_id))


def attest(event: ShardsAttested, rows: Rows) -> None:
    """A lease counts in its round, unless that is closed; the round that it closes was closed before."""
    lease = rows.change(LeaseRow, event.lease_id)
    _enter(lease, LeaseStatus.ATTESTED, event.deadline)
    if lease.round == rows.get(JobRow, lease.job_id).round:
        rows.change_round_of(lease).attested |= compute_mask(lease)


def settle(event: LeaseSettled, rows: Rows) -> None:
    """Provider and auditor have earned their pay, and their stakes are free."""
    lease = rows.change(LeaseRow, event.lease_id)
    job = rows.change(JobRow, lease.job_id)
    stake = compute_stake(lease, job)
    provider, auditor = change_provider(lease, rows), change_auditor(lease, rows)
    lease.status = LeaseStatus.SETTLED
    job.escrow -= event.pay + event.fee
    job.active -= lease.count
    unlock(provider, stake, 0)
    provider.earned += event.pay
    unlock(auditor, stake, 0)
    auditor.earned += event.fee
    row = SettlementRow(
        lease_id=lease.id,
        asset=job.terms.asset,
        provider=provider.operator,
        auditor=auditor.operator,
        shards=lease.count,
        pay=event.pay,
        fee=event.fee,
        settled_at=rows.block.timestamp,
    )
    rows.add(row, lease.id)


def decline(event: AuditDeclined, rows: Rows) -> None:
    """An audit waits for another draw, unless there were too many: then the lease was voided before."""
    dismiss_auditor(event.lease_id, 0, rows)
    _await_draw(event.lease_id, event.draw_block, rows)


def replace_auditor(event: AuditorReplaced, rows: Rows) -> None:
    """The same, and the auditor has lost stake."""
    dismiss_auditor(event.lease_id, event.loss, rows)
    _await_draw(event.lease_id, event.draw_block, rows)


def void(event: LeaseVoided, rows: Rows) -> None:
    """A lease is over without a result."""
    _reopen(event.lease_id, LeaseStatus.VOIDED, event.fee, rows)


def slash(event: LeaseSlashed, rows: Rows) -> None:
    """A provider's stake is gone; ``reason`` says what that means for its auditor.

    What an upheld challenge took beyond the provider's stake was the auditor's."""
    lease = rows.change(LeaseRow, event.lease_id)
    stake = compute_stake(lease, rows.get(JobRow, lease.job_id))
    _reopen(lease.id, LeaseStatus.SLASHED, stake, rows)
    lease.rewarded = event.rewarded
    if event.reason is LeaseStatus.VOTED:
        close_panel(lease, 0, rows, withheld=True)
        dismiss_auditor(lease.id, 0, rows)
    elif event.reason is LeaseStatus.ACCUSED:
        auditor = change_auditor(lease, rows)
        unlock(auditor, stake, 0)
        auditor.earned += event.rewarded
    elif event.reason is LeaseStatus.ATTESTED:
        unlock(change_auditor(lease, rows), stake, event.amount - stake)
        if lease.round == rows.get(JobRow, lease.job_id).round:
            rows.change_round_of(lease).attested &= ~compute_mask(lease)


def _enter(lease: LeaseRow, status: LeaseStatus, clock: int) -> None:
    lease.status = status
    lease.clock = clock


def _await_draw(lease_id: int, draw_block: int, rows: Rows) -> None:
    if draw_block > 0:
        _enter(rows.change(LeaseRow, lease_id), LeaseStatus.COMMITTED, draw_block)


def _reopen(lease_id: int, last: LeaseStatus, loss: int, rows: Rows) -> LeaseRow:
    """End a lease without a result: its provider loses ``loss``, and its shards can be claimed again."""
    lease = rows.change(LeaseRow, lease_id)
    job = rows.change(JobRow, lease.job_id)
    lease.status = last
    job.active -= lease.count
    rows.change_round_of(lease).taken &= ~compute_mask(lease)
    account = rows.change_account(lease.operator, Role.PROVIDER, job.terms.asset)
    unlock(account, compute_stake(lease, job), loss)
    return lease
