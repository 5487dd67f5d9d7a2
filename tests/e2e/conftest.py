"""A whole market in one process: a real chain, real blobs, a tiny real model, and parties that take turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
from market.chain.deployment import ETHER_ONLY
from market.chain.devnet import Devnet, get_account
from market.chain.events import JobCreated, OperatorRegistered, ShardsClaimed
from market.chain.ledger import Ledger
from market.chain.structs import Account, Role
from market.protocol.lifecycle import LeaseStatus
from market.protocol.spec import JobSpec, Terms
from market.storage.blobs import BlobStore
from tests.trainer.tiny_job import SCHEDULE, build_tiny_job
from trainer.execution import Executor
from trainer.jobs import JobFiles, Schedule, fetch_job, publish_job
from trainer.provider import Provider
from trainer.shards import TrainSegment, run_segment
from trainer.training import ProviderSetup
from verifier.auditor import Auditor, AuditorSetup

ETHER = 10**18
STORE_BYTES = 10**8
TERMS = Terms(
    price_per_shard=ETHER // 100,
    audit_fee=ETHER // 1000,
    stake_per_shard=ETHER // 10,
    lease_time_s=300,
    samples=2,
    deadline=2**40 - 1,
)


@dataclass
class World:
    """Parties around one job. `run_until` lets each take turns until something holds."""

    chain: Chain
    devnet: Devnet
    folder: Path
    job_id: int
    spec: JobSpec
    store: BlobStore
    parties: list[Provider | Auditor] = field(default_factory=list)
    actors: dict[int, Provider | Auditor] = field(default_factory=dict)  # by operator
    accounts: dict[int, LocalAccount] = field(default_factory=dict)  # by operator

    @property
    def files(self) -> JobFiles:
        return fetch_job(self.store, self.spec)

    def build_provider(
        self,
        account: LocalAccount,
        train: TrainSegment = run_segment,
        shards: int = 1,
        *,
        self_check: bool | None = None,
    ) -> Provider:
        """A provider on its files on disk: built again, it is the same one after a restart."""
        home = self.folder / account.address
        return Provider(
            ProviderSetup(
                chain=self.chain,
                account=account,
                public=self.store,
                private=BlobStore(home / "blobs", STORE_BYTES),
                home=home,
                build_executor=lambda files: Executor(files.program),
                train=train,
                most_shards=shards,
                # A cheat would find itself out.
                self_check=train is run_segment if self_check is None else self_check,
            )
        )

    def build_auditor(self, account: LocalAccount) -> Auditor:
        return Auditor(
            AuditorSetup(
                chain=self.chain,
                account=account,
                store=self.store,
                home=self.folder / account.address,
                build_executor=lambda files: Executor(files.program),
            )
        )

    def register(self, account: LocalAccount) -> int:
        """Let ``account`` be an operator that acts for itself; return its number."""
        receipt = self.chain.send(account, self.chain.calls.register(account.address))
        block = receipt.block_number
        (event,) = self.chain.find_events(block, block, (OperatorRegistered,))
        self.accounts[event.operator] = account
        return event.operator

    def _join(self, operator: int, party: Provider | Auditor) -> int:
        self.actors[operator] = party
        self.parties.append(party)
        return operator

    def add_provider(
        self, number: int, train: TrainSegment = run_segment, leases: int = 1, shards: int = 1
    ) -> int:
        """Add a provider with stake for ``leases`` shards; return its operator."""
        account = get_account(number)
        operator = self.register(account)
        amount = leases * TERMS.stake_per_shard
        self.chain.send(account, self.chain.calls.stake(operator, 0, amount))
        return self._join(operator, self.build_provider(account, train, shards))

    def add_auditor(self, number: int, tickets: int = 3) -> int:
        """Add an auditor with ``tickets``; return its operator."""
        account = get_account(number)
        operator = self.register(account)
        (ether,) = ETHER_ONLY
        calls = self.chain.calls
        self.chain.send(account, calls.buy_tickets(operator, 0, tickets, ether.ticket_stake))
        return self._join(operator, self.build_auditor(account))

    def provider_stake(self, operator: int) -> Account:
        return self.chain.get_account(operator, Role.PROVIDER, 0)

    def auditor_stake(self, operator: int) -> Account:
        return self.chain.get_account(operator, Role.AUDITOR, 0)

    def ledger(self) -> Ledger:
        ledger = Ledger(self.chain)
        ledger.refresh()
        return ledger

    def leases(self) -> dict[int, ShardsClaimed]:
        return {event.lease_id: event for event in self.ledger().iterate(ShardsClaimed)}

    def statuses(self) -> dict[int, LeaseStatus]:
        return {lease: self.chain.get_status(lease) for lease in self.leases()}

    def run_until(self, holds: Callable[[], bool], turns: int = 400) -> None:
        """Let every party take a turn, then a block pass, until ``holds``."""
        for _ in range(turns):
            if holds():
                return
            for party in self.parties:
                party.take_turn()
            self.devnet.mine(1)
        raise AssertionError(f"not within {turns} turns: {self.statuses()}")

    def run_until_status(self, status: LeaseStatus) -> int:
        """Run until a lease is in ``status``; return that lease."""
        self.run_until(lambda: status in self.statuses().values())
        return next(lease for lease, current in self.statuses().items() if current is status)

    def run_until_attested(self) -> None:
        """Run until every round is closed."""
        self.run_until(lambda: self.chain.get_job(self.job_id).round == self.spec.rounds)


@pytest.fixture
def open_world(chain: Chain, devnet: Devnet, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Post a tiny job; keyword arguments go to `build_tiny_job`."""

    def open_one(schedule: Schedule = SCHEDULE, terms: Terms = TERMS, **changes: object) -> World:
        store = BlobStore(tmp_path / "store", STORE_BYTES)
        spec = publish_job(store, schedule=schedule, terms=terms, **build_tiny_job(**changes))
        requester = get_account(1)
        chain.send(requester, chain.calls.create_job(spec, requester.address))
        (created,) = chain.find_events(chain.deployment.block, chain.get_height(), (JobCreated,))
        return World(chain, devnet, tmp_path, created.job_id, spec, store)

    return open_one
