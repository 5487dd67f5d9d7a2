"""Sending what anyone may send: a race that somebody else wins is not an error."""

from collections.abc import Callable, Mapping
from typing import Final

from eth_account.signers.local import LocalAccount

from market.chain.calls import Calls
from market.chain.client import Chain
from market.chain.structs import ChallengeStatus, JobStatus
from market.chain.transactions import Call
from market.protocol.errors import TransactionReverted
from market.protocol.lifecycle import LeaseStatus


def send_if_due(
    chain: Chain, account: LocalAccount, call: Call, is_due: Callable[[], bool]
) -> bool:
    """Send ``call`` and return True; return False if, by then, another has made it undue."""
    try:
        chain.send(account, call)
    except TransactionReverted:
        if is_due():
            raise
        return False
    return True


def build_exit(chain: Chain, lease_id: int, status: LeaseStatus) -> Call | None:
    """Return the call that leads a lease out of ``status``; None while its time has not come."""
    if status in _DRAWS:
        block = chain.get_lease(lease_id).clock
        if chain.get_height() < block:
            return None
        return _DRAWS[status](chain.calls, lease_id, chain.get_header_rlp(block))
    if status is LeaseStatus.ACCUSED:
        return build_resolution(chain, chain.find_challenges(lease_id)[-1].challenge_id)
    return _EXITS[status](chain.calls, lease_id)


_DRAWS: Final[Mapping[LeaseStatus, Callable[[Calls, int, bytes], Call]]] = {
    LeaseStatus.COMMITTED: Calls.draw,
    LeaseStatus.CONVENED: Calls.draw_panel,
}
_EXITS: Final[Mapping[LeaseStatus, Callable[[Calls, int], Call]]] = {
    LeaseStatus.EXPIRED: Calls.expire,
    LeaseStatus.UNDRAWN: Calls.slash,
    LeaseStatus.AUDITOR_SILENT: Calls.replace_auditor,
    LeaseStatus.WITHHELD: Calls.convene,
    LeaseStatus.UNCONVENED: Calls.convene,
    LeaseStatus.VOTED: Calls.close_vote,
    LeaseStatus.FINAL: Calls.settle,
}


def send_exit(chain: Chain, account: LocalAccount, lease_id: int, status: LeaseStatus) -> bool:
    """Lead a lease out of ``status``, if its time has come; return whether this did it."""
    call = build_exit(chain, lease_id, status)
    if call is None:
        return False
    return send_if_due(chain, account, call, lambda: chain.get_status(lease_id) is status)


def build_resolution(chain: Chain, challenge_id: int) -> Call | None:
    """Return the call that closes a challenge; None while someone has time to answer or to rule."""
    if chain.get_challenge_status(challenge_id) not in _OVERDUE:
        return None
    return chain.calls.resolve(challenge_id)


_OVERDUE: Final = (ChallengeStatus.UNANSWERED, ChallengeStatus.UNRULED)


def send_resolution(chain: Chain, account: LocalAccount, challenge_id: int) -> bool:
    """Close a challenge that ran out of time; return whether this did it."""
    call = build_resolution(chain, challenge_id)
    if call is None:
        return False
    return send_if_due(
        chain, account, call, lambda: chain.get_challenge_status(challenge_id) in _OVERDUE
    )


def send_seed(chain: Chain, account: LocalAccount, job_id: int) -> bool:
    """Draw the seed of a funded job, if its block is there; return whether this did it."""
    seed_block = chain.get_job(job_id).seed_block
    if chain.get_height() < seed_block:
        return False
    call = chain.calls.draw_seed(job_id, chain.get_header_rlp(seed_block))
    return send_if_due(
        chain, account, call, lambda: chain.get_job_status(job_id) is JobStatus.FUNDED
    )


def send_round_close(chain: Chain, account: LocalAccount, job_id: int) -> bool:
    """Close a job's current round by time, if it has its quorum; return whether this did it."""
    round_ = chain.get_job(job_id).round

    def is_due() -> bool:
        return _is_round_due(chain, job_id, round_)

    if not is_due():
        return False
    return send_if_due(chain, account, chain.calls.close_round(job_id), is_due)


def _is_round_due(chain: Chain, job_id: int, round_: int) -> bool:
    job = chain.get_job(job_id)
    if job.round != round_ or job.round == job.rounds or not job.seeded or job.round_time == 0:
        return False
    attested = chain.get_round(job_id, round_).attested.bit_count()
    return attested >= job.quorum and chain.get_time() > job.opened_at + job.round_time
