"""Block headers as bytes: what a draw submits, so that the chain need not remember them."""

from collections.abc import Mapping
from typing import Final

import rlp
from eth_utils.crypto import keccak

from market.chain.rpc import Rpc
from market.protocol.errors import ChainError, NotFound

# Item 13 is mixHash, the randomness of a draw.
_FIELDS: Final = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot"),
    *("logsBloom", "difficulty", "number", "gasLimit", "gasUsed", "timestamp"),
    *("extraData", "mixHash", "nonce"),
)
_LATER_FIELDS: Final = (  # each fork appended some; a header ends with its own fork's
    *("baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas"),
    *("parentBeaconBlockRoot", "requestsHash", "blockAccessListHash"),
)
_QUANTITIES: Final = frozenset(
    {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}
    | {"blobGasUsed", "excessBlobGas"}
)


def get_header_rlp(rpc: Rpc, number: int) -> bytes:
    """Return the RLP of the header of block ``number``; its Keccak-256 is the block's hash."""
    block = rpc.call("eth_getBlockByNumber", [hex(number), False])
    if block is None:
        raise NotFound(f"block {number} does not exist")
    header = encode_header(block)
    if keccak(header).hex() != block["hash"].removeprefix("0x"):
        raise ChainError(
            f"the header of block {number} hashes to 0x{keccak(header).hex()}, "
            f"not to {block['hash']}: it has fields unknown here"
        )
    return header


def encode_header(block: Mapping[str, str]) -> bytes:
    """Return the RLP of the header in ``block``, as a node answers it."""
    present = [name for name in _LATER_FIELDS if block.get(name) is not None]
    encoded: bytes = rlp.encode([_encode_field(name, block[name]) for name in (*_FIELDS, *present)])
    return encoded


def _encode_field(name: str, text: str) -> bytes:
    if name in _QUANTITIES:
        value = int(text, 16)
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes.fromhex(text.removeprefix("0x"))
