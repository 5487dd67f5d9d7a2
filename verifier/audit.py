"""An audit: the drawn segments of a committed lease, recomputed from what its provider published.

INVARIANT: whoever attests has recomputed each drawn segment, and seen that every shard begins as it must
and that every last state can be fetched: the next rounds begin from those."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from market.chain.client import Chain
from market.chain.events import ShardsClaimed
from market.chain.ledger import Ledger
from market.chain.structs import RecordOpening
from market.protocol.errors import AuditIncomplete, InvalidBlob, InvalidOpening, NotFound
from market.protocol.manifest import Manifest
from market.protocol.records import Reproduction, StateClaim, compute_lease_branch
from market.protocol.spec import HexHash
from market.storage.blobs import BlobStore
from trainer.evidence import (
    Origins,
    Shard,
    build_task,
    fetch_manifest,
    fetch_record_state,
    list_shards,
)
from trainer.execution import Executor
from trainer.jobs import OpenJobs
from trainer.shards import ShardTask, hash_segment, ignore_progress, run_segment
from trainer.states import State


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Difference(_Document):
    """A record that is not what it has to be: record ``index`` of the lease's ``shard``-th shard."""

    shard: int
    index: int
    claimed: HexHash
    recomputed: HexHash


class OpenedRecord(_Document):
    """A record that an audit reproduced, and the branch that opens it."""

    state_root: HexHash
    gradient_root: HexHash
    metrics_root: HexHash
    branch: tuple[HexHash, ...]

    @property
    def opening(self) -> RecordOpening:
        """What the contract is shown."""
        return RecordOpening(self.state_root, self.gradient_root, self.metrics_root, self.branch)


class Audit(_Document):
    """What an auditor found of the ``segments`` drawn: a record for each, or the first difference."""

    segments: tuple[int, ...]
    records: tuple[OpenedRecord, ...]
    difference: Difference | None = None


def reproduce_segment(
    executor: Executor,
    task: ShardTask,
    prestate: State,
    place: tuple[int, int],
    on_step: Callable[[int], None] = ignore_progress,
) -> Reproduction:
    """Return the record that a segment begun at ``prestate`` leads to; ``place`` is its shard and number."""
    shard, segment = place
    end = run_segment(executor, task, prestate, segment, on_step)
    roots, outcome = hash_segment(task.program, end)
    return Reproduction(shard, segment, roots.state, outcome)


@dataclass(frozen=True, slots=True)
class Recomputation:
    """What an audit reads and runs."""

    chain: Chain
    ledger: Ledger
    store: BlobStore
    jobs: OpenJobs
    origins: Origins

    def require_published(self, claimed: ShardsClaimed, drawn: Sequence[int]) -> Manifest:
        """Return the manifest of a lease; raise AuditIncomplete unless all that its audit reads is there."""
        files = self.jobs.get_files(claimed.job_id)
        segments = files.spec.segments
        try:
            manifest = fetch_manifest(self.ledger, self.store, claimed.lease_id, segments)
            for shard in manifest.shards:
                fetch_record_state(files, self.store, shard, segments)
            for number in drawn:
                index, segment = divmod(number, segments)
                fetch_record_state(files, self.store, manifest.shards[index], segment)
        except (NotFound, InvalidBlob, InvalidOpening) as error:
            raise AuditIncomplete(f"lease {claimed.lease_id}: {error}") from error
        return manifest

    def audit(
        self,
        claimed: ShardsClaimed,
        drawn: Sequence[int],
        manifest: Manifest,
        on_step: Callable[[Shard, int], None] | None = None,
    ) -> Audit:
        """Return the audit of the ``drawn`` segments, which ends with the first difference."""
        segments = tuple(drawn)
        difference = self._compare_beginnings(claimed, manifest)
        records: list[OpenedRecord] = []
        for number in segments if difference is None else ():
            found = self._reproduce(claimed, number, manifest, on_step)
            difference = _compare(found, manifest.traces[found.shard][found.segment + 1])
            if difference is not None:
                break
            records.append(_open(found, manifest))
        return Audit(segments=segments, records=tuple(records), difference=difference)

    def _compare_beginnings(self, claimed: ShardsClaimed, manifest: Manifest) -> Difference | None:
        files = self.jobs.get_files(claimed.job_id)
        for shard in list_shards(claimed):
            shown = manifest.traces[shard.index][0].compute_record(0)
            due = self.origins.compute_claim(files, shard).compute_record(0)
            if shown != due:
                return Difference(shard=shard.index, index=0, claimed=shown, recomputed=due)
        return None

    def _reproduce(
        self,
        claimed: ShardsClaimed,
        number: int,
        manifest: Manifest,
        on_step: Callable[[Shard, int], None] | None,
    ) -> Reproduction:
        files = self.jobs.get_files(claimed.job_id)
        index, segment = divmod(number, files.spec.segments)
        shard = list_shards(claimed)[index]
        return reproduce_segment(
            self.jobs.get_executor(claimed.job_id),
            build_task(self.chain, files, shard),
            fetch_record_state(files, self.store, manifest.shards[index], segment),
            (index, segment),
            lambda step: on_step(shard, step) if on_step else None,
        )


def _compare(found: Reproduction, shown: StateClaim) -> Difference | None:
    index = found.segment + 1
    claimed, recomputed = shown.compute_record(index), found.compute_record()
    if claimed == recomputed:
        return None
    return Difference(shard=found.shard, index=index, claimed=claimed, recomputed=recomputed)


def _open(found: Reproduction, manifest: Manifest) -> OpenedRecord:
    return OpenedRecord(
        state_root=found.state_root,
        gradient_root=found.outcome.gradient_root,
        metrics_root=found.outcome.metrics_root,
        branch=tuple(compute_lease_branch(manifest.traces, found.shard, found.segment + 1)),
    )
