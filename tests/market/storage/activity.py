"""A market at which people do, by a seed, whatever the contract lets them."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from market.chain.abi import encode_call
from market.chain.client import Chain
from market.chain.deployment import DEVNET
from market.chain.devnet import Devnet, get_account
from market.chain.structs import Challenge, Lease, PostedTerms, RecordOpening, Role
from market.chain.transactions import Call
from market.protocol.errors import MarketError
from market.protocol.hashing import Hash32
from market.protocol.lifecycle import EXITS, LeaseStatus
from market.protocol.records import compute_lease_root, split_position
from tests.market.chain.synthetic import (
    MANIFEST,
    SEGMENTS,
    make_claims,
    make_root,
    open_record,
    open_state,
)

ACCOUNTS: Final = [get_account(index).address for index in range(10)]
GUARDIAN, JUDGE = ACCOUNTS[8], ACCOUNTS[9]
OPERATORS: Final = ACCOUNTS[1:7]  # the owner of operator number i + 1
CONFIG: Final = replace(
    DEVNET,
    audit_time=60,
    decline_time=50,
    grace_time=20,
    vote_time=30,
    response_time=30,
    ruling_time=30,
    challenge_window=120,
    max_lease_time=60,
    thaw_time=180,
    pause_limit=20,
    pause_interval=80,
    guardian=GUARDIAN,
    judge=JUDGE,
)
ETHER: Final = 10**18
# How often people wait for the end of a status instead of doing something in it.
_WAITING: Final = {
    LeaseStatus.LEASED: 0.05,
    LeaseStatus.DRAWN: 0.1,
    LeaseStatus.REPORTED: 0.7,
    LeaseStatus.VOTING: 0.2,
    LeaseStatus.ATTESTED: 0.7,
}
_NOTHING: Final = RecordOpening(Hash32(bytes(32)), Hash32(bytes(32)), Hash32(bytes(32)), ())


class Activity:
    """Random deeds at ``chain``'s market, which was deployed with `CONFIG`."""

    def __init__(self, devnet: Devnet, chain: Chain, seed: int) -> None:
        self.random = Random(seed)
        self._devnet = devnet
        self._chain = chain
        self._calls = chain.calls
        self._deeds: list[Callable[[], None]] = [
            self._post, self._claim, self._move_lease, self._move_challenge,
            self._trade, self._end_job, self._pass_time,
        ]  # fmt: skip
        self._weights = [3, 14, 45, 5, 8, 1, 1]
        self._jobs = 0
        self._snapshots: list[tuple[int, str]] = []  # each with the block that it is after

    def prepare(self) -> None:
        """Register operators with stake and tickets."""
        for number, owner in enumerate(OPERATORS, start=1):
            self._send(owner, self._calls.register(owner))
            self._send(owner, self._calls.stake(number, 0, 400 * ETHER))
            self._send(owner, self._calls.buy_tickets(number, 0, 90, ETHER))

    def act(self, deeds: int) -> None:
        """Try so many deeds; what the contract refuses does not happen."""
        for _ in range(deeds):
            snapshot = self._chain.rpc.call("evm_snapshot", [])
            self._snapshots.append((self._chain.get_height(), snapshot))
            (deed,) = self.random.choices(self._deeds, self._weights)
            try:
                deed()
            except MarketError:  # a refusal, or nothing to do it to
                continue

    def fork(self, depth: int) -> None:
        """Replace about the last ``depth`` blocks, as far as deeds go back, by empty or busy ones.

        Anvil loses states that it rolls back far, so all but short forks go back to a snapshot."""
        if depth < 8 or not self._snapshots:
            self._chain.rpc.call("anvil_reorg", [min(depth, 8), []])
            self._snapshots.clear()
            return
        oldest = self._chain.get_height() - depth
        kept = [place for place in self._snapshots if place[0] < oldest]
        _, snapshot = self._snapshots[min(len(kept), len(self._snapshots) - 1)]
        self._snapshots = kept
        self._chain.rpc.call("evm_revert", [snapshot])
        transfer = {
            "from": ACCOUNTS[0],
            "to": ACCOUNTS[1],
            "value": hex(self.random.getrandbits(60)),
        }
        self._chain.rpc.call(
            "eth_sendTransactionSync", [transfer]
        )  # so that no block is the old one
        self.act(self.random.randint(0, depth))

    def _send(self, sender: str, call: Call) -> None:
        deed = {"from": sender, "to": call.to, "data": "0x" + call.data.hex()}
        self._chain.rpc.call("eth_sendTransactionSync", [{**deed, "value": hex(call.value)}])

    def _post(self) -> None:
        slots, rounds, samples = (self.random.randint(1, most) for most in (6, 2, 2))
        timed = self.random.random() < 0.5
        terms = PostedTerms(
            asset=0,
            price_per_shard=self.random.randint(1, ETHER),
            floor_bps=self.random.choice([5_000, 10_000]),
            ramp_time=self.random.randint(0, 100),
            audit_fee=self.random.randint(0, ETHER // 10),
            stake_per_shard=12 * ETHER + self.random.randint(0, 99),
            poison_value=0,
            lease_time=60,
            round_time=100 if timed else 0,
            quorum=self.random.randint(1, slots) if timed else slots,
            samples=samples,
            deadline=self._chain.get_time() + 1_500,
        )
        leaves = [make_root(str(leaf)) for leaf in range(8)]
        schedule = b"".join(n.to_bytes(8) for n in (rounds, slots, SEGMENTS, 2))
        leaves[5] = Hash32(schedule)
        requester = self.random.choice(ACCOUNTS)
        escrow = rounds * slots * (terms.price_per_shard + terms.audit_fee)
        data = encode_call("createJob", requester, leaves, terms)
        self._send(ACCOUNTS[0], Call(self._calls.market, "createJob", data, escrow))
        self._jobs = len(self._chain.list_jobs())
        self._devnet.mine(CONFIG.draw_distance + 1)
        if self.random.random() < 0.9:
            self._open(self._jobs)

    def _open(self, job_id: int) -> None:
        header = self._chain.get_header_rlp(self._chain.get_job(job_id).seed_block)
        self._send(ACCOUNTS[0], self._calls.draw_seed(job_id, header))

    def _claim(self) -> None:
        job_id = self._choose_job()
        job, operator = self._chain.get_job(job_id), self._choose_operator()
        first = self.random.randrange(job.slots)
        count = self.random.randint(1, min(2, job.slots - first))
        call = self._calls.claim(job_id, operator, job.round, first, count)
        self._send(OPERATORS[operator - 1], call)

    def _move_lease(self) -> None:
        job_id = self._choose_job()
        recent = max(1, self._chain.get_job(job_id).leases)
        lease_id = job_id * 1_000_000 + self.random.randint(max(1, recent - 2), recent)
        lease, status = self._chain.get_lease(lease_id), self._chain.get_status(lease_id)
        if status in _WAITING and self.random.random() < _WAITING[status]:
            self._devnet.advance_time(max(1, lease.clock - self._chain.get_time() + 1))
        elif status is LeaseStatus.LEASED:
            self._commit(lease_id, lease)
        elif status in (LeaseStatus.COMMITTED, LeaseStatus.CONVENED):
            self._devnet.mine(CONFIG.draw_distance + 1)
            header = self._chain.get_header_rlp(lease.clock)
            draws = status is LeaseStatus.COMMITTED
            call = (self._calls.draw if draws else self._calls.draw_panel)(lease_id, header)
            self._send(ACCOUNTS[0], call)
        elif status in (LeaseStatus.DRAWN, LeaseStatus.REPORTED):
            self._audit(lease_id, lease)
        elif status is LeaseStatus.VOTING:
            member = self.random.choice(self._chain.get_panel(lease_id).members)
            call = self._calls.vote(lease_id, member, available=self.random.random() < 0.3)
            self._send(OPERATORS[member - 1], call)
        elif status is LeaseStatus.ATTESTED:
            self._challenge(lease_id, lease)
        elif status in EXITS and status is not LeaseStatus.ACCUSED:
            data = encode_call(EXITS[status], lease_id)
            self._send(ACCOUNTS[0], Call(self._calls.market, EXITS[status], data, 0))

    def _commit(self, lease_id: int, lease: Lease) -> None:
        provider = OPERATORS[lease.operator - 1]
        root = compute_lease_root([make_claims()] * lease.count)
        self._send(provider, self._calls.commit(lease_id, root, MANIFEST))
        if self.random.random() < 0.1:
            self._send(provider, self._calls.withdraw_commitment(lease_id))

    def _audit(self, lease_id: int, lease: Lease) -> None:
        shard, index = self.random.randrange(lease.count), self.random.randint(0, SEGMENTS)
        way = self.random.random()
        if way < 0.6:
            call = self._attest(lease_id, lease)
        elif way < 0.75:
            call = self._calls.accuse(lease_id, shard, index)
        else:
            call = (self._calls.decline if way < 0.85 else self._calls.report)(lease_id)
        self._send(OPERATORS[lease.auditor - 1], call)

    def _attest(self, lease_id: int, lease: Lease) -> Call:
        traces = [make_claims()] * lease.count
        drawn = [divmod(g, SEGMENTS) for g in self._chain.get_drawn_segments(lease_id)]
        return self._calls.attest(lease_id, [open_record(traces, j, i + 1) for j, i in drawn])

    def _challenge(self, lease_id: int, lease: Lease) -> None:
        job = self._chain.get_job(lease_id // 1_000_000)
        bond = lease.count * job.stake_per_shard * CONFIG.bond_bps // 10_000
        shard, index = self.random.randrange(lease.count), self.random.randint(0, SEGMENTS)
        call = self._calls.challenge(lease_id, shard, index, 0, bond)
        self._send(self.random.choice(ACCOUNTS), call)

    def _move_challenge(self) -> None:
        latest = self._chain.count_challenges()
        challenge_id = self.random.randint(max(1, latest - 4), max(1, latest))
        challenge = self._chain.get_challenge(challenge_id)
        way = self.random.random()
        if way < 0.1:
            self._devnet.advance_time(CONFIG.ruling_time + 1)
        if way < 0.5:
            sender, call = self._answer(challenge_id, challenge)
        elif way < 0.8:
            upheld = self.random.random() < 0.5
            sender, call = JUDGE, self._calls.rule(challenge_id, upheld=upheld)
        else:
            sender, call = ACCOUNTS[0], self._calls.resolve(challenge_id)
        self._send(sender, call)

    def _answer(self, challenge_id: int, challenge: Challenge) -> tuple[str, Call]:
        lease = self._chain.get_lease(challenge.lease_id)
        shard, index = split_position(challenge.position, SEGMENTS)
        traces = [make_claims()] * lease.count
        before = open_state(traces, shard, max(index - 1, 0))
        opened = _NOTHING if index == 0 else open_record(traces, shard, index)
        call = self._calls.answer(challenge_id, before, opened)
        return OPERATORS[lease.operator - 1], call

    def _trade(self) -> None:
        operator = self._choose_operator()
        owner, calls, role = OPERATORS[operator - 1], self._calls, self.random.choice([*Role])
        amount = self.random.randint(1, ETHER)
        other = self.random.choice(ACCOUNTS)
        choices: list[Callable[[], Call]] = [
            lambda: calls.stake(operator, 0, 12 * amount),
            lambda: calls.buy_tickets(operator, 0, self.random.randint(1, 9), ETHER),
            lambda: calls.retire_ticket(operator, 0, self.random.randrange(540)),
            lambda: calls.thaw(operator, 0, amount),
            lambda: calls.withdraw_stake(operator, role, 0),
            lambda: calls.pay_out(operator, role, 0),
            lambda: calls.set_payout(operator, other),
            lambda: calls.set_worker(operator, other, authorized=other == owner or amount % 2 == 0),
            lambda: calls.propose_owner(operator, owner),
            lambda: calls.accept_owner(operator),
            lambda: calls.withdraw(0, other),
            lambda: calls.burn(0),
            self.random.choice([calls.pause, calls.unpause, calls.unpause]),
        ]
        call = self.random.choice(choices)()
        sender = {"pause": GUARDIAN, "unpause": GUARDIAN, "withdraw": other}.get(call.function)
        self._send(sender or owner, call)

    def _end_job(self) -> None:
        job_id = self._choose_job()
        requester = self._chain.get_job(job_id).requester
        choices = [self._calls.refund(job_id), self._calls.close_round(job_id)]
        if self.random.random() < 0.3:
            choices.append(self._calls.cancel_job(job_id))
        for call in self.random.sample(choices, len(choices)):
            self._send(requester, call)

    def _pass_time(self) -> None:
        if self.random.random() < 0.02:
            self._devnet.mine(260)  # so that draws are missed
        self._devnet.advance_time(self.random.choice([1, 5, 15, 40, 70, CONFIG.thaw_time]))

    def _choose_job(self) -> int:
        """Return a job, one of the last few as a rule."""
        return max(1, self._jobs - self.random.randrange(2))

    def _choose_operator(self) -> int:
        return self.random.randint(1, len(OPERATORS))
