"""What a committed lease shows: its manifest and the states in it, fetched and checked.

Auditor, replay, receipt and the next round's providers all read a lease through this module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from market.chain.client import Chain
from market.chain.events import (
    JobCreated,
    RoundClosed,
    ShardsAttested,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.ledger import Ledger, find_contributions
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import InvalidBlob, InvalidTransition
from market.protocol.hashing import compute_digest
from market.protocol.manifest import Manifest, ShardRecords, decode_manifest
from market.protocol.program import OutputKind, TensorRole
from market.protocol.records import StateClaim
from market.protocol.tensors import TensorType
from market.storage.blobs import BlobStore
from market.storage.cid import Cid, cid_of_digest
from trainer.jobs import JobFiles, fetch_state
from trainer.rounds import compute_next_base
from trainer.shards import ShardTask
from trainer.states import State, compute_named_tensor_root, compute_state_roots, decode_tensor


@dataclass(frozen=True, slots=True)
class Shard:
    """A leased shard's place in its job: the lease's ``index``-th, from 0."""

    lease_id: int
    job_id: int
    round_index: int
    slot: int
    index: int


# The shard by which each slot of a closed round's set was attested; a slot that is missing has none.
RoundSet = Mapping[int, Shard]


def list_shards(claimed: ShardsClaimed) -> list[Shard]:
    """Return the shards of a lease, in the order of their slots."""
    place = claimed.lease_id, claimed.job_id, claimed.round
    return [Shard(*place, claimed.first + index, index) for index in range(claimed.count)]


def find_shard(ledger: Ledger, lease_id: int, slot: int) -> Shard:
    """Return a lease's shard of ``slot``, which it has."""
    claimed = ledger.get(ShardsClaimed, lease_id)
    return list_shards(claimed)[slot - claimed.first]


def name_lease(chain: Chain, ledger: Ledger, claimed: ShardsClaimed) -> str:
    """Return a file name that no other lease has, not even one of that number on another devnet.

    Two chains may give a lease one number at one address, and never one job seed."""
    posted = ledger.get(JobCreated, claimed.job_id)
    job = compute_digest(posted.spec_hash + chain.get_seed(claimed.job_id).to_bytes(8, "big"))
    return f"{chain.deployment.market}-{claimed.lease_id}-{job.hex()[:16]}"


def fetch_manifest(ledger: Ledger, store: BlobStore, lease_id: int, segments: int) -> Manifest:
    """Return the manifest of a committed lease, which leads to its root."""
    committed = ledger.find(TraceCommitted, lease_id)
    if committed is None:
        raise InvalidTransition(f"lease {lease_id} has no commitment")
    count = ledger.get(ShardsClaimed, lease_id).count
    data = store.get(cid_of_digest(committed.manifest), MAX_DOCUMENT_BYTES)
    return decode_manifest(data, count, segments, committed.root)


def fetch_record_state(files: JobFiles, store: BlobStore, shard: ShardRecords, index: int) -> State:
    """Return the state that record ``index`` asserts; raise InvalidBlob if the bytes are others."""
    entry = shard.records[index]
    state = fetch_state(store, files.program, entry.state)
    roots = compute_state_roots(files.program, state)
    if (roots.base, roots.slot) != (entry.base_root, entry.slot_root):
        raise InvalidBlob(f"state {entry.state} is not the one that record {index} asserts")
    return state


def fetch_shard(files: JobFiles, ledger: Ledger, store: BlobStore, shard: Shard) -> ShardRecords:
    """Return the records of a committed shard."""
    return fetch_manifest(ledger, store, shard.lease_id, files.spec.segments).shards[shard.index]


def fetch_poststate(files: JobFiles, ledger: Ledger, store: BlobStore, shard: Shard) -> State:
    """Return the state with which a committed shard ends."""
    records = fetch_shard(files, ledger, store, shard)
    return fetch_record_state(files, store, records, files.spec.segments)


