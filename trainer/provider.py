"""The provider: claims shards, trains them segment by segment, commits, publishes and opens.

Each turn asks the chain first and does one thing, so it can be killed at any instruction and resumed."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
from market.chain.events import JobCreated, SegmentsDrawn, ShardClaimed
from market.chain.exits import send_exit, send_if_due, send_seed
from market.chain.ledger import Ledger
from market.chain.structs import JobStatus, RecordOpening, StateOpening
from market.chain.transactions import Call
from market.protocol.constants import MAX_STATE_BYTES
from market.protocol.errors import InvalidSpec, NotFound, ProtocolError, TrainingError
from market.protocol.hashing import compute_digest
from market.protocol.lifecycle import CLOSED, EXITS, LeaseStatus
from market.protocol.records import compute_record_branch, compute_trace_root
from market.storage.blobs import BlobStore
from market.storage.cid import Cid
from trainer.evidence import (
    Shard,
    build_task,
    compute_prestate,
    find_shard,
    get_trace,
    list_attested,
    name_lease,
)
from trainer.execution import Executor
from trainer.jobs import JobFiles, fetch_job, fetch_spec, fetch_state
from trainer.progress import (
    Boundary,
    ProgressKeeper,
    ShardProgress,
    find_progress,
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


class Provider:
    """One provider's loop. ``take_turn`` does the most urgent thing there is to do."""

    def __init__(self, setup: ProviderSetup) -> None:
        self._setup = setup
        self._chain = setup.chain
        self._ledger = Ledger(setup.chain)
        self._files: dict[int, JobFiles] = {}
        self._refused: set[int] = set()
        self._reasons: dict[int, str] = {}  # why a lease was last not served
        self._executors: dict[int, Executor] = {}
        self._paths: dict[int, Path] = {}
        self._prestate: tuple[tuple[int, int, int], State] | None = None
        self._boundary: tuple[int, Boundary] | None = None  # the last one written, and its job
        self._keeper = ProgressKeeper()

    def take_turn(self) -> bool:
        """Do one thing for a lease or claim one; return whether there was anything to do."""
        self._ledger.refresh()
        if any(self._try_lease(shard) for shard in self._list_leases()):
            return True
        return any(self._claim(event) for event in self._ledger.iterate(JobCreated))

    def _try_lease(self, shard: Shard) -> bool:
        """Serve a lease; one that cannot be served now must not starve the others."""
        try:
            return self._serve_lease(shard)
        except (NotFound, ProtocolError) as error:
            facts = {"lease": shard.lease_id, "reason": str(error)}
            if self._reasons.get(shard.lease_id) != str(error):
                logger.warning("lease not served", extra=facts)
            self._reasons[shard.lease_id] = str(error)
            return False

    def _list_leases(self) -> Iterator[Shard]:
        """Yield this provider's open leases, those that are due before those still training."""
        mine = [
            find_shard(self._ledger, event.lease_id)
            for event in self._ledger.iterate(ShardClaimed)
            if event.provider == self._setup.account.address
        ]
        training = []
        for shard in mine:
            status = self._chain.get_status(shard.lease_id)
            if status is LeaseStatus.LEASED:
                training.append(shard)
            elif status in CLOSED:
                self._forget(shard)
            else:
                yield shard
        yield from training

    def _forget(self, shard: Shard) -> None:
        """Drop what was kept of a lease that is over, but for states that another lease needs."""
        path = self._get_path(shard)
        progress = self._keeper.find_newest(path)
        if progress is None:
            return
        self._keeper.wait()
        path.unlink()
        kept = [find_progress(other) for other in path.parent.glob("*.json")]
        needed = {record.state for other in kept if other for record in other.records}
        for record in progress.records:
            if record.state not in needed:
                self._setup.private.delete(Cid(record.state))

    def _serve_lease(self, shard: Shard) -> bool:
        status = self._chain.get_status(shard.lease_id)
        self._ledger.refresh()  # so that it is not behind the status
        if status is LeaseStatus.LEASED:
            return self._train(shard)
        if status is LeaseStatus.DRAWN:
            return self._publish(shard)
        if status is LeaseStatus.AUDIT_COMMITTED:
            return self._open_records(shard)
        if status in EXITS and status not in (LeaseStatus.FORFEITED, LeaseStatus.UNDRAWN):
            return send_exit(self._chain, self._setup.account, shard.lease_id, status)
        return False

    # -- claiming

    def _claim(self, posted: JobCreated) -> bool:
        job_id = posted.job_id
        if job_id in self._refused:
            return False
        status = self._chain.get_job_status(job_id)
        if status is JobStatus.FUNDED:
            return send_seed(self._chain, self._setup.account, job_id)
        if status is not JobStatus.OPEN or self._is_training():
            return False
        job = self._chain.get_job(job_id)
        stake = self._chain.get_provider_stake(self._setup.account.address)
        if job.round >= job.rounds or stake.free < job.stake_per_lease:
            return False
        if self._find_files(posted) is None:
            return False
        return self._claim_first_open(job_id, job.round, job.slots)

    def _is_training(self) -> bool:
        return any(
            self._chain.get_status(shard.lease_id) is LeaseStatus.LEASED
            for shard in self._list_leases()
        )

    def _claim_first_open(self, job_id: int, round_index: int, slots: int) -> bool:
        for slot in range(slots):
            if not self._is_open(job_id, round_index, slot):
                continue
            if not self._can_begin(job_id, round_index, slot):
                return False
            call = self._chain.calls.claim(job_id, round_index, slot)
            claimed = send_if_due(
                self._chain,
                self._setup.account,
                call,
                partial(self._is_open, job_id, round_index, slot),
            )
            if claimed:
                logger.info("shard claimed", extra={"job": job_id, "slot": slot})
            return True
        return False

    def _is_open(self, job_id: int, round_index: int, slot: int) -> bool:
        return self._chain.find_lease(job_id, round_index, slot) is None

    def _can_begin(self, job_id: int, round_index: int, slot: int) -> bool:
        """Check, before the stake is at risk, that all that the shard begins from can be fetched."""
        try:
            self._compute_prestate(self._get_files(job_id), job_id, round_index, slot)
        except (NotFound, ProtocolError) as error:
            logger.info(
                "shard not begun", extra={"job": job_id, "slot": slot, "reason": str(error)}
            )
            return False
        return True

    def _compute_prestate(self, files: JobFiles, job_id: int, round_index: int, slot: int) -> State:
        """Return the state that a shard begins from; that of the last shard asked for is kept."""
        key = (job_id, round_index, slot)
        if self._prestate is None or self._prestate[0] != key:
            rounds = list_attested(self._chain, job_id, round_index)
            state = compute_prestate(files, self._ledger, self._setup.public, rounds, slot)
            self._prestate = (key, state)
        return self._prestate[1]

    def _find_files(self, posted: JobCreated) -> JobFiles | None:
        """Return a job's files, fetched before its first claim; None for a job that is refused."""
        if posted.job_id not in self._files:
            try:
                spec = fetch_spec(self._setup.public, posted.spec_leaves[7], posted.spec_hash)
                self._files[posted.job_id] = fetch_job(self._setup.public, spec)
            except NotFound:
                return None  # what the job names may still arrive
            except (ProtocolError, TrainingError) as error:
                self._refused.add(posted.job_id)
                logger.warning("job refused", extra={"job": posted.job_id, "reason": str(error)})
                return None
        return self._files[posted.job_id]

    # -- training

    def _get_files(self, job_id: int) -> JobFiles:
        files = self._find_files(self._ledger.get(JobCreated, job_id))
        if files is None:
            raise InvalidSpec(f"job {job_id} was claimed, and its files are no longer to be had")
        return files

    def _get_path(self, shard: Shard) -> Path:
        if shard.lease_id not in self._paths:
            name = name_lease(self._chain, self._ledger, shard)
            self._paths[shard.lease_id] = self._setup.home / "leases" / f"{name}.json"
        return self._paths[shard.lease_id]

    def _get_executor(self, job_id: int) -> Executor:
        if job_id not in self._executors:
            self._executors[job_id] = self._setup.build_executor(self._get_files(job_id))
        return self._executors[job_id]

    def _train(self, shard: Shard) -> bool:
        """Train one more segment, or commit when all are done."""
        files = self._get_files(shard.job_id)
        path = self._get_path(shard)
        progress = self._keeper.find_newest(path)
        if progress is None:
            self._begin(files, shard)
        elif progress.segments < files.spec.segments:
            self._train_segment(files, shard, progress)
        else:
            self._keeper.wait()
            self._boundary = None
            self._commit(shard, progress)
        return True

    def _begin(self, files: JobFiles, shard: Shard) -> None:
        prestate = self._compute_prestate(files, shard.job_id, shard.round_index, shard.slot)
        roots = compute_state_roots(files.program, prestate)
        boundary = write_boundary(self._setup.private, files.program, prestate, roots)
        self._keep(shard, ShardProgress(records=(boundary.record,)), boundary)
        self._prestate = None

    def _train_segment(self, files: JobFiles, shard: Shard, progress: ShardProgress) -> None:
        spec, setup, program = files.spec, self._setup, files.program
        prestate, before = self._load_state(files, shard, progress.records[-1].state)
        end = setup.train(
            self._get_executor(shard.job_id),
            build_task(self._chain, files, shard),
            prestate,
            progress.segments,
            lambda step: setup.on_step(shard, step, spec.steps) if setup.on_step else None,
        )
        roots, outcome = hash_segment(program, end, before)
        boundary = write_boundary(setup.private, program, end.state, roots, outcome)
        self._keep(shard, progress.extend(boundary.record, end.metrics), boundary)

    def _keep(self, shard: Shard, progress: ShardProgress, boundary: Boundary) -> None:
        self._keeper.begin_save(self._get_path(shard), progress, boundary.draft)
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

    def _commit(self, shard: Shard, progress: ShardProgress) -> None:
        manifest = progress.put_manifest(self._setup.public)
        self._setup.public.put(manifest.document)
        claims = progress.claims
        first, last = (
            StateOpening(
                claims[i].base_root,
                claims[i].slot_root,
                claims[i].outcome,
                tuple(compute_record_branch(claims, i)),
            )
            for i in (0, len(claims) - 1)
        )
        call = self._chain.calls.commit(
            shard.lease_id,
            compute_trace_root(claims),
            first,
            last,
            compute_digest(manifest.document),
        )
        if self._send_for(shard, call, LeaseStatus.LEASED):
            logger.info("trace committed", extra={"lease": shard.lease_id})

    def _send_for(self, shard: Shard, call: Call, status: LeaseStatus) -> bool:
        return send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(shard.lease_id) is status,
        )

    # -- after the draw

    def _get_progress(self, shard: Shard) -> ShardProgress:
        self._keeper.wait()
        progress = find_progress(self._get_path(shard))
        if progress is None:
            raise InvalidSpec(f"nothing is kept of lease {shard.lease_id}: it cannot be opened")
        return progress

    def _publish(self, shard: Shard) -> bool:
        """Publish what the auditor reads: the drawn prestates and the last state."""
        progress = self._get_progress(shard)
        drawn = self._chain.get_drawn_segments(shard.lease_id)
        cids = [Cid(progress.records[i].state) for i in (*drawn, progress.segments)]
        missing = [cid for cid in cids if not self._setup.public.has(cid)]
        for cid in missing:
            self._setup.public.put_file(self._setup.private.get_path(cid, MAX_STATE_BYTES))
        return bool(missing)

    def _open_records(self, shard: Shard) -> bool:
        progress = self._get_progress(shard)
        claims = progress.claims
        openings = []
        for segment in self._ledger.get(SegmentsDrawn, shard.lease_id).segments:
            record = progress.records[segment + 1]
            openings.append(
                RecordOpening(
                    claims[segment + 1].state_root,
                    record.gradient_root,
                    record.metrics_root,
                    tuple(compute_record_branch(claims, segment + 1)),
                )
            )
        call = self._chain.calls.open(
            shard.lease_id, get_trace(self._ledger, shard.lease_id), openings
        )
        return self._send_for(shard, call, LeaseStatus.AUDIT_COMMITTED)
