"""The auditor: recomputes what was drawn for its tickets, commits before it can see, reveals after.

It also sends whatever anyone may send, so that no lease waits for a party that is silent."""

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount
from eth_utils.hexadecimal import decode_hex
from pydantic import BaseModel, ConfigDict

from market.chain.client import Chain
from market.chain.events import JobCreated, RecordsOpened, SegmentsDrawn, ShardClaimed
from market.chain.exits import send_exit, send_if_due, send_seed
from market.chain.ledger import Ledger
from market.chain.structs import JobStatus
from market.protocol.errors import AuditIncomplete, NotFound, ProtocolError
from market.protocol.hashing import Hash32
from market.protocol.lifecycle import CLOSED, EXITS, LeaseStatus
from market.protocol.records import Outcome, Reproduction, hash_audit
from market.protocol.spec import HexHash
from market.storage.blobs import BlobStore
from trainer.evidence import Shard, find_shard, get_trace, name_lease
from trainer.execution import Executor
from trainer.jobs import JobFiles, fetch_job, fetch_spec
from trainer.progress import write_atomically
from verifier.audit import Audit, audit_shard

logger = logging.getLogger(__name__)

# What leads a lease on is its provider's to send; an auditor does it where the provider does not.
_GRACE_TURNS: Final = 10
_OWN_EXITS: Final = (LeaseStatus.FORFEITED, LeaseStatus.PROVIDER_SILENT)  # they free its stake


class ReproductionEntry(BaseModel):
    """A reproduction as kept on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    segment: int
    state_root: HexHash
    gradient_root: HexHash
    metrics_root: HexHash

    @property
    def reproduction(self) -> Reproduction:
        """The value that is revealed."""
        outcome = Outcome(self.gradient_root, self.metrics_root)
        return Reproduction(self.segment, self.state_root, outcome)


class SecretAudit(BaseModel):
    """An audit that is committed to and not shown: on disk before the chain hears of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    salt: HexHash
    base_root: HexHash
    entries: tuple[ReproductionEntry, ...]

    @property
    def reproductions(self) -> list[Reproduction]:
        """What is revealed of each drawn segment."""
        return [entry.reproduction for entry in self.entries]


@dataclass(frozen=True, slots=True)
class AuditorSetup:
    """Who audits, on what chain, from which blobs."""

    chain: Chain
    account: LocalAccount
    store: BlobStore
    home: Path
    build_executor: Callable[[JobFiles], Executor]
    on_step: Callable[[Shard, int], None] | None = None


