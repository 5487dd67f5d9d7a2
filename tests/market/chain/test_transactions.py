"""Sending happens once, whatever fails in between: the node, the connection, or another sender."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import requests
from eth_account import Account
from requests.adapters import HTTPAdapter

from market.chain.bench_outbox import build_count, read_count
from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.outbox import Finality
from market.chain.rpc import Rpc
from market.chain.transactions import IN_MEMORY, Call, OutboxConfig, Receipt, Sender
from market.protocol.errors import ChainError, NodeUnavailable, TransactionReverted
from market.settings import Settings
from tests.market.chain.nodes import (
    COUNTER,
    FakeAdapter,
    make_error,
    make_response,
    put_counter,
    reach,
)

ACCOUNT = get_account(2)
REVERTING = "0x" + "63deadbeef" + "5f52" + "6004601cfd"  # with the bytes deadbeef

_words = count(1)


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


@pytest.fixture
def node(devnet: Devnet) -> Devnet:
    """The tests' node with the counter on it."""
    put_counter(devnet)
    return devnet


@pytest.fixture
def sender(node: Devnet) -> Iterator[Sender]:
    with Sender(Rpc(node.url), patience_s=30) as opened:
        yield opened


@pytest.fixture
def word() -> int:
    """A word that no other test counts."""
    return next(_words)


@pytest.fixture
def kept(tmp_path: Path) -> OutboxConfig:
    return OutboxConfig(tmp_path / "outbox", Finality())


def _count(word: int) -> Call:
    return build_count(COUNTER, word)


def _read(node: Devnet, word: int) -> int:
    return read_count(node.rpc, COUNTER, word)


def _count_sent(node: Devnet) -> int:
    return node.rpc.eth.get_transaction_count(ACCOUNT.address)


def _run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_call_whose_answer_is_lost_happens_once(node, word):
    before = _count_sent(node)

    with Sender(reach(node.url, LossyAdapter("eth_sendRawTransaction", 1)), 30) as lossy:
        receipt = lossy.send(ACCOUNT, _count(word))

    assert _read(node, word) == 1
    assert _count_sent(node) == before + 1
    assert (receipt.function, receipt.gas_used > 21_000) == ("count", True)


def test_a_call_sent_again_after_the_node_was_mute_is_the_same_transaction(node, word):
    before = _count_sent(node)
    lossy = LossyAdapter("eth_getTransactionReceipt", 10**6)
    with Sender(reach(node.url, lossy), patience_s=0) as sender:
        for _ in range(2):
            with pytest.raises(NodeUnavailable):
                sender.send(ACCOUNT, _count(word))
        lossy.losses = 0
        sender._patience_s = 30

        sender.send(ACCOUNT, _count(word))

    assert _read(node, word) == 1
    assert _count_sent(node) == before + 1


def test_a_call_that_was_made_can_be_made_again(sender, node, word):
    hashes = {sender.send(ACCOUNT, _count(word)).tx_hash for _ in range(3)}

    assert len(hashes) == 3
    assert _read(node, word) == 3


def test_a_node_that_dies_and_comes_back_makes_the_pending_call_happen_once(anvil, tmp_path):
    config = DevnetConfig(anvil, state_file=tmp_path / "state.json")
    with Devnet(config) as first, Sender(Rpc(first.url), patience_s=0) as sender:
        put_counter(first)
        first.rpc.call("evm_setAutomine", [False])
        with pytest.raises(NodeUnavailable, match=r"count 0x\w+ is not mined yet"):
            sender.send(ACCOUNT, _count(1))
        first.stop()
        receipts = []
        send = partial(sender.send, ACCOUNT, _count(1))
        thread = threading.Thread(target=lambda: receipts.append(_insist(send)))
        thread.start()  # nobody answers yet

        with Devnet(DevnetConfig(anvil, first.port, config.state_file)) as second:
            thread.join()

            assert _read(second, 1) == 1
            assert _count_sent(second) == 1
    assert len(receipts) == 1


def _insist(send: Callable[[], Receipt]) -> Receipt:
    """Send until a node is there; so do the daemons, turn by turn."""
    for _ in range(10**5):
        with suppress(NodeUnavailable):
            return send()
    raise AssertionError


def test_a_process_goes_on_with_what_the_one_before_it_had_sent(node, word, kept):
    before = _count_sent(node)
    mute = LossyAdapter("eth_getTransactionReceipt", 10**6)
    with Sender(reach(node.url, mute), 0, kept) as killed, pytest.raises(NodeUnavailable):
        killed.send(ACCOUNT, _count(word))

    with Sender(Rpc(node.url), 30, kept) as again:
        again.send(ACCOUNT, _count(word))
        assert _read(node, word) == 1
        again.send(ACCOUNT, _count(word))

    assert _read(node, word) == 2
    assert _count_sent(node) == before + 2


