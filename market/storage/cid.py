"""Content identifiers: base32 CIDv1 under SHA-256, as Kubo makes them of 256 KiB raw leaves.

A blob of one chunk is a raw block, so its CID and its SHA-256 are the same fact; a longer one is
the root of a balanced UnixFS tree."""

import os
import re
from base64 import b32decode, b32encode
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from itertools import chain
from typing import Final, Protocol, Self

from market.protocol.errors import InvalidBlob
from market.protocol.hashing import Hash32
from market.protocol.tensors import Bytes

CHUNK_BYTES: Final = 262_144
LINKS_PER_NODE: Final = 174

_CID_VERSION: Final = 1
_SHA256: Final = b"\x12\x20"  # multihash: function sha2-256, 32 bytes
_TEXT: Final = re.compile(r"b[a-z2-7]{58}")
_CHUNKS_AHEAD: Final = 32  # how many may wait for a thread that hashes them


class Readable(Protocol):
    """A source whose reads are short only at its end."""

    def read(self, size: int, /) -> bytes:
        """Return the next ``size`` bytes, or as many as are left."""


class Codec(IntEnum):
    """How a block is encoded."""

    RAW = 0x55
    DAG_PB = 0x70


class Cid(str):
    """The text of a CIDv1 in base32 of a raw or UnixFS block under SHA-256; nothing else parses."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Return ``text`` as a CID; raise InvalidBlob where it is not one."""
        if not _TEXT.fullmatch(text):
            raise InvalidBlob(f"not a base32 CIDv1 of a SHA-256 block: {text[:80]!r}")
        binary = _decode_text(text)
        # INVARIANT: one text per block; stray low bits in the last letter would alias.
        if _encode_text(binary) != text:
            raise InvalidBlob(f"not a canonical CID: {text!r}")
        if binary[0] != _CID_VERSION or binary[1] not in set(Codec) or binary[2:4] != _SHA256:
            raise InvalidBlob(f"not a CIDv1 of a raw or UnixFS block under SHA-256: {text!r}")
        return super().__new__(cls, text)

    @property
    def codec(self) -> Codec:
        """How the block is encoded."""
        return Codec(_decode_text(self)[1])

    @property
    def digest(self) -> Hash32:
        """The SHA-256 of the block."""
        return Hash32(_decode_text(self)[4:])


def _decode_text(text: str) -> bytes:
    return b32decode(text[1:].upper() + "=" * 6)


def _encode_text(binary: bytes) -> str:
    return "b" + b32encode(binary).decode().lower().rstrip("=")


def _encode_cid(codec: Codec, digest: bytes) -> bytes:
    return bytes([_CID_VERSION, codec]) + _SHA256 + digest


def cid_of_digest(digest: bytes) -> Cid:
    """Return the CID of the one-chunk blob with that SHA-256."""
    return Cid(_encode_text(_encode_cid(Codec.RAW, digest)))


def digest_of_cid(cid: Cid) -> Hash32:
    """Return the SHA-256 of the one-chunk blob named ``cid``."""
    if cid.codec is not Codec.RAW:
        raise InvalidBlob(f"{cid} names a blob of many blocks, which has no single digest")
    return cid.digest


def compute_cid(data: Bytes) -> Cid:
    """Return the CID of ``data``."""
    return compute_chunks_cid(split_chunks([data]))


def iterate_chunks(source: Readable) -> Iterator[bytes]:
    """Yield ``source`` in chunks of ``CHUNK_BYTES``, the last one shorter."""
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def split_chunks(parts: Iterable[Bytes]) -> Iterator[Bytes]:
    """Yield what ``parts`` are together in chunks of ``CHUNK_BYTES``, the last one shorter.

    Nothing is copied but the chunks that lie across parts."""
    begun = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        start = (CHUNK_BYTES - len(begun)) % CHUNK_BYTES
        begun += view[:start]
        if len(begun) == CHUNK_BYTES:
            yield begun
            begun = bytearray()
        end = max(start, len(view) - (len(view) - start) % CHUNK_BYTES)
        yield from (view[at : at + CHUNK_BYTES] for at in range(start, end, CHUNK_BYTES))
        begun += view[end:]
    if begun:
        yield begun


def compute_chunks_cid(chunks: Iterable[Bytes]) -> Cid:
    """Return the CID of a blob given in ``chunks`` of ``CHUNK_BYTES``, the last one shorter.

    Threads hash them while the next ones are produced; only so many are in memory at a time."""
    level = list(_link_leaves(iter(chunks)))
    while len(level) > 1:
        level = [
            _link_node(level[start : start + LINKS_PER_NODE])
            for start in range(0, len(level), LINKS_PER_NODE)
        ]
    return Cid(_encode_text(level[0].cid))


@dataclass(frozen=True, slots=True)
class _Link:
    """A block as its parent sees it: how much of the blob, and of blocks, is under it."""

    cid: bytes
    file_bytes: int
    dag_bytes: int


def _link_leaves(chunks: Iterator[Bytes]) -> Iterator[_Link]:
    first, second = next(chunks, b""), next(chunks, b"")
    if not second:  # most blobs are documents, and starting threads takes longer than hashing one
        yield _link_leaf(first)
        return
    waiting: deque[Future[_Link]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for chunk in chain((first, second), chunks):
            waiting.append(threads.submit(_link_leaf, chunk))
            if len(waiting) > _CHUNKS_AHEAD:
                yield waiting.popleft().result()
        yield from (link.result() for link in waiting)


def _link_leaf(chunk: Bytes) -> _Link:
    return _Link(_encode_cid(Codec.RAW, sha256(chunk).digest()), len(chunk), len(chunk))


def _link_node(children: list[_Link]) -> _Link:
    """Return the link to the dag-pb block of ``children``; its links precede its UnixFS data."""
    file_bytes = sum(child.file_bytes for child in children)
    sizes = b"".join(_encode_varint_field(4, child.file_bytes) for child in children)
    unixfs_file = _encode_varint_field(1, 2) + _encode_varint_field(3, file_bytes) + sizes
    links = b"".join(_encode_bytes_field(2, _encode_link(child)) for child in children)
    block = links + _encode_bytes_field(1, unixfs_file)
    dag_bytes = len(block) + sum(child.dag_bytes for child in children)
    return _Link(_encode_cid(Codec.DAG_PB, sha256(block).digest()), file_bytes, dag_bytes)


def _encode_link(child: _Link) -> bytes:
    unnamed = _encode_bytes_field(2, b"")
    return _encode_bytes_field(1, child.cid) + unnamed + _encode_varint_field(3, child.dag_bytes)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _encode_varint_field(number: int, value: int) -> bytes:
    return _encode_varint(number << 3) + _encode_varint(value)


def _encode_bytes_field(number: int, value: bytes) -> bytes:
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value
