"""Every call happens once: whatever dies, wherever, and whatever the chain takes back."""

import random
from contextlib import closing, contextmanager, suppress
from itertools import count

import pytest
import rlp
from eth_utils.crypto import keccak
from requests.adapters import HTTPAdapter

from market.chain.bench_outbox import build_count, build_counter, measure_outbox, read_count
from market.chain.devnet import CHAIN_ID, Devnet, DevnetConfig, get_account
from market.chain.journal import EntryStatus, Journal
from market.chain.outbox import Finality, NonceSpent, Outbox
from market.chain.rpc import RpcError
from market.chain.signing import Call, Fees, raise_fees, sign
from market.protocol.errors import (
    ChainError,
    MarketError,
    NodeUnavailable,
    NotFound,
    TransactionReverted,
)
from tests.market.chain.nodes import (
    COUNTER,
    FakeAdapter,
    make_error,
    make_response,
    put_counter,
    reach,
)

ACCOUNT = get_account(2)
PENDING, INCLUDED, FINAL = EntryStatus


@pytest.fixture
def node(anvil, tmp_path):
    """A devnet of the test's own, with the counter on it and in its state file."""
    config = DevnetConfig(anvil, state_file=tmp_path / "state.json")
    with Devnet(config) as devnet:
        put_counter(devnet)
    with Devnet(config) as devnet:
        yield devnet


@contextmanager
def _open(url, path=None, adapter=None, confirmations=3):
    """The outbox of a process: at the end its files are closed as they would be by its death."""
    rpc = reach(url, adapter or HTTPAdapter())
    journal = Journal(path)
    try:
        yield Outbox(rpc, ACCOUNT, journal, Finality(confirmations, stuck_blocks=3))
    finally:
        journal.close()
        rpc.close()


@pytest.fixture
def outbox(node, tmp_path):
    with _open(node.url, tmp_path / "outbox.sqlite") as opened:
        yield opened


def _count(word):
    return build_count(COUNTER, word)


def _read(node, word):
    return read_count(node.rpc, COUNTER, word)


def _pause_mining(node):
    node.rpc.call("evm_setAutomine", [False])


def _get_attempts(outbox, key):
    return outbox.journal.list_attempts(outbox.journal.get(key))


def _send_outside(node, nonce):
    """Spend a nonce with a transaction of which no outbox knows: it counts the word 0."""
    call, fees = Call(COUNTER, "foreign", bytes(32)), Fees(10**10, 10**11)
    foreign = sign(ACCOUNT, CHAIN_ID, call, nonce, 100_000, fees)
    node.rpc.eth.send_raw_transaction(foreign.raw)


def _know_no_finalized(request):
    refused = b'"finalized"' in request.body
    return make_response(200, make_error(-32602, "unknown block")) if refused else None


@pytest.mark.parametrize("answer", [lambda _: None, _know_no_finalized])
def test_a_call_is_pending_then_included_then_final(node, answer):
    _pause_mining(node)
    seen = []

    with _open(node.url, adapter=FakeAdapter(answer)) as outbox:
        outbox.post("a", _count(1))
        for _ in range(4):
            outbox.tend()
            seen.append(outbox.get_status("a"))
            node.mine(1)

    assert seen == [PENDING, INCLUDED, INCLUDED, FINAL]
    assert _read(node, 1) == 1


def test_the_same_key_is_the_same_transaction_in_every_process(node, tmp_path):
    receipts = []
    for _ in range(3):
        with _open(node.url, tmp_path / "outbox.sqlite") as outbox:
            receipts.append(outbox.send("a", _count(1), patience_s=30))

    assert receipts[0] == receipts[1] == receipts[2]
    assert _read(node, 1) == 1


def test_a_key_cannot_name_two_calls(outbox):
    outbox.post("a", _count(1))

    with pytest.raises(ChainError, match="a was sent as count with other arguments"):
        outbox.post("a", _count(2))
    with pytest.raises(NotFound, match="nothing was sent as b"):
        outbox.get_status("b")


