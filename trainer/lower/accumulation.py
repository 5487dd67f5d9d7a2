"""Gradient accumulation: forward and backward once for each part of the batch, and the mean of the parts.

INVARIANT: the additions are maps in the order of the parts, so the mean has one definition. Each part's
activations are dead when the next part begins; what grows is one running sum of the gradients."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from trainer.lower.builder import ProgramBuilder
from trainer.lower.drafts import AnyDraft
from trainer.lower.values import Value

Found = Sequence[Value | None]  # the loss, then each gradient; None for what no part has


def compute_mean(
    builder: ProgramBuilder,
    run: Callable[[Sequence[Value]], Found],
    batch: Sequence[Value],
    parts: int,
) -> Found:
    """Return the mean of what ``run`` makes of each of ``parts`` equal slices of ``batch``."""
    if parts == 1:
        return run(batch)
    size = batch[0].shape[0] // parts
    totals: Found = []
    for part in range(parts):
        if part:
            builder.fence()
        begin = len(builder.drafts)
        rows = [builder.slice(value, 0, part * size, (part + 1) * size) for value in batch]
        found = run(rows)
        tail = len(builder.drafts)
        olds = totals or [None] * len(found)
        totals = [
            None if new is None else builder.store(_add(builder, old, new, part, parts))
            for old, new in zip(olds, found, strict=True)
        ]
        _hoist(builder.drafts, begin, tail)
    return totals


def _add(builder: ProgramBuilder, old: Value | None, new: Value, part: int, parts: int) -> Value:
    """Return the sum of the first parts' values, after the last part their mean."""
    if old is None:
        return new
    if part < parts - 1:
        return builder.map(lambda total, value: total + value, old, new)
    return builder.map(lambda total, value: (total + value) / parts, old, new)


def _hoist(drafts: list[AnyDraft], begin: int, tail: int) -> None:
    """Move each draft from ``tail`` on to where the last of what it reads has been written.

    None moves before ``begin``. A gradient is added up, and forgotten, as soon as it is there."""
    written = {b: at for at in range(begin, tail) for b in drafts[at].writes}
    following: dict[int, list[AnyDraft]] = defaultdict(list)
    for draft in drafts[tail:]:
        at = max((written.get(buffer, begin) for buffer in draft.reads), default=begin)
        following[at].append(draft)
        written.update(dict.fromkeys(draft.writes, at))
    drafts[begin:] = [draft for at in range(begin, tail) for draft in (drafts[at], *following[at])]
