"""Signing and sending: a signed call happens once, whatever the connection does in between.

What is broadcast is the same signed bytes every time, and a nonce is spent once, so sending again
is harmless. Only a call whose nonce another transaction has spent is signed anew."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from eth_account.signers.local import LocalAccount
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from eth_utils.hexadecimal import decode_hex

from market.chain.abi import load_abi
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
    sender: str
    nonce: int
    raw: bytes
    tx_hash: str


@dataclass(frozen=True, slots=True)
class Log:
    """What a contract logged, undecoded, and where it stands."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    log_index: int
    tx_hash: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined call that succeeded."""

    function: str
    tx_hash: str
    block_number: int
    gas_used: int
    logs: tuple[Log, ...]
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
        return int(self.rpc.call("eth_chainId", []), 16)

    def simulate(self, sender: str, call: Call) -> int:
        """Return the gas that ``call`` would take; raise TransactionReverted if it would revert."""
        try:
            return int(self.rpc.call("eth_estimateGas", [_describe(sender, call)]), 16)
        except RpcError as error:
            raise load_abi().explain(error) from error

    def sign(self, account: LocalAccount, call: Call) -> SignedCall:
        """Return ``call`` signed with the account's next nonce, after it was simulated."""
        gas = self.simulate(account.address, call) * _GAS_MARGIN_PERCENT // 100
        tip = int(self.rpc.call("eth_maxPriorityFeePerGas", []), 16)
        block = self.rpc.call("eth_getBlockByNumber", ["latest", False])
        nonce = self._get_pending_nonce(account.address)
        fields: TransactionDictType = {
            "type": 2,
            "chainId": self.get_chain_id(),
            "nonce": nonce,
            "to": HexStr(call.to or ""),
            "data": call.data,
            "value": call.value,
            "gas": gas,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": int(block["baseFeePerGas"], 16) * _BASE_FEE_MARGIN + tip,
        }
        signed = account.sign_transaction(fields)
        tx_hash = "0x" + bytes(signed.hash).hex()
        return SignedCall(call, account.address, nonce, bytes(signed.raw_transaction), tx_hash)

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

    def _get_pending_nonce(self, address: str) -> int:
        return int(self.rpc.call("eth_getTransactionCount", [address, "pending"]), 16)

    def _find_receipt(self, signed: SignedCall) -> Receipt | None:
        found = self.rpc.call("eth_getTransactionReceipt", [signed.tx_hash])
        if found is None:
            return None
        if int(found["status"], 16) == 0:
            raise self._explain_failure(signed, found["blockNumber"])
        receipt = _parse_receipt(signed.call.function, found)
        fields = {"function": receipt.function, "tx_hash": receipt.tx_hash}
        logger.info("transaction mined", extra={**fields, "gas_used": receipt.gas_used})
        return receipt

    def _submit(self, signed: SignedCall) -> None:
        """Give the node the signed bytes unless it has them."""
        if self._is_known(signed):
            return
        try:
            self.rpc.call("eth_sendRawTransaction", ["0x" + signed.raw.hex()])
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
        return self.rpc.call("eth_getTransactionByHash", [signed.tx_hash]) is not None

    def _explain_failure(self, signed: SignedCall, block: str) -> ChainError:
        """Return why a mined call reverted, as far as the state of its block still shows it."""
        try:
            self.rpc.call("eth_call", [_describe(signed.sender, signed.call), block])
        except RpcError as error:
            return load_abi().explain(error)
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


def _describe(sender: str, call: Call) -> dict[str, str]:
    described = {"from": sender, "data": "0x" + call.data.hex(), "value": hex(call.value)}
    return described if call.to is None else {**described, "to": call.to}


def parse_log(log: Mapping[str, Any]) -> Log:
    """Return a log as a node answers it."""
    return Log(
        address=to_checksum_address(log["address"]),
        topics=tuple(decode_hex(topic) for topic in log["topics"]),
        data=decode_hex(log["data"]),
        block_number=int(log["blockNumber"], 16),
        log_index=int(log["logIndex"], 16),
        tx_hash=log["transactionHash"],
    )


def _parse_receipt(function: str, found: Mapping[str, Any]) -> Receipt:
    created = found.get("contractAddress")
    return Receipt(
        function=function,
        tx_hash=found["transactionHash"],
        block_number=int(found["blockNumber"], 16),
        gas_used=int(found["gasUsed"], 16),
        logs=tuple(parse_log(log) for log in found["logs"]),
        created=None if created is None else to_checksum_address(created),
    )
