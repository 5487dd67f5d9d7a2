"""What happened at the market so far, by kind and by id: the daemons' memory of the chain.

It is a projection in memory: dropped at a restart, and rebuilt from the events."""

from collections.abc import Iterator
from typing import TypeVar, cast

from market.chain.client import Chain
from market.chain.events import EVENTS, Event
from market.protocol.errors import NotFound

E = TypeVar("E", bound=Event)


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
            subject = getattr(event, "lease_id", None)
            if subject is None:
                subject = getattr(event, "job_id", None)
            if subject is not None:
                self._latest[type(event), subject] = event
        self._next_block = head + 1

    def find(self, kind: type[E], subject: int) -> E | None:
        """Return the last event of ``kind`` of a lease, or of a job where it names no lease."""
        return cast(E | None, self._latest.get((kind, subject)))

    def get(self, kind: type[E], subject: int) -> E:
        """Return the last event of ``kind`` of a lease or job; raise NotFound if there is none."""
        event = self.find(kind, subject)
        if event is None:
            raise NotFound(f"no {kind.__name__} of {subject} up to block {self._next_block - 1}")
        return event

    def iterate(self, *kinds: type[E]) -> Iterator[E]:
        """Yield the events of ``kinds``, oldest first."""
        return (event for event in self._events if isinstance(event, kinds))
