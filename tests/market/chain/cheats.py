"""A cheat, its friends and honest people at a deployed market: every way out that a cheat has, played.

A play is one lease of one shard, with a trace of synthetic roots, from claim to its end; what it earns is
read from the accounts. Draws are not forged: blocks are mined until chance brings the case that is played."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from market.chain.client import Chain
from market.chain.deployment import DEVNET, deploy
from market.chain.devnet import Devnet, get_account
from market.chain.events import JobCreated, RecordChallenged, ShardsClaimed
from market.chain.logs import decode_events
from market.chain.rpc import Rpc
from market.chain.structs import Role
from market.chain.transactions import Call, Receipt, Sender
from market.protocol.lifecycle import LeaseStatus
from market.protocol.records import StateClaim, compute_lease_root
from market.protocol.sampling import (
    choose_segments,
    compute_segment_seed,
    draw_panel,
    draw_tickets,
)
from market.protocol.spec import JobSpec, compute_minimum_stake
from tests.conftest import Party, register
from tests.market.chain.synthetic import (
    MANIFEST,
    SEGMENTS,
    make_claims,
    make_root,
    make_spec,
    open_record,
    open_state,
)

E = TypeVar("E")

SEATS = 7
JUDGE = get_account(9)
CONFIG = replace(DEVNET, judge=JUDGE.address, response_time=60, thaw_time=900)


def deploy_market(devnet: Devnet) -> Chain:
    """Return a market whose judge tells the truth."""
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), CONFIG)
    return Chain(Rpc(devnet.url), deployment, 20)


@dataclass
class Stage:
    """A market with a cheat, two honest auditors, and a friend of the cheat's with a third of the tickets."""

    chain: Chain
    devnet: Devnet
    spec: JobSpec
    requester: Party
    cheat: Party
    friend: Party
    honest: tuple[Party, Party]
    owners: tuple[int, ...]  # of the tickets
    job_id: int = 0
    lease_id: int = 0

    @property
    def price(self) -> int:
        """What a shard pays."""
        return self.spec.terms.price_per_shard

    @property
    def stake(self) -> int:
        """What a shard's provider has locked."""
        return self.spec.terms.stake_per_shard

    # -- the honest steps

    def claim(self) -> None:
        """Post a job of one shard and lease it as the cheat."""
        call = self.chain.calls.create_job(self.spec, self.requester.account.address)
        self.job_id = _find(self.requester.send(call), JobCreated).job_id
        self.devnet.mine(CONFIG.draw_distance)
        seed_block = self.chain.get_job(self.job_id).seed_block
        self.send(self.chain.calls.draw_seed(self.job_id, self.chain.get_header_rlp(seed_block)))
        call = self.chain.calls.claim(self.job_id, self.cheat.operator, 0, 0, 1)
        self.lease_id = _find(self.cheat.send(call), ShardsClaimed).lease_id

    def commit(self) -> None:
        """Commit to the trace; which of its records are false only the recomputation shows."""
        root = compute_lease_root([self.trace])
        self.cheat.send(self.chain.calls.commit(self.lease_id, root, MANIFEST))

    def draw(self, wanted: Callable[[int, Sequence[int]], bool]) -> None:
        """Draw when chance brings an auditor and segments that are ``wanted``."""
        header = self._mine_until(lambda mix: wanted(self._find_auditor(mix), self._choose(mix)))
        self.send(self.chain.calls.draw(self.lease_id, header))

    def attest(self) -> None:
        """As whoever is drawn: open the drawn records, as only who knows the gradients can."""
        drawn = self.chain.get_drawn_segments(self.lease_id)
        openings = [open_record([self.trace], 0, segment + 1) for segment in drawn]
        self.auditor.send(self.chain.calls.attest(self.lease_id, openings))

    def settle(self) -> None:
        """Wait for the end of the window and settle."""
        self.wait(CONFIG.challenge_window)
        self.send(self.chain.calls.settle(self.lease_id))

    def accuse(self, index: int) -> int:
        """As whoever is drawn: accuse a record; return the challenge."""
        receipt = self.auditor.send(self.chain.calls.accuse(self.lease_id, 0, index))
        return _find(receipt, RecordChallenged).challenge_id

    def challenge(self, challenger: Party, index: int) -> int:
        """Accuse a record with a bond; return the challenge."""
        call = self.chain.calls.challenge(self.lease_id, 0, index, 0, self.bond)
        return _find(challenger.send(call), RecordChallenged).challenge_id

    @property
    def bond(self) -> int:
        """What a challenger puts down."""
        return self.stake * CONFIG.bond_bps // 10_000

    def answer(self, challenge_id: int, index: int) -> None:
        """As the cheat: open the accused record, false as it is."""
        before = open_state([self.trace], 0, index - 1)
        self.cheat.send(
            self.chain.calls.answer(challenge_id, before, open_record([self.trace], 0, index))
        )

    def rule(self, challenge_id: int) -> None:
        """As the judge: find the record false."""
        self.chain.send(JUDGE, self.chain.calls.rule(challenge_id, upheld=True))

    def report(self, burns: bool) -> None:
        """Report as whoever is drawn, and let a panel vote: honest members against, friends in favour.

        The panel is one that ``burns`` the stake, or does not."""
        self.auditor.send(self.chain.calls.report(self.lease_id))
        self.wait(CONFIG.grace_time)
        self.send(self.chain.calls.convene(self.lease_id))
        header = self._mine_until(lambda mix: (self._count_honest(mix) >= 5) == burns)
        self.send(self.chain.calls.draw_panel(self.lease_id, header))
        for member in set(self.chain.get_panel(self.lease_id).members):
            party = self._get_auditor(member)
            vote = self.chain.calls.vote(self.lease_id, member, available=party is self.friend)
            party.send(vote)
        self.wait(CONFIG.vote_time)
        self.send(self.chain.calls.close_vote(self.lease_id))

    def wait(self, seconds: int) -> None:
        """Let a clock of so many seconds run out."""
        self.devnet.advance_time(seconds + 1)

    def send(self, call: Call) -> Receipt:
        """Send what anyone may."""
        return self.requester.send(call)

    def get_status(self) -> LeaseStatus:
        """Return the lease's status."""
        return self.chain.get_status(self.lease_id)

    # -- what is known of it

    @property
    def trace(self) -> list[StateClaim]:
        """What the cheat commits to."""
        claims = make_claims()
        return [StateClaim(self.spec.initial_state.base_root, make_root("slot")), *claims[1:]]

    @property
    def auditor(self) -> Party:
        """Whoever is drawn."""
        return self._get_auditor(self.chain.get_lease(self.lease_id).auditor)

    def is_friend(self, auditor: int) -> bool:
        """Check whether that operator is the cheat's friend."""
        return auditor == self.friend.operator

    def _get_auditor(self, operator: int) -> Party:
        return next(p for p in (self.friend, *self.honest) if p.operator == operator)

    def _mine_until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Return the header of the block that draws, mined until its mixHash is ``wanted``."""
        number = self.chain.get_lease(self.lease_id).clock
        for attempt in range(200):
            snapshot = self.devnet.rpc.call("evm_snapshot", [])
            self._send_noise(attempt)
            self.devnet.mine(number - self.chain.get_height())
            block = self.devnet.rpc.call("eth_getBlockByNumber", [hex(number), False])
            if wanted(bytes.fromhex(block["mixHash"][2:])):
                return self.chain.get_header_rlp(number)
            self.devnet.rpc.call("evm_revert", [snapshot])
        raise AssertionError("chance did not bring the case in 200 blocks")

    def _send_noise(self, attempt: int) -> None:
        """Mine a block unlike any other attempt's: Anvil's next mixHash can follow from the last block."""
        idle = get_account(7).address
        self.devnet.rpc.call(
            "eth_sendTransaction", [{"from": idle, "value": hex(attempt), "to": idle}]
        )

    def _choose(self, mix_hash: bytes) -> list[int]:
        seed = self.chain.get_lease(self.lease_id).seed
        seed = seed or compute_segment_seed(self.lease_id, mix_hash)
        return choose_segments(seed, SEGMENTS, self.spec.terms.samples)

    def _find_auditor(self, mix_hash: bytes) -> int:
        first = draw_tickets(self.lease_id, mix_hash, len(self.owners))[0]  # everybody is eligible
        return self.owners[first]

    def _count_honest(self, mix_hash: bytes) -> int:
        reporter = self.chain.get_lease(self.lease_id).auditor
        seats: dict[int, int] = {}
        for ticket in draw_panel(self.lease_id, mix_hash, len(self.owners)):
            owner = self.owners[ticket]
            if owner != reporter and len(seats) < SEATS:
                seats.setdefault(ticket, owner)
        return sum(not self.is_friend(owner) for owner in seats.values())


def set_stage(devnet: Devnet, chain: Chain, stake_percent: int = 100) -> Stage:
    """Return a stage on which the stake is so much of the least that the market asks for."""
    spec = make_spec(2**39)
    least = compute_minimum_stake(spec.terms, SEGMENTS)
    terms = spec.terms.model_copy(update={"stake_per_shard": least * stake_percent // 100})
    spec = spec.model_copy(update={"terms": terms})
    cheat, friend, *honest = (register(chain, get_account(k)) for k in (2, 3, 4, 5))
    cheat.send(chain.calls.stake(cheat.operator, 0, 40 * least))
    for party in (friend, *honest):
        worth = chain.get_asset(0).ticket_stake
        party.send(chain.calls.buy_tickets(party.operator, 0, SEATS * 4, worth))
    requester = Party(chain, get_account(1))
    owners = tuple(chain.get_ticket(0, k).operator for k in range(chain.count_tickets(0)))
    return Stage(chain, devnet, spec, requester, cheat, friend, (honest[0], honest[1]), owners)


def count_wealth(stage: Stage) -> int:
    """Return what the cheat and its second key have at the market."""
    chain = stage.chain
    account = chain.get_account(stage.cheat.operator, Role.PROVIDER, 0)
    return account.staked + account.earned + chain.get_credit(get_account(8).address, 0)


def play(stage: Stage, scene: Callable[[Stage], int | None]) -> int:
    """Return what the cheat has after ``scene`` more than before, less what its second key put in."""
    before = count_wealth(stage)
    paid = scene(stage) or 0
    return count_wealth(stage) - before - paid


def _find(receipt: Receipt, kind: type[E]) -> E:
    return next(event for event in decode_events(receipt.logs) if isinstance(event, kind))
