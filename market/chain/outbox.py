"""Sending from one account: each call happens once, whatever nodes, chain and this process do.

A call is signed with a nonce of its own and written down before any node hears of it. After that
the chain is asked first, always, and only what it does not have is sent again: the same bytes, or
the same call with the same nonce and higher fees. So of all that was signed for a call only one can
be mined. A new nonce is taken only when the old one is spent for good, and by none of those."""

import logging
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from web3.eth import Eth
from web3.exceptions import BlockNotFound

from market.chain.journal import Entry, EntryStatus, Journal
from market.chain.rpc import Rpc, RpcError
from market.chain.signing import (
    Attempt,
    Call,
    Receipt,
    estimate_gas,
    find_receipt,
    is_known,
    raise_fees,
    read_receipt,
    sign,
    suggest_fees,
)
from market.protocol.errors import ChainError, NodeUnavailable, TransactionReverted

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.25
# Refusals that no waiting heals, as nodes word them. After any other the call is kept and sent again.
_HOPELESS: Final = ("insufficient funds", "intrinsic gas", "exceeds", "oversized", "initcode")
_FEES_TOO_LOW: Final = ("underpriced", "base fee", "fee too low")


@dataclass(frozen=True, slots=True)
class Finality:
    """When a call counts as final, and when as stuck, in blocks."""

    confirmations: int = 12  # with its own block
    stuck_blocks: int = 5  # that a call was next and not mined


class NonceSpent(ChainError):
    """A transaction that this outbox did not send has spent the nonce of a call."""