def test_the_signed_bytes_are_on_disk_before_a_node_hears_of_them(node, tmp_path):
    path, found = tmp_path / "outbox.sqlite", []

    def look(request):
        if b"eth_sendRawTransaction" in request.body:
            other = Journal(path)
            (attempt,) = other.list_attempts(other.get("a"))
            other.close()
            found.append(attempt.raw.hex().encode() in request.body)

    with _open(node.url, path, FakeAdapter(look)) as outbox:
        outbox.send("a", _count(1), patience_s=30)

    assert found == [True]


def test_many_calls_are_on_their_way_at_once(node, outbox):
    _pause_mining(node)

    for word in range(1, 31):
        outbox.post(str(word), _count(word))
    assert outbox.tend() == 30
    node.mine(1)
    assert outbox.tend() == 0

    assert {outbox.find_receipt(str(word)).block_number for word in range(1, 31)} == {1}


def test_what_a_node_forgot_is_sent_again_at_once_all_of_it(node, outbox, anvil, tmp_path):
    _pause_mining(node)
    for word in range(1, 11):
        outbox.post(str(word), _count(word))
    node.kill()

    with Devnet(DevnetConfig(anvil, node.port, tmp_path / "state.json")) as again:
        _pause_mining(again)
        outbox.tend()
        again.mine(1)
        assert outbox.tend() == 0

        assert [_read(again, word) for word in range(1, 11)] == [1] * 10


def test_a_call_that_builds_on_one_that_a_node_forgot_is_sent_after_it(
    node, outbox, anvil, tmp_path
):
    _pause_mining(node)
    outbox.post("create", build_counter())
    created = keccak(rlp.encode([bytes.fromhex(ACCOUNT.address[2:]), 0]))[-20:].hex()
    node.kill()

    with Devnet(DevnetConfig(anvil, node.port, tmp_path / "state.json")) as again:
        _pause_mining(again)
        with pytest.raises(NodeUnavailable):
            outbox.send("count", build_count("0x" + created, 1), patience_s=0)
        again.mine(1)
        outbox.tend()

        assert read_count(again.rpc, "0x" + created, 1) == 1


class Crash(BaseException):
    """The death of the process: nothing catches it."""


class CrashingAdapter(HTTPAdapter):
    """Ends the process at its request number ``at``: before the node gets it, or after."""

    def __init__(self, at, delivered):
        super().__init__()
        self.requests_left, self.delivered = at, delivered

    def send(self, request, *args, **options):
        self.requests_left -= 1
        if self.requests_left == 0 and not self.delivered:
            raise Crash
        response = super().send(request, *args, **options)
        if self.requests_left == 0:
            response.close()
            raise Crash
        return response


@pytest.mark.parametrize("delivered", [False, True])
def test_a_process_that_dies_at_any_request_sends_once_in_its_next_life(node, tmp_path, delivered):
    path = tmp_path / "outbox.sqlite"
    crashed = True
    for at in count(1):
        adapter = CrashingAdapter(at, delivered)
        try:
            with _open(node.url, path, adapter) as outbox:
                outbox.send(str(at), _count(at), patience_s=30)
            crashed = False
        except Crash:
            with _open(node.url, path) as outbox:
                outbox.send(str(at), _count(at), patience_s=30)
        assert _read(node, at) == 1
        if not crashed:
            break

    assert at > 10
    assert node.rpc.eth.get_transaction_count(ACCOUNT.address) == at


def test_a_process_that_dies_while_it_replaces_sends_once_in_its_next_life(node, tmp_path):
    path, survived = tmp_path / "outbox.sqlite", False
    for at in count(1):
        adapter = CrashingAdapter(-1, at % 2)
        with suppress(Crash), _open(node.url, path, adapter) as outbox:
            _make_stuck(node, outbox, at)
            adapter.requests_left = at
            outbox.tend()
            survived = True

        with _open(node.url, path) as outbox:
            _live(node, outbox, blocks=9)
            assert outbox.get_status(str(at)) is FINAL
        assert _read(node, at) == 1
        if survived:
            break

    assert at > 8
    assert node.rpc.eth.get_transaction_count(ACCOUNT.address) == at