class Auditor:
    """One auditor's loop. ``take_turn`` does the most urgent thing there is to do."""

    def __init__(self, setup: AuditorSetup) -> None:
        self._setup = setup
        self._chain = setup.chain
        self._ledger = Ledger(setup.chain)
        self._files: dict[int, JobFiles] = {}
        self._executors: dict[int, Executor] = {}
        self._done: set[int] = set()
        self._opened: set[int] = set()
        self._waiting: dict[int, tuple[LeaseStatus, int]] = {}
        self._reasons: dict[int, str] = {}  # why a lease was last not served

    def take_turn(self) -> bool:
        """Do one thing for some lease; return whether there was anything to do."""
        self._ledger.refresh()
        if any(self._open_job(event.job_id) for event in self._ledger.iterate(JobCreated)):
            return True
        return any(self._try_lease(shard, status) for shard, status in self._list_leases())

    def _open_job(self, job_id: int) -> bool:
        """Draw the seed of a job that waits for it; a job whose draw nobody sends is lost."""
        if job_id in self._opened:
            return False
        if self._chain.get_job_status(job_id) is JobStatus.FUNDED:
            return send_seed(self._chain, self._setup.account, job_id)
        self._opened.add(job_id)
        return False

    def _list_leases(self) -> list[tuple[Shard, LeaseStatus]]:
        """Return the leases that are not over; a reveal that is due comes before any audit."""
        found = []
        for event in self._ledger.iterate(ShardClaimed):
            if event.lease_id in self._done:
                continue
            status = self._chain.get_status(event.lease_id)
            if status in CLOSED:
                self._done.add(event.lease_id)
            else:
                found.append((find_shard(self._ledger, event.lease_id), status))
        self._ledger.refresh()  # so that it is not behind the statuses
        return sorted(found, key=lambda lease: lease[1] is not LeaseStatus.OPENED)

    def _try_lease(self, shard: Shard, status: LeaseStatus) -> bool:
        """Serve a lease; one that cannot be served now must not starve the others."""
        try:
            return self._serve_lease(shard, status)
        except (AuditIncomplete, NotFound, ProtocolError) as error:
            facts = {"lease": shard.lease_id, "reason": str(error)}
            if self._reasons.get(shard.lease_id) != str(error):
                logger.warning("lease not served", extra=facts)
            self._reasons[shard.lease_id] = str(error)
            return False

    def _serve_lease(self, shard: Shard, status: LeaseStatus) -> bool:
        drawn = self._ledger.find(SegmentsDrawn, shard.lease_id)
        is_mine = drawn is not None and drawn.auditor == self._setup.account.address
        if status in EXITS:
            has_waited = self._count_turn(shard, status) > _GRACE_TURNS
            if has_waited or (is_mine and status in _OWN_EXITS):
                return send_exit(self._chain, self._setup.account, shard.lease_id, status)
            return False
        if not is_mine:
            return False
        if status is LeaseStatus.DRAWN:
            return self._audit(shard)
        if status is LeaseStatus.OPENED:
            return self._reveal(shard)
        return False

    def _count_turn(self, shard: Shard, status: LeaseStatus) -> int:
        """Return for how many turns a lease has been seen in ``status``."""
        seen, turns = self._waiting.get(shard.lease_id, (status, 0))
        turns = turns + 1 if seen is status else 1
        self._waiting[shard.lease_id] = status, turns
        return turns

    def _get_files(self, job_id: int) -> JobFiles:
        if job_id not in self._files:
            posted = self._ledger.get(JobCreated, job_id)
            spec = fetch_spec(self._setup.store, posted.spec_leaves[7], posted.spec_hash)
            self._files[job_id] = fetch_job(self._setup.store, spec)
        return self._files[job_id]

    def _get_executor(self, job_id: int) -> Executor:
        if job_id not in self._executors:
            self._executors[job_id] = self._setup.build_executor(self._get_files(job_id))
        return self._executors[job_id]

    def _get_path(self, shard: Shard) -> Path:
        draw_block = self._chain.get_lease(shard.lease_id).draw_block
        name = name_lease(self._chain, self._ledger, shard)
        return self._setup.home / "audits" / f"{name}-{draw_block}.json"

    def _audit(self, shard: Shard) -> bool:
        """Recompute, keep the result, then commit to it; a restart finds the kept one."""
        path = self._get_path(shard)
        if not path.exists():
            self._keep(path, self._recompute(shard))
        secret = SecretAudit.model_validate_json(path.read_bytes())
        commitment = self._hash(shard, secret)
        return send_if_due(
            self._chain,
            self._setup.account,
            self._chain.calls.commit_audit(shard.lease_id, commitment),
            lambda: self._chain.get_status(shard.lease_id) is LeaseStatus.DRAWN,
        )

    def _recompute(self, shard: Shard) -> Audit:
        setup = self._setup
        return audit_shard(
            self._get_files(shard.job_id),
            self._get_executor(shard.job_id),
            self._chain,
            self._ledger,
            setup.store,
            shard,
            lambda step: setup.on_step(shard, step) if setup.on_step else None,
        )

    def _keep(self, path: Path, audit: Audit) -> None:
        entries = tuple(
            ReproductionEntry(
                segment=r.segment,
                state_root=r.state_root,
                gradient_root=r.outcome.gradient_root,
                metrics_root=r.outcome.metrics_root,
            )
            for r in audit.reproductions
        )
        salt = Hash32(secrets.token_bytes(32))
        secret = SecretAudit(salt=salt, base_root=audit.base_root, entries=entries)
        write_atomically(path, json.dumps(secret.model_dump(mode="json")))

    def _hash(self, shard: Shard, secret: SecretAudit) -> Hash32:
        return hash_audit(
            self._chain.deployment.chain_id,
            decode_hex(self._chain.deployment.market),
            shard.lease_id,
            decode_hex(self._setup.account.address),
            secret.salt,
            secret.base_root,
            secret.reproductions,
        )

    def _reveal(self, shard: Shard) -> bool:
        path = self._get_path(shard)
        if not path.exists():
            raise AuditIncomplete(f"the audit of lease {shard.lease_id} is not at {path}")
        secret = SecretAudit.model_validate_json(path.read_bytes())
        opened = self._ledger.get(RecordsOpened, shard.lease_id)
        claimed = [
            Reproduction(
                entry.segment,
                outcome.state_root,
                Outcome(outcome.gradient_root, outcome.metrics_root),
            ).compute_record()
            for entry, outcome in zip(secret.entries, opened.outcomes, strict=True)
        ]
        call = self._chain.calls.reveal(
            shard.lease_id,
            get_trace(self._ledger, shard.lease_id),
            claimed,
            secret.base_root,
            secret.reproductions,
            secret.salt,
        )
        return send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(shard.lease_id) is LeaseStatus.OPENED,
        )
