"""What the demo measured and saw, gathered from the chain, the store and the clock."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from market.chain.client import Chain
from market.chain.costs import collect_gas
from market.chain.events import (
    AuditMismatched,
    JobCreated,
    LeaseSettled,
    LeaseSlashed,
    SegmentsDrawn,
    ShardAttested,
    ShardClaimed,
    TraceCommitted,
)
from market.chain.ledger import Ledger
from market.protocol.spec import HexHash, Wei
from market.storage.blobs import BlobStore
from trainer.evidence import fetch_manifest, fetch_metrics
from trainer.jobs import JobFiles
from verifier.demo.plot import Curve


class LeaseFigures(BaseModel):
    """A lease as it ended."""

    lease_id: int
    provider: str
    shard: tuple[int, int]  # round, slot
    status: str
    segments: int
    audited: list[int]


class SlashFigures(BaseModel):
    """Why a stake was lost: the first record that an auditor could not reproduce."""

    lease_id: int
    provider: str
    amount: Wei
    to_auditor: Wei
    record_index: int
    claimed: HexHash
    audited: HexHash


class DemoFigures(BaseModel):
    """What `--json` writes."""

    parameters: int
    loss_before: float
    loss_after: float
    loss_after_fp32: float
    sample: str
    leases: list[LeaseFigures]
    slashed: list[str]
    slashes: list[SlashFigures]
    paid: dict[str, Wei]
    escrow_in: Wei
    audit_coverage: float  # audited segments of attested shards / their segments
    gas: dict[str, list[int]]
    gas_lifecycle: (
        int  # means of claim, commit, draw, commitAudit, open, reveal and settle, added up
    )
    seconds: dict[str, float]
    total_seconds: float
    peak_memory_bytes: int
    model: str
    receipt: str
    receipt_holds: bool
    plot: str


LIFECYCLE = ("claim", "commit", "draw", "commitAudit", "open", "reveal", "settle")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    chain: Chain
    ledger: Ledger
    store: BlobStore
    files: JobFiles
    job_id: int

    def list_leases(self) -> list[LeaseFigures]:
        """Return every lease of the job."""
        found = []
        for claimed in self.ledger.iterate(ShardClaimed):
            drawn = self.ledger.find(SegmentsDrawn, claimed.lease_id)
            found.append(
                LeaseFigures(
                    lease_id=claimed.lease_id,
                    provider=claimed.provider,
                    shard=(claimed.round, claimed.slot),
                    status=self.chain.get_status(claimed.lease_id).name.lower(),
                    segments=self.files.spec.segments,
                    audited=list(drawn.segments) if drawn else [],
                )
            )
        return found

    def list_slashes(self) -> list[SlashFigures]:
        """Return every slash that a mismatch led to."""
        found = []
        for event in self.ledger.iterate(LeaseSlashed):
            mismatch = self.ledger.get(AuditMismatched, event.lease_id)
            found.append(
                SlashFigures(
                    lease_id=event.lease_id,
                    provider=event.provider,
                    amount=event.amount,
                    to_auditor=event.to_auditor,
                    record_index=mismatch.record_index,
                    claimed=mismatch.claimed_record,
                    audited=mismatch.audited_record,
                )
            )
        return found

    def sum_payments(self) -> dict[str, int]:
        """Return what each provider was paid and each auditor earned, in wei."""
        paid: dict[str, int] = defaultdict(int)
        for settled in self.ledger.iterate(LeaseSettled):
            paid[settled.provider] += settled.amount
        for attested in self.ledger.iterate(ShardAttested):
            paid[attested.auditor] += self.files.spec.terms.audit_fee
        for slashed in self.ledger.iterate(LeaseSlashed):
            auditor = self.ledger.get(SegmentsDrawn, slashed.lease_id).auditor
            paid[auditor] += slashed.to_auditor
        return dict(paid)

    def get_escrow(self) -> int:
        """Return what the requester paid in, in wei."""
        terms = self.ledger.get(JobCreated, self.job_id).terms
        shards = self.files.spec.rounds * self.files.spec.slots
        return shards * (terms.price_per_shard + terms.audit_fee)

    def compute_coverage(self) -> float:
        """Return the share of the attested shards' segments that were audited."""
        attested = [event.lease_id for event in self.ledger.iterate(ShardAttested)]
        audited = sum(len(self.ledger.get(SegmentsDrawn, lease).segments) for lease in attested)
        return audited / (len(attested) * self.files.spec.segments)

    def measure_gas(self) -> tuple[dict[str, list[int]], int]:
        """Return the gas of every transaction by kind, and that of an honest lease's life."""
        gas = collect_gas(self.chain)
        return gas, sum(sum(gas[kind]) // len(gas[kind]) for kind in LIFECYCLE)

    def list_curves(self, names: Mapping[str, str]) -> list[Curve]:
        """Return the training loss of every committed lease; ``names`` are the providers'."""
        curves = []
        for committed in self.ledger.iterate(TraceCommitted):
            lease = committed.lease_id
            claimed = self.ledger.get(ShardClaimed, lease)
            spec = self.files.spec
            manifest = fetch_manifest(self.ledger, self.store, lease, spec.segments)
            metrics: Tensor = fetch_metrics(self.files, self.store, manifest)
            curves.append(
                Curve(
                    lease,
                    names[claimed.provider],
                    claimed.round,
                    claimed.slot,
                    metrics[:, 0].tolist(),
                    self.ledger.get(SegmentsDrawn, lease).segments,
                    self.ledger.find(AuditMismatched, lease) is not None,
                )
            )
        return curves


def write_figures(figures: DemoFigures, path: Path) -> None:
    """Write what `--json` asks for."""
    path.write_text(figures.model_dump_json(indent=1) + "\n")