def _live(node, outbox, blocks):
    for _ in range(blocks):
        outbox.tend()
        node.mine(1)


def _make_stuck(node, outbox, word):
    """Post a call for which there was no room in three blocks: it is about to be replaced."""
    _pause_mining(node)
    outbox.post(str(word), _count(word))
    node.rpc.call("evm_setBlockGasLimit", [hex(30_000)])
    _live(node, outbox, blocks=3)
    node.rpc.call("evm_setBlockGasLimit", [hex(30_000_000)])


def test_a_stuck_call_is_replaced_under_its_nonce_by_one_that_pays_an_eighth_more(node, outbox):
    _make_stuck(node, outbox, 1)
    assert len(_get_attempts(outbox, "1")) == 1

    outbox.tend()
    node.mine(1)
    outbox.tend()

    second, first = _get_attempts(outbox, "1")
    assert second.nonce == first.nonce
    assert second.fees.tip * 8 >= first.fees.tip * 9
    assert second.fees.limit * 8 >= first.fees.limit * 9
    assert outbox.find_receipt("1").tx_hash == second.tx_hash
    assert _read(node, 1) == 1


def test_a_first_attempt_that_is_mined_after_all_is_the_calls_receipt(node, outbox):
    _make_stuck(node, outbox, 1)
    (first,) = _get_attempts(outbox, "1")
    outbox.tend()
    second = _get_attempts(outbox, "1")[0]

    node.rpc.call("anvil_dropTransaction", [second.tx_hash])
    node.rpc.eth.send_raw_transaction(first.raw)
    node.mine(1)
    outbox.tend()

    assert outbox.find_receipt("1").tx_hash == first.tx_hash
    assert _read(node, 1) == 1


@pytest.mark.parametrize("tip", [0, 1, 7, 10**9])
def test_raised_fees_are_an_eighth_higher_and_never_far_above_what_is_usual(tip):
    paid, suggested = Fees(tip, 10**9 + tip), Fees(1, 10**9)
    raised = []
    while paid := raise_fees(paid, suggested):
        raised.append(paid)

    assert all(fees.tip * 8 >= 9 * tip and fees.tip > tip for fees in raised)
    assert raised[-1].limit <= 10 * suggested.limit < raised[-1].limit * 9 // 8 + 1


def test_a_call_dropped_by_a_reorganization_is_pending_and_sent_again(node, outbox):
    outbox.send("a", _count(1), patience_s=30)
    _pause_mining(node)
    node.rpc.call("anvil_reorg", [1, []])
    assert _read(node, 1) == 0

    outbox.tend()
    assert outbox.get_status("a") is PENDING
    node.mine(1)
    outbox.tend()

    assert outbox.get_status("a") is INCLUDED
    assert _read(node, 1) == 1


def test_a_call_that_a_reorganization_moved_to_another_block_is_found_there(node, outbox):
    outbox.send("a", _count(1), patience_s=30)
    (attempt,) = _get_attempts(outbox, "a")
    before = outbox.journal.get("a")

    node.rpc.call("anvil_reorg", [1, [["0x" + attempt.raw.hex(), 0]]])
    outbox.tend()

    after = outbox.journal.get("a")
    assert (after.status, after.block_number) == (INCLUDED, before.block_number)
    assert after.block_hash != before.block_hash
    assert _read(node, 1) == 1


def test_a_nonce_spent_by_another_is_told_and_replaced_once_that_is_final(node, outbox):
    _pause_mining(node)
    outbox.post("a", _count(1))
    _send_outside(node, 0)
    node.mine(1)

    with pytest.raises(NonceSpent, match=r"nonce 0 of 0x\w+, which was for count, was spent"):
        outbox.send("a", _count(1), patience_s=0)
    assert outbox.journal.get("a").nonce == 0
    node.mine(2)
    outbox.tend()
    assert outbox.journal.get("a").nonce == 1
    node.mine(1)

    assert outbox.send("a", _count(1), patience_s=30).function == "count"
    assert (_read(node, 0), _read(node, 1)) == (1, 1)


