"""The receipt of a job: what was trained, audited, paid and slashed, for anyone to check again.

Checking it reads the chain, the store and the model's file; nothing is trained again."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from market.chain.client import Chain
from market.chain.events import (
    AuditMismatched,
    JobCreated,
    JobSeeded,
    LeaseSettled,
    LeaseSlashed,
    SegmentsDrawn,
    ShardAttested,
    ShardClaimed,
    TraceCommitted,
)
from market.chain.ledger import Ledger
from market.protocol.errors import InvalidBlob, MarketError
from market.protocol.hashing import Hash32
from market.protocol.lifecycle import LeaseStatus
from market.protocol.program import TensorRole
from market.protocol.spec import HexHash, JobSpec, Wei
from market.storage.blobs import BlobStore
from trainer.evidence import compute_base, fetch_manifest, list_attested
from trainer.jobs import JobFiles, fetch_job, fetch_spec
from trainer.prepare import read_recipe
from trainer.results import list_aliases
from trainer.states import compute_named_tensor_root, get_tensor_bytes


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ShardReceipt(_Document):
    """One attested shard: who trained it, who audited which segments, what was paid."""

    round: int
    slot: int
    lease_id: int
    provider: str
    auditor: str
    audited: tuple[int, ...]
    trace_root: HexHash
    manifest: HexHash
    contribution: HexHash
    attested_tx: str
    paid: Wei
    settled_tx: str | None


class SlashReceipt(_Document):
    """One slashed lease: why, what it lost, and both values of the record that gave it away."""

    lease_id: int
    provider: str
    reason: str
    amount: Wei
    to_auditor: Wei
    record_index: int | None
    claimed: HexHash | None
    audited: HexHash | None
    tx: str


class Receipt(_Document):
    """A finished job, as the chain and the store show it."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    chain_id: int
    market: str
    job_id: int
    requester: str
    spec_hash: HexHash
    document: HexHash
    seed: Annotated[str, Field(pattern=r"^\d{1,20}$")]
    shards: tuple[ShardReceipt, ...]
    slashes: tuple[SlashReceipt, ...]
    model_root: HexHash

    @property
    def text(self) -> str:
        """The receipt as JSON that people can read."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def read_receipt(path: Path) -> Receipt:
    """Return the receipt in a file; raise InvalidBlob naming the first field at fault."""
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the document"
        raise InvalidBlob(f"{path} is no receipt: {place}: {fault['msg']}") from error


def _build_shard(ledger: Ledger, lease_id: int) -> ShardReceipt:
    claimed, committed = ledger.get(ShardClaimed, lease_id), ledger.get(TraceCommitted, lease_id)
    attested = ledger.get(ShardAttested, lease_id)
    settled = ledger.find(LeaseSettled, lease_id)
    return ShardReceipt(
        round=claimed.round,
        slot=claimed.slot,
        lease_id=lease_id,
        provider=claimed.provider,
        auditor=attested.auditor,
        audited=ledger.get(SegmentsDrawn, lease_id).segments,
        trace_root=committed.trace_root,
        manifest=committed.manifest,
        contribution=attested.contribution,
        attested_tx=attested.tx_hash,
        paid=settled.amount if settled else 0,
        settled_tx=settled.tx_hash if settled else None,
    )


def _build_slash(ledger: Ledger, event: LeaseSlashed) -> SlashReceipt:
    mismatch = ledger.find(AuditMismatched, event.lease_id)
    if event.reason is not LeaseStatus.FORFEITED:
        mismatch = None
    return SlashReceipt(
        lease_id=event.lease_id,
        provider=event.provider,
        reason=event.reason.name.lower(),
        amount=event.amount,
        to_auditor=event.to_auditor,
        record_index=mismatch.record_index if mismatch else None,
        claimed=mismatch.claimed_record if mismatch else None,
        audited=mismatch.audited_record if mismatch else None,
        tx=event.tx_hash,
    )


def _list_slashes(ledger: Ledger, job_id: int) -> tuple[SlashReceipt, ...]:
    """Return every slash of a lease of the job, oldest first."""
    return tuple(
        _build_slash(ledger, event)
        for event in ledger.iterate(LeaseSlashed)
        if ledger.get(ShardClaimed, event.lease_id).job_id == job_id
    )


def compute_model_root(
    files: JobFiles, chain: Chain, ledger: Ledger, store: BlobStore, job_id: int
) -> Hash32:
    """Return the root of the weights that follow from all rounds' attested shards."""
    base = compute_base(
        files, ledger, store, list_attested(chain, job_id, chain.get_job(job_id).rounds)
    )
    return compute_named_tensor_root(files.program.find_inputs(TensorRole.BASE), base)


