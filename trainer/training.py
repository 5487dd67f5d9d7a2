"""Training a lease: its shards one after another, segment by segment, on disk after every segment.

A kill at any instruction loses at most the segment in hand."""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
from market.chain.events import ShardsClaimed
from market.chain.ledger import Ledger
from market.protocol.errors import NotFound
from market.protocol.manifest import Manifest
from market.storage.blobs import BlobStore
from market.storage.cid import Cid
from trainer.evidence import Origins, Shard, build_task, list_shards, name_lease
from trainer.execution import Executor
from trainer.jobs import JobFiles, OpenJobs, fetch_state
from trainer.progress import (
    Boundary,
    ProgressKeeper,
    RecordProgress,
    ShardProgress,
    find_progress,
    save_progress,
    write_boundary,
)
from trainer.shards import TrainSegment, hash_segment, run_segment
from trainer.states import State, StateRoots, compute_state_roots

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """Who provides, on what chain, and where its blobs go: ``public`` is what others can fetch."""

    chain: Chain
    account: LocalAccount
    public: BlobStore
    private: BlobStore
    home: Path
    build_executor: Callable[[JobFiles], Executor]
    train: TrainSegment = run_segment
    on_step: Callable[[Shard, int, int], None] | None = None  # shard, step, steps
    most_shards: int = 1  # of one lease
    self_check: bool = True  # recompute a segment of a lease before committing to it


