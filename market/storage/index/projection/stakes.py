"""Stake that answers for a lease or for a seat in a panel, by the rules of Accounts.sol and Panels.sol."""

from market.chain.structs import Role
from market.storage.index.projection.rows import Rows, compute_share
from market.storage.index.tables import AccountRow, JobRow, LeaseRow, PanelRow, SeatRow

PANEL_SIZE = 7


def compute_stake(lease: LeaseRow, job: JobRow) -> int:
    """Return what provider and auditor each have locked for a lease."""
    return lease.count * job.terms.stake_per_shard


def compute_seat_fee(lease: LeaseRow, rows: Rows) -> int:
    """Return what a panelist has locked for each of its seats, and loses by silence."""
    stake = compute_stake(lease, rows.get(JobRow, lease.job_id))
    return compute_share(stake, rows.rules.config.silence_fee_bps) // PANEL_SIZE


def unlock(account: AccountRow, amount: int, loss: int) -> None:
    """Unlock what answered for something, and take ``loss`` of it away."""
    account.locked -= amount
    account.staked -= loss
    if account.leaving:
        account.thawing = min(account.thawing, account.staked)


def change_provider(lease: LeaseRow, rows: Rows) -> AccountRow:
    """Return the account of a lease's provider."""
    asset = rows.get_job_of(lease.id).terms.asset
    return rows.change_account(lease.operator, Role.PROVIDER, asset)


def change_auditor(lease: LeaseRow, rows: Rows) -> AccountRow:
    """Return the account of a lease's auditor."""
    assert lease.auditor is not None, lease.id
    return change_seat(lease, lease.auditor, rows)


def change_seat(lease: LeaseRow, operator: int, rows: Rows) -> AccountRow:
    """Return the account with which ``operator`` answers for its vote on a lease."""
    asset = rows.get_job_of(lease.id).terms.asset
    return rows.change_account(operator, Role.AUDITOR, asset)


def dismiss_auditor(lease_id: int, loss: int, rows: Rows) -> None:
    """Leave a lease without its auditor, which loses ``loss``."""
    lease = rows.change(LeaseRow, lease_id)
    stake = compute_stake(lease, rows.get(JobRow, lease.job_id))
    unlock(change_auditor(lease, rows), stake, loss)
    lease.auditor = None


def close_panel(lease: LeaseRow, pot: int, rows: Rows, *, withheld: bool) -> None:
    """Unlock every seat; the fees of those that were silent, and ``pot``, go to those that voted."""
    panel = rows.change(PanelRow, lease.id, lease.panels)
    panel.withheld = withheld
    fee = compute_seat_fee(lease, rows)
    seats = [rows.get(SeatRow, lease.id, panel.number, k) for k in range(panel.size)]
    voters = sum(seat.available is not None for seat in seats)
    pot += fee * (panel.size - voters)
    for seat in seats:
        spoke = seat.available is not None
        account = change_seat(lease, seat.operator, rows)
        unlock(account, fee, 0 if spoke else fee)
        account.earned += pot // voters if spoke else 0
