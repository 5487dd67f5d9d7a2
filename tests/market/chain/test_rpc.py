"""Nodes that are mute, wrong, or serve another chain: who is asked, and what the errors say."""

import socket

import pytest
import requests
from requests.adapters import HTTPAdapter

from market.chain.devnet import CHAIN_ID, Devnet, DevnetConfig, get_account
from market.chain.rpc import Rpc, RpcError
from market.chain.signing import Call, Fees, is_known, sign
from market.protocol.errors import ChainError, NodeUnavailable
from tests.market.chain.nodes import FakeAdapter, fake_node, make_error, make_response, reach

ACCOUNT = get_account(2)
OTHER_CHAIN = '{"result": "0x1"}'


@pytest.fixture
def dead_url():
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def hung_url():
    """Where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nodes(anvil):
    """Two nodes of one chain id."""
    with Devnet(DevnetConfig(anvil)) as first, Devnet(DevnetConfig(anvil)) as second:
        yield first, second


class Log(HTTPAdapter):
    """Passes requests on, and remembers whom they were for."""

    def __init__(self):
        super().__init__()
        self.ports = []

    def send(self, request, *args, **options):
        self.ports.append(int(request.url.rstrip("/").rpartition(":")[2]))
        return super().send(request, *args, **options)


def _sign(nonce=0):
    call = Call(ACCOUNT.address, "nothing", b"")
    return sign(ACCOUNT, CHAIN_ID, call, nonce, 21_000, Fees(10**9, 10**10))


def _get_nonce(node):
    return node.rpc.eth.get_transaction_count(ACCOUNT.address, "pending")


def _reach_one_of_another_chain(url):
    """Return the nodes at http://wrong.node and ``url``, and what the first is asked."""
    asked = []

    def answer(request):
        asked.append(request.body)
        return make_response(200, OTHER_CHAIN)

    session = requests.Session()
    session.mount("http://wrong.node", FakeAdapter(answer))
    return Rpc(f"http://wrong.node,{url}", session=session, chain_id=CHAIN_ID), asked


def test_the_next_node_answers_where_one_is_dead(devnet, dead_url):
    rpc = Rpc(f"{dead_url}, {devnet.url}")

    assert rpc.eth.chain_id == CHAIN_ID
    assert rpc.choose_node().chain_id == CHAIN_ID
    assert rpc.name == f"{dead_url},{devnet.url}".replace("http://", "").replace(",", ", ")
    rpc.close()


def test_the_next_node_answers_where_one_hangs_and_goes_on_being_asked_first(devnet, hung_url):
    log = Log()
    session = requests.Session()
    session.mount("http://", log)
    rpc = Rpc(f"{hung_url},{devnet.url}", timeout_s=0.1, session=session)

    for _ in range(3):
        assert rpc.eth.block_number >= 0

    hung = int(hung_url.rpartition(":")[2])
    assert log.ports.count(hung) == 1
    rpc.close()


def test_the_next_node_answers_where_one_is_killed_meanwhile(nodes):
    first, second = nodes
    rpc = Rpc(f"{first.url},{second.url}")
    second.mine(5)
    assert rpc.eth.block_number == 0

    first.kill()

    assert rpc.eth.block_number == 5
    assert rpc.choose_node().block_number == 5
    rpc.close()


def test_nodes_that_are_all_mute_are_all_named(dead_url, hung_url):
    rpc = Rpc(f"{dead_url},{hung_url}", timeout_s=0.1)

    with pytest.raises(NodeUnavailable) as caught:
        rpc.call("eth_blockNumber", [])
    assert all(url.removeprefix("http://") in str(caught.value) for url in (dead_url, hung_url))
    rpc.close()


def test_a_transaction_goes_to_every_node(nodes, dead_url):
    first, second = nodes
    rpc = Rpc(f"{first.url},{dead_url},{second.url}")
    signed = _sign()

    rpc.eth.send_raw_transaction(signed.raw)

    for node in nodes:
        assert is_known(node.rpc.eth, signed.tx_hash)
    rpc.close()


def test_a_transaction_that_one_node_takes_is_taken(nodes):
    first, second = nodes
    second.rpc.eth.send_raw_transaction(_sign().raw)
    rpc = Rpc(f"{second.url},{first.url}")

    rpc.eth.send_raw_transaction(_sign().raw)  # the second knows it, and refuses
    with pytest.raises(RpcError, match=r"nonce too low|already imported"):
        rpc.eth.send_raw_transaction(_sign().raw)
    rpc.close()


