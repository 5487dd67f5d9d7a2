"""Typed tensors and the roots over their tiles (docs/protocol.md sections 1 and 2).

One implementation of what a tensor, a half of a state and a state hash to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from market.protocol.constants import MAX_DIMENSION, MAX_RANK, MAX_TENSOR_ELEMENTS, TILE_BYTES
from market.protocol.errors import InvalidBlob, InvalidProgram
from market.protocol.hashing import (
    Hash32,
    Role,
    compute_digest,
    encode_domain,
    hash_leaf,
    hash_node,
)
from market.protocol.merkle import compute_root

Bytes = bytes | bytearray | memoryview

_NO_EXPONENT: Final = bytes(4)


class Dtype(IntEnum):
    """The element types of stored tensors, little-endian."""

    U8 = 1
    I16 = 2
    I32 = 3
    I64 = 4
    F32 = 5

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return _DTYPE_BYTES[self]


_DTYPE_BYTES: Final = {Dtype.U8: 1, Dtype.I16: 2, Dtype.I32: 4, Dtype.I64: 8, Dtype.F32: 4}


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type and a shape; ``bits`` is 0, or the width of a quantized tensor's integers."""

    dtype: Dtype
    shape: tuple[int, ...]
    bits: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_RANK:
            raise InvalidProgram(f"a tensor of rank {len(self.shape)}: at most {MAX_RANK}")
        if any(not 1 <= size <= MAX_DIMENSION for size in self.shape):
            raise InvalidProgram(f"a tensor of shape {self.shape}: sizes are 1 to {MAX_DIMENSION}")
        if self.elements > MAX_TENSOR_ELEMENTS:
            raise InvalidProgram(f"a tensor of {self.elements} elements: at most 2^40")
        if self.bits and (self.dtype is not get_quantized_dtype(self.bits) or not self.shape):
            raise InvalidProgram(f"a tensor quantized to {self.bits} bits cannot be {self}")

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take."""
        return self.elements * self.dtype.size

    @property
    def strides(self) -> tuple[int, ...]:
        """Row-major strides in elements."""
        strides = [1] * len(self.shape)
        for axis in range(len(self.shape) - 2, -1, -1):
            strides[axis] = strides[axis + 1] * self.shape[axis + 1]
        return tuple(strides)


def get_quantized_dtype(bits: int) -> Dtype:
    """Return the element type that holds integers of ``bits`` bits."""
    return Dtype.I32 if bits > 16 else Dtype.I16


def _iterate_tiles(data: memoryview, row_bytes: int) -> Iterator[tuple[int, memoryview]]:
    for row, start in enumerate(range(0, len(data), row_bytes)):
        for tile in range(start, start + row_bytes, TILE_BYTES):
            yield row, data[tile : min(tile + TILE_BYTES, start + row_bytes)]


def compute_tile_leaves(
    kind: TensorType, data: Bytes, exponents: Sequence[int] = ()
) -> list[Hash32]:
    """Return the leaves over the tiles of a tensor's row-major little-endian bytes.

    A quantized tensor gives one of ``exponents`` for each row along its last axis."""
    view = memoryview(data).cast("B")
    if len(view) != kind.nbytes:
        raise InvalidBlob(f"{len(view)} bytes for {kind}, which takes {kind.nbytes}")
    prefix = sha256(encode_domain(Role.TILE, kind.dtype, kind.bits, kind.shape))
    if kind.bits:
        row_bytes = kind.shape[-1] * kind.dtype.size
        tails = [exponent.to_bytes(4, "big", signed=True) for exponent in exponents]
        assert len(tails) * row_bytes == len(view)
    else:
        row_bytes, tails = len(view), [_NO_EXPONENT]
    leaves = []
    for row, tile in _iterate_tiles(view, row_bytes):
        leaf = prefix.copy()
        leaf.update(tails[row])
        leaf.update(tile)
        if len(tile) % 32:  # INVARIANT: padded to 32s, so no leaf's preimage has a node's 64 bytes
            leaf.update(bytes(-len(tile) % 32))
        leaves.append(Hash32(leaf.digest()))
    return leaves


def compute_tensor_root(kind: TensorType, data: Bytes, exponents: Sequence[int] = ()) -> Hash32:
    """Return the root that commits to a tensor's type and elements."""
    return compute_root(compute_tile_leaves(kind, data, exponents))


def hash_named_tensor(name: str, root: Hash32) -> Hash32:
    """Return the leaf of a named tensor in a half of a state or among the gradients."""
    return hash_leaf(Role.NAMED_TENSOR, compute_digest(name.encode()) + root)


def compute_named_root(roots: Mapping[str, Hash32]) -> Hash32:
    """Return the root over named tensors in their order; zero if there are none."""
    return compute_root([hash_named_tensor(name, root) for name, root in roots.items()])


def compute_state_root(base_root: Hash32, slot_root: Hash32) -> Hash32:
    """Return the root of a state from its two halves."""
    return hash_node(base_root, slot_root)