def test_a_nonce_that_a_reorganization_gives_back_is_used_by_the_first_attempt(node, outbox):
    _pause_mining(node)
    outbox.post("a", _count(1))
    _send_outside(node, 0)
    node.mine(1)
    outbox.tend()
    node.rpc.call("anvil_reorg", [1, []])

    outbox.tend()
    node.mine(4)
    outbox.tend()

    assert len(_get_attempts(outbox, "a")) == 1
    assert outbox.get_status("a") is FINAL
    assert (_read(node, 0), _read(node, 1)) == (0, 1)


def test_a_call_that_reverts_when_its_nonce_was_spent_is_not_sent(node, outbox):
    _pause_mining(node)
    outbox.post("a", _count(1))
    _send_outside(node, 0)
    node.mine(3)
    node.rpc.call("anvil_setCode", [COUNTER, "0x5f5ffd"])

    outbox.tend()

    assert outbox.journal.find("a") is None
    with pytest.raises(TransactionReverted):
        outbox.send("a", _count(1), patience_s=30)


def test_a_call_that_would_revert_is_not_kept_and_one_that_did_says_so_each_time(node, outbox):
    _pause_mining(node)
    outbox.post("a", _count(1))
    node.rpc.call("anvil_setCode", [COUNTER, "0x5f5ffd"])
    with pytest.raises(TransactionReverted):
        outbox.post("b", _count(2))
    node.mine(1)

    for _ in range(2):
        with pytest.raises(TransactionReverted):
            outbox.send("a", _count(1), patience_s=30)
    assert outbox.journal.find("b") is None
    assert node.rpc.eth.get_transaction_count(ACCOUNT.address) == 1


def _refuse(message, times):
    """Refuse so many transactions with ``message``, as a node does over JSON-RPC."""
    left = [None] * times

    def answer(request):
        if b"eth_sendRawTransaction" in request.body and left:
            left.pop()
            return make_response(200, make_error(-32000, message))
        return None

    return FakeAdapter(answer)


@pytest.mark.parametrize(
    "message", ["txpool is full", "replacement transaction underpriced", "something unheard of"]
)
def test_a_call_that_a_node_has_no_room_for_is_kept_and_sent_when_it_has(node, tmp_path, message):
    path = tmp_path / "outbox.sqlite"
    with _open(node.url, path, _refuse(message, 3)) as outbox:
        with pytest.raises(NodeUnavailable, match=f"count 0x.* waits: .*{message}"):
            outbox.send("a", _count(1), patience_s=0)

        outbox.send("a", _count(1), patience_s=30)

        assert len(_get_attempts(outbox, "a")) == 1
    assert _read(node, 1) == 1


def test_a_call_that_the_base_fee_outgrew_is_replaced_at_once(node, outbox):
    _pause_mining(node)
    outbox.post("a", _count(1))
    (first,) = _get_attempts(outbox, "a")
    node.rpc.call("anvil_setNextBlockBaseFeePerGas", [hex(2 * first.fees.limit)])
    node.mine(1)  # the node forgets what cannot pay for that

    outbox.tend()
    node.mine(1)
    outbox.tend()

    assert outbox.get_status("a") is INCLUDED
    assert _get_attempts(outbox, "a")[0].nonce == first.nonce
    assert _read(node, 1) == 1


def test_a_call_that_a_node_finds_too_cheap_is_replaced_at_once(node, tmp_path):
    refusing = _refuse("transaction underpriced", 3)
    with _open(node.url, tmp_path / "outbox.sqlite", refusing) as outbox:
        outbox.send("a", _count(1), patience_s=30)

        fees = [attempt.fees.tip for attempt in _get_attempts(outbox, "a")]
    assert fees == sorted(fees, reverse=True)
    assert len(fees) > 1
    assert _read(node, 1) == 1


def test_a_call_that_no_fee_gets_mined_stops_where_fees_are_absurd(node, tmp_path):
    refusing = _refuse("transaction underpriced", 10**6)
    with _open(node.url, tmp_path / "outbox.sqlite", refusing) as outbox:
        outbox.post("a", _count(1))
        for _ in range(60):
            outbox.tend()

        attempts = _get_attempts(outbox, "a")
        with pytest.raises(NodeUnavailable, match="far above what is usual"):
            outbox.send("a", _count(1), patience_s=0)
    assert len(attempts) < 30
    assert attempts[0].fees.limit <= 10 * attempts[-1].fees.limit


