"""The fold: what each kind of event does to the rows."""

from collections.abc import Callable
from typing import Any, Final

from market.chain import events
from market.storage.index.projection import challenges, jobs, leases, operators, panels
from market.storage.index.projection.rows import Rows


def _change_nothing(_event: events.Event, _rows: Rows) -> None:
    """What is burned belonged to nobody."""


# Any: each function takes the kind that it stands beside.
APPLY: Final[dict[type[events.Event], Callable[[Any, Rows], None]]] = {
    events.JobCreated: jobs.create_job,
    events.JobSeeded: jobs.seed_job,
    events.JobCancelled: jobs.cancel_job,
    events.JobRefunded: jobs.refund_job,
    events.RoundClosed: jobs.close_round,
    events.ShardsClaimed: leases.claim,
    events.TraceCommitted: leases.commit,
    events.CommitmentWithdrawn: leases.withdraw,
    events.LeaseExpired: leases.expire,
    events.LeaseSettled: leases.settle,
    events.SegmentsDrawn: leases.draw,
    events.ShardsAttested: leases.attest,
    events.AuditDeclined: leases.decline,
    events.AuditorReplaced: leases.replace_auditor,
    events.LeaseVoided: leases.void,
    events.LeaseSlashed: leases.slash,
    events.WithholdingReported: panels.report,
    events.PanelConvened: panels.convene,
    events.PanelDrawn: panels.draw_panel,
    events.PanelVoted: panels.vote,
    events.ReportRejected: panels.reject_report,
    events.RecordChallenged: challenges.challenge,
    events.ChallengeAnswered: challenges.answer,
    events.ChallengeClosed: challenges.close,
    events.OperatorRegistered: operators.register,
    events.OwnerProposed: operators.propose_owner,
    events.OwnerChanged: operators.change_owner,
    events.PayoutChanged: operators.change_payout,
    events.WorkerChanged: operators.change_worker,
    events.StakeAdded: operators.add_stake,
    events.StakeThawing: operators.thaw_stake,
    events.StakeWithdrawn: operators.withdraw_stake,
    events.EarningsPaid: operators.pay_earnings,
    events.TicketsBought: operators.list_tickets,
    events.TicketRetired: operators.retire_ticket,
    events.CreditWithdrawn: operators.withdraw_credit,
    events.Burned: _change_nothing,
    events.Paused: operators.pause,
    events.Resumed: operators.resume,
}


def apply_event(event: events.Event, rows: Rows) -> None:
    """Change the rows as the contract changed its storage with ``event``."""
    APPLY[type(event)](event, rows)