def test_a_devnet_that_was_begun_anew_has_an_outbox_of_its_own(anvil, kept):
    begun = set()
    for transactions in (3, 1):
        with _begin_anew(anvil, begun) as fresh:
            with Sender(Rpc(fresh.url), 30, kept) as sender:
                for _ in range(transactions):
                    sender.send(ACCOUNT, Call(ACCOUNT.address, "nothing", b""))

            assert _count_sent(fresh) == transactions

    assert len(list(kept.folder.glob("*.sqlite"))) == 2


def _begin_anew(anvil: Path, begun: set[bytes]) -> Devnet:
    """Start a devnet whose first block is not in ``begun``: those of one second are the same."""
    while True:
        fresh = Devnet(DevnetConfig(anvil))
        genesis = bytes(fresh.rpc.eth.get_block(0)["hash"])
        if genesis not in begun:
            begun.add(genesis)
            return fresh
        fresh.stop()


def test_processes_with_one_key_send_one_after_the_other(node, word, kept):
    before = _count_sent(node)
    with Sender(Rpc(node.url), 20, kept) as one, Sender(Rpc(node.url), 20, kept) as other:
        _run_all(
            [
                threading.Thread(target=process.send, args=(ACCOUNT, _count(word)))
                for process in (one, other) * 3
            ]
        )

    assert _read(node, word) == 6
    assert _count_sent(node) == before + 6


def test_a_call_queues_behind_what_a_process_elsewhere_has_sent(node):
    words = [next(_words), next(_words)]
    node.rpc.call("evm_setAutomine", [False])
    for word in words:  # each by a process of its own that knows nothing of the other
        with Sender(Rpc(node.url), 0) as process, pytest.raises(NodeUnavailable):
            process.send(ACCOUNT, _count(word))

    node.mine(1)
    node.rpc.call("evm_setAutomine", [True])

    assert [_read(node, word) for word in words] == [1, 1]


def test_threads_with_one_key_all_get_through(sender, node, word):
    _run_all([threading.Thread(target=sender.send, args=(ACCOUNT, _count(word))) for _ in range(4)])

    assert _read(node, word) == 4


def test_settings_keep_outboxes_in_the_data_directory_and_take_several_nodes(monkeypatch, tmp_path):
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TOUCHSTONE_RPC_URL", "http://a.node,https://b.node:8545")
    monkeypatch.setenv("TOUCHSTONE_CONFIRMATIONS", "2")

    settings = Settings()

    assert settings.outbox == OutboxConfig(tmp_path / "outbox", Finality(confirmations=2))
    assert Rpc(settings.rpc_url).name == "a.node, b.node:8545"
    assert IN_MEMORY.finality.confirmations == 12


def test_a_call_that_reverts_only_when_mined_says_why_and_can_be_sent_again(node, word):
    before = _count_sent(node)
    node.rpc.call("evm_setAutomine", [False])
    with Sender(Rpc(node.url), patience_s=0) as sender:
        with pytest.raises(NodeUnavailable):
            sender.send(ACCOUNT, _count(word))
        node.rpc.call("anvil_setCode", [COUNTER, REVERTING])
        node.rpc.call("evm_setAutomine", [True])
        node.mine(1)

        for _ in range(2):  # as it was mined, and as it would be now
            with pytest.raises(TransactionReverted, match=r"UnknownError\(0xdeadbeef\)"):
                sender.send(ACCOUNT, _count(word))
        put_counter(node)
        sender._patience_s = 30
        sender.send(ACCOUNT, _count(word))

    assert _read(node, word) == 1
    assert _count_sent(node) == before + 2


def test_a_sender_without_funds_is_told_so(sender, word):
    poor = Account.create()

    for _ in range(2):
        with pytest.raises(ChainError, match=r"(?i)insufficient funds"):
            sender.send(poor, _count(word))


def test_an_error_of_another_contract_keeps_its_bytes(sender, node):
    target = "0x" + "88" * 20
    node.rpc.call("anvil_setCode", [target, REVERTING])

    with pytest.raises(TransactionReverted, match="UnknownError") as caught:
        sender.simulate(ACCOUNT.address, Call(target, "unknown", b""))

    assert caught.value.arguments == ("0xdeadbeef",)


def test_a_node_that_suggests_no_tip_is_asked_for_the_last_fees(node, word):
    def refuse(request: requests.PreparedRequest) -> requests.Response | None:
        refused = b"eth_maxPriorityFeePerGas" in request.body
        return make_response(200, make_error(-32601, "no such method")) if refused else None

    with (
        Sender(reach(node.url, FakeAdapter(refuse)), patience_s=30) as plain,
        pytest.warns(UserWarning, match="eth_feeHistory"),
    ):
        plain.send(ACCOUNT, _count(word))

    assert _read(node, word) == 1