def test_a_call_that_nobody_can_pay_is_not_kept_and_its_nonce_is_the_next_ones(node, tmp_path):
    path = tmp_path / "outbox.sqlite"
    with _open(node.url, path, _refuse("insufficient funds for gas * price + value", 1)) as outbox:
        with pytest.raises(RpcError, match="insufficient funds"):
            outbox.post("a", _count(1))
        assert outbox.journal.find("a") is None

        outbox.send("b", _count(2), patience_s=30)

    assert (_read(node, 1), _read(node, 2)) == (0, 1)


def test_a_process_waits_for_another_with_the_same_key_and_then_says_so(tmp_path):
    path = tmp_path / "outbox.sqlite"
    with closing(Journal(path)) as first, closing(Journal(path)) as second:
        told = pytest.raises(NodeUnavailable, match="another process sends by this key")
        with first.hold(0), told, second.hold(0):
            pass

        with second.hold(0):  # the first has let go
            pass


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)

    with pytest.raises(MarketError, match=r"outbox\.sqlite cannot be used: file is not a database"):
        Journal(path)


@pytest.mark.parametrize("seed", range(6))
def test_random_deaths_and_reorganizations_lose_no_call_and_repeat_none(
    node, anvil, tmp_path, seed
):
    world = _Chaos(node, anvil, tmp_path, random.Random(seed))

    world.run(steps=60)
    sent = world.settle()

    counts = [_read(world.node, word) for word in range(1, sent + 1)]
    assert sent > 5
    assert counts == [1] * sent
    world.node.stop()


class _Chaos:
    """A process with an outbox and its node, to which things happen."""

    def __init__(self, node, anvil, folder, dice):
        self.node, self.dice = node, dice
        self.config = DevnetConfig(anvil, node.port, folder / "state.json")
        self.path = folder / "outbox.sqlite"
        self.decided = []  # keys, as a daemon finds them again on the chain or on its disk
        self.height = 0  # at the last start: what came before cannot be reorganized

    def run(self, steps):
        events = [self.live, self.live, self.live, self.reorganize, self.kill_node, self.pause]
        for _ in range(steps):
            self.dice.choice(events)()

    def live(self):
        """A life of the process: it decides on a call, and sends until it dies."""
        self.decided.append(len(self.decided) + 1)
        adapter = CrashingAdapter(self.dice.randrange(1, 40), self.dice.choice([True, False]))
        try:
            with _open(self.node.url, self.path, adapter) as outbox:
                self._send_all(outbox)
        except Crash:
            pass

    def reorganize(self):
        depth = min(self.dice.choice([1, 2]), self.node.rpc.eth.block_number - self.height)
        if depth > 0:
            self.node.rpc.call("anvil_reorg", [depth, []])

    def kill_node(self):
        self.node.kill()
        self.node = Devnet(self.config)
        self.height = self.node.rpc.eth.block_number

    def pause(self):
        self.node.rpc.call("evm_setAutomine", [self.dice.choice([True, False])])

    def settle(self):
        """Let the process live until everything is final; return how many calls it decided on."""
        self.node.rpc.call("evm_setAutomine", [True])
        with _open(self.node.url, self.path) as outbox:
            self._send_all(outbox)
            for word in self.decided:  # mining for one of them mines for all
                _live(self.node, outbox, 0 if outbox.get_status(str(word)) is FINAL else 9)
        return len(self.decided)

    def _send_all(self, outbox):
        outbox.tend()
        for word in self.decided:
            outbox.post(str(word), _count(word))
        outbox.tend()


def test_calls_through_a_node_that_is_killed_are_neither_lost_nor_sent_twice(anvil, tmp_path):
    figures = measure_outbox(anvil, tmp_path, calls=60, kills=2)

    assert (figures.calls, figures.kills) == (60, 2)
    assert (figures.lost, figures.duplicates) == (0, 0)
