"""Events as rows: what each is about, and its canonical JSON."""

import json
from dataclasses import fields
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from market.chain.events import EVENTS, ChallengeEvent, Event
from market.storage.index.projection.rows import Rows
from market.storage.index.source import LoggedEvent
from market.storage.index.tables import ChallengeRow, LeaseRow

_PLACE: Final = {field.name for field in fields(Event)}
_OPERATORS: Final = ("operator", "auditor", "member")  # how events name the one they are about


def build_event_row(logged: LoggedEvent, rows: Rows) -> dict[str, Any]:  # the values of a row
    """Return the row of an event that has been applied to ``rows``."""
    event = logged.event
    lease_id = getattr(event, "lease_id", None)
    if lease_id is None and isinstance(event, ChallengeEvent):
        lease_id = rows.get(ChallengeRow, event.challenge_id).lease_id
    job_id = getattr(event, "job_id", None)
    if job_id is None and lease_id is not None:
        job_id = rows.get(LeaseRow, lease_id).job_id
    named = (getattr(event, name) for name in _OPERATORS if hasattr(event, name))
    return {
        "block_number": event.block_number,
        "log_index": event.log_index,
        "block_hash": logged.block_hash,
        "timestamp": logged.timestamp,
        "tx_hash": event.tx_hash,
        "name": type(event).__name__,
        "job_id": job_id,
        "lease_id": lease_id,
        "operator": next(named, None),
        "payload": encode_payload(event),
    }


def encode_payload(event: Event) -> str:
    """Return what ``event`` says as JSON, with sorted keys and no spaces."""
    values = _load_adapters()[type(event).__name__].dump_python(event, mode="json", exclude=_PLACE)
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


@cache
def _load_adapters() -> dict[str, TypeAdapter[Event]]:
    return {name: TypeAdapter(kind) for name, kind in EVENTS.items()}
