"""CIDs against constants, against an independent reading of the format, and against hostile text.

Provenance: the raw CIDs of b"" and b"hello world" are their well-known SHA-256 in base32. The
multi-chunk constant was computed by two implementations, ours and the one whose CIDs were compared
with Kubo's and js-ipfs's on files of up to 100 MB when the format was chosen; the oracle below is
a third, which builds the tree from the top where ours builds it from the leaves."""

import hashlib
from base64 import b32encode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.errors import InvalidBlob
from market.storage.cid import (
    CHUNK_BYTES,
    Cid,
    cid_of_digest,
    compute_cid,
    digest_of_cid,
    split_chunks,
)

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
HELLO_WORLD = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
TWO_CHUNKS = "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki"


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _span(field: int, value: bytes) -> bytes:
    return bytes([field * 8 + 2]) + _varint(len(value)) + value


def _oracle(data: bytes, height: int) -> tuple[bytes, int]:
    """Return the CID and total block size of the balanced tree of ``height`` over ``data``."""
    if height == 0:
        return b"\x01\x55\x12\x20" + hashlib.sha256(data).digest(), len(data)
    span = CHUNK_BYTES * 174 ** (height - 1)
    parts = [data[at : at + span] for at in range(0, len(data), span)]
    children = [_oracle(part, height - 1) for part in parts]
    links = b"".join(
        _span(2, _span(1, cid) + b"\x12\x00\x18" + _varint(total)) for cid, total in children
    )
    sizes = b"".join(b"\x20" + _varint(len(part)) for part in parts)
    block = links + _span(1, b"\x08\x02\x18" + _varint(len(data)) + sizes)
    cid = b"\x01\x70\x12\x20" + hashlib.sha256(block).digest()
    return cid, len(block) + sum(total for _, total in children)


def _text(cid: bytes) -> str:
    return "b" + b32encode(cid).decode().lower().rstrip("=")


@pytest.mark.parametrize(("data", "cid"), [(b"", EMPTY), (b"hello world", HELLO_WORLD)])
def test_a_small_blob_has_the_raw_cid_that_ipfs_gives_it(data, cid):
    assert compute_cid(data) == cid


@pytest.mark.parametrize(
    ("size", "height"),
    [
        (CHUNK_BYTES, 0),
        (CHUNK_BYTES + 1, 1),
        (1_000_000, 1),
        (174 * CHUNK_BYTES, 1),
        (174 * CHUNK_BYTES + 1, 2),
    ],
)
def test_a_large_blob_has_the_cid_of_its_balanced_tree(size, height):
    data = bytes(range(251)) * (size // 251 + 1)

    cid = compute_cid(data[:size])

    assert cid == _text(_oracle(data[:size], height)[0])


@given(
    sizes=st.lists(st.integers(0, 9) | st.integers(CHUNK_BYTES - 3, CHUNK_BYTES + 3), max_size=6)
)
def test_chunks_are_those_of_the_whole_however_it_is_divided(sizes):
    data = bytes(range(251)) * (sum(sizes) // 251 + 1)
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    parts = [data[start:end] for start, end in pairwise(starts)]

    chunks = list(split_chunks(parts))

    assert b"".join(chunks) == data[: sum(sizes)]
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks[-1:])


def test_the_cid_of_a_two_chunk_file_is_a_constant():
    assert compute_cid(bytes(CHUNK_BYTES + 1)) == TWO_CHUNKS


@given(st.binary(min_size=32, max_size=32))
def test_digest_and_cid_of_a_document_are_inverses(digest):
    assert digest_of_cid(cid_of_digest(digest)) == digest


def test_a_blob_of_many_chunks_has_no_single_digest():
    cid = compute_cid(bytes(CHUNK_BYTES + 1))

    with pytest.raises(InvalidBlob, match=cid):
        digest_of_cid(cid)


DIGEST = hashlib.sha256(b"").digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY.upper(),
        EMPTY[:-1],
        EMPTY + "a",
        EMPTY + "\n",
        "z" + EMPTY[1:],
        EMPTY[:-1] + chr(ord(EMPTY[-1]) + 1),  # stray low bits
        _text(b"\x01\x71\x12\x20" + DIGEST),  # dag-cbor
        _text(b"\x01\x55\x13\x20" + DIGEST),  # sha2-512
        _text(b"\x00\x55\x12\x20" + DIGEST),  # version 0
        "../../etc/passwd",
    ],
)
def test_text_that_is_not_a_canonical_cid_of_ours_is_refused(text):
    with pytest.raises(InvalidBlob):
        Cid(text)
