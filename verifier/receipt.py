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
    ChallengeClosed,
    JobCreated,
    JobSeeded,
    LeaseSettled,
    LeaseSlashed,
    RecordChallenged,
    RoundClosed,
    SegmentsDrawn,
    ShardsAttested,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.ledger import Ledger
from market.chain.structs import ChallengeStatus, list_slots
from market.protocol.constants import BPS
from market.protocol.errors import InvalidBlob, MarketError
from market.protocol.hashing import Hash32
from market.protocol.program import TensorRole
from market.protocol.records import split_position
from market.protocol.spec import HexHash, JobSpec, Wei
from market.storage.blobs import BlobStore
from trainer.evidence import compute_base, fetch_manifest, list_sets
from trainer.jobs import JobFiles, fetch_job, fetch_spec
from trainer.prepare import read_recipe
from trainer.results import list_aliases
from trainer.states import compute_named_tensor_root, get_tensor_bytes


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LeaseReceipt(_Document):
    """An attested lease: who trained which shards, who audited which segments, what was paid.

    Provider and auditor are operators' numbers. Segment i of its j-th shard of n is number j n + i."""

    lease_id: int
    round: int
    slots: tuple[int, ...]
    provider: int
    auditor: int
    audited: tuple[int, ...]
    root: HexHash
    manifest: HexHash
    contributions: tuple[HexHash, ...]  # the base roots with which its shards end
    attested_tx: str
    paid: Wei
    fee: Wei
    settled_tx: str | None


class SlashReceipt(_Document):
    """A slashed lease: why, what it lost, and the record that was accused, where one was."""

    lease_id: int
    provider: int
    reason: str
    amount: Wei
    rewarded: Wei
    shard: int | None
    record_index: int | None
    claimed: HexHash | None
    tx: str


class RoundReceipt(_Document):
    """A closed round: the slots of its set, and those that are missing contribute nothing."""

    round: int
    slots: tuple[int, ...]


class Receipt(_Document):
    """A finished job, as the chain and the store show it."""

    version: Annotated[int, Field(ge=2, le=2)] = 2
    chain_id: int
    market: str
    job_id: int
    requester: str
    spec_hash: HexHash
    document: HexHash
    seed: Annotated[str, Field(pattern=r"^\d{1,20}$")]
    rounds: tuple[RoundReceipt, ...]
    leases: tuple[LeaseReceipt, ...]
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


@dataclass(frozen=True, slots=True)
class Books:
    """Where a receipt is made from and checked against."""

    chain: Chain
    ledger: Ledger
    store: BlobStore
    files: JobFiles
    job_id: int

    def list_rounds(self) -> tuple[RoundReceipt, ...]:
        """Return the job's closed rounds."""
        return tuple(
            RoundReceipt(round=event.round, slots=tuple(list_slots(event.attested)))
            for event in self.ledger.iterate(RoundClosed)
            if event.job_id == self.job_id
        )

    def list_leases(self) -> tuple[LeaseReceipt, ...]:
        """Return the leases that are in the rounds' sets, by round and slot."""
        sets = list_sets(self.ledger, self.job_id, self.chain.get_job(self.job_id).round)
        numbers = {
            shard.lease_id: None for closed in sets for _, shard in sorted(closed.items())
        }  # a set that keeps their order
        return tuple(self._build_lease(lease_id) for lease_id in numbers)

    def _build_lease(self, lease_id: int) -> LeaseReceipt:
        ledger = self.ledger
        claimed = ledger.get(ShardsClaimed, lease_id)
        committed = ledger.get(TraceCommitted, lease_id)
        attested = ledger.get(ShardsAttested, lease_id)
        settled = ledger.find(LeaseSettled, lease_id)
        manifest = fetch_manifest(ledger, self.store, lease_id, self.files.spec.segments)
        return LeaseReceipt(
            lease_id=lease_id,
            round=claimed.round,
            slots=tuple(range(claimed.first, claimed.first + claimed.count)),
            provider=claimed.operator,
            auditor=attested.auditor,
            audited=ledger.get(SegmentsDrawn, lease_id).segments,
            root=committed.root,
            manifest=committed.manifest,
            contributions=tuple(shard.records[-1].base_root for shard in manifest.shards),
            attested_tx=attested.tx_hash,
            paid=settled.pay if settled else 0,
            fee=settled.fee if settled else 0,
            settled_tx=settled.tx_hash if settled else None,
        )

    def list_slashes(self) -> tuple[SlashReceipt, ...]:
        """Return every slash of a lease of the job, oldest first."""
        return tuple(
            self._build_slash(event)
            for event in self.ledger.iterate(LeaseSlashed)
            if self.ledger.get(ShardsClaimed, event.lease_id).job_id == self.job_id
        )

    def _build_slash(self, event: LeaseSlashed) -> SlashReceipt:
        shard, index, record = None, None, None
        accusation = find_upheld(self.ledger, event.lease_id)
        if accusation is not None:
            shard, index = split_position(accusation.position, self.files.spec.segments)
            record = self._find_claim(event.lease_id, shard, index)
        return SlashReceipt(
            lease_id=event.lease_id,
            provider=self.ledger.get(ShardsClaimed, event.lease_id).operator,
            reason=event.reason.name.lower(),
            amount=event.amount,
            rewarded=event.rewarded,
            shard=shard,
            record_index=index,
            claimed=record,
            tx=event.tx_hash,
        )

    def _find_claim(self, lease_id: int, shard: int, index: int) -> Hash32 | None:
        """Return a record as its manifest has it; None where nobody has the manifest any more."""
        try:
            manifest = fetch_manifest(self.ledger, self.store, lease_id, self.files.spec.segments)
        except MarketError:
            return None
        return manifest.traces[shard][index].compute_record(index)

    def compute_model_root(self) -> Hash32:
        """Return the root of the weights that follow from all closed rounds."""
        sets = list_sets(self.ledger, self.job_id, self.chain.get_job(self.job_id).round)
        base = compute_base(self.files, self.ledger, self.store, sets)
        return compute_named_tensor_root(self.files.program.find_inputs(TensorRole.BASE), base)


