"""Progress is saved beside the training, and never ahead of the bytes that it names."""

import signal
import subprocess
import sys

import pytest
import torch

from market.storage.blobs import BlobStore
from tests.trainer.tiny_job import build_tiny_job
from trainer.progress import (
    ProgressKeeper,
    ShardProgress,
    find_progress,
    save_progress,
    write_boundary,
)
from trainer.states import compute_state_roots, encode_state

STORE_BYTES = 10**8
JOB = build_tiny_job()
PROGRAM, STATE = JOB["program"], JOB["initial"]
ROOTS = compute_state_roots(PROGRAM, STATE)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", STORE_BYTES)


def test_a_boundary_is_newest_at_once_and_on_disk_after_waiting(store, tmp_path):
    path, keeper = tmp_path / "lease.json", ProgressKeeper()
    boundary = write_boundary(store, PROGRAM, STATE, ROOTS)
    progress = ShardProgress(records=(boundary.record,))

    keeper.begin_save(path, progress, boundary.draft)
    newest = keeper.find_newest(path)
    keeper.wait()

    assert newest == find_progress(path) == progress
    assert store.get(boundary.draft.cid, STORE_BYTES) == encode_state(PROGRAM, STATE)


def test_what_is_written_is_no_blob_before_it_is_kept(store):
    draft = write_boundary(store, PROGRAM, STATE, ROOTS).draft

    assert not store.has(draft.cid)
    assert draft.keep() == draft.cid
    assert store.has(draft.cid)


def test_progress_is_cut_to_what_came_before_a_segment(store):
    record = write_boundary(store, PROGRAM, STATE, ROOTS).record
    kept = [ShardProgress(records=(record,))]
    for number in (1.0, 2.0, 3.0):
        kept.append(kept[-1].extend(record, torch.full((2, 1), number)))

    assert [kept[3].cut(segments) for segments in range(4)] == kept


def test_a_save_that_failed_is_reported_and_the_disk_says_how_far_the_lease_is(store, tmp_path):
    path, keeper = tmp_path / "lease.json", ProgressKeeper()
    boundary = write_boundary(store, PROGRAM, STATE, ROOTS)
    kept = ShardProgress(records=(boundary.record,))
    save_progress(path, kept)
    boundary.draft.discard()

    keeper.begin_save(path, ShardProgress(records=kept.records * 2), boundary.draft)
    with pytest.raises(FileNotFoundError):
        keeper.wait()

    assert keeper.find_newest(path) == kept


_SAVE_UNTIL_KILLED = """
import os, sys
from pathlib import Path
from market.protocol.spec import Cid
from market.storage.blobs import BlobStore
from trainer.progress import ProgressKeeper, RecordProgress, ShardProgress

store, keeper, records = BlobStore(Path(sys.argv[1]), 2**30), ProgressKeeper(), ()
while True:
    draft = store.write([os.urandom(1_000_000)])
    root = bytes(32)
    records = (*records, RecordProgress(base_root=root, slot_root=root, state=draft.cid))
    keeper.begin_save(Path(sys.argv[2]), ShardProgress(records=records), draft)
    print(len(records), flush=True)
"""


def test_every_record_that_a_killed_process_left_has_its_state(store, tmp_path):
    path = tmp_path / "lease.json"
    command = [sys.executable, "-c", _SAVE_UNTIL_KILLED, str(tmp_path / "blobs"), str(path)]

    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.kill()

    assert process.returncode == -signal.SIGKILL
    found = find_progress(path)
    assert found is not None
    assert len(found.records) >= 4  # the fifth may have been under way
    assert all(len(store.get(record.state, 10**6)) == 10**6 for record in found.records)
