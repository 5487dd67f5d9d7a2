"""What happened at the market so far, by kind and by id: the daemons' memory of the chain.

It is a projection in memory: dropped at a restart, and rebuilt from the events."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar, cast

from market.chain.client import Chain
from market.chain.events import EVENTS, Event, ShardsAttested, ShardsClaimed
from market.protocol.errors import NotFound

E = TypeVar("E", bound=Event)

_SUBJECTS: Final = ("lease_id", "job_id", "challenge_id")  # what an event is of: the first it names


class Ledger:
    """The events of a market up to the block of the last `refresh`, in order.

    INVARIANT: a status read before a refresh has its events in the ledger after it, not the reverse."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._next_block = chain.deployment.block
        self._events: list[Event] = []
        self._latest: dict[tuple[type[Event], int], Event] = {}

    def refresh(self) -> None:
        """Read the blocks that were mined since the last time."""
        head = self._chain.get_height()
        if head < self._next_block:
            return
        for event in self._chain.find_events(self._next_block, head, tuple(EVENTS.values())):
            self._events.append(event)
            subject = next((getattr(event, n) for n in _SUBJECTS if hasattr(event, n)), None)
            if subject is not None:
                self._latest[type(event), subject] = event
        self._next_block = head + 1

    def find(self, kind: type[E], subject: int) -> E | None:
        """Return the last event of ``kind`` of a lease, or of what else it is of where it names none."""
        return cast(E | None, self._latest.get((kind, subject)))

    def get(self, kind: type[E], subject: int) -> E:
        """Return the last event of ``kind`` of a subject; raise NotFound if there is none."""
        event = self.find(kind, subject)
        if event is None:
            raise NotFound(f"no {kind.__name__} of {subject} up to block {self._next_block - 1}")
        return event

    def iterate(self, *kinds: type[E]) -> Iterator[E]:
        """Yield the events of ``kinds``, oldest first."""
        return (event for event in self._events if isinstance(event, kinds))


def find_contributions(
    events: Iterable[Event], job_id: int, round_: int, attested: int
) -> dict[int, int]:
    """Return the lease by which each slot of a round's ``attested`` set is in it, by slot.

    ``attested`` is as in `Round`; ``events`` are in order and have all claims and attestations of the job."""
    claimed: dict[int, range] = {}
    found: dict[int, int] = {}
    for event in events:
        if isinstance(event, ShardsClaimed) and (event.job_id, event.round) == (job_id, round_):
            claimed[event.lease_id] = range(event.first, event.first + event.count)
        elif isinstance(event, ShardsAttested) and event.lease_id in claimed:
            found.update(dict.fromkeys(claimed[event.lease_id], event.lease_id))
    # A slot that two leases attested lost the first to a slash, so the last one is the set's.
    return {slot: lease for slot, lease in sorted(found.items()) if attested >> slot & 1}
