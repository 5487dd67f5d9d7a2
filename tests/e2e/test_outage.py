"""A node that dies and comes back in the middle of a lease: the daemons go on where they were."""

import pytest

from market.chain.client import connect
from market.chain.deployment import DEVNET, deploy
from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.events import JobCreated
from market.chain.rpc import Rpc
from market.chain.transactions import Sender
from market.protocol.errors import NodeUnavailable
from market.protocol.lifecycle import LeaseStatus
from market.storage.blobs import BlobStore
from tests.e2e.conftest import STORE_BYTES, TERMS, World
from tests.trainer.tiny_job import SCHEDULE, build_tiny_job
from trainer.jobs import publish_job


@pytest.fixture
def outage_world(anvil, tmp_path):
    """A world on a node of its own, which keeps its state in a file."""
    config = DevnetConfig(anvil, state_file=tmp_path / "chain.json")
    with Devnet(config) as node, Sender(Rpc(node.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), DEVNET)
        store = BlobStore(tmp_path / "store", STORE_BYTES)
        spec = publish_job(store, schedule=SCHEDULE, terms=TERMS, **build_tiny_job())
        with connect(node.url, deployment, patience_s=0.2) as chain:
            requester = get_account(1)
            chain.send(requester, chain.calls.create_job(spec, requester.address))
            (created,) = chain.find_events(0, chain.get_height(), (JobCreated,))
            yield World(chain, node, tmp_path, created.job_id, spec, store)


def test_a_node_that_dies_in_the_middle_of_a_lease_costs_nothing(outage_world, anvil):
    world = outage_world
    provider = world.add_provider(2, leases=9)
    world.add_auditor(4)
    world.run_until_status(LeaseStatus.LEASED)

    world.devnet.stop()
    for party in world.parties:
        with pytest.raises(NodeUnavailable):
            party.take_turn()
    config = DevnetConfig(anvil, port=world.devnet.port, state_file=world.folder / "chain.json")
    with Devnet(config) as again:
        world.devnet = again
        world.run_until_attested()
        staked = world.provider_stake(provider).staked

    assert staked == 9 * TERMS.stake_per_shard
