"""Replay: a whole job executed again from its spec, every record compared with what was committed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from market.chain.client import Chain
from market.chain.ledger import Ledger
from market.protocol.hashing import Hash32
from market.protocol.manifest import ShardRecords
from market.protocol.program import TensorRole
from market.protocol.records import StateClaim
from market.storage.blobs import BlobStore
from trainer.evidence import Shard, build_task, fetch_shard, list_sets
from trainer.execution import Executor
from trainer.jobs import JobFiles
from trainer.rounds import compute_next_base
from trainer.shards import ShardTask, hash_segment, ignore_progress, run_segment
from trainer.states import State, claim_state, compute_state_roots


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first record of a shard that a replay does not reproduce."""

    record_index: int
    claimed: Hash32
    replayed: Hash32


@dataclass(frozen=True, slots=True)
class ShardReplay:
    """A replayed shard; ``divergence`` is None where every record was reproduced."""

    shard: Shard
    records: int
    divergence: Divergence | None


def _compare(index: int, claimed: StateClaim, replayed: StateClaim) -> Divergence | None:
    if claimed == replayed:
        return None
    return Divergence(index, claimed.compute_record(index), replayed.compute_record(index))


def replay_shard(
    executor: Executor,
    task: ShardTask,
    shown: ShardRecords,
    prestate: State,
    on_step: Callable[[int], None] = ignore_progress,
) -> tuple[State, Divergence | None]:
    """Return the poststate of a shard trained again, and where it first departs from what is ``shown``."""
    claims = shown.claims
    state = prestate
    begun = claim_state(compute_state_roots(task.program, prestate), None)
    divergence = _compare(0, claims[0], begun)
    for segment in range(len(claims) - 1):
        end = run_segment(executor, task, state, segment, on_step)
        roots, outcome = hash_segment(task.program, end)
        state = end.state
        if divergence is None:
            replayed = claim_state(roots, outcome)
            divergence = _compare(segment + 1, claims[segment + 1], replayed)
    return state, divergence


@dataclass(frozen=True, slots=True)
class Replay:
    """A job to execute again: its files and where to find what was committed."""

    job_id: int
    files: JobFiles
    executor: Executor
    chain: Chain
    ledger: Ledger
    store: BlobStore

    def run(
        self, on_step: Callable[[Shard, int], None] | None = None
    ) -> Iterator[tuple[ShardReplay, State]]:
        """Yield every shard of the rounds' sets replayed, with its poststate, round by round."""
        files, slots = self.files, range(self.files.spec.slots)
        base = {name: files.initial[name] for name in files.program.find_inputs(TensorRole.BASE)}
        states = dict.fromkeys(slots, files.initial)
        for closed in list_sets(self.ledger, self.job_id, files.spec.rounds):
            for slot, shard in sorted(closed.items()):
                states[slot], divergence = replay_shard(
                    self.executor,
                    build_task(self.chain, files, shard),
                    fetch_shard(files, self.ledger, self.store, shard),
                    {**states[slot], **base},
                    partial(on_step, shard) if on_step else ignore_progress,
                )
                yield ShardReplay(shard, files.spec.segments + 1, divergence), states[slot]
            given = [states[slot] if slot in closed else None for slot in slots]
            base = compute_next_base(files.outer, base, given)
