"""What events make of operators, their money, tickets and credits, and of the clock. The rules are those
of Desk.sol and Guardian.sol."""

from market.chain.events import (
    CreditWithdrawn,
    EarningsPaid,
    OperatorRegistered,
    OwnerChanged,
    OwnerProposed,
    Paused,
    PayoutChanged,
    Resumed,
    StakeAdded,
    StakeThawing,
    StakeWithdrawn,
    TicketRetired,
    TicketsBought,
    WorkerChanged,
)
from market.chain.structs import Role
from market.storage.index.projection.rows import Rows
from market.storage.index.tables import CreditRow, OperatorRow, TicketRow, WorkerRow


def register(event: OperatorRegistered, rows: Rows) -> None:
    """There is another operator."""
    operator = OperatorRow(id=event.operator, owner=event.owner, payout=event.payout)
    rows.add(operator, event.operator)


def propose_owner(event: OwnerProposed, rows: Rows) -> None:
    """An operator is offered to another owner."""
    rows.change(OperatorRow, event.operator).proposed = event.owner


def change_owner(event: OwnerChanged, rows: Rows) -> None:
    """The offer was taken."""
    operator = rows.change(OperatorRow, event.operator)
    operator.owner, operator.proposed = event.owner, None


def change_payout(event: PayoutChanged, rows: Rows) -> None:
    """Pay goes to another address."""
    rows.change(OperatorRow, event.operator).payout = event.payout


def change_worker(event: WorkerChanged, rows: Rows) -> None:
    """A key may act, or no longer."""
    if rows.find(WorkerRow, event.operator, event.worker) is None:
        key = (event.operator, event.worker)
        worker = WorkerRow(operator=key[0], worker=key[1], authorized=event.authorized)
        rows.add(worker, *key)
    rows.change(WorkerRow, event.operator, event.worker).authorized = event.authorized


def add_stake(event: StakeAdded, rows: Rows) -> None:
    """An operator has more stake."""
    rows.change_account(event.operator, event.role, event.asset).staked += event.amount


def thaw_stake(event: StakeThawing, rows: Rows) -> None:
    """More stake answers for nothing new, and all that is thawing waits for the new time."""
    account = rows.change_account(event.operator, event.role, event.asset)
    account.leaving = True
    account.thawing += event.amount
    account.thawed_at = event.until


def withdraw_stake(event: StakeWithdrawn, rows: Rows) -> None:
    """Thawed stake has left."""
    account = rows.change_account(event.operator, event.role, event.asset)
    account.staked -= event.amount
    account.thawing -= event.amount
    account.leaving = False


def pay_earnings(event: EarningsPaid, rows: Rows) -> None:
    """What was earned has left."""
    rows.change_account(event.operator, event.role, event.asset).earned -= event.amount


def list_tickets(event: TicketsBought, rows: Rows) -> None:
    """More tickets are on the list, each with its stake."""
    for ticket_id in range(event.first_ticket_id, event.first_ticket_id + event.count):
        ticket = TicketRow(asset=event.asset, id=ticket_id, operator=event.operator)
        rows.add(ticket, event.asset, ticket_id)
    stake = event.count * rows.rules.assets[event.asset].ticket_stake
    rows.change_account(event.operator, Role.AUDITOR, event.asset).staked += stake


def retire_ticket(event: TicketRetired, rows: Rows) -> None:
    """No draw picks a ticket any more; `StakeThawing` follows."""
    rows.change(TicketRow, event.asset, event.ticket_id).leaving = True


def withdraw_credit(event: CreditWithdrawn, rows: Rows) -> None:
    """A credit has left."""
    rows.change(CreditRow, event.account, event.asset).amount -= event.amount


def pause(event: Paused, rows: Rows) -> None:
    """The market stands still from this block on, at most ``until``."""
    clock = rows.change_clock()
    clock.paused_before += clock.paused_until - clock.paused_at
    clock.paused_at, clock.paused_until = rows.block.timestamp, event.until


def resume(event: Resumed, rows: Rows) -> None:
    """A pause was ended early."""
    clock = rows.change_clock()
    clock.paused_until = clock.paused_at + event.paused_seconds
