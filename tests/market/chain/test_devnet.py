"""Starting, stopping and crashing the local chain."""

import pytest

from market.chain import devnet as devnet_module
from market.chain.devnet import CHAIN_ID, Devnet, DevnetConfig, find_anvil, get_account
from market.chain.rpc import Rpc
from market.protocol.errors import ChainError, NodeUnavailable, NotFound


def _get_time(devnet: Devnet) -> int:
    return int(devnet.rpc.call("eth_getBlockByNumber", ["latest", False])["timestamp"], 16)


def _get_height(devnet: Devnet) -> int:
    return int(devnet.rpc.call("eth_blockNumber", []), 16)


def test_a_devnet_has_its_chain_id_and_funded_accounts(devnet):
    balance = devnet.rpc.call("eth_getBalance", [get_account(9).address, "latest"])

    assert int(devnet.rpc.call("eth_chainId", []), 16) == CHAIN_ID
    assert int(balance, 16) > 1000 * 10**18


def test_blocks_and_time_advance_on_demand(devnet):
    height, time = _get_height(devnet), _get_time(devnet)

    devnet.mine(3)
    devnet.advance_time(1000)

    assert _get_height(devnet) == height + 4
    assert _get_time(devnet) >= time + 1000


def test_a_stopped_devnet_comes_back_with_its_blocks(anvil, tmp_path):
    config = DevnetConfig(anvil, state_file=tmp_path / "state.json")
    with Devnet(config) as first:
        first.mine(5)
        block = first.rpc.call("eth_getBlockByNumber", ["0x4", False])["hash"]

    with Devnet(config) as second:
        assert _get_height(second) == 5
        assert second.rpc.call("eth_getBlockByNumber", ["0x4", False])["hash"] == block


def test_a_stopped_devnet_is_unavailable(anvil):
    with Devnet(DevnetConfig(anvil)) as stopped:
        rpc = Rpc(stopped.url)

    with pytest.raises(NodeUnavailable, match="eth_chainId"):
        rpc.call("eth_chainId", [])
    rpc.close()


def test_a_taken_port_is_named(anvil, devnet):
    with pytest.raises(ChainError, match=f"port {devnet.port}"):
        Devnet(DevnetConfig(anvil, port=devnet.port))


def test_an_anvil_that_fails_says_why(anvil, tmp_path):
    (tmp_path / "state.json").write_text("not a state")

    with pytest.raises(ChainError, match=r"Anvil ended at its start: .*state"):
        Devnet(DevnetConfig(anvil, state_file=tmp_path / "state.json"))


def test_a_missing_anvil_names_every_place_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devnet_module, "_MACHINES", {})
    monkeypatch.setattr("platform.machine", lambda: "pdp11")

    with pytest.raises(NotFound, match=r"TOUCHSTONE_ANVIL .*absent.* PATH .*anvil-linux-pdp11"):
        find_anvil(tmp_path / "absent")