def build_receipt(
    chain: Chain, ledger: Ledger, store: BlobStore, files: JobFiles, job_id: int
) -> Receipt:
    """Return the receipt of a job as it stands."""
    posted = ledger.get(JobCreated, job_id)
    leases = [
        lease
        for leases in list_attested(chain, job_id, chain.get_job(job_id).rounds)
        for lease in leases
    ]
    return Receipt(
        chain_id=chain.deployment.chain_id,
        market=chain.deployment.market,
        job_id=job_id,
        requester=posted.requester,
        spec_hash=posted.spec_hash,
        document=posted.spec_leaves[7],
        seed=str(ledger.get(JobSeeded, job_id).seed),
        shards=tuple(_build_shard(ledger, lease) for lease in leases),
        slashes=_list_slashes(ledger, job_id),
        model_root=compute_model_root(files, chain, ledger, store, job_id),
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a receipt claims, and what is wrong with it (None where it holds)."""

    name: str
    fault: str | None


def _find_fault(check: Callable[[], str | None]) -> str | None:
    """Return what ``check`` finds; what it cannot read is a fault as well."""
    try:
        return check()
    except MarketError as error:
        return str(error)


def _check_job(receipt: Receipt, chain: Chain, store: BlobStore) -> str | None:
    if chain.get_chain_id() != receipt.chain_id or chain.deployment.market != receipt.market:
        return f"the receipt is of market {receipt.market} on chain {receipt.chain_id}"
    fetch_spec(store, receipt.document, receipt.spec_hash)
    recorded = chain.get_job(receipt.job_id).spec_hash
    return None if receipt.spec_hash == recorded else f"the spec hash on chain is {recorded.hex()}"


def _check_shards(receipt: Receipt, chain: Chain, ledger: Ledger) -> str | None:
    leases = [
        lease
        for leases in list_attested(chain, receipt.job_id, chain.get_job(receipt.job_id).rounds)
        for lease in leases
    ]
    job = chain.get_job(receipt.job_id)
    if len(leases) != job.rounds * job.slots:
        return f"{len(leases)} of {job.rounds * job.slots} shards are attested"
    expected = tuple(_build_shard(ledger, lease) for lease in leases)
    for ours, theirs in zip(expected, receipt.shards, strict=False):
        if ours.model_copy(update={"paid": 0, "settled_tx": None}) != theirs.model_copy(
            update={"paid": 0, "settled_tx": None}
        ):
            return f"lease {ours.lease_id} is otherwise on chain"
    return None if len(expected) == len(receipt.shards) else "shards are missing from the receipt"


def _check_payments(receipt: Receipt, chain: Chain, ledger: Ledger) -> str | None:
    price = chain.get_job(receipt.job_id).price_per_shard
    for shard in receipt.shards:
        settled = ledger.find(LeaseSettled, shard.lease_id)
        on_chain = (settled.amount, settled.tx_hash) if settled else (0, None)
        if (shard.paid, shard.settled_tx) != on_chain:
            return f"lease {shard.lease_id} was paid {on_chain[0]} wei, not {shard.paid}"
        if settled and settled.amount != price:
            return f"lease {shard.lease_id} was paid {settled.amount} wei for a price of {price}"
    return None


def _check_slashes(receipt: Receipt, ledger: Ledger) -> str | None:
    expected = _list_slashes(ledger, receipt.job_id)
    return None if expected == receipt.slashes else f"the chain knows {len(expected)} slashes"


def _check_traces(
    receipt: Receipt, ledger: Ledger, store: BlobStore, files: JobFiles
) -> str | None:
    for shard in receipt.shards:
        manifest = fetch_manifest(ledger, store, shard.lease_id, files.spec.segments)
        if manifest.records[-1].base_root != shard.contribution:
            return f"lease {shard.lease_id} contributes another state than its trace ends with"
    return None


def _holds_only_aliases(spec: JobSpec, tensors: Mapping[str, Tensor], strange: set[str]) -> bool:
    """Check that ``strange`` tensors are the other names of tied ones, and equal to them."""
    aliases = list_aliases(read_recipe(spec).build_model())
    return all(
        name in aliases
        and get_tensor_bytes(tensors[name]) == get_tensor_bytes(tensors[aliases[name]])
        for name in strange
    )


def compute_file_root(files: JobFiles, model: Path) -> Hash32:
    """Return the root of the weights in a safetensors file."""
    types = files.program.find_inputs(TensorRole.BASE)
    try:
        tensors = load_file(model)
    except (SafetensorError, OSError) as error:
        raise InvalidBlob(f"{model} is no safetensors file: {error}") from error
    strange = set(tensors) - set(types)
    is_whole = set(types) <= set(tensors)
    if not is_whole or (strange and not _holds_only_aliases(files.spec, tensors, strange)):
        raise InvalidBlob(f"{model} holds other tensors than the job's program")
    return compute_named_tensor_root(types, tensors)


def check_receipt(
    receipt: Receipt, chain: Chain, ledger: Ledger, store: BlobStore, model: Path | None
) -> Iterator[Check]:
    """Yield what ``receipt`` claims, each with its fault; ``model`` is the weights' file, if at hand."""
    fault = _find_fault(lambda: _check_job(receipt, chain, store))
    yield Check("the job and its spec", fault)
    if fault:
        return
    ledger.refresh()
    files = fetch_job(store, fetch_spec(store, receipt.document, receipt.spec_hash))
    checks: dict[str, Callable[[], str | None]] = {
        "every shard is attested": lambda: _check_shards(receipt, chain, ledger),
        "manifests lead to the trace roots": lambda: _check_traces(receipt, ledger, store, files),
        "payments": lambda: _check_payments(receipt, chain, ledger),
        "slashes": lambda: _check_slashes(receipt, ledger),
        "the outer steps lead to the model": lambda: _compare_roots(
            receipt, compute_model_root(files, chain, ledger, store, receipt.job_id)
        ),
    }
    if model is not None:
        checks[f"{model.name} is that model"] = lambda: _compare_roots(
            receipt, compute_file_root(files, model)
        )
    for name, check in checks.items():
        yield Check(name, _find_fault(check))


def _compare_roots(receipt: Receipt, root: Hash32) -> str | None:
    return None if root == receipt.model_root else f"its root is {root.hex()}"
