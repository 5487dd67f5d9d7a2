"""What every package's tests share: a real chain, a market on it, and its parties."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import hypothesis
import pytest
import uvicorn
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI

from market.api.client import get_tls
from market.chain.client import Chain, connect
from market.chain.deployment import DEVNET, ETHER_ONLY, deploy
from market.chain.devnet import Devnet, DevnetConfig, find_anvil, get_account
from market.chain.events import JobCreated, OperatorRegistered, ShardsClaimed
from market.chain.logs import decode_events
from market.chain.rpc import Rpc
from market.chain.transactions import Call, Receipt, Sender
from market.protocol.spec import JobSpec

Serve = Callable[[FastAPI], httpx.Client]

# Triton decides when it is imported whether it compiles kernels, or interprets them where no GPU is.
os.environ["TRITON_INTERPRET"] = "1"

# Shared machines are slow at times, and a failure must come again: no deadline, no fresh randomness.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def anvil() -> Path:
    """The Anvil binary; without one nothing about the chain can be tested, so this fails."""
    configured = os.environ.get("TOUCHSTONE_ANVIL")
    return find_anvil(Path(configured) if configured else None)


@pytest.fixture(scope="session")
def devnet(anvil: Path) -> Iterator[Devnet]:
    """A chain whose blocks come only with transactions and with `Devnet.mine`."""
    with Devnet(DevnetConfig(anvil)) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with a key, who sends through ``chain``; perhaps an operator."""

    chain: Chain
    account: LocalAccount
    operator: int = 0  # its number; zero for none

    def send(self, call: Call) -> Receipt:
        """Send ``call`` and return its receipt."""
        return self.chain.send(self.account, call)


@pytest.fixture
def chain(devnet: Devnet) -> Iterator[Chain]:
    """A market of its own for each test."""
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), DEVNET)
    with connect(devnet.url, deployment, patience_s=20) as connected:
        yield connected


@pytest.fixture
def requester(chain: Chain) -> Party:
    return Party(chain, get_account(1))


def register(chain: Chain, account: LocalAccount) -> Party:
    """Make ``account`` an operator that is paid at its own address."""
    receipt = chain.send(account, chain.calls.register(account.address))
    registered, *_ = decode_events(receipt.logs)
    assert isinstance(registered, OperatorRegistered)
    return Party(chain, account, registered.operator)


@pytest.fixture
def provider(chain: Chain) -> Party:
    return register(chain, get_account(2))


@pytest.fixture
def auditor(chain: Chain) -> Party:
    return register(chain, get_account(3))


@pytest.fixture
def post_job(devnet: Devnet, chain: Chain, requester: Party) -> Callable[[JobSpec], int]:
    """Post and open a job; return its id."""

    def post(spec: JobSpec) -> int:
        receipt = requester.send(chain.calls.create_job(spec, requester.account.address))
        (created,) = chain.find_events(receipt.block_number, receipt.block_number, (JobCreated,))
        devnet.mine(DEVNET.draw_distance)
        header = chain.get_header_rlp(chain.get_job(created.job_id).seed_block)
        requester.send(chain.calls.draw_seed(created.job_id, header))
        return created.job_id

    return post


class Claim(Protocol):
    """Leases the first ``count`` slots of a job's first round."""

    def __call__(self, job_id: int, count: int = 1) -> int: ...


@pytest.fixture
def claim_shards(chain: Chain, provider: Party, auditor: Party) -> Claim:
    """Stake, list tickets and lease a job's first shards; return the lease."""

    def claim(job_id: int, count: int = 1) -> int:
        stake = count * chain.get_job(job_id).stake_per_shard
        worth = ETHER_ONLY[0].ticket_stake
        provider.send(chain.calls.stake(provider.operator, 0, stake))
        auditor.send(chain.calls.buy_tickets(auditor.operator, 0, -(-stake // worth), worth))
        receipt = provider.send(chain.calls.claim(job_id, provider.operator, 0, 0, count))
        (claimed,) = decode_events(receipt.logs)
        assert isinstance(claimed, ShardsClaimed)
        return claimed.lease_id

    return claim


@contextmanager
def _serve(app: FastAPI) -> Iterator[httpx.Client]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on connections wait for the server
        config = uvicorn.Config(app, ws="none", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, verify=get_tls()) as client:
            yield client
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an application until the test ends; return a client of it."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(_serve(app))
