"""Sending happens once, whatever fails in between: the node, the connection, or another sender."""

import json
import threading

import pytest
import requests
from eth_account import Account
from requests.adapters import HTTPAdapter

from market.chain.calls import Calls
from market.chain.client import Chain, connect
from market.chain.deployment import DEVNET, deploy
from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.rpc import Rpc, RpcError
from market.chain.transactions import Call, Sender
from market.protocol.errors import ChainError, NodeUnavailable, TransactionReverted
from tests.market.chain.nodes import FakeAdapter, fake_node, make_response, reach

PROVIDER = get_account(2)


class LossyAdapter(HTTPAdapter):
    """Delivers requests to the node, and loses the answers to the next ``losses`` of ``method``."""

    def __init__(self, method: str, losses: int) -> None:
        super().__init__()
        self.method, self.losses = method, losses

    def send(self, request, *args, **options):
        response = super().send(request, *args, **options)
        if self.losses and self.method.encode() in request.body:
            self.losses -= 1
            response.close()
            raise requests.ReadTimeout("the answer was lost")
        return response


def _lossy(chain: Chain, method: str, losses: int) -> Chain:
    rpc = reach(_get_url(chain), LossyAdapter(method, losses))
    return Chain(rpc, chain.deployment, patience_s=5)


def _get_url(chain: Chain) -> str:
    return f"http://{chain.rpc.name}"


def _count_sent(chain: Chain) -> int:
    return int(chain.rpc.call("eth_getTransactionCount", [PROVIDER.address, "latest"]), 16)


def test_a_call_whose_answer_is_lost_happens_once(chain):
    before = _count_sent(chain)

    with _lossy(chain, "eth_sendRawTransaction", 1) as lossy:
        receipt = lossy.send(PROVIDER, chain.calls.stake(7))

    assert chain.get_provider_stake(PROVIDER.address).staked == 7
    assert _count_sent(chain) == before + 1
    assert (receipt.function, receipt.gas_used > 21_000) == ("stake", True)


def test_a_call_sent_again_after_the_node_was_mute_is_the_same_transaction(chain):
    before = _count_sent(chain)
    with _lossy(chain, "eth_getTransactionReceipt", 10**6) as lossy:
        lossy._patience_s = 0
        with pytest.raises(NodeUnavailable):
            lossy.send(PROVIDER, chain.calls.stake(7))
        with pytest.raises(NodeUnavailable):
            lossy.send(PROVIDER, chain.calls.stake(7))
        lossy.rpc._session.get_adapter("http://").losses = 0
        lossy._patience_s = 5

        lossy.send(PROVIDER, chain.calls.stake(7))

    assert chain.get_provider_stake(PROVIDER.address).staked == 7
    assert _count_sent(chain) == before + 1


def test_a_node_that_dies_and_comes_back_makes_the_pending_call_happen_once(anvil, tmp_path):
    config = DevnetConfig(anvil, state_file=tmp_path / "state.json")
    with Devnet(config) as first:
        with Sender(Rpc(first.url), patience_s=20) as sender:
            deployment, _ = deploy(sender, PROVIDER, DEVNET)
        with connect(first.url, deployment) as chain:
            signed = chain.sign(PROVIDER, chain.calls.stake(7))
    receipts = []
    with connect(first.url, deployment) as chain:
        thread = threading.Thread(target=lambda: receipts.append(chain.broadcast(signed)))
        thread.start()  # nobody answers yet

        with Devnet(DevnetConfig(anvil, port=first.port, state_file=config.state_file)):
            thread.join()
            again = chain.broadcast(signed)

            assert receipts == [again]
            assert chain.get_provider_stake(PROVIDER.address).staked == 7


