"""What events make of reports and the panels that vote on them. The rules are those of Panels.sol."""

from market.chain.events import (
    PanelConvened,
    PanelDrawn,
    PanelVoted,
    ReportRejected,
    WithholdingReported,
)
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.projection.rows import Rows
from market.storage.index.projection.stakes import (
    change_seat,
    close_panel,
    compute_seat_fee,
    dismiss_auditor,
)
from market.storage.index.tables import LeaseRow, PanelRow, SeatRow


def report(event: WithholdingReported, rows: Rows) -> None:
    """A provider is to publish again."""
    lease = rows.change(LeaseRow, event.lease_id)
    lease.status, lease.clock = LeaseStatus.REPORTED, event.grace_deadline


def convene(event: PanelConvened, rows: Rows) -> None:
    """A block is fixed that draws a panel."""
    lease = rows.change(LeaseRow, event.lease_id)
    lease.status, lease.clock = LeaseStatus.CONVENED, event.draw_block


def draw_panel(event: PanelDrawn, rows: Rows) -> None:
    """A panel is to vote; each seat has stake locked."""
    lease = rows.change(LeaseRow, event.lease_id)
    lease.status, lease.clock = LeaseStatus.VOTING, event.deadline
    lease.panels += 1
    size = len(event.members)
    panel = PanelRow(lease_id=lease.id, number=lease.panels, size=size, deadline=event.deadline)
    rows.add(panel, lease.id, panel.number)
    fee = compute_seat_fee(lease, rows)
    for number, operator in enumerate(event.members):
        seat = SeatRow(lease_id=lease.id, panel=panel.number, number=number, operator=operator)
        rows.add(seat, lease.id, panel.number, number)
        change_seat(lease, operator, rows).locked += fee


def vote(event: PanelVoted, rows: Rows) -> None:
    """All seats of an operator have voted."""
    lease = rows.get(LeaseRow, event.lease_id)
    panel = rows.get(PanelRow, lease.id, lease.panels)
    for number in range(panel.size):
        if rows.get(SeatRow, lease.id, panel.number, number).operator == event.member:
            rows.change(SeatRow, lease.id, panel.number, number).available = event.available


def reject_report(event: ReportRejected, rows: Rows) -> None:
    """A reporter has lost stake to those that voted, and the lease waits for another draw.

    The block that draws stands in no event. Where there were too many draws, the lease is voided next."""
    lease = rows.change(LeaseRow, event.lease_id)
    if lease.status is LeaseStatus.VOTING:  # else nobody was eligible for the panel
        close_panel(lease, event.loss, rows, withheld=False)
    dismiss_auditor(lease.id, event.loss, rows)
    lease.status = LeaseStatus.COMMITTED
    lease.clock = rows.block.number + rows.rules.config.draw_distance
