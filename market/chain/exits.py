"""Sending what anyone may send: a race that somebody else wins is not an error."""

from collections.abc import Callable, Mapping
from typing import Final

from eth_account.signers.local import LocalAccount

from market.chain.calls import Calls
from market.chain.client import Chain
from market.chain.structs import JobStatus
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
    calls = chain.calls
    if status is LeaseStatus.COMMITTED:
        block = chain.get_lease(lease_id).draw_block
        if chain.get_height() < block:
            return None
        return calls.draw(lease_id, chain.get_header_rlp(block))
    return _EXITS[status](calls, lease_id)


_EXITS: Final[Mapping[LeaseStatus, Callable[[Calls, int], Call]]] = {
    LeaseStatus.EXPIRED: Calls.expire,
    LeaseStatus.UNDRAWN: Calls.slash,
    LeaseStatus.AUDITOR_SILENT: Calls.replace_auditor,
    LeaseStatus.PROVIDER_SILENT: Calls.slash,
    LeaseStatus.REVEAL_MISSED: Calls.replace_auditor,
    LeaseStatus.FORFEITED: Calls.slash,
    LeaseStatus.FINAL: Calls.settle,
}


def send_exit(chain: Chain, account: LocalAccount, lease_id: int, status: LeaseStatus) -> bool:
    """Lead a lease out of ``status``, if its time has come; return whether this did it."""
    call = build_exit(chain, lease_id, status)
    if call is None:
        return False
    return send_if_due(chain, account, call, lambda: chain.get_status(lease_id) is status)


def send_seed(chain: Chain, account: LocalAccount, job_id: int) -> bool:
    """Draw the seed of a funded job, if its block is there; return whether this did it."""
    seed_block = chain.get_job(job_id).seed_block
    if chain.get_height() < seed_block:
        return False
    call = chain.calls.draw_seed(job_id, chain.get_header_rlp(seed_block))
    return send_if_due(
        chain, account, call, lambda: chain.get_job_status(job_id) is JobStatus.FUNDED
    )
