"""Deploying: the constants that the contract refuses, its assets, and a call for all that it takes."""

from dataclasses import replace

import pytest
from eth_utils.abi import filter_abi_by_type

from market.chain.abi import load_contract, to_snake_case
from market.chain.calls import Calls
from market.chain.client import connect
from market.chain.deployment import DEVNET, ETHER_ONLY, MAINNET, deploy
from market.chain.devnet import get_account
from market.chain.rpc import Rpc
from market.chain.structs import NO_ADDRESS, Asset, Role
from market.chain.transactions import Sender
from market.protocol.errors import TransactionReverted

DEPLOYER = get_account(0)
TOKEN = Asset(token="0x" + "11" * 20, ticket_stake=5)
ETHER = Asset(token=NO_ADDRESS, ticket_stake=7)


@pytest.fixture
def sender(devnet):
    with Sender(Rpc(devnet.url), patience_s=20) as connected:
        yield connected


@pytest.mark.parametrize("preset", [MAINNET, DEVNET])
def test_a_preset_is_taken_and_kept(sender, devnet, preset):
    deployment, receipt = deploy(sender, DEPLOYER, preset)

    assert (deployment.block, deployment.ether) == (receipt.block_number, 0)
    with connect(devnet.url, deployment) as chain:
        assert chain.get_config() == preset


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"challenge_window": 599}, "DeploymentWindowTooShort"),
        ({"thaw_time": 664}, "DeploymentWindowTooShort"),
        ({"decline_time": 121}, "DeploymentWindowTooShort"),
        ({"pause_limit": 76}, "DeploymentWindowTooShort"),
        ({"draw_distance": 0}, "DeploymentNeedsDistance"),
        ({"slash_share_bps": 3_001}, "DeploymentShareTooHigh"),
        ({"bond_bps": 10_001}, "DeploymentShareTooHigh"),
    ],
)
def test_constants_that_break_a_rule_are_refused(sender, change, error):
    with pytest.raises(TransactionReverted, match=error):
        deploy(sender, DEPLOYER, replace(DEVNET, **change))


def test_assets_are_numbered_in_order_and_ether_is_paid_with_the_call(sender, devnet):
    deployment, _ = deploy(sender, DEPLOYER, DEVNET, (TOKEN, ETHER))

    with connect(devnet.url, deployment) as chain:
        chain.send(DEPLOYER, chain.calls.register(DEPLOYER.address))
        chain.send(DEPLOYER, chain.calls.buy_tickets(1, 1, 2, ETHER.ticket_stake))

        assert deployment.ether == 1
        assert [chain.get_asset(i) for i in range(chain.count_assets())] == [TOKEN, ETHER]
        assert chain.get_account(1, Role.AUDITOR, 1).staked == 14
        assert chain.calls.stake(1, 0, 5).value == 0


def test_a_market_without_ether_takes_none(sender):
    deployment, _ = deploy(sender, DEPLOYER, DEVNET, (TOKEN,))

    assert deployment.ether is None


@pytest.mark.parametrize(
    ("assets", "error"),
    [((), "DeploymentNeedsAsset"), (ETHER_ONLY * 2, "DeploymentDuplicateAsset")],
)
def test_assets_that_are_none_or_twice_the_same_are_refused(sender, assets, error):
    with pytest.raises(TransactionReverted, match=error):
        deploy(sender, DEPLOYER, DEVNET, assets)


def test_there_is_a_call_for_every_transaction_that_the_contract_takes():
    functions = filter_abi_by_type("function", load_contract().abi)
    taken = {to_snake_case(f["name"]) for f in functions if f["stateMutability"] != "view"}

    assert {
        name for name in vars(Calls) if callable(getattr(Calls, name)) and name[0] != "_"
    } == taken


def test_a_permit_carries_the_three_parts_of_its_signature():
    calls = Calls(DEPLOYER.address)
    signature = bytes(range(64)) + b"\x1c"

    call = calls.permit(0, DEPLOYER.address, 5, 6, signature)

    _, arguments = load_contract().decode_function_input(call.data)
    assert (arguments["v"], arguments["r"] + arguments["s"]) == (28, signature[:64])
