"""Every transaction that the market takes, prepared and unsigned."""

from collections.abc import Sequence
from dataclasses import dataclass

from market.chain.abi import encode_call
from market.chain.structs import (
    Address,
    PostedTerms,
    RecordOpening,
    SegmentOutcome,
    StateOpening,
    Trace,
)
from market.chain.transactions import Call
from market.protocol.hashing import Hash32
from market.protocol.records import Reproduction
from market.protocol.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of the contract at ``market``. Amounts are in wei."""

    market: Address

    def create_job(self, spec: JobSpec) -> Call:
        """Post a job and escrow its price."""
        terms = PostedTerms(
            price_per_shard=spec.terms.price_per_shard,
            audit_fee=spec.terms.audit_fee,
            stake_per_lease=spec.terms.stake_per_lease,
            poison_value=spec.terms.poison_value,
            lease_time=spec.terms.lease_time_s,
            samples=spec.terms.samples,
            deadline=spec.terms.deadline,
        )
        return self._call("createJob", spec.leaf_values, terms, value=spec.escrow)

    def draw_seed(self, job_id: int, header: bytes) -> Call:
        """Draw a job's seed from the RLP ``header`` of its seed block."""
        return self._call("drawSeed", job_id, header)

    def close_job(self, job_id: int) -> Call:
        """Refund what an ended job did not spend."""
        return self._call("closeJob", job_id)

    def claim(self, job_id: int, round_: int, slot: int) -> Call:
        """Lease a shard."""
        return self._call("claim", job_id, round_, slot)

    def commit(
        self,
        lease_id: int,
        trace_root: Hash32,
        first: StateOpening,
        last: StateOpening,
        manifest: Hash32,
    ) -> Call:
        """Commit to a trace, with its first and last record opened and its manifest's digest."""
        return self._call("commit", lease_id, trace_root, first, last, manifest)

    def withdraw_commitment(self, lease_id: int) -> Call:
        """Take a commitment back for a fee."""
        return self._call("withdrawCommitment", lease_id)

    def draw(self, lease_id: int, header: bytes) -> Call:
        """Draw segments and auditor from the RLP ``header`` of the lease's draw block."""
        return self._call("draw", lease_id, header)

    def commit_audit(self, lease_id: int, commitment: Hash32) -> Call:
        """Fix an audit without showing it."""
        return self._call("commitAudit", lease_id, commitment)

    def open(self, lease_id: int, trace: Trace, openings: Sequence[RecordOpening]) -> Call:
        """Open the record after each drawn segment, ascending."""
        return self._call("open", lease_id, trace, openings)

    def reveal(
        self,
        lease_id: int,
        trace: Trace,
        claimed: Sequence[Hash32],
        base_root: Hash32,
        reproductions: Sequence[Reproduction],
        salt: bytes,
    ) -> Call:
        """Show an audit: the records as opened, each hashed, and what the auditor computed."""
        outcomes = [
            SegmentOutcome(r.state_root, r.outcome.gradient_root, r.outcome.metrics_root)
            for r in reproductions
        ]
        return self._call("reveal", lease_id, trace, claimed, base_root, outcomes, salt)

    def slash(self, lease_id: int) -> Call:
        """Take the stake of a provider that was silent, beaten or missed its draw."""
        return self._call("slash", lease_id)

    def replace_auditor(self, lease_id: int) -> Call:
        """Send away an auditor that is silent."""
        return self._call("replaceAuditor", lease_id)

    def expire(self, lease_id: int) -> Call:
        """Close a lease that was not committed in time."""
        return self._call("expire", lease_id)

    def settle(self, lease_id: int) -> Call:
        """Pay the provider of a final shard."""
        return self._call("settle", lease_id)

    def stake(self, amount: int) -> Call:
        """Add ``amount`` to the sender's stake as a provider."""
        return self._call("stake", value=amount)

    def unstake(self, amount: int) -> Call:
        """Move ``amount`` of the sender's free stake as a provider to its credit."""
        return self._call("unstake", amount)

    def buy_tickets(self, count: int, ticket_stake: int) -> Call:
        """List ``count`` tickets of the sender, each for ``ticket_stake`` as in `Config`."""
        return self._call("buyTickets", count, value=count * ticket_stake)

    def retire_ticket(self, ticket_id: int) -> Call:
        """Mark the sender's ticket as leaving and move its stake to the sender's credit."""
        return self._call("retireTicket", ticket_id)

    def withdraw(self) -> Call:
        """Pay the sender its credit."""
        return self._call("withdraw")

    def _call(self, function: str, *arguments: object, value: int = 0) -> Call:
        return Call(self.market, function, encode_call(function, *arguments), value)