def list_sets(ledger: Ledger, job_id: int, rounds: int) -> list[RoundSet]:
    """Return the sets of a job's first ``rounds`` rounds; raise InvalidTransition if one is not closed."""
    bits = {e.round: e.attested for e in ledger.iterate(RoundClosed) if e.job_id == job_id}
    found: list[RoundSet] = []
    for r in range(rounds):
        if r not in bits:
            raise InvalidTransition(f"round {r} of job {job_id} is not closed")
        events = ledger.iterate(ShardsClaimed, ShardsAttested)
        leases = find_contributions(events, job_id, r, bits[r])
        found.append({slot: find_shard(ledger, lease, slot) for slot, lease in leases.items()})
    return found


def find_last(sets: Sequence[RoundSet], slot: int) -> Shard | None:
    """Return the shard from whose last state ``slot`` goes on; None where it has the spec's yet."""
    return next((closed[slot] for closed in reversed(sets) if slot in closed), None)


def compute_base(
    files: JobFiles, ledger: Ledger, store: BlobStore, sets: Sequence[RoundSet]
) -> State:
    """Return the base that follows from the ``sets`` of all rounds so far."""
    base = _get_first_base(files)
    for closed in sets:
        base = _apply_set(files, ledger, store, base, closed)
    return base


def _get_first_base(files: JobFiles) -> State:
    return {name: files.initial[name] for name in files.program.find_inputs(TensorRole.BASE)}


def _apply_set(
    files: JobFiles, ledger: Ledger, store: BlobStore, base: State, closed: RoundSet
) -> State:
    contributions = [
        fetch_poststate(files, ledger, store, closed[slot]) if slot in closed else None
        for slot in range(files.spec.slots)
    ]
    return compute_next_base(files.outer, base, contributions)


class Origins:
    """What the shards of a round begin from. The last base asked for is kept: the next follows from it."""

    def __init__(self, ledger: Ledger, store: BlobStore) -> None:
        self._ledger = ledger
        self._store = store
        self._kept: tuple[int, list[RoundSet], State] | None = None  # of a job, after these sets

    def compute_prestate(self, files: JobFiles, job_id: int, round_index: int, slot: int) -> State:
        """Return the state in which the shard of ``slot`` begins."""
        sets = list_sets(self._ledger, job_id, round_index)
        base = self._compute_base(files, job_id, sets)
        last, state = find_last(sets, slot), files.initial
        if last is not None:
            state = fetch_poststate(files, self._ledger, self._store, last)
        return {
            **base,
            **{name: state[name] for name in files.program.find_inputs(TensorRole.SLOT)},
        }

    def compute_claim(self, files: JobFiles, shard: Shard) -> StateClaim:
        """Return what record 0 of ``shard`` has to say."""
        sets = list_sets(self._ledger, shard.job_id, shard.round_index)
        base = self._compute_base(files, shard.job_id, sets)
        root = compute_named_tensor_root(files.program.find_inputs(TensorRole.BASE), base)
        last = find_last(sets, shard.slot)
        if last is None:
            return StateClaim(root, files.spec.initial_state.slot_root)
        ended = fetch_shard(files, self._ledger, self._store, last).records[-1]
        return StateClaim(root, ended.slot_root)

    def _compute_base(self, files: JobFiles, job_id: int, sets: list[RoundSet]) -> State:
        done, base = 0, _get_first_base(files)
        if self._kept is not None:
            kept_job, before, kept = self._kept
            if kept_job == job_id and before == sets[: len(before)]:
                done, base = len(before), kept
        for closed in sets[done:]:
            base = _apply_set(files, self._ledger, self._store, base, closed)
        self._kept = job_id, sets, base
        return base


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


def fetch_metrics(files: JobFiles, store: BlobStore, shard: ShardRecords) -> Tensor:
    """Return the metrics of every step of a shard: f32 [steps, metrics]."""
    outputs = files.program.find_outputs(OutputKind.METRICS)
    (vector,) = (files.program.tensors[tensor].type for tensor in outputs.values())
    kind = TensorType(vector.dtype, (files.spec.steps, *vector.shape))
    return decode_tensor(kind, store.get(Cid(shard.metrics), kind.nbytes))