def test_a_node_that_hangs_delays_one_transaction_and_not_the_next_ones(devnet, hung_url):
    log = Log()
    session = requests.Session()
    session.mount("http://", log)
    rpc = Rpc(f"{devnet.url},{hung_url}", timeout_s=0.1, session=session)
    nonce = _get_nonce(devnet)

    for step in range(3):
        rpc.eth.send_raw_transaction(_sign(nonce + step).raw)

    assert log.ports.count(int(hung_url.rpartition(":")[2])) == 1
    rpc.close()


def test_a_node_of_another_chain_is_asked_nothing_but_its_chain(devnet):
    rpc, asked = _reach_one_of_another_chain(devnet.url)
    signed = _sign(_get_nonce(devnet))

    rpc.eth.send_raw_transaction(signed.raw)
    assert is_known(rpc.eth, signed.tx_hash)

    assert asked
    assert all(b"eth_chainId" in body for body in asked)
    rpc.close()


def test_a_node_of_another_chain_is_named_with_both_ids_if_there_is_no_other(dead_url):
    rpc, _ = _reach_one_of_another_chain(dead_url)
    wrong = FakeAdapter(lambda _: make_response(200, OTHER_CHAIN))
    alone = reach("http://wrong.node", wrong, CHAIN_ID)

    told = r"wrong\.node serves chain 1, not chain 31337"
    with pytest.raises(NodeUnavailable, match=told):  # the dead one may come back
        rpc.call("eth_blockNumber", [])
    with pytest.raises(ChainError, match=told) as caught:
        alone.call("eth_blockNumber", [])
    assert type(caught.value) is ChainError
    rpc.close()


def test_without_a_chain_id_the_first_node_that_answers_gives_it(devnet, dead_url):
    session = requests.Session()
    wrong = FakeAdapter(lambda _: make_response(200, OTHER_CHAIN))
    session.mount("http://wrong.node", wrong)
    rpc = Rpc(f"{dead_url},{devnet.url},http://wrong.node", session=session)
    assert rpc.eth.block_number >= 0

    with pytest.raises(RpcError, match="transaction"):
        rpc.eth.send_raw_transaction(b"nothing that can be decoded")
    rpc.close()


def test_a_node_that_comes_back_with_another_chain_is_not_used(devnet):
    life = iter(["right", "right", "mute", "wrong"])

    def answer(_):
        match next(life):
            case "mute":
                return make_response(503, "")
            case "wrong":
                return make_response(200, OTHER_CHAIN)
        return None

    rpc = reach(devnet.url, FakeAdapter(answer), CHAIN_ID)
    assert rpc.eth.block_number >= 0
    with pytest.raises(NodeUnavailable):
        rpc.call("eth_blockNumber", [])

    with pytest.raises(ChainError, match="serves chain 1, not chain 31337"):
        rpc.call("eth_blockNumber", [])
    rpc.close()


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (503, "", NodeUnavailable),
        (429, "", NodeUnavailable),
        (200, make_error(-32005, "later"), NodeUnavailable),
        (302, "", ChainError),
        (401, "no", ChainError),
        (200, "<html>", ChainError),
        (200, "[]", ChainError),
        (200, make_error(3, "no", data="0x"), RpcError),
        (400, make_error(-32601, "no such method"), RpcError),
    ],
)
def test_what_a_node_answers_becomes_our_errors(status, text, error):
    rpc = fake_node(status, text)

    for ask in (lambda: rpc.call("eth_chainId", []), lambda: rpc.eth.chain_id):
        with pytest.raises(error) as caught:
            ask()
        assert type(caught.value) is error


@pytest.mark.parametrize("failure", [requests.ConnectionError, requests.Timeout])
def test_no_request_is_sent_twice_and_no_key_of_an_url_is_shown(failure):
    sent = []

    def lose(request: requests.PreparedRequest) -> None:
        sent.append(request)
        raise failure(f"no answer from {request.url}")

    rpc = reach("http://me:password@a.node/secret?key=secret", FakeAdapter(lose))

    with pytest.raises(NodeUnavailable, match=r"no answer from a\.node to eth_chainId") as caught:
        _ = rpc.eth.chain_id
    assert len(sent) == 1
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["", "localhost:8545", "ws://a.node", "http://"])
def test_a_url_that_is_not_http_is_refused(url):
    with pytest.raises(ChainError):
        Rpc(url)
