"""The order in which the stages of a pipeline work: on another micro-batch while one is elsewhere.

Every rank's steps are put in the order in which they would begin if each rank always did the first that it
could. INVARIANT: a rank's steps keep the order of what they need of each other, and what one rank sends to
another is received in the order in which it was sent."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final

from market.protocol.program import Kind
from trainer.parallel.ranks import Move, RankSteps, Step

_PRODUCTS: Final = 64  # multiplications that take as long as an element of another instruction
_BYTES: Final = 1  # that travel in that time

Message = tuple[int, int, int]  # source, target, number of those between the two


@dataclass(slots=True)
class _Rank:
    """A rank at work: which of its steps wait for how many others, and until when it is busy."""

    number: int
    steps: Sequence[Step]
    missing: list[int]
    followers: list[list[int]]
    sends: list[list[Message]]
    receives: list[Message | None]
    ready: set[int]
    busy: int = 0
    order: list[int] = field(default_factory=list)


def arrange_stages(ranks: Sequence[RankSteps]) -> tuple[list[RankSteps], int]:
    """Return the steps of each rank in the order of the module, and when the last one would end.

    The unit of time is what an element of an instruction that does not multiply takes."""
    workers = [_prepare(number, rank.steps) for number, rank in enumerate(ranks)]
    arrivals: dict[Message, int] = {}
    while any(worker.ready for worker in workers):
        start, step, number = min(_list_candidates(workers, arrivals))
        worker, program = workers[number], ranks[number].program
        end = worker.busy = start + _estimate(worker.steps[step])
        for message in worker.sends[step]:
            move = worker.steps[step].exchange
            assert isinstance(move, Move)
            arrivals[message] = end + program.tensors[move.tensor].type.nbytes // _BYTES
        _finish(worker, step)
    assert all(len(worker.order) == len(worker.steps) for worker in workers)
    arranged = [
        replace(rank, steps=tuple(rank.steps[step] for step in worker.order))
        for rank, worker in zip(ranks, workers, strict=True)
    ]
    return arranged, max(worker.busy for worker in workers)


def _list_candidates(
    workers: Sequence[_Rank], arrivals: dict[Message, int]
) -> Iterator[tuple[int, int, int]]:
    """Yield when each step that has what it needs could begin, with its number and its rank's."""
    for worker in workers:
        for step in worker.ready:
            message = worker.receives[step]
            if message is None:
                yield worker.busy, step, worker.number
            elif message in arrivals:
                yield max(worker.busy, arrivals[message]), step, worker.number


def _prepare(number: int, steps: Sequence[Step]) -> _Rank:
    missing = [0] * len(steps)
    followers: list[list[int]] = [[] for _ in steps]
    worker = _Rank(number, steps, missing, followers, [], [], set())
    latest: dict[Hashable, list[int]] = {}  # what was done last on a tensor, or between two ranks
    counts: dict[tuple[int, int], int] = {}
    for index, step in enumerate(steps):
        needs = {before for view in step.reads for before in latest.get(view.tensor, ())}
        pairs = _list_pairs(step, number)
        for pair in pairs:
            needs.update(latest.get(pair, ()))
            latest[pair] = [index]
        for before in needs:
            followers[before].append(index)
        missing[index] = len(needs)
        for view in step.writes:
            latest.setdefault(view.tensor, []).append(index)
        messages = [(*pair, counts.get(pair, 0)) for pair in pairs]
        counts.update((pair, counts.get(pair, 0) + 1) for pair in pairs)
        worker.sends.append([message for message in messages if message[0] == number])
        worker.receives.append(next((m for m in messages if m[1] == number), None))
    worker.ready.update(index for index, count in enumerate(missing) if count == 0)
    return worker


def _list_pairs(step: Step, rank: int) -> list[tuple[int, int]]:
    """Return the pairs of ranks between which a step moves a tensor: from this rank, or to it."""
    if not isinstance(step.exchange, Move):
        return []
    if step.exchange.source == rank:
        return [(rank, target) for target in step.exchange.targets]
    return [(step.exchange.source, rank)]


def _finish(worker: _Rank, step: int) -> None:
    worker.ready.remove(step)
    worker.order.append(step)
    for follower in worker.followers[step]:
        worker.missing[follower] -= 1
        if worker.missing[follower] == 0:
            worker.ready.add(follower)


def _estimate(step: Step) -> int:
    if step.instruction is None:
        return 1
    work = prod(step.instruction.shape)
    return 1 + (work // _PRODUCTS if step.instruction.kind is Kind.DOT else work)
