"""The provider: claims shards, trains them, commits, publishes what was drawn and answers for it.

Each turn asks the chain first and does one thing, so it can be killed at any instruction and resumed."""

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Final

from market.chain.deployment import Config
from market.chain.events import (
    JobCreated,
    RecordChallenged,
    SegmentsDrawn,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.exits import (
    send_exit,
    send_if_due,
    send_resolution,
    send_round_close,
    send_seed,
)
from market.chain.ledger import Ledger
from market.chain.registry import is_supported_client
from market.chain.structs import (
    NO_ADDRESS,
    ChallengeStatus,
    JobStatus,
    RecordOpening,
    StateOpening,
)
from market.chain.transactions import Call
from market.protocol.constants import MAX_STATE_BYTES
from market.protocol.economics import Claim, Decline, Reason
from market.protocol.errors import NotFound, ProtocolError
from market.protocol.hashing import compute_digest
from market.protocol.lifecycle import CLOSED, EXITS, LeaseStatus
from market.protocol.manifest import compute_most_shards
from market.protocol.records import compute_lease_branch, split_position
from market.storage.cid import Cid, cid_of_digest
from trainer.jobs import OpenJobs
from trainer.operators import find_operators
from trainer.policy import Appraiser
from trainer.training import ProviderSetup, Training

logger = logging.getLogger(__name__)

# In these somebody still has to fetch what was drawn: the auditor, or a panel.
_FETCHED: Final = frozenset(
    {
        LeaseStatus.DRAWN,
        LeaseStatus.REPORTED,
        LeaseStatus.WITHHELD,
        LeaseStatus.CONVENED,
        LeaseStatus.UNCONVENED,
        LeaseStatus.VOTING,
    }
)
# Exits that cost it a stake.
_AGAINST_IT: Final = frozenset({LeaseStatus.UNDRAWN, LeaseStatus.ACCUSED})


class Provider:
    """The loop of an operator's provider. ``take_turn`` does the most urgent thing there is to do.

    One process for each operator: two would train the same leases."""

    def __init__(self, setup: ProviderSetup) -> None:
        self._setup = setup
        self._chain = setup.chain
        self._ledger = Ledger(setup.chain)
        self._jobs = OpenJobs(self._ledger, setup.public, setup.build_executor)
        self._appraiser = Appraiser(setup.chain, self._ledger, self._jobs, setup.home)
        self._training = Training(setup, self._ledger, self._jobs, self._appraiser.note_segment)
        self._operators: frozenset[int] = frozenset()
        self._over: set[int] = set()
        self._reasons: dict[int, str] = {}  # why a lease was last not served

    @cached_property
    def _config(self) -> Config:
        return self._chain.get_config()

    def take_turn(self) -> bool:
        """Do one thing for a lease or claim one; return whether there was anything to do."""
        self._ledger.refresh()
        self._operators = find_operators(self._ledger, self._setup.account.address)
        leases = self._list_leases()
        if any(self._try_lease(claimed, status) for claimed, status in leases):
            return True
        training = [claimed for claimed, status in leases if status is LeaseStatus.LEASED]
        jobs = self._ledger.iterate(JobCreated)
        return any(self._serve_job(event.job_id, training) for event in jobs)

    def _list_leases(self) -> list[tuple[ShardsClaimed, LeaseStatus]]:
        """Return this provider's open leases, those that are due before those still training."""
        found = []
        for claimed in self._ledger.iterate(ShardsClaimed):
            if claimed.operator not in self._operators or claimed.lease_id in self._over:
                continue
            status = self._chain.get_status(claimed.lease_id)
            if status in CLOSED:
                self._training.forget(claimed)
                self._over.add(claimed.lease_id)
            else:
                found.append((claimed, status))
        self._ledger.refresh()  # so that it is not behind the statuses
        return sorted(found, key=lambda lease: lease[1] is LeaseStatus.LEASED)

    def _try_lease(self, claimed: ShardsClaimed, status: LeaseStatus) -> bool:
        """Serve a lease; one that cannot be served now must not starve the others."""
        try:
            return self._serve_lease(claimed, status)
        except (NotFound, ProtocolError) as error:
            self._complain(claimed, str(error))
            return False

    def _complain(self, claimed: ShardsClaimed, reason: str) -> None:
        """Log, once, why a lease is not served."""
        if self._reasons.get(claimed.lease_id) != reason:
            facts = {"lease": claimed.lease_id, "reason": reason}
            logger.error("lease not served", extra=facts)
        self._reasons[claimed.lease_id] = reason

    def _serve_lease(self, claimed: ShardsClaimed, status: LeaseStatus) -> bool:
        if status is LeaseStatus.LEASED:
            return self._training.train(claimed) or self._commit(claimed)
        if status is LeaseStatus.COMMITTED and self._withdraw_if_lost(claimed):
            return True
        if status in _FETCHED and self._publish(claimed):
            return True
        if status in (LeaseStatus.ACCUSED, LeaseStatus.ATTESTED) and self._answer(claimed):
            return True
        if status in EXITS and status not in _AGAINST_IT:
            return send_exit(self._chain, self._setup.account, claimed.lease_id, status)
        return False

    # -- claiming

    def _serve_job(self, job_id: int, training: Sequence[ShardsClaimed]) -> bool:
        """Lead a job to where it can be claimed, then claim of it."""
        chain, account = self._chain, self._setup.account
        status = chain.get_job_status(job_id)
        if status is JobStatus.FUNDED:
            return send_seed(chain, account, job_id)
        if status is not JobStatus.OPEN:
            return False
        if send_round_close(chain, account, job_id):
            return True
        return self._may_claim() and self._claim(job_id, training)

    def _may_claim(self) -> bool:
        """Check that the market takes new work, and takes it from clients of this age."""
        chain = self._chain
        return chain.find_pause() is None and is_supported_client(
            chain.rpc, chain.deployment.registry
        )

    def _claim(self, job_id: int, training: Sequence[ShardsClaimed]) -> bool:
        segments = self._chain.get_job(job_id).segments
        most = min(self._setup.most_shards, compute_most_shards(segments))
        found = self._appraiser.appraise(job_id, self._operators, most, training)
        round_, slots = found.round, found.slots
        if not isinstance(found.decision, Claim) or not self._can_begin(job_id, round_, slots):
            return False
        call = self._chain.calls.claim(job_id, found.operator, round_, slots.start, len(slots))
        is_due = partial(self._are_open, job_id, round_, slots)
        if send_if_due(self._chain, self._setup.account, call, is_due):
            where = {"job": job_id, "round": round_, "first": slots.start, "shards": len(slots)}
            logger.info("shards claimed", extra=where)
        return True

    def _are_open(self, job_id: int, round_: int, slots: range) -> bool:
        taken = self._chain.get_round(job_id, round_).taken
        return not any(taken >> slot & 1 for slot in slots)

    def _can_begin(self, job_id: int, round_: int, slots: range) -> bool:
        """Check, before the stake is at risk, that all that the shards begin from can be fetched."""
        try:
            self._training.prepare(job_id, round_, slots)
        except (NotFound, ProtocolError) as error:
            decline = Decline(Reason.DATA_NOT_FETCHED, detail=str(error))
            self._appraiser.decline(job_id, decline)
            return False
        return True

    # -- before the draw

    def _commit(self, claimed: ShardsClaimed) -> bool:
        fault = self._training.find_fault(claimed) if self._setup.self_check else None
        if fault is not None:
            shard, segment = fault
            facts = {"lease": claimed.lease_id, "shard": shard.index, "segment": segment}
            logger.error("segment not reproduced, trained again", extra=facts)
            return True
        manifest = self._training.build_manifest(claimed)
        self._setup.public.put(manifest.document)
        digest = compute_digest(manifest.document)
        call = self._chain.calls.commit(claimed.lease_id, manifest.root, digest)
        if self._send_for(claimed, call, LeaseStatus.LEASED):
            logger.info("traces committed", extra={"lease": claimed.lease_id})
        return True

    def _withdraw_if_lost(self, claimed: ShardsClaimed) -> bool:
        """Take a commitment back, in time, of which this machine has lost states: for a fee, not a stake."""
        lease = self._chain.get_lease(claimed.lease_id)
        limit = lease.clock - (self._config.draw_distance + 1) // 2
        if lease.redraws > 0 or self._chain.get_height() >= limit:
            return False
        if self._training.has_states(claimed):
            return False
        logger.error("states lost, commitment withdrawn", extra={"lease": claimed.lease_id})
        call = self._chain.calls.withdraw_commitment(claimed.lease_id)
        return self._send_for(claimed, call, LeaseStatus.COMMITTED)

    def _send_for(self, claimed: ShardsClaimed, call: Call, status: LeaseStatus) -> bool:
        return send_if_due(
            self._chain,
            self._setup.account,
            call,
            lambda: self._chain.get_status(claimed.lease_id) is status,
        )

    # -- after the draw

    def _publish(self, claimed: ShardsClaimed) -> bool:
        """Publish what the audit reads: the manifest, the drawn prestates and every shard's last state."""
        public, kept = self._setup.public, self._training.load(claimed)
        drawn = self._ledger.get(SegmentsDrawn, claimed.lease_id).segments
        places = [divmod(segment, kept[0].segments) for segment in drawn]
        records = [kept[shard].records[index] for shard, index in places]
        records += [shard.records[-1] for shard in kept]
        missing = [cid for record in records if not public.has(cid := Cid(record.state))]
        for cid in missing:
            public.put_file(self._setup.private.get_path(cid, MAX_STATE_BYTES))
        committed = self._ledger.get(TraceCommitted, claimed.lease_id)
        is_shown = public.has(cid_of_digest(committed.manifest))
        if not is_shown:
            public.put(self._training.build_manifest(claimed).document)
        return bool(missing) or not is_shown

    def _answer(self, claimed: ShardsClaimed) -> bool:
        """Open an accused record, where there is a judge; close a challenge on which it did not rule."""
        for event in self._ledger.iterate(RecordChallenged):
            if event.lease_id != claimed.lease_id:
                continue
            status = self._chain.get_challenge_status(event.challenge_id)
            if status is ChallengeStatus.OPEN:
                return self._answer_one(claimed, event)
            if status is ChallengeStatus.UNRULED:
                return send_resolution(self._chain, self._setup.account, event.challenge_id)
        return False

    def _answer_one(self, claimed: ShardsClaimed, event: RecordChallenged) -> bool:
        segments = self._chain.get_job(claimed.job_id).segments
        shard, index = split_position(event.position, segments)
        if self._config.judge == NO_ADDRESS:
            self._complain(claimed, f"accused of record {index} of shard {shard}: nobody can rule")
            return False
        kept = self._training.load(claimed)
        traces = [progress.claims for progress in kept]
        earlier, record = traces[shard][max(index - 1, 0)], kept[shard].records[index]
        before = StateOpening(
            earlier.state_root,
            earlier.outcome,
            tuple(compute_lease_branch(traces, shard, max(index - 1, 0))),
        )
        opened = RecordOpening(
            traces[shard][index].state_root,
            record.gradient_root,
            record.metrics_root,
            tuple(compute_lease_branch(traces, shard, index)),
        )
        challenge_id = event.challenge_id
        return send_if_due(
            self._chain,
            self._setup.account,
            self._chain.calls.answer(challenge_id, before, opened),
            lambda: self._chain.get_challenge_status(challenge_id) is ChallengeStatus.OPEN,
        )
