"""A provider's memory of a lease: what it trained so far, on disk after every segment.

A kill at any instruction loses at most the segment in hand."""

import json
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from market.protocol.hashing import ZERO_HASH
from market.protocol.manifest import RecordEntry, ShardRecords
from market.protocol.program import Program
from market.protocol.records import Outcome, StateClaim
from market.protocol.spec import Cid, HexHash
from market.storage.blobs import BlobDraft, BlobStore
from trainer.states import State, StateRoots, claim_state, iterate_state_bytes


class RecordProgress(BaseModel):
    """A record in full, and where its state's bytes are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    base_root: HexHash
    slot_root: HexHash
    gradient_root: HexHash = ZERO_HASH
    metrics_root: HexHash = ZERO_HASH
    state: Cid

    @property
    def outcome(self) -> Outcome:
        """The roots of the gradients and metrics before this record."""
        return Outcome(self.gradient_root, self.metrics_root)


class ShardProgress(BaseModel):
    """The records so far, the first being the prestate, and the metrics of every step."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    records: tuple[RecordProgress, ...]
    metrics: tuple[tuple[int, ...], ...] = ()  # binary32 patterns

    @property
    def segments(self) -> int:
        """How many segments are done."""
        return len(self.records) - 1

    @property
    def claims(self) -> list[StateClaim]:
        """The records as they are shown."""
        return [
            claim_state(StateRoots(r.base_root, r.slot_root), r.outcome if i else None)
            for i, r in enumerate(self.records)
        ]

    def extend(self, record: RecordProgress, metrics: Tensor) -> "ShardProgress":
        """Return the progress with one more segment, whose steps gave ``metrics``."""
        rows = tuple(tuple(row) for row in metrics.view(torch.int32).tolist())
        return ShardProgress(records=(*self.records, record), metrics=(*self.metrics, *rows))

    def cut(self, segments: int) -> "ShardProgress":
        """Return the progress as it was when ``segments`` were done."""
        steps = len(self.metrics) // self.segments * segments
        return ShardProgress(records=self.records[: segments + 1], metrics=self.metrics[:steps])

    def put_records(self, store: BlobStore) -> ShardRecords:
        """Put the metrics into ``store`` and return what a manifest shows of the shard."""
        flat = [pattern for row in self.metrics for pattern in row]
        data = torch.tensor(flat, dtype=torch.int32).numpy().tobytes()
        entries = tuple(
            RecordEntry(
                base_root=claim.base_root,
                slot_root=claim.slot_root,
                outcome=claim.outcome,
                state=record.state,
            )
            for record, claim in zip(self.records, self.claims, strict=True)
        )
        return ShardRecords(records=entries, metrics=store.put(data))


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at ``path``; a kill leaves the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(".partial", path.stem, path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(partial).replace(path)


def find_progress(path: Path) -> ShardProgress | None:
    """Return the progress kept at ``path``, if there is any."""
    if not path.exists():
        return None
    return ShardProgress.model_validate_json(path.read_bytes())


def save_progress(path: Path, progress: ShardProgress) -> None:
    """Keep ``progress`` at ``path``."""
    write_atomically(path, json.dumps(progress.model_dump(mode="json")))


@dataclass(frozen=True, slots=True)
class Boundary:
    """A state between segments: in memory, hashed and written, but perhaps not yet on the disk."""

    record: RecordProgress
    state: State
    roots: StateRoots
    draft: BlobDraft


def write_boundary(
    store: BlobStore,
    program: Program,
    state: State,
    roots: StateRoots,
    outcome: Outcome | None = None,
) -> Boundary:
    """Write the bytes of ``state`` to ``store``; record 0 has no ``outcome``."""
    draft = store.write(iterate_state_bytes(program, state))
    ending = outcome or Outcome(ZERO_HASH, ZERO_HASH)
    record = RecordProgress(
        base_root=roots.base,
        slot_root=roots.slot,
        gradient_root=ending.gradient_root,
        metrics_root=ending.metrics_root,
        state=draft.cid,
    )
    return Boundary(record, state, roots, draft)


class ProgressKeeper:
    """Keeps progress on disk while the next segment trains; at most one record is under way.

    INVARIANT: a record is on disk only after its state's bytes are, and after the record before it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._newest: dict[Path, ShardProgress] = {}  # what is under way

    def begin_save(self, path: Path, progress: ShardProgress, draft: BlobDraft) -> None:
        """Begin to keep ``progress`` at ``path``, and ``draft``, the state of its last record."""
        self.wait()
        self._newest[path] = progress
        self._under_way = self._thread.submit(_save, path, progress, draft)

    def find_newest(self, path: Path) -> ShardProgress | None:
        """Return the progress at ``path``, or what is on its way there."""
        return self._newest.get(path) or find_progress(path)

    def wait(self) -> None:
        """Return when all is on disk; raise what kept it from getting there."""
        saving, self._under_way = self._under_way, None
        if saving is not None:
            wait([saving])
            self._newest.clear()  # whether it is there or not, the disk tells now
            saving.result()


def _save(path: Path, progress: ShardProgress, draft: BlobDraft) -> None:
    draft.keep()
    save_progress(path, progress)
