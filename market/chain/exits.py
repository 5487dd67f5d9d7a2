"""Sending what anyone may send: a race that somebody else wins is not an error."""

from collections.abc import Callable
from typing import Final

from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
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


_EXITS: Final = {
    LeaseStatus.EXPIRED: lambda calls, lease: calls.expire(lease),
    LeaseStatus.UNDRAWN: lambda calls, lease: calls.slash(lease),
    LeaseStatus.AUDITOR_SILENT: lambda calls, lease: calls.replace_auditor(lease),
    LeaseStatus.PROVIDER_SILENT: lambda calls, lease: calls.slash(lease),
    LeaseStatus.REVEAL_MISSED: lambda calls, lease: calls.replace_auditor(lease),
    LeaseStatus.FORFEITED: lambda calls, lease: calls.slash(lease),
    LeaseStatus.FINAL: lambda calls, lease: calls.settle(lease),
}


def send_exit(chain: Chain, account: LocalAccount, lease_id: int, status: LeaseStatus) -> bool:
    """Lead a lease out of ``status``, if its time has come; return whether this did it."""
    call = build_exit(chain, lease_id, status)
    if call is None:
        return False
    return send_if_due(chain, account, call, lambda: chain.get_status(lease_id) is status)
