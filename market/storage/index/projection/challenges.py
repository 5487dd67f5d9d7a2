"""What events make of challenges. The rules are those of Disputes.sol."""

from market.chain.events import ChallengeAnswered, ChallengeClosed, RecordChallenged
from market.chain.structs import ChallengeStatus
from market.protocol.lifecycle import LeaseStatus
from market.storage.index.projection.rows import Rows, compute_share
from market.storage.index.projection.stakes import change_provider, compute_stake, dismiss_auditor
from market.storage.index.tables import ChallengeRow, JobRow, LeaseRow


def challenge(event: RecordChallenged, rows: Rows) -> None:
    """A record is accused; an auditor's accusation stops its lease."""
    challenge = ChallengeRow(
        id=event.challenge_id,
        lease_id=event.lease_id,
        challenger=event.challenger,
        by_auditor=event.by_auditor,
        position=event.position,
        bond=event.bond,
        status=ChallengeStatus.OPEN,
        clock=event.deadline,
    )
    rows.add(challenge, event.challenge_id)
    lease = rows.change(LeaseRow, event.lease_id)
    if event.by_auditor:
        lease.status = LeaseStatus.ACCUSED
    else:
        lease.challenges += 1


def answer(event: ChallengeAnswered, rows: Rows) -> None:
    """The judge is to rule."""
    row = rows.change(ChallengeRow, event.challenge_id)
    row.status, row.clock = ChallengeStatus.ANSWERED, event.deadline


def close(event: ChallengeClosed, rows: Rows) -> None:
    """A challenge is decided; what it did to its lease stands in the events beside this one."""
    row = rows.change(ChallengeRow, event.challenge_id)
    row.status = event.outcome
    lease = rows.get(LeaseRow, event.lease_id)
    if event.outcome is ChallengeStatus.UPHELD:
        _uphold(row, lease, rows)
    elif event.outcome is ChallengeStatus.REJECTED:
        _reject(row, lease, rows)
    else:
        _drop(row, lease, rows)


def _uphold(row: ChallengeRow, lease: LeaseRow, rows: Rows) -> None:
    """`LeaseSlashed` said what the fault earned: an auditor has it, a challenger gets it with its bond."""
    if not row.by_auditor:
        asset = rows.get(JobRow, lease.job_id).terms.asset
        rows.owe(row.challenger, asset, lease.rewarded + row.bond)


def _reject(row: ChallengeRow, lease: LeaseRow, rows: Rows) -> None:
    """The provider gets a share of what was lost; `AuditorReplaced` takes an auditor's stake."""
    stake = compute_stake(lease, rows.get(JobRow, lease.job_id))
    loss = stake if row.by_auditor else row.bond
    reward = compute_share(loss, rows.rules.config.slash_share_bps)
    change_provider(lease, rows).earned += reward
    if not row.by_auditor:
        rows.change(LeaseRow, lease.id).challenges -= 1


def _drop(row: ChallengeRow, lease: LeaseRow, rows: Rows) -> None:
    """A bond goes back; an auditor is let go, and `LeaseVoided` ends its lease."""
    if row.by_auditor:
        dismiss_auditor(lease.id, 0, rows)
        return
    if lease.status is LeaseStatus.ATTESTED:
        rows.change(LeaseRow, lease.id).challenges -= 1
    rows.owe(row.challenger, rows.get(JobRow, lease.job_id).terms.asset, row.bond)
