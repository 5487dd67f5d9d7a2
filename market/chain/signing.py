"""What a call is, what signing makes of it, and what one node knows of the result."""

from dataclasses import dataclass
from typing import Final

from eth_account.signers.local import LocalAccount
from eth_account.types import TransactionDictType
from eth_typing import BlockNumber, ChecksumAddress, HexStr
from eth_utils.address import to_checksum_address
from web3.eth import Eth
from web3.exceptions import TransactionNotFound
from web3.types import LogReceipt, TxParams, TxReceipt, Wei

from market.chain.abi import explain
from market.chain.rpc import RpcError
from market.protocol.errors import ChainError, TransactionReverted

_GAS_MARGIN_PERCENT: Final = 125  # storage may have changed between the estimate and the block
_BASE_FEE_MARGIN: Final = 2  # the base fee may double in about six full blocks
_BUMP: Final = (9, 8)  # nodes take a replacement that pays 10% more, some 12.5%
_FEE_CEILING: Final = 10  # times what the node suggests: no replacement pays more


@dataclass(frozen=True, slots=True)
class Call:
    """An unsigned transaction: ``data`` calls ``function`` of ``to``, or creates it if None."""

    to: str | None
    function: str
    data: bytes
    value: int = 0


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction pays per gas at most, in wei: to the proposer, and in all."""

    tip: int
    limit: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call signed with a nonce: bytes that happen at most once, however often they are sent."""

    nonce: int
    gas: int
    fees: Fees
    tx_hash: HexStr
    raw: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined call that succeeded."""

    function: str
    tx_hash: str
    block_number: int
    gas_used: int
    logs: tuple[LogReceipt, ...]
    created: str | None


def simulate(eth: Eth, sender: ChecksumAddress, call: Call) -> int:
    """Return the gas that ``call`` would take; raise TransactionReverted if it would revert."""
    try:
        # "pending": in the block to come, where a draw sees the hash of the latest
        return eth.estimate_gas(_describe(sender, call), "pending")
    except RpcError as error:
        raise explain(error) from error


def estimate_gas(eth: Eth, sender: ChecksumAddress, call: Call) -> int:
    """Return the gas to allow ``call``; raise TransactionReverted if it would revert."""
    return simulate(eth, sender, call) * _GAS_MARGIN_PERCENT // 100


def suggest_fees(eth: Eth) -> Fees:
    """Return fees with which a transaction is mined soon."""
    tip = eth.max_priority_fee
    return Fees(tip, eth.get_block("latest")["baseFeePerGas"] * _BASE_FEE_MARGIN + tip)


def raise_fees(paid: Fees, suggested: Fees) -> Fees | None:
    """Return fees that replace ``paid``; None where they would be far above ``suggested``."""
    by, of = _BUMP
    raised = Fees(
        max(-(-paid.tip * by // of), paid.tip + 1, suggested.tip),
        max(-(-paid.limit * by // of), suggested.limit),
    )
    return raised if raised.limit <= suggested.limit * _FEE_CEILING else None


def sign(
    account: LocalAccount, chain_id: int, call: Call, nonce: int, gas: int, fees: Fees
) -> Attempt:
    """Return ``call`` signed for ``chain_id``."""
    fields: TransactionDictType = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": HexStr("" if call.to is None else to_checksum_address(call.to)),
        "data": call.data,
        "value": call.value,
        "gas": gas,
        "maxPriorityFeePerGas": fees.tip,
        "maxFeePerGas": fees.limit,
    }
    signed = account.sign_transaction(fields)
    tx_hash = HexStr(signed.hash.to_0x_hex())
    return Attempt(nonce, gas, fees, tx_hash, bytes(signed.raw_transaction))


def find_receipt(eth: Eth, tx_hash: HexStr) -> TxReceipt | None:
    """Return the receipt of a mined transaction; None for one that the node has not seen mined."""
    try:
        return eth.get_transaction_receipt(tx_hash)
    except TransactionNotFound:
        return None


def is_known(eth: Eth, tx_hash: HexStr) -> bool:
    """Check whether the node has the transaction, mined or not."""
    try:
        eth.get_transaction(tx_hash)
    except TransactionNotFound:
        return False
    return True


def read_receipt(eth: Eth, sender: ChecksumAddress, call: Call, found: TxReceipt) -> Receipt:
    """Return ``found`` as ours; raise TransactionReverted where the call failed."""
    tx_hash = found["transactionHash"].to_0x_hex()
    if found["status"] == 0:
        raise _explain_failure(eth, sender, call, found["blockNumber"], tx_hash)
    return Receipt(
        function=call.function,
        tx_hash=tx_hash,
        block_number=found["blockNumber"],
        gas_used=found["gasUsed"],
        logs=tuple(found["logs"]),
        created=found.get("contractAddress"),
    )


def _explain_failure(
    eth: Eth, sender: ChecksumAddress, call: Call, block: BlockNumber, tx_hash: str
) -> ChainError:
    """Return why a mined call reverted, as far as the state of its block still shows it."""
    try:
        eth.call(_describe(sender, call), block)
    except RpcError as error:
        explained = explain(error)
        if isinstance(explained, TransactionReverted):
            return explained
    return TransactionReverted("UnexplainedRevert", (tx_hash,))


def _describe(sender: ChecksumAddress, call: Call) -> TxParams:
    described: TxParams = {"from": sender, "data": call.data, "value": Wei(call.value)}
    if call.to is not None:
        described["to"] = to_checksum_address(call.to)
    return described
