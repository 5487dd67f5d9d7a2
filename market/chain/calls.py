"""Every transaction that the market takes, prepared and unsigned."""

from collections.abc import Sequence
from dataclasses import dataclass

from market.chain.abi import encode_call
from market.chain.structs import Address, PostedTerms, RecordOpening, Role, StateOpening
from market.chain.transactions import Call
from market.protocol.errors import ProtocolError
from market.protocol.hashing import Hash32
from market.protocol.spec import JobSpec


def build_terms(spec: JobSpec) -> PostedTerms:
    """Return the terms of a job as the contract takes them."""
    return PostedTerms(
        asset=spec.terms.asset,
        price_per_shard=spec.terms.price_per_shard,
        floor_bps=spec.terms.floor_bps,
        ramp_time=spec.terms.ramp_time_s,
        audit_fee=spec.terms.audit_fee,
        stake_per_shard=spec.terms.stake_per_shard,
        poison_value=spec.terms.poison_value,
        lease_time=spec.terms.lease_time_s,
        round_time=spec.terms.round_time_s,
        quorum=spec.quorum,
        samples=spec.terms.samples,
        deadline=spec.terms.deadline,
    )


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of the contract at ``market``. Amounts are base units of an asset.

    Asset number ``ether`` is paid with the call (None: no asset is ether), others from an allowance."""

    market: Address
    ether: int | None = 0

    # Jobs

    def create_job(self, spec: JobSpec, requester: Address) -> Call:
        """Post a job for ``requester``, who gets its refunds, and escrow its price."""
        terms = build_terms(spec)
        arguments = (requester, spec.leaf_values, terms)
        return self._pay("createJob", *arguments, asset=terms.asset, amount=spec.escrow)

    def draw_seed(self, job_id: int, header: bytes) -> Call:
        """Draw a job's seed from the RLP ``header`` of its seed block."""
        return self._call("drawSeed", job_id, header)

    def cancel_job(self, job_id: int) -> Call:
        """As the requester: let nothing more be claimed."""
        return self._call("cancelJob", job_id)

    def refund(self, job_id: int) -> Call:
        """Credit the requester of a job that is over with what it cannot spend any more."""
        return self._call("refund", job_id)

    def close_round(self, job_id: int) -> Call:
        """Close a job's current round by time."""
        return self._call("closeRound", job_id)

    # Leases

    def claim(self, job_id: int, operator: int, round_: int, first: int, count: int) -> Call:
        """Lease ``count`` slots of a round from slot ``first``."""
        return self._call("claim", job_id, operator, round_, first, count)

    def commit(self, lease_id: int, root: Hash32, manifest: Hash32) -> Call:
        """Commit to the traces of a lease's shards by their root, and to the manifest's digest."""
        return self._call("commit", lease_id, root, manifest)

    def withdraw_commitment(self, lease_id: int) -> Call:
        """Take a commitment back for a fee."""
        return self._call("withdrawCommitment", lease_id)

    def expire(self, lease_id: int) -> Call:
        """Close a lease that was not committed in time."""
        return self._call("expire", lease_id)

    def settle(self, lease_id: int) -> Call:
        """Pay provider and auditor of a final lease."""
        return self._call("settle", lease_id)

    def slash(self, lease_id: int) -> Call:
        """Take the stake of a provider that missed its draw."""
        return self._call("slash", lease_id)

    # Audits

    def draw(self, lease_id: int, header: bytes) -> Call:
        """Draw segments and auditor from the RLP ``header`` of the lease's draw block."""
        return self._call("draw", lease_id, header)

    def attest(self, lease_id: int, openings: Sequence[RecordOpening]) -> Call:
        """Show the record after each drawn segment, in the order of the draw."""
        return self._call("attest", lease_id, openings)

    def decline(self, lease_id: int) -> Call:
        """Give a drawn audit up early."""
        return self._call("decline", lease_id)

    def replace_auditor(self, lease_id: int) -> Call:
        """Send away an auditor that is silent."""
        return self._call("replaceAuditor", lease_id)

    def report(self, lease_id: int) -> Call:
        """As the drawn auditor: say that what the audit reads cannot be fetched."""
        return self._call("report", lease_id)

    def convene(self, lease_id: int) -> Call:
        """Fix the block that draws the panel on a report."""
        return self._call("convene", lease_id)

    def draw_panel(self, lease_id: int, header: bytes) -> Call:
        """Draw a panel from the RLP ``header`` of its block."""
        return self._call("drawPanel", lease_id, header)

    def vote(self, lease_id: int, operator: int, *, available: bool) -> Call:
        """As a panelist: say whether all that the audit reads can be fetched."""
        return self._call("vote", lease_id, operator, available)

    def close_vote(self, lease_id: int) -> Call:
        """Count a panel's votes."""
        return self._call("closeVote", lease_id)

    # Challenges

    def accuse(self, lease_id: int, shard: int, index: int) -> Call:
        """As the drawn auditor: accuse record ``index`` of the lease's ``shard``-th shard."""
        return self._call("accuse", lease_id, shard, index)

    def challenge(self, lease_id: int, shard: int, index: int, asset: int, bond: int) -> Call:
        """Accuse a record of an attested lease, with a bond in its job's asset."""
        return self._pay("challenge", lease_id, shard, index, asset=asset, amount=bond)

    def answer(self, challenge_id: int, before: StateOpening, opened: RecordOpening) -> Call:
        """As the provider: open the accused record and the one before it."""
        return self._call("answer", challenge_id, before, opened)

    def rule(self, challenge_id: int, *, upheld: bool) -> Call:
        """As the judge: decide an answered challenge."""
        return self._call("rule", challenge_id, upheld)

    def resolve(self, challenge_id: int) -> Call:
        """Close a challenge that ran out of time, or whose lease is over."""
        return self._call("resolve", challenge_id)

    # Operators

    def register(self, payout: Address) -> Call:
        """Become an operator whose pay goes to ``payout``."""
        return self._call("register", payout)

    def set_worker(self, operator: int, worker: Address, *, authorized: bool) -> Call:
        """Let ``worker`` act for the operator, or no longer."""
        return self._call("setWorker", operator, worker, authorized)

    def set_payout(self, operator: int, payout: Address) -> Call:
        """Have the operator's pay go to ``payout``."""
        return self._call("setPayout", operator, payout)

    def propose_owner(self, operator: int, owner: Address) -> Call:
        """Offer the operator to another owner."""
        return self._call("proposeOwner", operator, owner)

    def accept_owner(self, operator: int) -> Call:
        """Take an operator that was offered."""
        return self._call("acceptOwner", operator)

    def stake(self, operator: int, asset: int, amount: int) -> Call:
        """Add to an operator's stake as a provider."""
        arguments = (operator, asset, amount)
        return self._pay("stake", *arguments, asset=asset, amount=amount)

    def thaw(self, operator: int, asset: int, amount: int) -> Call:
        """Take free stake as a provider out of use, to be withdrawn once it has thawed."""
        return self._call("thaw", operator, asset, amount)

    def withdraw_stake(self, operator: int, role: Role, asset: int) -> Call:
        """Send the owner the stake that has thawed."""
        return self._call("withdrawStake", operator, role, asset)

    def pay_out(self, operator: int, role: Role, asset: int) -> Call:
        """Send what the operator has earned to its payout address."""
        return self._call("payOut", operator, role, asset)

    def buy_tickets(self, operator: int, asset: int, count: int, ticket_stake: int) -> Call:
        """List ``count`` tickets of an operator, each for ``ticket_stake`` as in `Asset`."""
        arguments, amount = (operator, asset, count), count * ticket_stake
        return self._pay("buyTickets", *arguments, asset=asset, amount=amount)

    def retire_ticket(self, operator: int, asset: int, ticket_id: int) -> Call:
        """Mark a ticket as leaving and thaw its stake."""
        return self._call("retireTicket", operator, asset, ticket_id)

    # Money and time

    def permit(
        self, asset: int, owner: Address, amount: int, deadline: int, signature: bytes
    ) -> Call:
        """Use an owner's ERC-2612 ``signature`` (65 bytes), for what follows in a `multicall`."""
        v, r, s = signature[64], signature[:32], signature[32:64]
        return self._call("permit", asset, owner, amount, deadline, v, r, s)

    def withdraw(self, asset: int, to: Address) -> Call:
        """Pay the sender's credit to ``to``."""
        return self._call("withdraw", asset, to)

    def burn(self, asset: int) -> Call:
        """Destroy the fees and stakes that nobody is to have."""
        return self._call("burn", asset)

    def pause(self) -> Call:
        """As the guardian: stop new jobs and claims, and every clock."""
        return self._call("pause")

    def unpause(self) -> Call:
        """As the guardian: end a pause early."""
        return self._call("unpause")

    def multicall(self, calls: Sequence[Call]) -> Call:
        """Make ``calls``, which pay nothing, happen in one transaction or not at all."""
        for call in calls:
            if call.to != self.market or call.value:
                raise ProtocolError(f"{call.function} cannot be part of a multicall")
        return self._call("multicall", [call.data for call in calls])

    def _call(self, function: str, *arguments: object) -> Call:
        return Call(self.market, function, encode_call(function, *arguments))

    def _pay(self, function: str, *arguments: object, asset: int, amount: int) -> Call:
        value = amount if asset == self.ether else 0
        return Call(self.market, function, encode_call(function, *arguments), value)
