"""A whole market in one process: a real chain, real blobs, a tiny real model, and parties that take turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from market.chain.client import Chain
from market.chain.deployment import DEVNET
from market.chain.devnet import Devnet, get_account
from market.chain.events import JobCreated, ShardClaimed
from market.chain.ledger import Ledger
from market.protocol.lifecycle import LeaseStatus
from market.protocol.spec import JobSpec, Terms
from market.storage.blobs import BlobStore
from tests.trainer.tiny_job import SCHEDULE, build_tiny_job
from trainer.execution import Executor
from trainer.jobs import JobFiles, fetch_job, publish_job
from trainer.provider import Provider, ProviderSetup
from trainer.shards import TrainSegment, run_segment
from verifier.auditor import Auditor, AuditorSetup

ETHER = 10**18
STORE_BYTES = 10**8
TERMS = Terms(
    price_per_shard=ETHER // 100,
    audit_fee=ETHER // 1000,
    stake_per_lease=ETHER // 10,
    lease_time_s=300,
    samples=2,
    deadline=2**40,
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

    @property
    def files(self) -> JobFiles:
        return fetch_job(self.store, self.spec)

    def build_provider(self, account: LocalAccount, train: TrainSegment = run_segment) -> Provider:
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

    def add_provider(self, number: int, train: TrainSegment = run_segment, leases: int = 1) -> str:
        account = get_account(number)
        self.chain.send(account, self.chain.calls.stake(leases * TERMS.stake_per_lease))
        self.parties.append(self.build_provider(account, train))
        return account.address

    def add_auditor(self, number: int) -> str:
        account = get_account(number)
        self.chain.send(account, self.chain.calls.buy_tickets(3, DEVNET.ticket_stake))
        self.parties.append(self.build_auditor(account))
        return account.address

    def ledger(self) -> Ledger:
        ledger = Ledger(self.chain)
        ledger.refresh()
        return ledger

    def leases(self) -> dict[int, ShardClaimed]:
        return {event.lease_id: event for event in self.ledger().iterate(ShardClaimed)}

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

    def run_until_attested(self) -> None:
        """Run until every shard of every round is attested."""
        self.run_until(lambda: self.chain.get_job(self.job_id).round == self.spec.rounds)


@pytest.fixture
def open_world(chain: Chain, devnet: Devnet, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Post a tiny job; keyword arguments go to `build_tiny_job`."""

    def open_one(**changes: object) -> World:
        store = BlobStore(tmp_path / "store", STORE_BYTES)
        spec = publish_job(store, schedule=SCHEDULE, terms=TERMS, **build_tiny_job(**changes))
        requester = get_account(1)
        chain.send(requester, chain.calls.create_job(spec))
        (created,) = chain.find_events(chain.deployment.block, chain.get_height(), (JobCreated,))
        return World(chain, devnet, tmp_path, created.job_id, spec, store)

    return open_one
