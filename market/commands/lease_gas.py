"""What an honest lease costs in gas: made-up traces on a devnet of its own, each call its own transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from eth_account.signers.local import LocalAccount

from market.chain.client import Chain, connect
from market.chain.deployment import DEVNET, ETHER_ONLY, deploy
from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.events import JobCreated, ShardsClaimed
from market.chain.logs import decode_events
from market.chain.rpc import Rpc
from market.chain.structs import RecordOpening, Role
from market.chain.transactions import Receipt, Sender
from market.protocol.hashing import Hash32, compute_digest
from market.protocol.records import (
    Outcome,
    StateClaim,
    compute_lease_branch,
    compute_lease_root,
)
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef, Terms
from market.storage.cid import cid_of_digest

E = TypeVar("E")

SEGMENTS: Final = 20
SAMPLES: Final = 2
RANGE: Final = 64  # shards of the large lease
_SLOTS: Final = 2 + RANGE
_ETHER: Final = 10**18
_REQUESTER, _PROVIDER, _AUDITOR = (get_account(index) for index in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class LeaseGas:
    """Gas by call, of a lease of one shard, of one of `RANGE` shards, and of being paid."""

    one: dict[str, int]
    many: dict[str, int]
    pay_out: int

    @property
    def lifecycle(self) -> int:
        """From claim to settlement, one shard."""
        return sum(self.one.values())

    @property
    def per_extra_shard(self) -> int:
        """What each further shard of a lease adds."""
        return (sum(self.many.values()) - self.lifecycle) // (RANGE - 1)


def measure_lease_gas(anvil: Path) -> LeaseGas:
    """Play three honest leases, the first of which makes every account one that was used before."""
    with Devnet(DevnetConfig(anvil)) as devnet, Sender(Rpc(devnet.url), 20) as sender:
        deployment, _ = deploy(sender, get_account(0), DEVNET)
        with connect(devnet.url, deployment) as chain:
            stage = _Stage(devnet, chain)
            stage.play(0, 1)
            one, many = stage.play(1, 1), stage.play(2, RANGE)
            stage.pay_out()
            stage.play(0, 1, again=True)
            return LeaseGas(one, many, stage.pay_out())


class _Stage:
    """A job with a provider and an auditor who do what honest ones do."""

    def __init__(self, devnet: Devnet, chain: Chain) -> None:
        self._devnet, self._chain = devnet, chain
        self._provider = self._register(_PROVIDER)
        self._auditor = self._register(_AUDITOR)
        calls, stake = chain.calls, 2 * RANGE * _build_spec(1).terms.stake_per_shard
        chain.send(_PROVIDER, calls.stake(self._provider, 0, stake))
        worth = ETHER_ONLY[0].ticket_stake
        chain.send(_AUDITOR, calls.buy_tickets(self._auditor, 0, -(-stake // worth), worth))
        self._job_id = self._post()

    def play(self, first: int, count: int, *, again: bool = False) -> dict[str, int]:
        """Lease ``count`` slots from ``first``, to settlement; return the gas of each call."""
        if again:
            self._job_id = self._post()
        chain, calls = self._chain, self._chain.calls
        claim = calls.claim(self._job_id, self._provider, 0, first, count)
        claimed = chain.send(_PROVIDER, claim)
        lease_id = _find(claimed, ShardsClaimed).lease_id
        traces = [_make_trace(first + j) for j in range(count)]
        root = compute_lease_root(traces)
        committed = chain.send(_PROVIDER, calls.commit(lease_id, root, root))
        self._devnet.mine(DEVNET.draw_distance)
        header = chain.get_header_rlp(chain.get_lease(lease_id).clock)
        drawn = chain.send(_REQUESTER, calls.draw(lease_id, header))
        openings = self._open(lease_id, first, traces)
        attested = chain.send(_AUDITOR, calls.attest(lease_id, openings))
        self._devnet.advance_time(DEVNET.challenge_window + 1)
        settled = chain.send(_REQUESTER, calls.settle(lease_id))
        receipts = (claimed, committed, drawn, attested, settled)
        return {receipt.function: receipt.gas_used for receipt in receipts}

    def pay_out(self) -> int:
        """Pay the provider what it has earned; return the gas."""
        call = self._chain.calls.pay_out(self._provider, Role.PROVIDER, 0)
        return self._chain.send(_REQUESTER, call).gas_used

    def _open(
        self, lease_id: int, first: int, traces: Sequence[Sequence[StateClaim]]
    ) -> list[RecordOpening]:
        drawn = [divmod(g, SEGMENTS) for g in self._chain.get_drawn_segments(lease_id)]
        return [_open_record(traces, first, shard, segment + 1) for shard, segment in drawn]

    def _register(self, account: LocalAccount) -> int:
        self._chain.send(account, self._chain.calls.register(account.address))
        return self._chain.count_operators()

    def _post(self) -> int:
        chain = self._chain
        spec = _build_spec(chain.get_time() + 10**6)
        posted = chain.send(_REQUESTER, chain.calls.create_job(spec, _REQUESTER.address))
        job_id = _find(posted, JobCreated).job_id
        self._devnet.mine(DEVNET.draw_distance)
        header = chain.get_header_rlp(chain.get_job(job_id).seed_block)
        chain.send(_REQUESTER, chain.calls.draw_seed(job_id, header))
        return job_id


def _make_root(text: str) -> Hash32:
    return compute_digest(text.encode())


def _make_outcome(slot: int, index: int) -> Outcome:
    return Outcome(_make_root(f"gradient {slot} {index}"), _make_root(f"metrics {slot} {index}"))


def _make_trace(slot: int) -> list[StateClaim]:
    """Return the records of a shard that nobody trained, which the contract cannot tell."""
    halves = [
        (_make_root(f"base {slot} {i}"), _make_root(f"slot {slot} {i}"))
        for i in range(SEGMENTS + 1)
    ]
    later = [
        StateClaim(base, slot_root, _make_outcome(slot, i).compute_leaf())
        for i, (base, slot_root) in enumerate(halves[1:], start=1)
    ]
    return [StateClaim(*halves[0]), *later]


def _open_record(
    traces: Sequence[Sequence[StateClaim]], first: int, shard: int, index: int
) -> RecordOpening:
    outcome = _make_outcome(first + shard, index)
    branch = tuple(compute_lease_branch(traces, shard, index))
    state_root = traces[shard][index].state_root
    return RecordOpening(state_root, outcome.gradient_root, outcome.metrics_root, branch)


def _build_spec(deadline: int) -> JobSpec:
    cid = str(cid_of_digest(_make_root("a blob")))
    program = ProgramRef(cid=cid, root=_make_root("program"))
    state = StateRef(cid=cid, base_root=_make_root("base"), slot_root=_make_root("slot"))
    return JobSpec(
        name="gas",
        program=program,
        outer=program,
        dataset=DatasetRef(cid=cid, root=_make_root("dataset")),
        initial_state=state,
        rounds=1,
        slots=_SLOTS,
        segments=SEGMENTS,
        steps_per_segment=2,
        conformance=_make_root("conformance"),
        terms=Terms(
            price_per_shard=_ETHER // 100,
            audit_fee=_ETHER // 1000,
            stake_per_shard=_ETHER // 4,
            lease_time_s=300,
            samples=SAMPLES,
            deadline=deadline,
        ),
    )


def _find(receipt: Receipt, kind: type[E]) -> E:
    return next(event for event in decode_events(receipt.logs) if isinstance(event, kind))
