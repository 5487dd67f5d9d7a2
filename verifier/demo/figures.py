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
    JobCreated,
    LeaseSettled,
    LeaseSlashed,
    OperatorRegistered,
    SegmentsDrawn,
    ShardsAttested,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.ledger import Ledger
from market.protocol.errors import NotFound
from market.protocol.records import split_position
from market.protocol.spec import HexHash, Wei
from market.storage.blobs import BlobStore
from trainer.evidence import Shard, fetch_manifest, fetch_metrics, list_shards, name_lease
from trainer.jobs import JobFiles
from verifier.audit import Audit
from verifier.demo.cast import EVERYBODY
from verifier.demo.plot import Curve
from verifier.receipt import find_upheld


class LeaseFigures(BaseModel):
    """A lease as it ended."""

    lease_id: int
    provider: str
    round: int
    slots: list[int]
    status: str
    segments: int
    audited: list[int]


class SlashFigures(BaseModel):
    """Why a stake was lost: the first record that an auditor could not reproduce."""

    lease_id: int
    provider: str
    amount: Wei
    rewarded: Wei
    shard: int
    record_index: int
    claimed: HexHash
    recomputed: HexHash


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
    gas_lifecycle: int  # means of claim, commit, draw, attest and settle, added up
    seconds: dict[str, float]
    total_seconds: float
    peak_memory_bytes: int
    model: str
    receipt: str
    receipt_holds: bool
    plot: str


LIFECYCLE = ("claim", "commit", "draw", "attest", "settle")


def name_operators(ledger: Ledger) -> dict[int, str]:
    """Return the party that owns each operator, by name."""
    parties = {party.address: party.name for party in EVERYBODY}
    registered = ledger.iterate(OperatorRegistered)
    return {event.operator: parties[event.owner] for event in registered}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    chain: Chain
    ledger: Ledger
    store: BlobStore
    home: Path
    files: JobFiles
    job_id: int
    names: Mapping[int, str]  # of operators

    def list_leases(self) -> list[LeaseFigures]:
        """Return every lease of the job."""
        found = []
        for claimed in self.ledger.iterate(ShardsClaimed):
            drawn = self.ledger.find(SegmentsDrawn, claimed.lease_id)
            found.append(
                LeaseFigures(
                    lease_id=claimed.lease_id,
                    provider=self.names[claimed.operator],
                    round=claimed.round,
                    slots=list(range(claimed.first, claimed.first + claimed.count)),
                    status=self.chain.get_status(claimed.lease_id).name.lower(),
                    segments=claimed.count * self.files.spec.segments,
                    audited=list(drawn.segments) if drawn else [],
                )
            )
        return found

    def list_slashes(self) -> list[SlashFigures]:
        """Return every slash that an accusation led to, with what its auditor computed instead."""
        found = []
        for event in self.ledger.iterate(LeaseSlashed):
            claimed = self.ledger.get(ShardsClaimed, event.lease_id)
            difference = self._read_audit(claimed).difference
            if difference is None:
                continue
            found.append(
                SlashFigures(
                    lease_id=event.lease_id,
                    provider=self.names[claimed.operator],
                    amount=event.amount,
                    rewarded=event.rewarded,
                    shard=difference.shard,
                    record_index=difference.index,
                    claimed=difference.claimed,
                    recomputed=difference.recomputed,
                )
            )
        return found

    def _read_audit(self, claimed: ShardsClaimed) -> Audit:
        """Return what the auditor of a lease keeps of it."""
        auditor = self._name_auditor(claimed.lease_id)
        name = name_lease(self.chain, self.ledger, claimed)
        path = self.home / auditor / "audits" / f"{name}.json"
        if not path.exists():
            raise NotFound(f"{auditor} keeps no audit of lease {claimed.lease_id}")
        return Audit.model_validate_json(path.read_bytes())

    def sum_payments(self) -> dict[str, int]:
        """Return what each party has earned, in wei."""
        paid: dict[str, int] = defaultdict(int)
        for settled in self.ledger.iterate(LeaseSettled):
            provider = self.ledger.get(ShardsClaimed, settled.lease_id).operator
            paid[self.names[provider]] += settled.pay
            paid[self._name_auditor(settled.lease_id)] += settled.fee
        for slashed in self.ledger.iterate(LeaseSlashed):
            paid[self._name_auditor(slashed.lease_id)] += slashed.rewarded
        return dict(paid)

    def _name_auditor(self, lease_id: int) -> str:
        return self.names[self.ledger.get(SegmentsDrawn, lease_id).auditor]

    def get_escrow(self) -> int:
        """Return what the requester paid in, in wei."""
        terms = self.ledger.get(JobCreated, self.job_id).terms
        shards = self.files.spec.rounds * self.files.spec.slots
        return shards * (terms.price_per_shard + terms.audit_fee)

    def compute_coverage(self) -> float:
        """Return the share of the attested shards' segments that were audited."""
        attested = [event.lease_id for event in self.ledger.iterate(ShardsAttested)]
        audited = sum(len(self.ledger.get(SegmentsDrawn, lease).segments) for lease in attested)
        shards = sum(self.ledger.get(ShardsClaimed, lease).count for lease in attested)
        return audited / (shards * self.files.spec.segments)

    def measure_gas(self) -> tuple[dict[str, list[int]], int]:
        """Return the gas of every transaction by kind, and that of an honest lease's life."""
        gas = collect_gas(self.chain)
        return gas, sum(sum(gas[kind]) // len(gas[kind]) for kind in LIFECYCLE)

    def list_curves(self) -> list[Curve]:
        """Return the training loss of every committed shard."""
        curves = []
        for committed in self.ledger.iterate(TraceCommitted):
            claimed = self.ledger.get(ShardsClaimed, committed.lease_id)
            curves += [self._build_curve(claimed, shard) for shard in list_shards(claimed)]
        return curves

    def _build_curve(self, claimed: ShardsClaimed, shard: Shard) -> Curve:
        segments, lease_id = self.files.spec.segments, claimed.lease_id
        manifest = fetch_manifest(self.ledger, self.store, lease_id, segments)
        metrics: Tensor = fetch_metrics(self.files, self.store, manifest.shards[shard.index])
        drawn = [divmod(g, segments) for g in self.ledger.get(SegmentsDrawn, lease_id).segments]
        accusation = find_upheld(self.ledger, lease_id)
        return Curve(
            lease_id,
            self.names[claimed.operator],
            shard.round_index,
            shard.slot,
            metrics[:, 0].tolist(),
            [segment for index, segment in drawn if index == shard.index],
            accusation is not None
            and split_position(accusation.position, segments)[0] == shard.index,
        )


def write_figures(figures: DemoFigures, path: Path) -> None:
    """Write what `--json` asks for."""
    path.write_text(figures.model_dump_json(indent=1) + "\n")
