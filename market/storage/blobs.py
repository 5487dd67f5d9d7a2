"""A local directory of content-addressed blobs.

A file of the store's directory is a whole blob and its name is its CID, or its name starts with a
dot and it is a write that has not ended. Nothing read from it is believed before it is hashed."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from market.protocol.errors import InvalidBlob, NotFound, StorageFull
from market.protocol.tensors import Bytes
from market.storage.cid import (
    Cid,
    Readable,
    compute_chunks_cid,
    compute_cid,
    iterate_chunks,
    split_chunks,
)

_INCOMING: Final = ".incoming-"
_ABANDONED_AFTER_S: Final = 3600
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlobStore:
    """Blobs of at most ``max_blob_bytes`` under ``root``; processes and threads may share it."""

    def __init__(self, root: Path, max_blob_bytes: int) -> None:
        self._root = root
        self.max_blob_bytes = max_blob_bytes
        root.mkdir(parents=True, exist_ok=True)
        _delete_abandoned_writes(root)

    def put(self, data: bytes) -> Cid:
        """Keep ``data`` and return its CID."""
        self._require_size(len(data))
        return self.write([data]).keep()

    def put_file(self, path: Path) -> Cid:
        """Keep a copy of the file at ``path`` and return its CID."""
        with path.open("rb") as source:
            self._require_size(os.fstat(source.fileno()).st_size)
            return self.put_stream(source)

    def put_stream(self, source: Readable, expected: Cid | None = None) -> Cid:
        """Keep what ``source`` gives and return its CID; memory use is a few chunks.

        Raises InvalidBlob, keeping nothing, where the bytes do not hash to ``expected``."""
        draft = self._write(iterate_chunks(source))
        if expected not in (None, draft.cid):
            draft.discard()
            raise InvalidBlob(f"the bytes given for {expected} hash to {draft.cid}")
        return draft.keep()

    def write(self, parts: Iterable[Bytes]) -> "BlobDraft":
        """Return a draft of the blob that ``parts`` are together, without a copy of them."""
        return self._write(split_chunks(parts))

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        """Return the blob named ``cid``, of at most ``max_bytes``, after hashing it."""
        with self._open(cid, max_bytes) as source:
            data = source.read(os.fstat(source.fileno()).st_size)
        _require_cid(cid, compute_cid(data))
        return data

    def get_path(self, cid: Cid, max_bytes: int) -> Path:
        """Return the file of the blob named ``cid``, of at most ``max_bytes``, after hashing it."""
        with self._open(cid, max_bytes) as source:
            _require_cid(cid, compute_chunks_cid(iterate_chunks(source)))
        return self._root / cid

    def copy_to(self, cid: Cid, path: Path) -> None:
        """Write the blob named ``cid``, after hashing it, to ``path``."""
        shutil.copyfile(self.get_path(cid, self.max_blob_bytes), path)

    def has(self, cid: Cid) -> bool:
        """Check whether a blob is kept under ``cid``; only reading it hashes it."""
        return (self._root / cid).is_file()

    def delete(self, cid: Cid) -> None:
        """Keep nothing under ``cid`` any more."""
        (self._root / cid).unlink(missing_ok=True)

    @contextmanager
    def _open(self, cid: Cid, max_bytes: int) -> Iterator[BinaryIO]:
        try:
            source = (self._root / cid).open("rb")
        except FileNotFoundError:
            raise NotFound(f"no blob {cid}") from None
        with source:
            size = os.fstat(source.fileno()).st_size
            if size > max_bytes:
                raise InvalidBlob(f"blob {cid} has {size} bytes: at most {max_bytes} are expected")
            yield source

    def _require_size(self, size: int) -> None:
        if size > self.max_blob_bytes:
            raise InvalidBlob(f"a blob of {size} bytes: at most {self.max_blob_bytes} are kept")

    def _write(self, chunks: Iterable[Bytes]) -> "BlobDraft":
        with _report_full(), _open_incoming(self._root) as (incoming, path):
            cid = compute_chunks_cid(self._copy(chunks, incoming))
        return BlobDraft(cid, path, self._root / cid)

    def _copy(self, chunks: Iterable[Bytes], incoming: BinaryIO) -> Iterator[Bytes]:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            self._require_size(size)
            incoming.write(chunk)
            yield chunk


@dataclass(frozen=True, slots=True)
class BlobDraft:
    """A blob that is written and hashed, and not yet kept: a crash of the machine may lose it."""

    cid: Cid
    _path: Path
    _destination: Path

    def keep(self) -> Cid:
        """Wait until the bytes are on the disk, give them their name, and return it."""
        with _report_full(), _delete_unless_done(self._path):
            _publish(self._path, self._destination)
        return self.cid

    def discard(self) -> None:
        """Keep nothing of it."""
        self._path.unlink()


def _require_cid(expected: Cid, actual: Cid) -> None:
    if actual != expected:
        raise InvalidBlob(f"the bytes kept as {expected} hash to {actual}")


@contextmanager
def _report_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageFull(f"no room for the blob: {error.strerror}") from error


@contextmanager
def _open_incoming(root: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new hidden file, which is gone afterwards if anything is raised."""
    descriptor, name = tempfile.mkstemp(prefix=_INCOMING, dir=root)
    path = Path(name)
    with _delete_unless_done(path), os.fdopen(descriptor, "wb") as incoming:
        yield incoming, path


@contextmanager
def _delete_unless_done(path: Path) -> Iterator[None]:
    with ExitStack() as undo:
        undo.callback(path.unlink, missing_ok=True)
        yield
        undo.pop_all()


def _publish(path: Path, destination: Path) -> None:
    # INVARIANT: the bytes are on the disk before the name is, so a crash leaves all or nothing.
    _flush(path)
    path.rename(destination)
    _flush(destination.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_abandoned_writes(root: Path) -> None:
    """Remove the writes of processes that died; a live one touches its file all the time."""
    for path in root.glob(f"{_INCOMING}*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                path.unlink()
        except FileNotFoundError:
            continue