class Outbox:
    """What ``account`` sends. One thread at a time, while it holds the journal."""

    def __init__(
        self, rpc: Rpc, account: LocalAccount, journal: Journal, finality: Finality
    ) -> None:
        self.journal = journal
        self._rpc = rpc
        self._account = account
        self._finality = finality
        self._obstacles: dict[int, ChainError] = {}  # why an entry is not mined yet
        self._underpriced: set[int] = set()
        self._next = (-1, 0)  # the lowest nonce not mined, and the block since which it is that

    def send(self, key: str, call: Call, patience_s: float) -> Receipt:
        """Make ``call`` happen once and return its receipt; the same ``key`` is the same call.

        Raises NodeUnavailable where it stays unmined for so long; send it again then."""
        failure: ChainError | None = None
        for _ in iterate_attempts(patience_s):
            try:
                self.tend()  # first: ``call`` may build on what the node has lost
                self.post(key, call)
                receipt = self.find_receipt(key)
                if receipt is not None:
                    return receipt
                failure = None
            except NodeUnavailable as error:
                failure = error
        raise failure or self._explain_delay(key)

    def post(self, key: str, call: Call) -> None:
        """Have ``call`` written down and on its way; nothing happens if ``key`` was posted before.

        Raises TransactionReverted, with nothing kept, where the call would revert."""
        entry = self.journal.find(key)
        if entry is not None:
            if entry.call != call:
                raise ChainError(f"{key} was sent as {entry.call.function} with other arguments")
            return
        eth = self._rpc.choose_node()
        attempt = self._sign_anew(eth, call)
        entry = self.journal.add(key, call, attempt)
        try:
            self._submit(entry, attempt)
        except RpcError:
            self.journal.remove(entry)  # nobody took it, and the nonce is the next call's
            raise
        fields = {"function": call.function, "tx_hash": attempt.tx_hash}
        logger.info("transaction sent", extra=fields)

    def tend(self) -> int:
        """Learn from a node what became of every call, and do what that asks for.

        Returns how many calls are in no block yet."""
        eth = self._rpc.choose_node()
        head = eth.block_number
        count = eth.get_transaction_count(self._account.address)
        self._follow(eth, head, self.journal.list_unfinished(count))
        self._push(eth, head, count, self.journal.list_from(count))
        return self.journal.count_unmined(count)

    def get_status(self, key: str) -> EntryStatus:
        """Return how far a call had come when the chain was last asked."""
        return self.journal.get(key).status

    def find_receipt(self, key: str) -> Receipt | None:
        """Return the receipt of a mined call; raise TransactionReverted if it failed there."""
        entry = self.journal.find(key)
        if entry is None or entry.status is EntryStatus.PENDING:
            return None
        eth = self._rpc.choose_node()
        for attempt in self.journal.list_attempts(entry):
            found = find_receipt(eth, attempt.tx_hash)
            if found is not None:
                return read_receipt(eth, self._account.address, entry.call, found)
        return None

    def _follow(self, eth: Eth, head: int, entries: Sequence[Entry]) -> None:
        """Find the blocks of entries whose nonces are spent."""
        if not entries:
            return
        final_height = self._get_final_height(eth, head)

        @cache
        def get_hash(number: int) -> bytes | None:
            return _find_block_hash(eth, number)

        for entry in entries:
            number, block_hash = entry.block_number, entry.block_hash
            if number is None or get_hash(number) != block_hash:
                number, block_hash = self._find_block(eth, entry)
            if number is not None and block_hash is not None:
                is_final = number <= final_height
                status = EntryStatus.FINAL if is_final else EntryStatus.INCLUDED
                if (status, block_hash) != (entry.status, entry.block_hash):
                    self.journal.set_mined(entry, status, number, block_hash)
            else:
                self._replace_spent_nonce(eth, entry, final_height)

    def _find_block(self, eth: Eth, entry: Entry) -> tuple[int, bytes] | tuple[None, None]:
        for attempt in self.journal.list_attempts(entry):
            found = find_receipt(eth, attempt.tx_hash)
            if found is not None:
                self._obstacles.pop(entry.id, None)
                fields = {"function": entry.call.function, "tx_hash": attempt.tx_hash}
                logger.info("transaction mined", extra={**fields, "gas_used": found["gasUsed"]})
                return found["blockNumber"], bytes(found["blockHash"])
        return None, None

    def _replace_spent_nonce(self, eth: Eth, entry: Entry, final_height: int) -> None:
        """Sign an entry anew whose nonce another transaction has spent, once that is final."""
        if entry.status is EntryStatus.INCLUDED:
            self.journal.set_pending(entry)
        spent = f"nonce {entry.nonce} of {self._account.address}, which was for"
        spent += f" {entry.call.function}, was spent by a transaction that is not in the outbox"
        self._obstacles[entry.id] = NonceSpent(spent)
        spender = self._find_spender(eth, entry.nonce, final_height)
        if spender is None or spender in {a.tx_hash for a in self.journal.list_attempts(entry)}:
            # INVARIANT: another nonce is signed only where the block that another transaction
            # spent this one in is seen, and final. A node that lacks receipts proves nothing.
            return
        fields = {"function": entry.call.function, "nonce": entry.nonce}
        logger.warning("nonce spent by another transaction", extra=fields)
        try:
            attempt = self._sign_anew(eth, entry.call)
        except TransactionReverted:
            self.journal.remove(entry)  # whoever wants it still posts it again, and is told why
            return
        self._resubmit(self.journal.add_attempt(entry, attempt))

    def _push(self, eth: Eth, head: int, count: int, entries: Sequence[Entry]) -> None:
        """Send what the node lacks of ``entries``, whose nonces are not spent."""
        if not entries:
            return
        dropped = [entry for entry in entries if entry.status is EntryStatus.INCLUDED]
        for entry in dropped:
            self.journal.set_pending(entry)
        if dropped:
            facts = {"transactions": len(dropped), "nonce": dropped[0].nonce}
            logger.warning("transactions dropped by a reorganization", extra=facts)
        # Only the lowest can be missing or too cheap by itself: the others wait for it.
        lowest = entries[0]
        attempts = self.journal.list_attempts(lowest)
        if not any(is_known(eth, attempt.tx_hash) for attempt in attempts):
            for entry in entries:
                self._resubmit(entry)
        if lowest.nonce == count and self._is_stuck(lowest, head):
            self._raise_fees(eth, lowest, attempts[0])

    def _is_stuck(self, entry: Entry, head: int) -> bool:
        nonce, since = self._next
        if nonce != entry.nonce or since > head:
            self._next = nonce, since = entry.nonce, head
        return entry.id in self._underpriced or head - since >= self._finality.stuck_blocks

    def _raise_fees(self, eth: Eth, entry: Entry, latest: Attempt) -> None:
        fees = raise_fees(latest.fees, suggest_fees(eth))
        if fees is None:
            paid = f"{latest.fees.limit} wei per gas"
            unmined = f"{entry.call.function} {latest.tx_hash} is not mined for {paid}"
            self._obstacles[entry.id] = NodeUnavailable(f"{unmined}, far above what is usual")
            return
        raised = sign(self._account, self._chain_id, entry.call, latest.nonce, latest.gas, fees)
        self._next = (entry.nonce, eth.block_number)
        self._resubmit(self.journal.add_attempt(entry, raised))
        fields = {"function": entry.call.function, "tx_hash": raised.tx_hash}
        logger.info("transaction replaced", extra={**fields, "fee_limit": fees.limit})

    def _resubmit(self, entry: Entry) -> None:
        try:
            self._submit(entry, self.journal.list_attempts(entry)[0])
        except RpcError as error:
            self._obstacles[entry.id] = error

    def _submit(self, entry: Entry, attempt: Attempt) -> None:
        """Give the nodes signed bytes; raise RpcError where waiting will not make them take them."""
        self._underpriced.discard(entry.id)
        self._obstacles.pop(entry.id, None)
        try:
            self._rpc.eth.send_raw_transaction(attempt.raw)
        except NodeUnavailable as error:
            self._obstacles[entry.id] = error
        except RpcError as error:
            if is_known(self._rpc.eth, attempt.tx_hash):
                return
            reason = str(error).lower()
            if any(words in reason for words in _HOPELESS):
                raise
            if any(words in reason for words in _FEES_TOO_LOW) and "replacement" not in reason:
                self._underpriced.add(entry.id)
            waiting = f"{entry.call.function} {attempt.tx_hash} waits: {error}"
            self._obstacles[entry.id] = NodeUnavailable(waiting)

    @cached_property
    def _chain_id(self) -> int:
        return self._rpc.eth.chain_id

    def _sign_anew(self, eth: Eth, call: Call) -> Attempt:
        address = self._account.address
        gas = estimate_gas(eth, address, call)
        # "pending": what another process has sent by this key is not to be replaced
        nonce = self.journal.find_free_nonce(eth.get_transaction_count(address, "pending"))
        return sign(self._account, self._chain_id, call, nonce, gas, suggest_fees(eth))

    def _get_final_height(self, eth: Eth, head: int) -> int:
        confirmed = head - self._finality.confirmations + 1
        try:
            return max(confirmed, eth.get_block("finalized")["number"])
        except (BlockNotFound, RpcError):  # a chain that does not tell
            return confirmed

    def _find_spender(self, eth: Eth, nonce: int, final_height: int) -> str | None:
        """Return the hash of the transaction that spent ``nonce``, if a final block shows it."""
        heights = range(max(final_height, 0) + 1)
        height = bisect_left(heights, nonce + 1, key=lambda h: self._count_at(eth, h))
        if height > final_height:
            return None
        for transaction in eth.get_block(height, full_transactions=True)["transactions"]:
            assert not isinstance(transaction, HexBytes)
            mine = transaction["from"].lower() == self._account.address.lower()
            if mine and transaction["nonce"] == nonce:
                return HexBytes(transaction["hash"]).to_0x_hex()
        return None

    def _count_at(self, eth: Eth, height: int) -> int:
        try:
            return eth.get_transaction_count(self._account.address, height)
        except RpcError:  # the node has no state that old
            return 0

    def _explain_delay(self, key: str) -> ChainError:
        entry = self.journal.get(key)
        attempt = self.journal.list_attempts(entry)[0]
        unmined = f"{entry.call.function} {attempt.tx_hash} is not mined yet"
        return self._obstacles.get(entry.id) or NodeUnavailable(unmined)


def iterate_attempts(patience_s: float) -> Iterator[None]:
    """Yield at once and then after growing pauses, for so long."""
    deadline = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _find_block_hash(eth: Eth, number: int) -> bytes | None:
    try:
        return bytes(HexBytes(eth.get_block(number)["hash"]))
    except BlockNotFound:
        return None
