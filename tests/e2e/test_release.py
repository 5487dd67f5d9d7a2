"""A registry that asks for a newer client: what is begun is finished, and nothing new is claimed."""

from collections.abc import Callable

from market.chain.abi import encode_call
from market.chain.deployment import deploy_periphery
from market.chain.devnet import get_account
from market.chain.transactions import Call
from market.protocol.lifecycle import LeaseStatus
from tests.e2e.conftest import World


def ask_for_client(world: World, number: int) -> None:
    data = encode_call("setMinimumClient", 0, number, contract="Registry")
    call = Call(world.chain.deployment.registry, "setMinimumClient", data)
    world.chain.send(get_account(0), call)


def test_an_old_client_finishes_its_lease_and_claims_no_other(open_world: Callable[..., World]):
    world = open_world()
    chain = world.chain
    chain.deployment = deploy_periphery(chain, get_account(0), chain.deployment)
    world.add_provider(2)
    world.run_until(lambda: bool(world.leases()))

    ask_for_client(world, 10**9)
    (lease,) = world.leases()
    world.run_until(lambda: chain.get_status(lease) is LeaseStatus.COMMITTED)
    turns = [world.parties[0].take_turn() for _ in range(3)]
    assert list(world.leases()) == [lease], turns

    ask_for_client(world, 0)
    world.run_until(lambda: len(world.leases()) == 2)