def test_a_transaction_lost_with_the_node_is_sent_again(anvil, tmp_path):
    config = DevnetConfig(anvil, state_file=tmp_path / "state.json")
    with Devnet(config) as first, Sender(Rpc(first.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, PROVIDER, DEVNET)
    port = first.port
    second = Devnet(DevnetConfig(anvil, port=port, state_file=config.state_file))
    with connect(second.url, deployment) as chain:
        signed = chain.sign(PROVIDER, chain.calls.stake(7))
        second.rpc.call("evm_setAutomine", [False])
        second.rpc.call("eth_sendRawTransaction", ["0x" + signed.raw.hex()])
        second.kill()

        with Devnet(DevnetConfig(anvil, port=port, state_file=config.state_file)):
            chain.broadcast(signed)

            assert chain.get_provider_stake(PROVIDER.address).staked == 7


def test_a_call_whose_nonce_another_spent_is_signed_anew(chain):
    class Racing(Chain):
        def sign(self, account, call):
            signed = super().sign(account, call)
            if races:
                races.pop()
                chain.send(account, chain.calls.stake(1))
            return signed

    races = [1]
    with Racing(Rpc(_get_url(chain)), chain.deployment, patience_s=5) as racing:
        racing.send(PROVIDER, chain.calls.stake(7))

    assert chain.get_provider_stake(PROVIDER.address).staked == 8


def test_threads_with_one_key_all_get_through(chain):
    sends = [
        threading.Thread(target=chain.send, args=(PROVIDER, chain.calls.stake(amount)))
        for amount in (1, 2, 3, 4)
    ]
    for send in sends:
        send.start()
    for send in sends:
        send.join()

    assert chain.get_provider_stake(PROVIDER.address).staked == 10


def test_a_call_that_reverts_only_when_mined_says_why(chain, devnet):
    chain.send(PROVIDER, chain.calls.stake(5))
    devnet.rpc.call("evm_setAutomine", [False])
    first = chain.sign(PROVIDER, chain.calls.unstake(5))
    rival = get_account(2)
    second = _sign_with_next_nonce(chain, rival, chain.calls.unstake(5))
    for signed in (first, second):
        devnet.rpc.call("eth_sendRawTransaction", ["0x" + signed.raw.hex()])
    devnet.rpc.call("evm_setAutomine", [True])
    devnet.mine(1)

    chain.broadcast(first)
    with pytest.raises(TransactionReverted, match=r"AccountLacksFreeStake\(0, 5\)"):
        chain.broadcast(second)


def _sign_with_next_nonce(chain, account, call):
    class Later(Chain):
        def _get_pending_nonce(self, address):
            return super()._get_pending_nonce(address) + 1

    with Later(Rpc(_get_url(chain)), chain.deployment, patience_s=5) as later:
        return later.sign(account, call)


def test_a_sender_without_funds_is_told_so(chain):
    with pytest.raises(ChainError, match=r"(?i)insufficient funds"):
        chain.send(Account.create(), chain.calls.stake(10**18))


def test_an_error_of_another_contract_keeps_its_bytes(chain, devnet):
    code = "0x" + "63deadbeef" + "5f52" + "6004601cfd"  # revert with the bytes deadbeef
    target = "0x" + "77" * 20
    devnet.rpc.call("anvil_setCode", [target, code])

    with pytest.raises(TransactionReverted, match="UnknownError") as caught:
        chain.simulate(PROVIDER.address, Call(target, "unknown", b""))

    assert caught.value.arguments == ("0xdeadbeef",)


def _error(code: int, message: str, **more: str) -> str:
    return json.dumps({"error": {"code": code, "message": message, **more}})


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (503, "", NodeUnavailable),
        (429, "", NodeUnavailable),
        (200, _error(-32005, "later"), NodeUnavailable),
        (302, "", ChainError),
        (401, "no", ChainError),
        (200, "<html>", ChainError),
        (200, "[]", ChainError),
        (200, _error(3, "no", data="0x"), RpcError),
        (400, _error(-32601, "no such method"), RpcError),
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


def test_a_node_that_suggests_no_tip_is_asked_for_the_last_fees(chain):
    def refuse(request: requests.PreparedRequest) -> requests.Response | None:
        refused = b"eth_maxPriorityFeePerGas" in request.body
        return make_response(200, _error(-32601, "no such method")) if refused else None

    rpc = reach(_get_url(chain), FakeAdapter(refuse))
    with (
        Chain(rpc, chain.deployment, patience_s=5) as plain,
        pytest.warns(UserWarning, match="eth_feeHistory"),
    ):
        plain.send(PROVIDER, chain.calls.stake(7))

    assert chain.get_provider_stake(PROVIDER.address).staked == 7


@pytest.mark.parametrize("url", ["", "localhost:8545", "ws://a.node", "http://"])
def test_a_url_that_is_not_http_is_refused(url):
    with pytest.raises(ChainError):
        Rpc(url)


def test_calls_are_what_their_arguments_say():
    calls = Calls("0x" + "11" * 20)

    assert calls.stake(5) == Call(calls.market, "stake", bytes.fromhex("3a4b66f1"), 5)
    assert calls.claim(1, 2, 3).data[-96:] == b"".join(n.to_bytes(32, "big") for n in (1, 2, 3))
