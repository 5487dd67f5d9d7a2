"""The auditor: recomputes what was drawn for its tickets, then attests it or accuses; sits on panels.

It also sends whatever anyone may send, so that no lease waits for a party that is silent."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
from market.chain.deployment import Config
from market.chain.events import (
    ChallengeClosed,
    JobCreated,
    PanelDrawn,
    RecordChallenged,
    SegmentsDrawn,
    ShardsClaimed,
)
from market.chain.exits import (
    send_exit,
    send_if_due,
    send_resolution,
    send_round_close,
    send_seed,
)
from market.chain.ledger import Ledger
from market.chain.structs import ChallengeStatus, JobStatus
from market.chain.transactions import Call
from market.protocol.errors import AuditIncomplete, NotFound, ProtocolError
from market.protocol.lifecycle import CLOSED, EXITS, LeaseStatus
from market.storage.blobs import BlobStore
from trainer.evidence import Origins, Shard, name_lease
from trainer.execution import Executor
from trainer.jobs import JobFiles, OpenJobs
from trainer.operators import find_operators
from trainer.progress import write_atomically
from verifier.audit import Audit, Recomputation

logger = logging.getLogger(__name__)

# What leads a lease on is its provider's to send; an auditor does it where the provider does not.
_GRACE_TURNS: Final = 10
# These free its stake, or what it earned: it waits for nobody.
_OWN_EXITS: Final = frozenset(
    {LeaseStatus.WITHHELD, LeaseStatus.CONVENED, LeaseStatus.UNCONVENED, LeaseStatus.VOTED}
)
_AUDITED: Final = (LeaseStatus.DRAWN, LeaseStatus.REPORTED)


@dataclass(frozen=True, slots=True)
class AuditorSetup:
    """Who audits, on what chain, from which blobs."""

    chain: Chain
    account: LocalAccount
    store: BlobStore
    home: Path
    build_executor: Callable[[JobFiles], Executor]
    on_step: Callable[[Shard, int], None] | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """A lease that is not over, and its last draw."""

    claimed: ShardsClaimed
    status: LeaseStatus
    drawn: SegmentsDrawn | None
    is_mine: bool  # to audit

    @property
    def lease_id(self) -> int:
        return self.claimed.lease_id


class Auditor:
    """The loop of an operator's auditor. ``take_turn`` does the most urgent thing there is to do."""

    def __init__(self, setup: AuditorSetup) -> None:
        self._setup = setup
        self._chain = setup.chain
        self._ledger = Ledger(setup.chain)
        self._jobs = OpenJobs(self._ledger, setup.store, setup.build_executor)
        origins = Origins(self._ledger, setup.store)
        self._recomputation = Recomputation(
            setup.chain, self._ledger, setup.store, self._jobs, origins
        )
        self._operators: frozenset[int] = frozenset()
        self._over: set[int] = set()
        self._opened: set[int] = set()
        self._waiting: dict[tuple[type[IntEnum], int], tuple[IntEnum, int]] = {}
        self._segment_s: dict[int, float] = {}  # what a segment of a job took here
        self._reasons: dict[int, str] = {}  # why a lease was last not served

    @cached_property
    def _config(self) -> Config:
        return self._chain.get_config()

    def take_turn(self) -> bool:
        """Do one thing for some job or lease; return whether there was anything to do."""
        self._ledger.refresh()
        self._operators = find_operators(self._ledger, self._setup.account.address)
        if any(self._serve_job(event) for event in self._ledger.iterate(JobCreated)):
            return True
        cases = self._list_cases()
        challenges = self._ledger.iterate(RecordChallenged)
        if any(self._resolve(event) for event in challenges) or self._decline_hopeless(cases):
            return True
        return any(self._try_case(case) for case in cases)

    def _serve_job(self, posted: JobCreated) -> bool:
        """Draw a job's seed, which is lost if nobody does, and close its rounds by time."""
        job_id = posted.job_id
        if job_id not in self._opened:
            if self._chain.get_job_status(job_id) is JobStatus.FUNDED:
                return send_seed(self._chain, self._setup.account, job_id)
            self._opened.add(job_id)
        if posted.terms.round_time == 0:
            return False
        return send_round_close(self._chain, self._setup.account, job_id)

    def _list_cases(self) -> list[_Case]:
        """Return the leases that are not over; its own audits come last, those due first before others."""
        found = []
        for claimed in self._ledger.iterate(ShardsClaimed):
            if claimed.lease_id in self._over:
                continue
            status = self._chain.get_status(claimed.lease_id)
            if status in CLOSED:
                self._over.add(claimed.lease_id)
            else:
                found.append((claimed, status))
        self._ledger.refresh()  # so that it is not behind the statuses
        cases = [self._build_case(claimed, status) for claimed, status in found]
        return sorted(cases, key=_compute_urgency)

    def _build_case(self, claimed: ShardsClaimed, status: LeaseStatus) -> _Case:
        drawn = self._ledger.find(SegmentsDrawn, claimed.lease_id)
        is_mine = drawn is not None and drawn.auditor in self._operators
        return _Case(claimed, status, drawn, is_mine)

    def _try_case(self, case: _Case) -> bool:
        """Serve a lease; one that cannot be served now must not starve the others."""
        try:
            return self._serve_case(case)
        except (AuditIncomplete, NotFound, ProtocolError) as error:
            self._complain(case, str(error))
            return False

    def _complain(self, case: _Case, reason: str) -> None:
        """Log, once, why a lease is not served."""
        if self._reasons.get(case.lease_id) != reason:
            facts = {"lease": case.lease_id, "reason": reason}
            logger.warning("lease not served", extra=facts)
        self._reasons[case.lease_id] = reason

    def _serve_case(self, case: _Case) -> bool:
        if case.status in _AUDITED:
            return case.is_mine and self._audit(case)
        if case.status is LeaseStatus.VOTING:
            return self._vote(case)
        if case.status not in EXITS or case.status is LeaseStatus.ACCUSED:
            return False
        is_own = case.is_mine and case.status in _OWN_EXITS
        if is_own or self._has_waited(case.lease_id, case.status):
            return send_exit(self._chain, self._setup.account, case.lease_id, case.status)
        return False

    def _has_waited(self, subject: int, status: IntEnum) -> bool:
        """Check whether a lease or challenge has been seen in ``status`` for some turns."""
        key = type(status), subject
        seen, turns = self._waiting.get(key, (status, 0))
        turns = turns + 1 if seen is status else 1
        self._waiting[key] = status, turns
        return turns > _GRACE_TURNS

    def _resolve(self, event: RecordChallenged) -> bool:
        """Close a challenge that ran out of time; its challenger does so at once."""
        if self._ledger.find(ChallengeClosed, event.challenge_id) is not None:
            return False
        status = self._chain.get_challenge_status(event.challenge_id)
        if status not in (ChallengeStatus.UNANSWERED, ChallengeStatus.UNRULED):
            return False
        is_own = event.challenger == self._setup.account.address
        if not is_own and not self._has_waited(event.challenge_id, status):
            return False
        return send_resolution(self._chain, self._setup.account, event.challenge_id)

    # -- audits

    def _audit(self, case: _Case) -> bool:
        """Recompute, keep the result, then tell it; a restart finds the kept one."""
        assert case.drawn is not None
        path = self._get_path(case)
        audit = _find_audit(path, case.drawn.segments)
        if audit is None:
            try:
                audit = self._recompute(case, case.drawn)
            except AuditIncomplete as error:
                self._complain(case, str(error))
                return self._report(case, case.drawn)
            except (NotFound, ProtocolError) as error:
                # Of the job or of earlier rounds, for which this provider does not answer.
                self._complain(case, str(error))
                return self._decline(case, case.drawn, self._config.decline_time // 2)
            write_atomically(path, json.dumps(audit.model_dump(mode="json")))
        return self._tell(case, audit)

    def _recompute(self, case: _Case, drawn: SegmentsDrawn) -> Audit:
        setup, recomputation = self._setup, self._recomputation
        manifest = recomputation.require_published(case.claimed, drawn.segments)
        begun = time.monotonic()
        audit = recomputation.audit(case.claimed, drawn.segments, manifest, setup.on_step)
        if audit.records:
            taken = time.monotonic() - begun
            self._segment_s[case.claimed.job_id] = taken / len(audit.records)
        return audit

    def _tell(self, case: _Case, audit: Audit) -> bool:
        calls, found = self._chain.calls, audit.difference
        if found is None:
            call = calls.attest(case.lease_id, [record.opening for record in audit.records])
        else:
            call = calls.accuse(case.lease_id, found.shard, found.index)
        sent = send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(case.lease_id) in _AUDITED,
        )
        if sent and found is None:
            logger.info("shards attested", extra={"lease": case.lease_id})
        elif sent and found is not None:
            facts = {"lease": case.lease_id, **found.model_dump(mode="json")}
            logger.warning("record accused", extra=facts)
        return sent

    def _get_path(self, case: _Case) -> Path:
        name = name_lease(self._chain, self._ledger, case.claimed)
        return self._setup.home / "audits" / f"{name}.json"

    def _report(self, case: _Case, drawn: SegmentsDrawn) -> bool:
        """Report what cannot be fetched, once the provider has had half of the time to publish it."""
        if case.status is not LeaseStatus.DRAWN:
            return False
        if self._chain.get_time() < drawn.deadline - self._config.audit_time // 2:
            return False
        call = self._chain.calls.report(case.lease_id)
        sent = self._send_drawn(case, call, lambda: True)
        if sent:
            logger.warning("withholding reported", extra={"lease": case.lease_id})
        return sent

    def _decline(self, case: _Case, drawn: SegmentsDrawn, after_s: int) -> bool:
        """Give an audit up, from ``after_s`` seconds after the draw until it would cost something."""
        begun = drawn.deadline - self._config.audit_time
        limit = begun + self._config.decline_time
        if case.status is not LeaseStatus.DRAWN:
            return False
        if not begun + after_s <= self._chain.get_time() <= limit:
            return False
        call = self._chain.calls.decline(case.lease_id)
        sent = self._send_drawn(case, call, lambda: self._chain.get_time() <= limit)
        if sent:
            logger.info("audit declined", extra={"lease": case.lease_id})
        return sent

    def _send_drawn(self, case: _Case, call: Call, holds: Callable[[], bool]) -> bool:
        return send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(case.lease_id) is LeaseStatus.DRAWN and holds(),
        )

    def _decline_hopeless(self, cases: list[_Case]) -> bool:
        """Decline an audit that would end after its deadline, at the pace of the last one of its job."""
        mine = [case for case in cases if case.is_mine and case.status is LeaseStatus.DRAWN]
        free_at = float(self._chain.get_time()) if mine else 0.0
        for case in mine:
            assert case.drawn is not None
            taken = self._segment_s.get(case.claimed.job_id, 0.0) * len(case.drawn.segments)
            is_hopeless = taken > 0 and free_at + taken > case.drawn.deadline
            if is_hopeless and self._decline(case, case.drawn, 0):
                return True
            free_at += taken
        return False

    # -- panels

    def _vote(self, case: _Case) -> bool:
        """Say on a panel whether all that the audit reads can be fetched; no is said late."""
        panel = self._chain.get_panel(case.lease_id)
        left = {
            member
            for k, member in enumerate(panel.members)
            if member in self._operators and not panel.voted >> k & 1
        }
        if not left or case.drawn is None:
            return False
        operator = min(left)
        is_available = self._is_available(case, case.drawn)
        deadline = self._ledger.get(PanelDrawn, case.lease_id).deadline
        is_early = self._chain.get_time() < deadline - self._config.vote_time // 2
        if not is_available and is_early:
            return False  # it may still be on its way
        call = self._chain.calls.vote(case.lease_id, operator, available=is_available)
        sent = send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(case.lease_id) is LeaseStatus.VOTING,
        )
        if sent:
            facts = {"lease": case.lease_id, "operator": operator, "available": is_available}
            logger.info("vote cast", extra=facts)
        return sent

    def _is_available(self, case: _Case, drawn: SegmentsDrawn) -> bool:
        try:
            self._recomputation.require_published(case.claimed, drawn.segments)
        except AuditIncomplete as error:
            self._complain(case, str(error))
            return False
        return True


def _compute_urgency(case: _Case) -> tuple[bool, int]:
    is_audit = case.is_mine and case.status in _AUDITED
    return is_audit, case.drawn.deadline if is_audit and case.drawn is not None else 0


def _find_audit(path: Path, segments: tuple[int, ...]) -> Audit | None:
    """Return the audit kept at ``path`` if it is of these segments."""
    if not path.exists():
        return None
    kept = Audit.model_validate_json(path.read_bytes())
    return kept if kept.segments == segments else None
