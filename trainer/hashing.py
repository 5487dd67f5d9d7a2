"""The roots of tensors at the speed of memory: what `market.protocol.tensors` defines, in compiled code.

Threads take subtrees of 256 tiles, of all tensors at once; the few nodes above them are hashed here."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch

from market.protocol.constants import TILE_BYTES
from market.protocol.errors import InvalidBlob
from market.protocol.hashing import ZERO_HASH, Hash32, Role, encode_domain, hash_node
from market.protocol.merkle import compute_depth
from market.protocol.tensors import Bytes, TensorType
from trainer import sha256_native as native

_MAX_DEPTH: Final = 40  # 2^40 elements have at most as many tiles

Table = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Elements:
    """A tensor's type and its row-major bytes; a quantized one has an exponent for each row."""

    kind: TensorType
    data: Bytes
    exponents: Sequence[int] = ()

    def __post_init__(self) -> None:
        size = memoryview(self.data).nbytes
        if size != self.kind.nbytes:
            raise InvalidBlob(f"{size} bytes for {self.kind}, which takes {self.kind.nbytes}")


@dataclass(frozen=True, slots=True)
class _Layout:
    """A tensor's tiles: in rows that none of them crosses; a plain tensor is one row."""

    row_bytes: int
    row_tiles: int
    rows: int

    @property
    def tiles(self) -> int:
        return self.rows * self.row_tiles


def _lay_out(tensor: Elements) -> _Layout:
    kind, size = tensor.kind, memoryview(tensor.data).nbytes
    row_bytes = kind.shape[-1] * kind.dtype.size if kind.bits else size
    rows = size // row_bytes
    assert len(tensor.exponents) == (rows if kind.bits else 0)
    return _Layout(row_bytes, -(-row_bytes // TILE_BYTES), rows)


def _compute_missing_roots() -> tuple[Hash32, ...]:
    roots = [ZERO_HASH]
    for _ in range(_MAX_DEPTH):
        roots.append(hash_node(roots[-1], roots[-1]))
    return tuple(roots)


_MISSING: Final = _compute_missing_roots()  # by height: the roots of trees without leaves


def compute_tensor_roots(tensors: Sequence[Elements], threads: int | None = None) -> list[Hash32]:
    """Return the root of each tensor, on ``threads`` threads: all of torch's if not given."""
    if not tensors:
        return []
    layouts = [_lay_out(tensor) for tensor in tensors]
    roots = iter(_hash_units(tensors, layouts, threads or torch.get_num_threads()))
    return [
        _join(list(islice(roots, _count_units(layout))), compute_depth(layout.tiles))
        for layout in layouts
    ]


def _count_units(layout: _Layout) -> int:
    return -(-layout.tiles // native.UNIT_TILES)


def _hash_units(
    tensors: Sequence[Elements], layouts: Sequence[_Layout], threads: int
) -> list[Hash32]:
    """Return the roots of the subtrees of ``UNIT_TILES`` tiles of every tensor."""
    counts = [_count_units(layout) for layout in layouts]
    keep, rows = [], []  # INVARIANT: what the kernel reads lives until it has run
    for tensor, layout in zip(tensors, layouts, strict=True):
        data = np.frombuffer(tensor.data, dtype=np.uint8)
        domain = _encode_domain(tensor.kind)
        exponents = np.array(tensor.exponents or (0,), dtype=">i4")
        keep.append((data, domain, exponents))
        addresses = (array.ctypes.data for array in keep[-1])
        height = min(native.UNIT_HEIGHT, compute_depth(layout.tiles))
        rows.append((*addresses, layout.row_bytes, layout.row_tiles, layout.tiles, height))
    table: Table = np.array(rows, dtype=np.int64)
    units: Table = np.empty((sum(counts), native.UNIT_WORDS), dtype=np.int64)
    units[:, native.TENSOR] = np.repeat(np.arange(len(tensors)), counts)
    units[:, native.FIRST_TILE] = np.concatenate([np.arange(n) for n in counts]) * native.UNIT_TILES
    missing = np.frombuffer(b"".join(_MISSING), dtype=np.uint8)
    roots = np.empty((len(units), len(ZERO_HASH)), dtype=np.uint8)
    scratch = np.empty(threads * native.SCRATCH_BYTES, dtype=np.uint8)
    addresses = (array.ctypes.data for array in (table, units, missing, roots, scratch))
    _run(np.array([0, 0, len(units), *addresses], dtype=np.int64), min(threads, len(units)))
    return [Hash32(root.tobytes()) for root in roots]


def _run(arguments: Table, threads: int) -> None:
    """Run the kernel on so many threads, which do not spin where cores are busy, as OpenMP's would."""
    kernel, address = native.find_kernel(), arguments.ctypes.data
    with ThreadPoolExecutor(threads) as others:
        running = [others.submit(kernel, address) for _ in range(threads - 1)]
        kernel(address)
        for thread in running:
            thread.result()


def _encode_domain(kind: TensorType) -> np.ndarray[Any, np.dtype[np.uint8]]:
    domain = encode_domain(Role.TILE, kind.dtype, kind.bits, kind.shape)
    return np.frombuffer(domain, dtype=np.uint8)


def _join(level: list[Hash32], depth: int) -> Hash32:
    """Return the root at ``depth`` of a tree, given its nodes at the height of a unit's root."""
    for height in range(native.UNIT_HEIGHT, depth):
        if len(level) & 1:
            level = [*level, _MISSING[height]]
        level = [hash_node(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return level[0]