def find_upheld(ledger: Ledger, lease_id: int) -> RecordChallenged | None:
    """Return the accusation for which a lease was slashed; None where it was slashed for something else."""
    for event in ledger.iterate(RecordChallenged):
        closed = ledger.find(ChallengeClosed, event.challenge_id)
        is_upheld = closed is not None and closed.outcome is ChallengeStatus.UPHELD
        if event.lease_id == lease_id and is_upheld:
            return event
    return None


def build_receipt(books: Books) -> Receipt:
    """Return the receipt of a job as it stands."""
    chain, ledger, job_id = books.chain, books.ledger, books.job_id
    posted = ledger.get(JobCreated, job_id)
    return Receipt(
        chain_id=chain.deployment.chain_id,
        market=chain.deployment.market,
        job_id=job_id,
        requester=posted.requester,
        spec_hash=posted.spec_hash,
        document=posted.spec_leaves[7],
        seed=str(ledger.get(JobSeeded, job_id).seed),
        rounds=books.list_rounds(),
        leases=books.list_leases(),
        slashes=books.list_slashes(),
        model_root=books.compute_model_root(),
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


def _check_rounds(receipt: Receipt, books: Books) -> str | None:
    rounds = books.chain.get_job(receipt.job_id).rounds
    expected = books.list_rounds()
    if len(expected) != rounds:
        return f"{len(expected)} of {rounds} rounds are closed"
    return None if expected == receipt.rounds else "the rounds' sets are otherwise on chain"


def _check_leases(receipt: Receipt, books: Books) -> str | None:
    unpaid = {"paid": 0, "fee": 0, "settled_tx": None}  # which `_check_payments` reads
    expected = [lease.model_copy(update=unpaid) for lease in books.list_leases()]
    claimed = [lease.model_copy(update=unpaid) for lease in receipt.leases]
    for ours, theirs in zip(expected, claimed, strict=False):
        if ours != theirs:
            return f"lease {ours.lease_id} is otherwise on chain, or in its manifest"
    return None if len(expected) == len(claimed) else f"there are {len(expected)} leases"


def _check_payments(receipt: Receipt, books: Books) -> str | None:
    job = books.chain.get_job(receipt.job_id)
    for lease in receipt.leases:
        settled = books.ledger.find(LeaseSettled, lease.lease_id)
        on_chain = (settled.pay, settled.fee, settled.tx_hash) if settled else (0, 0, None)
        if (lease.paid, lease.fee, lease.settled_tx) != on_chain:
            return f"lease {lease.lease_id} was paid {on_chain[0]} wei, not {lease.paid}"
        share = books.ledger.get(ShardsClaimed, lease.lease_id).price_bps
        price = len(lease.slots) * (job.price_per_shard * share // BPS)
        if settled and settled.pay != price:
            return f"lease {lease.lease_id} was paid {settled.pay} wei for a price of {price}"
    return None


def _check_slashes(receipt: Receipt, books: Books) -> str | None:
    expected = books.list_slashes()
    return None if expected == receipt.slashes else f"the chain knows {len(expected)} slashes"


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
    books = Books(chain, ledger, store, files, receipt.job_id)
    checks: dict[str, Callable[[], str | None]] = {
        "every round is closed": lambda: _check_rounds(receipt, books),
        "leases, and manifests that lead to their roots": lambda: _check_leases(receipt, books),
        "payments": lambda: _check_payments(receipt, books),
        "slashes": lambda: _check_slashes(receipt, books),
        "the outer steps lead to the model": lambda: _compare_roots(
            receipt, books.compute_model_root()
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
