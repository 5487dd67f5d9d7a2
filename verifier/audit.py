"""An audit: drawn segments of a committed shard, recomputed from what the provider published.

It returns what the auditor reproduced and never compares: the chain does that after both are fixed."""

from collections.abc import Callable
from dataclasses import dataclass

from market.chain.client import Chain
from market.chain.ledger import Ledger
from market.protocol.errors import AuditIncomplete, InvalidBlob, InvalidOpening, NotFound
from market.protocol.hashing import Hash32
from market.protocol.program import TensorRole
from market.protocol.records import Reproduction
from market.storage.blobs import BlobStore
from trainer.evidence import (
    Shard,
    build_task,
    compute_base,
    fetch_manifest,
    fetch_record_state,
    list_attested,
)
from trainer.execution import Executor
from trainer.jobs import JobFiles
from trainer.shards import ShardTask, hash_segment, ignore_progress, run_segment
from trainer.states import State, compute_named_tensor_root


@dataclass(frozen=True, slots=True)
class Audit:
    """What an auditor names: the base it computed and each drawn segment's next record."""

    base_root: Hash32
    reproductions: tuple[Reproduction, ...]


def reproduce_segment(
    executor: Executor,
    task: ShardTask,
    prestate: State,
    segment: int,
    on_step: Callable[[int], None] = ignore_progress,
) -> Reproduction:
    """Return the record that ``segment`` begun at ``prestate`` leads to."""
    end = run_segment(executor, task, prestate, segment, on_step)
    roots, outcome = hash_segment(task.program, end)
    return Reproduction(segment, roots.state, outcome)


def compute_base_root(
    files: JobFiles, chain: Chain, ledger: Ledger, store: BlobStore, shard: Shard
) -> Hash32:
    """Return the root of the base from which ``shard`` had to begin."""
    base = compute_base(files, ledger, store, list_attested(chain, shard.job_id, shard.round_index))
    return compute_named_tensor_root(files.program.find_inputs(TensorRole.BASE), base)


def audit_shard(  # noqa: PLR0913 - what an audit reads
    files: JobFiles,
    executor: Executor,
    chain: Chain,
    ledger: Ledger,
    store: BlobStore,
    shard: Shard,
    on_step: Callable[[int], None] = ignore_progress,
) -> Audit:
    """Return the audit of the segments drawn for ``shard``.

    Raises AuditIncomplete where the provider has not published what its commitment names."""
    segments = chain.get_drawn_segments(shard.lease_id)
    try:
        manifest = fetch_manifest(ledger, store, shard.lease_id, files.spec.segments)
        prestates = [fetch_record_state(files, store, manifest, i) for i in segments]
        fetch_record_state(files, store, manifest, files.spec.segments)  # the next round's input
        base_root = compute_base_root(files, chain, ledger, store, shard)
    except (NotFound, InvalidBlob, InvalidOpening) as error:
        raise AuditIncomplete(f"lease {shard.lease_id}: {error}") from error
    task = build_task(chain, files, shard)
    return Audit(
        base_root,
        tuple(
            reproduce_segment(executor, task, prestate, segment, on_step)
            for segment, prestate in zip(segments, prestates, strict=True)
        ),
    )
