"""What a committed shard shows: its manifest and the states in it, fetched and checked.

Auditor, replay, receipt and the next round's providers all read a shard through this module."""

from dataclasses import dataclass

from torch import Tensor

from market.chain.client import Chain
from market.chain.events import JobCreated, ShardClaimed, TraceCommitted
from market.chain.ledger import Ledger
from market.chain.structs import Trace
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import InvalidBlob, InvalidTransition
from market.protocol.hashing import compute_digest
from market.protocol.manifest import Manifest, decode_manifest
from market.protocol.program import OutputKind, TensorRole
from market.protocol.tensors import TensorType
from market.storage.blobs import BlobStore
from market.storage.cid import Cid, cid_of_digest
from trainer.jobs import JobFiles, fetch_state
from trainer.rounds import compute_next_base
from trainer.shards import ShardTask
from trainer.states import State, compute_state_roots, decode_tensor


@dataclass(frozen=True, slots=True)
class Shard:
    """A leased shard's place in its job."""

    lease_id: int
    job_id: int
    round_index: int
    slot: int
    provider: str


def find_shard(ledger: Ledger, lease_id: int) -> Shard:
    """Return where a lease is in its job."""
    claimed = ledger.get(ShardClaimed, lease_id)
    return Shard(lease_id, claimed.job_id, claimed.round, claimed.slot, claimed.provider)


def name_lease(chain: Chain, ledger: Ledger, shard: Shard) -> str:
    """Return a file name that no other lease has, not even one of that number on another devnet.

    Two chains may give a lease one number at one address, and never one job seed."""
    posted = ledger.get(JobCreated, shard.job_id)
    job = compute_digest(posted.spec_hash + chain.get_seed(shard.job_id).to_bytes(8, "big"))
    return f"{chain.deployment.market}-{shard.lease_id}-{job.hex()[:16]}"


def fetch_manifest(ledger: Ledger, store: BlobStore, lease_id: int, segments: int) -> Manifest:
    """Return the manifest of a committed lease, which leads to its trace root."""
    committed = ledger.find(TraceCommitted, lease_id)
    if committed is None:
        raise InvalidTransition(f"lease {lease_id} has no commitment")
    data = store.get(cid_of_digest(committed.manifest), MAX_DOCUMENT_BYTES)
    return decode_manifest(data, segments, committed.trace_root)


def fetch_record_state(files: JobFiles, store: BlobStore, manifest: Manifest, index: int) -> State:
    """Return the state that record ``index`` asserts; raise InvalidBlob if the bytes are others."""
    entry = manifest.records[index]
    state = fetch_state(store, files.program, entry.state)
    roots = compute_state_roots(files.program, state)
    if (roots.base, roots.slot) != (entry.base_root, entry.slot_root):
        raise InvalidBlob(f"state {entry.state} is not the one that record {index} asserts")
    return state


def fetch_contributions(
    files: JobFiles, ledger: Ledger, store: BlobStore, leases: list[int]
) -> list[State]:
    """Return the poststates of a round's attested ``leases``, by slot."""
    states = []
    for lease_id in leases:
        manifest = fetch_manifest(ledger, store, lease_id, files.spec.segments)
        states.append(fetch_record_state(files, store, manifest, files.spec.segments))
    return states


def compute_base(
    files: JobFiles, ledger: Ledger, store: BlobStore, rounds: list[list[int]]
) -> State:
    """Return the base that follows from the attested leases of ``rounds``, first round first."""
    base = {name: files.initial[name] for name in files.program.find_inputs(TensorRole.BASE)}
    for leases in rounds:
        contributions = fetch_contributions(files, ledger, store, leases)
        base = compute_next_base(files.outer, base, contributions)
    return base


def compute_prestate(
    files: JobFiles, ledger: Ledger, store: BlobStore, rounds: list[list[int]], slot: int
) -> State:
    """Return the state in which ``slot`` begins the round after ``rounds``."""
    names = files.program.find_inputs(TensorRole.SLOT)
    last = files.initial
    if rounds:
        last = fetch_contributions(files, ledger, store, [rounds[-1][slot]])[0]
    base = compute_base(files, ledger, store, rounds)
    return {**base, **{name: last[name] for name in names}}


def get_trace(ledger: Ledger, lease_id: int) -> Trace:
    """Return what a lease committed to, as the contract asks to see it again."""
    committed = ledger.get(TraceCommitted, lease_id)
    return Trace(
        committed.trace_root,
        committed.first_base_root,
        committed.last_base_root,
        committed.last_slot_root,
    )


def list_attested(chain: Chain, job_id: int, rounds: int) -> list[list[int]]:
    """Return the attested leases of the first ``rounds`` of a job, by round and slot."""
    slots = range(chain.get_job(job_id).slots)
    found = [[chain.find_contribution(job_id, r, slot) for slot in slots] for r in range(rounds)]
    return [[lease for lease in leases if lease is not None] for leases in found]


def build_task(chain: Chain, files: JobFiles, shard: Shard) -> ShardTask:
    """Return what ``shard`` trains."""
    return ShardTask(
        files.program,
        files.dataset,
        chain.get_seed(shard.job_id),
        shard.round_index,
        shard.slot,
        files.spec.steps_per_segment,
    )


def fetch_metrics(files: JobFiles, store: BlobStore, manifest: Manifest) -> Tensor:
    """Return the metrics of every step of a shard: f32 [steps, metrics]."""
    outputs = files.program.find_outputs(OutputKind.METRICS)
    (vector,) = (files.program.tensors[tensor].type for tensor in outputs.values())
    kind = TensorType(vector.dtype, (files.spec.steps, *vector.shape))
    return decode_tensor(kind, store.get(Cid(manifest.metrics), kind.nbytes))
