"""What `touchstone provider declines` does."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Final

from pydantic import BaseModel, PlainSerializer

from market.commands.output import build_table, emit
from market.protocol.economics import Reason
from market.settings import read_settings
from trainer.declines import DECLINES_FILE, DeclineLog, KeptDecline

_EXAMPLES: Final = 3  # of a reason
_UNITS: Final = {
    Reason.TOO_SLOW: "s",
    Reason.RAMP_TOO_SLOW: "s of the market's time",
    Reason.TOO_MANY_LEASES: "leases",
}
_BASE_UNITS: Final = "base units"

_Amount = Annotated[int | None, PlainSerializer(lambda n: None if n is None else str(n))]


class Example(BaseModel):
    """A job that was left alone, and by how much it missed."""

    job_id: int
    time: int
    offered: _Amount
    required: _Amount
    detail: str


class ReasonCount(BaseModel):
    """How many jobs were last left alone for a reason, and the latest of them."""

    reason: Reason
    jobs: int
    examples: tuple[Example, ...]


class Declines(BaseModel):
    """A histogram, the most frequent reason first. A job counts once for each of its reasons."""

    reasons: tuple[ReasonCount, ...]


def show_declines(*, as_json: bool) -> None:
    """Print why this provider left jobs alone."""
    path = read_settings().data_dir / DECLINES_FILE
    kept: list[KeptDecline] = []
    if path.exists():
        with DeclineLog(path) as log:
            kept = log.read()
    declines = count_reasons(kept)
    rows = [
        (found.reason, found.jobs, "\n".join(_describe(found.reason, e) for e in found.examples))
        for found in declines.reasons
    ]
    table = build_table("jobs left alone", ("reason", "jobs", "latest"), rows)
    emit(declines, table, as_json=as_json)


def count_reasons(kept: Sequence[KeptDecline]) -> Declines:
    """Return the histogram of what was ``kept``, the newest first."""
    ordered = sorted(kept, key=lambda entry: entry.decline.reason)  # stable: the newest stay first
    groups = groupby(ordered, key=lambda entry: entry.decline.reason)
    counts = [_count_reason(reason, [*entries]) for reason, entries in groups]
    return Declines(reasons=tuple(sorted(counts, key=lambda count: -count.jobs)))


def _count_reason(reason: Reason, entries: Sequence[KeptDecline]) -> ReasonCount:
    examples = [
        Example(
            job_id=entry.job_id,
            time=entry.time,
            offered=entry.decline.offered,
            required=entry.decline.required,
            detail=entry.decline.detail,
        )
        for entry in entries[:_EXAMPLES]
    ]
    return ReasonCount(reason=reason, jobs=len(entries), examples=tuple(examples))


def _describe(reason: Reason, example: Example) -> str:
    moment = datetime.fromtimestamp(example.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    line = f"{moment} job {example.job_id}"
    if example.required is not None:
        unit = _UNITS.get(reason, _BASE_UNITS)
        line += f": {example.offered} of {example.required} {unit}"
    return line + (f": {example.detail}" if example.detail else "")