class Training:
    """What a provider trains and has trained: a file of records for each shard, and their states."""

    def __init__(
        self,
        setup: ProviderSetup,
        ledger: Ledger,
        jobs: OpenJobs,
        note_segment: Callable[[int, int, float], None],
    ) -> None:
        self._setup = setup
        self._ledger = ledger
        self._jobs = jobs
        self._origins = Origins(ledger, setup.public)
        self._names: dict[int, str] = {}
        self._prestate: tuple[tuple[int, int, int], State] | None = None
        self._boundary: tuple[int, Boundary] | None = None  # the last one written, and its job
        self._keeper = ProgressKeeper()
        self._note_segment = note_segment  # hears a job, its steps of a segment, and their seconds

    def prepare(self, job_id: int, round_index: int, slots: range) -> None:
        """Fetch all that the shards begin from; raise NotFound or ProtocolError where it cannot be had.

        What the first begins from is kept."""
        for slot in reversed(slots):
            self._compute_prestate(job_id, round_index, slot)

    def train(self, claimed: ShardsClaimed) -> bool:
        """Train one more segment of a lease; return False if all are done and on disk."""
        files = self._jobs.get_files(claimed.job_id)
        for shard in list_shards(claimed):
            progress = self._keeper.find_newest(self._get_path(claimed, shard))
            if progress is None:
                self._begin(files, claimed, shard)
                return True
            if progress.segments < files.spec.segments:
                self._train_segment(files, claimed, shard, progress)
                return True
        self._keeper.wait()
        self._boundary = None
        return False

    def load(self, claimed: ShardsClaimed) -> list[ShardProgress]:
        """Return what is kept of all shards of a trained lease."""
        self._keeper.wait()
        found = [find_progress(self._get_path(claimed, shard)) for shard in list_shards(claimed)]
        kept = [progress for progress in found if progress is not None]
        if len(kept) < claimed.count:
            raise NotFound(f"of lease {claimed.lease_id} this machine has not all records")
        return kept

    def find_fault(self, claimed: ShardsClaimed) -> tuple[Shard, int] | None:
        """Recompute one random segment of a trained lease; return its shard and number if it differs.

        Then it and what follows from it are dropped, to be trained again."""
        files, kept = self._jobs.get_files(claimed.job_id), self.load(claimed)
        shard = secrets.choice(list_shards(claimed))
        progress = kept[shard.index]
        segment = secrets.randbelow(progress.segments)
        prestate, _ = self._load_state(files, shard, progress.records[segment].state)
        task = build_task(self._setup.chain, files, shard)
        executor = self._jobs.get_executor(shard.job_id)
        roots, outcome = hash_segment(task.program, run_segment(executor, task, prestate, segment))
        record = progress.records[segment + 1]
        if (roots.base, roots.slot, outcome) == (
            record.base_root,
            record.slot_root,
            record.outcome,
        ):
            return None
        save_progress(self._get_path(claimed, shard), progress.cut(segment))
        self._drop_states(progress.records[segment + 1 :])
        return shard, segment

    def build_manifest(self, claimed: ShardsClaimed) -> Manifest:
        """Return the manifest of a trained lease; the metrics that it names are public."""
        kept = self.load(claimed)
        return Manifest(shards=tuple(shard.put_records(self._setup.public) for shard in kept))

    def has_states(self, claimed: ShardsClaimed) -> bool:
        """Check that the state of every record is here."""
        cids = [Cid(record.state) for shard in self.load(claimed) for record in shard.records]
        return all(self._setup.private.has(cid) or self._setup.public.has(cid) for cid in cids)

    def forget(self, claimed: ShardsClaimed) -> None:
        """Drop what was kept of a lease that is over, but for states that another lease needs."""
        self._keeper.wait()
        paths = [self._get_path(claimed, shard) for shard in list_shards(claimed)]
        dropped = [progress for path in paths if (progress := find_progress(path)) is not None]
        if not dropped:
            return
        for path in paths:
            path.unlink(missing_ok=True)
        self._drop_states([record for progress in dropped for record in progress.records])

    def _drop_states(self, records: Sequence[RecordProgress]) -> None:
        """Delete the states of ``records`` that no record needs any more."""
        left = [find_progress(path) for path in self._folder.glob("*.json")]
        needed = {record.state for other in left if other for record in other.records}
        for state in {record.state for record in records} - needed:
            self._setup.private.delete(Cid(state))

    @property
    def _folder(self) -> Path:
        return self._setup.home / "leases"

    def _get_path(self, claimed: ShardsClaimed, shard: Shard) -> Path:
        if claimed.lease_id not in self._names:
            name = name_lease(self._setup.chain, self._ledger, claimed)
            self._names[claimed.lease_id] = name
        return self._folder / f"{self._names[claimed.lease_id]}-{shard.index}.json"

    def _compute_prestate(self, job_id: int, round_index: int, slot: int) -> State:
        """Return the state that a shard begins from; that of the last shard asked for is kept."""
        key = (job_id, round_index, slot)
        if self._prestate is None or self._prestate[0] != key:
            files = self._jobs.get_files(job_id)
            state = self._origins.compute_prestate(files, job_id, round_index, slot)
            self._prestate = (key, state)
        return self._prestate[1]

    def _begin(self, files: JobFiles, claimed: ShardsClaimed, shard: Shard) -> None:
        prestate = self._compute_prestate(shard.job_id, shard.round_index, shard.slot)
        roots = compute_state_roots(files.program, prestate)
        boundary = write_boundary(self._setup.private, files.program, prestate, roots)
        self._keep(claimed, shard, ShardProgress(records=(boundary.record,)), boundary)
        self._prestate = None

    def _train_segment(
        self, files: JobFiles, claimed: ShardsClaimed, shard: Shard, progress: ShardProgress
    ) -> None:
        setup, program, steps = self._setup, files.program, files.spec.steps
        begun = time.monotonic()
        prestate, before = self._load_state(files, shard, progress.records[-1].state)
        end = setup.train(
            self._jobs.get_executor(shard.job_id),
            build_task(setup.chain, files, shard),
            prestate,
            progress.segments,
            lambda step: setup.on_step(shard, step, steps) if setup.on_step else None,
        )
        roots, outcome = hash_segment(program, end, before)
        boundary = write_boundary(setup.private, program, end.state, roots, outcome)
        self._keep(claimed, shard, progress.extend(boundary.record, end.metrics), boundary)
        seconds = time.monotonic() - begun
        self._note_segment(shard.job_id, files.spec.steps_per_segment, seconds)

    def _keep(
        self, claimed: ShardsClaimed, shard: Shard, progress: ShardProgress, boundary: Boundary
    ) -> None:
        self._keeper.begin_save(self._get_path(claimed, shard), progress, boundary.draft)
        self._boundary = shard.job_id, boundary

    def _load_state(
        self, files: JobFiles, shard: Shard, cid: str
    ) -> tuple[State, StateRoots | None]:
        """Return the state whose bytes are ``cid``, and its roots where they are known here."""
        if self._boundary is not None:
            job_id, last = self._boundary
            if (job_id, last.record.state) == (shard.job_id, cid):
                return last.state, last.roots
        return fetch_state(self._setup.private, files.program, cid), None
