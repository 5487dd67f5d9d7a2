"""The one hash: domain-separated SHA-256 leaves, nodes of exactly 64 bytes (docs/protocol.md section 1)."""

import struct
from collections.abc import Sequence
from enum import IntEnum
from hashlib import sha256
from typing import Final, NewType

Hash32 = NewType("Hash32", bytes)

ZERO_HASH: Final = Hash32(bytes(32))
_MAGIC: Final = b"TSTN"
_DOMAIN: Final = struct.Struct(">4sBBBB6I")


class Role(IntEnum):
    """What a leaf is."""

    TILE = 1
    NAMED_TENSOR = 2
    RECORD = 3
    OUTCOME = 4
    SPEC = 5
    PROGRAM_HEADER = 6
    TENSOR_DECLARATION = 7
    PROGRAM_OUTPUT = 8
    INSTRUCTION_PART = 9
    DRAW = 11


def compute_digest(data: bytes) -> Hash32:
    """Return the SHA-256 of ``data``."""
    return Hash32(sha256(data).digest())


def encode_domain(role: int, dtype: int = 0, bits: int = 0, shape: Sequence[int] = ()) -> bytes:
    """Return the 32 bytes that say what a leaf is; a tensor's also carry its type."""
    return _DOMAIN.pack(_MAGIC, role, dtype, bits, len(shape), *shape, *[0] * (6 - len(shape)))


_PLAIN_DOMAINS: Final = {role: encode_domain(role) for role in Role}


def hash_leaf(role: Role, payload: bytes) -> Hash32:
    """Return the leaf of ``payload`` in the domain of ``role`` (any but a tile)."""
    # INVARIANT: a payload of 32 bytes would make the preimage look like a node's.
    assert len(payload) != 32
    return Hash32(sha256(_PLAIN_DOMAINS[role] + payload).digest())


def hash_node(left: Hash32, right: Hash32) -> Hash32:
    """Return the parent of two nodes."""
    return Hash32(sha256(left + right).digest())


def encode_u256(value: int) -> bytes:
    """Return ``value`` as 32 big-endian bytes."""
    return value.to_bytes(32, "big")
