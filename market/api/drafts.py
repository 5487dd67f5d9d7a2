"""What the API answers to a posted spec, as its client reads it too: without the web stack."""

from pydantic import BaseModel

from market.chain.structs import Address
from market.protocol.spec import HexHash, Wei


class UnsignedTransaction(BaseModel):
    """A transaction to check, sign and send."""

    to: Address
    data: str
    value: Wei
    chain_id: int


class JobDraft(BaseModel):
    """A stored spec and the transaction with which its requester escrows the price."""

    spec_hash: HexHash
    document: str
    transaction: UnsignedTransaction
