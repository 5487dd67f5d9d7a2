"""Signing and sending: a signed call happens once, whatever the connection does in between.

What is broadcast is the same signed bytes every time, and a nonce is spent once, so sending again
is harmless. Only a call whose nonce another transaction has spent is signed anew."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from eth_account.signers.local import LocalAccount
from eth_account.types import TransactionDictType
from eth_typing import BlockNumber, ChecksumAddress, HexStr
from eth_utils.address import to_checksum_address
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt, TxParams, Wei

from market.chain.abi import explain
from market.chain.rpc import Rpc, RpcError
from market.protocol.errors import ChainError, NodeUnavailable, TransactionReverted

logger = logging.getLogger(__name__)

_GAS_MARGIN_PERCENT: Final = 125  # storage may have changed between the estimate and the block
_BASE_FEE_MARGIN: Final = 2  # the base fee may double in about six full blocks
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Call:
    """An unsigned transaction: ``data`` calls ``function`` of ``to``, or creates it if None."""

    to: str | None
    function: str
    data: bytes
    value: int = 0


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call that can be broadcast any number of times and happens at most once."""

    call: Call
    sender: ChecksumAddress
    nonce: int
    raw: bytes
    tx_hash: HexStr


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined call that succeeded."""

    function: str
    tx_hash: str
    block_number: int
    gas_used: int
    logs: tuple[LogReceipt, ...]
    created: str | None


class NonceSpent(ChainError):
    """Another transaction spent the nonce, so the signed call can never happen."""


class Sender:
    """Sends calls through one node. Threads may share it; an account's calls go one by one."""

    def __init__(self, rpc: Rpc, patience_s: float) -> None:
        self.rpc = rpc
        self._patience_s = patience_s
        self._unresolved: dict[tuple[str, Call], SignedCall] = {}
        self._locks: dict[str, threading.Lock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rpc.close()

    def get_chain_id(self) -> int:
        """Return the id of the node's chain."""
        return self.rpc.eth.chain_id

    def simulate(self, sender: ChecksumAddress, call: Call) -> int:
        """Return the gas that ``call`` would take; raise TransactionReverted if it would revert."""
        try:
            # "pending": in the block to come, where a draw sees the hash of the latest
            return self.rpc.eth.estimate_gas(_describe(sender, call), "pending")
        except RpcError as error:
            raise explain(error) from error

    def sign(self, account: LocalAccount, call: Call) -> SignedCall:
        """Return ``call`` signed with the account's next nonce, after it was simulated."""
        gas = self.simulate(account.address, call) * _GAS_MARGIN_PERCENT // 100
        tip = self.rpc.eth.max_priority_fee
        base_fee = self.rpc.eth.get_block("latest")["baseFeePerGas"]
        nonce = self._get_pending_nonce(account.address)
        fields: TransactionDictType = {
            "type": 2,
            "chainId": self.get_chain_id(),
            "nonce": nonce,
            "to": HexStr("" if call.to is None else to_checksum_address(call.to)),
            "data": call.data,
            "value": call.value,
            "gas": gas,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": base_fee * _BASE_FEE_MARGIN + tip,
        }
        signed = account.sign_transaction(fields)
        raw, tx_hash = bytes(signed.raw_transaction), HexStr(signed.hash.to_0x_hex())
        return SignedCall(call, account.address, nonce, raw, tx_hash)

    def broadcast(self, signed: SignedCall) -> Receipt:
        """Return the receipt of ``signed``, sending its bytes as often as it takes.

        Raises NodeUnavailable where the node stays mute or the call unmined; call it again then."""
        failure = NodeUnavailable(f"{signed.call.function} {signed.tx_hash} is not mined yet")
        for _ in _iterate_attempts(self._patience_s):
            try:
                receipt = self._find_receipt(signed)
                if receipt is not None:
                    return receipt
                self._submit(signed)
            except NodeUnavailable as error:
                failure = error
        raise failure

    def send(self, account: LocalAccount, call: Call) -> Receipt:
        """Make ``call`` happen once and return its receipt.

        After NodeUnavailable, sending the same call again resumes the signed transaction."""
        key = (account.address, call)
        with self._locks.setdefault(account.address, threading.Lock()):
            while True:
                signed = self._unresolved.get(key) or self.sign(account, call)
                self._unresolved[key] = signed
                try:
                    receipt = self.broadcast(signed)
                except NodeUnavailable:
                    raise
                except NonceSpent:
                    del self._unresolved[key]
                except ChainError:
                    del self._unresolved[key]
                    raise
                else:
                    del self._unresolved[key]
                    return receipt

    def _get_pending_nonce(self, address: ChecksumAddress) -> int:
        return self.rpc.eth.get_transaction_count(address, "pending")

    def _find_receipt(self, signed: SignedCall) -> Receipt | None:
        try:
            found = self.rpc.eth.get_transaction_receipt(signed.tx_hash)
        except TransactionNotFound:
            return None
        if found["status"] == 0:
            raise self._explain_failure(signed, found["blockNumber"])
        receipt = Receipt(
            function=signed.call.function,
            tx_hash=signed.tx_hash,
            block_number=found["blockNumber"],
            gas_used=found["gasUsed"],
            logs=tuple(found["logs"]),
            created=found.get("contractAddress"),
        )
        fields = {"function": receipt.function, "tx_hash": receipt.tx_hash}
        logger.info("transaction mined", extra={**fields, "gas_used": receipt.gas_used})
        return receipt

    def _submit(self, signed: SignedCall) -> None:
        """Give the node the signed bytes unless it has them."""
        if self._is_known(signed):
            return
        try:
            self.rpc.eth.send_raw_transaction(signed.raw)
        except RpcError as error:
            if self._is_known(signed):  # somebody else gave it the same bytes meanwhile
                return
            if self._get_pending_nonce(signed.sender) > signed.nonce:
                raise NonceSpent(f"nonce {signed.nonce} of {signed.sender} is spent") from error
            raise
        logger.info(
            "transaction sent",
            extra={"function": signed.call.function, "tx_hash": signed.tx_hash},
        )

    def _is_known(self, signed: SignedCall) -> bool:
        try:
            self.rpc.eth.get_transaction(signed.tx_hash)
        except TransactionNotFound:
            return False
        return True

    def _explain_failure(self, signed: SignedCall, block: BlockNumber) -> ChainError:
        """Return why a mined call reverted, as far as the state of its block still shows it."""
        try:
            self.rpc.eth.call(_describe(signed.sender, signed.call), block)
        except RpcError as error:
            return explain(error)
        return TransactionReverted("UnexplainedRevert", (signed.tx_hash,))


def _iterate_attempts(patience_s: float) -> Iterator[None]:
    deadline = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _describe(sender: ChecksumAddress, call: Call) -> TxParams:
    described: TxParams = {"from": sender, "data": call.data, "value": Wei(call.value)}
    if call.to is not None:
        described["to"] = to_checksum_address(call.to)
    return described
