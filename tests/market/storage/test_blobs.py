"""The local store: what is read is what was named, and no failure leaves half a blob."""

import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from market.protocol.errors import InvalidBlob, NotFound, StorageFull
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES, Cid, compute_cid

LIMIT = 4 * CHUNK_BYTES


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", LIMIT)


def _list_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "blobs").iterdir())


@pytest.mark.parametrize("data", [b"", b"a document", os.urandom(CHUNK_BYTES * 2 + 7)])
def test_a_blob_comes_back_under_its_cid(store, data):
    cid = store.put(data)

    assert cid == compute_cid(data)
    assert store.get(cid, LIMIT) == data
    assert store.get_path(cid, LIMIT).read_bytes() == data


def test_a_file_and_its_bytes_have_one_cid(store, tmp_path):
    data = os.urandom(CHUNK_BYTES + 1)
    (tmp_path / "file").write_bytes(data)

    assert store.put_file(tmp_path / "file") == store.put(data)


def test_a_blob_that_nobody_put_is_not_found(store):
    cid = compute_cid(b"never put")

    assert not store.has(cid)
    with pytest.raises(NotFound, match=cid):
        store.get(cid, LIMIT)


def test_a_deleted_blob_is_gone_and_can_be_deleted_again(store):
    cid = store.put(b"data")

    store.delete(cid)
    store.delete(cid)

    assert not store.has(cid)


@pytest.mark.parametrize("read", [BlobStore.get, BlobStore.get_path])
def test_a_changed_blob_is_refused_with_the_cid_that_its_bytes_have(store, tmp_path, read):
    cid = store.put(b"data")
    (tmp_path / "blobs" / cid).write_bytes(b"Data")

    with pytest.raises(InvalidBlob, match=f"{cid} hash to {compute_cid(b'Data')}"):
        read(store, cid, LIMIT)


def test_putting_a_blob_again_mends_it(store, tmp_path):
    cid = store.put(b"data")
    (tmp_path / "blobs" / cid).write_bytes(b"Data")

    store.put(b"data")

    assert store.get(cid, LIMIT) == b"data"


def test_a_blob_longer_than_its_reader_expects_is_refused_unread(store):
    cid = store.put(bytes(1000))

    with pytest.raises(InvalidBlob, match="1000 bytes: at most 999"):
        store.get(cid, 999)


def test_a_blob_over_the_stores_limit_leaves_nothing(store, tmp_path):
    with pytest.raises(InvalidBlob, match="at most"):
        store.put_stream(BytesIO(bytes(LIMIT + 1)))

    assert _list_files(tmp_path) == []


def test_a_draft_of_parts_is_the_blob_of_the_whole_once_it_is_kept(store, tmp_path):
    data = os.urandom(CHUNK_BYTES * 2 + 7)

    draft = store.write([data[:5], data[5:-9], data[-9:]])

    assert not store.has(draft.cid)
    assert draft.keep() == compute_cid(data)
    assert store.get(draft.cid, LIMIT) == data
    assert _list_files(tmp_path) == [draft.cid]


def test_a_discarded_draft_leaves_nothing(store, tmp_path):
    store.write([b"data"]).discard()

    assert _list_files(tmp_path) == []


_PUT_UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path
from market.storage.blobs import BlobStore

class Source:
    reads = 0
    def read(self, size):
        self.reads += 1
        if self.reads == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(size)

BlobStore(Path(sys.argv[1]), 2**30).put_stream(Source())
"""


def test_a_process_killed_in_the_middle_of_a_write_leaves_no_blob(tmp_path):
    root = tmp_path / "blobs"

    ended = subprocess.run([sys.executable, "-c", _PUT_UNTIL_KILLED, str(root)], check=False)

    assert ended.returncode == -signal.SIGKILL
    (leftover,) = root.iterdir()
    assert leftover.name.startswith(".incoming-")
    os.utime(leftover, (0, 0))
    assert BlobStore(root, LIMIT).put(b"data") in _list_files(tmp_path)
    assert not leftover.exists()


_PUT_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from market.protocol.errors import StorageFull
from market.storage.blobs import BlobStore

store = BlobStore(Path(sys.argv[1]), 2**30)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    store.put(bytes(400_000))
except StorageFull as error:
    print(error)
print(store.put(bytes(200_000)))
"""


def test_a_file_size_limit_is_a_full_store(tmp_path):
    root = tmp_path / "blobs"

    ended = subprocess.run(
        [sys.executable, "-c", _PUT_UNDER_A_LIMIT, str(root)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert "no room for the blob" in ended.stdout
    assert _list_files(tmp_path) == [compute_cid(bytes(200_000))]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system with room for 64 KiB."""
    path = tmp_path / "blobs"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root; the file size limit above runs everywhere")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_loses_nothing(tiny_disk, tmp_path):
    store = BlobStore(tiny_disk, LIMIT)
    kept = store.put(b"kept" * 8000)

    with pytest.raises(StorageFull, match="No space left"):
        store.put(os.urandom(60_000))

    assert _list_files(tmp_path) == [kept]
    assert store.get(Cid(kept), LIMIT) == b"kept" * 8000
    store.delete(kept)
    store.put(os.urandom(60_000))
