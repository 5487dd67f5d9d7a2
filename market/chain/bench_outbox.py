"""Whether the outbox keeps its word: many calls at once, through a node that dies again and again."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.journal import EntryStatus, Journal
from market.chain.outbox import Finality, Outbox
from market.chain.rpc import Rpc
from market.chain.signing import Call
from market.protocol.errors import NodeUnavailable

# sstore(word, sload(word) + 1), where the calldata is the word: a word counts the calls with it.
_COUNTER: Final = bytes.fromhex("695f358054600101905500" + "5f52600a6016f3")
_WINDOW: Final = 128  # calls on their way at once
_BATCH: Final = 16  # calls from one look at the chain to the next
_PATIENCE_S: Final = 60
_ACCOUNT: Final = get_account(2)
_PAUSE_S: Final = 0.05
_CONFIRMATIONS: Final = 3


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """What became of ``calls`` calls while the node died ``kills`` times."""

    calls: int
    kills: int
    lost: int
    duplicates: int
    mute: int  # times that a step found no node, and was done again
    duration_s: float


class _Mortal:
    """A devnet with a block a second that `crash` ends and starts again."""

    def __init__(self, anvil: Path, folder: Path) -> None:
        self._state, self._backup = folder / "state.json", folder / "state.backup.json"
        self._config = DevnetConfig(anvil, state_file=self._state)
        self.devnet = self._start()

    def crash(self) -> None:
        """Kill the node, which forgets its pool and its latest blocks, and start it again."""
        self.devnet.kill()
        self.devnet = self._start()

    def _start(self) -> Devnet:
        self._keep_state()
        running = Devnet(self._config)
        self._config = DevnetConfig(self._config.anvil, running.port, self._state)
        running.rpc.call("evm_setAutomine", [False])
        running.rpc.call("evm_setIntervalMining", [1])
        return running

    def _keep_state(self) -> None:
        """Replace a state that was cut off, or whose parts disagree, by the one before it."""
        if not self._state.exists():
            return
        if _is_whole(self._state):
            shutil.copyfile(self._state, self._backup)
        else:
            shutil.copyfile(self._backup, self._state)


def _is_whole(path: Path) -> bool:
    try:
        state = json.loads(path.read_bytes())
    except ValueError:
        return False
    sent = state["accounts"].get(_ACCOUNT.address.lower(), {"nonce": 0})["nonce"]
    return int(sent) == len(state["transactions"])  # nobody else sends anything


def build_counter() -> Call:
    """Return the call that creates a contract which counts the calls with each word."""
    return Call(None, "constructor", _COUNTER)


def build_count(counter: str, word: int) -> Call:
    """Return the call that adds one to ``word``."""
    return Call(counter, "count", word.to_bytes(32, "big"))


def read_count(rpc: Rpc, counter: str, word: int) -> int:
    """Return how often the count of ``word`` has happened."""
    return int(rpc.call("eth_getStorageAt", [counter, hex(word), "latest"]), 16)


def measure_outbox(anvil: Path, folder: Path, calls: int = 1000, kills: int = 20) -> OutboxFigures:
    """Send ``calls`` through an outbox in ``folder`` while the node is killed ``kills`` times."""
    started = time.monotonic()
    node = _Mortal(anvil, folder)
    rpc, journal = Rpc(node.devnet.url), Journal(folder / "outbox.sqlite")
    outbox = Outbox(rpc, _ACCOUNT, journal, Finality(_CONFIRMATIONS))
    try:
        counter = outbox.send("counter", build_counter(), _PATIENCE_S).created
        assert counter is not None
        _wait_until_final(outbox, ["counter"])
        mute = _send_all(outbox, node, [build_count(counter, word) for word in range(calls)], kills)
        _wait_until_final(outbox, map(str, range(calls)))
        counts = [read_count(rpc, counter, word) for word in range(calls)]
    finally:
        journal.close()
        rpc.close()
        node.devnet.stop()
    duplicates = sum(count - 1 for count in counts if count > 1)
    duration_s = time.monotonic() - started
    return OutboxFigures(calls, kills, counts.count(0), duplicates, mute, duration_s)


def _send_all(outbox: Outbox, node: _Mortal, calls: Sequence[Call], kills: int) -> int:
    """Post ``calls`` while the node crashes at regular ones; return how often it was mute."""
    mute = 0
    crashes: list[Future[None]] = []
    with ThreadPoolExecutor(1) as killer:
        for word, call in enumerate(calls):
            if len(crashes) * len(calls) < word * kills:
                crashes.append(killer.submit(node.crash))  # now, whatever is under way
            mute += _repeat(partial(outbox.post, str(word), call))
            if word % _BATCH == 0:
                mute += _repeat(partial(_tend_until_below, outbox, _WINDOW))
        mute += _repeat(partial(_tend_until_below, outbox, 1))
        for crash in crashes:
            crash.result()
    assert len(crashes) == kills
    return mute


def _repeat(act: Callable[[], None]) -> int:
    """Do ``act``, again as often as the node is mute; return how often it was."""
    for mute in count():
        try:
            act()
        except NodeUnavailable:
            time.sleep(_PAUSE_S)
        else:
            return mute
    raise AssertionError


def _tend_until_below(outbox: Outbox, unmined: int) -> None:
    while outbox.tend() >= unmined:
        time.sleep(_PAUSE_S)


def _wait_until_final(outbox: Outbox, keys: Iterable[str]) -> None:
    for key in keys:
        while outbox.get_status(key) is not EntryStatus.FINAL:
            outbox.tend()
            time.sleep(_PAUSE_S)
