"""For which operators a key may act: what a daemon asks before it looks for something to do."""

from market.chain.events import WorkerChanged
from market.chain.ledger import Ledger
from market.chain.structs import Address


def find_operators(ledger: Ledger, worker: Address) -> frozenset[int]:
    """Return the operators that have authorized ``worker``, and not withdrawn it."""
    changes = (event for event in ledger.iterate(WorkerChanged) if event.worker == worker)
    authorized = {event.operator: event.authorized for event in changes}  # the last one counts
    return frozenset(operator for operator, is_authorized in authorized.items() if is_authorized)
