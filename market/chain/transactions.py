"""Sending by any account: one outbox for each, in files or in memory."""

import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress

from market.chain.journal import Journal
from market.chain.outbox import Finality, Outbox
from market.chain.rpc import Rpc
from market.chain.signing import Call as Call
from market.chain.signing import Receipt as Receipt
from market.chain.signing import simulate
from market.protocol.errors import TransactionReverted


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """Where outboxes are kept, one file each, and when what they sent is final."""

    folder: Path | None
    finality: Finality


IN_MEMORY: Final = OutboxConfig(None, Finality())  # for a process that nobody continues


class Sender:
    """Sends calls through nodes. Threads may share it; an account's calls go one by one."""

    def __init__(self, rpc: Rpc, patience_s: float, config: OutboxConfig = IN_MEMORY) -> None:
        self.rpc = rpc
        self._patience_s = patience_s
        self._config = config
        self._outboxes: dict[str, Outbox] = {}
        self._locks: dict[str, threading.Lock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for outbox in self._outboxes.values():
            outbox.journal.close()
        self.rpc.close()

    def get_chain_id(self) -> int:
        """Return the id of the node's chain."""
        return self.rpc.eth.chain_id

    def simulate(self, sender: ChecksumAddress, call: Call) -> int:
        """Return the gas that ``call`` would take; raise TransactionReverted if it would revert."""
        return simulate(self.rpc.eth, sender, call)

    def send(self, account: LocalAccount, call: Call) -> Receipt:
        """Make ``call`` happen once and return its receipt.

        After NodeUnavailable, or in the next process, sending it again resumes what was sent."""
        with self._locks.setdefault(account.address, threading.Lock()):
            outbox = self._outboxes.get(account.address) or self._open_outbox(account)
            with outbox.journal.hold(self._patience_s):
                key = _compute_key(call)
                try:
                    receipt = outbox.send(key, call, self._patience_s)
                except TransactionReverted:
                    outbox.journal.release(key)
                    raise
                outbox.journal.release(key)  # the caller knows: the same call would be another
                return receipt

    def _open_outbox(self, account: LocalAccount) -> Outbox:
        path = None
        if self._config.folder is not None:
            # A devnet that was begun anew has the id of the old one, and another first block.
            genesis = self.rpc.eth.get_block(0)["hash"].hex()[:8]
            path = self._config.folder / f"{account.address}-{genesis}.sqlite"
        outbox = Outbox(self.rpc, account, Journal(path), self._config.finality)
        self._outboxes[account.address] = outbox
        return outbox


def _compute_key(call: Call) -> str:
    parts = (call.to or "", call.function, call.data.hex(), str(call.value))
    return sha256("\n".join(parts).encode()).hexdigest()
