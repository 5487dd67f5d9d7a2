"""A spec against its blobs: every disagreement is found and named."""

from dataclasses import replace

import pytest

from market.protocol.constants import CONFORMANCE_DIGEST
from market.protocol.encoding import compute_program_root, encode_program
from market.protocol.errors import InvalidBlob, InvalidProgram, InvalidSpec, MarketError, NotFound
from market.protocol.hashing import ZERO_HASH
from market.protocol.spec import DatasetRef, ProgramRef, StateRef
from market.protocol.tensors import compute_named_root, compute_tensor_root
from market.storage.blobs import BlobStore
from market.storage.jobs import check_spec_blobs, list_spec_blobs
from tests.market.storage.programs import (
    DATASET,
    STATE,
    WEIGHTS,
    build_outer,
    build_step,
    make_job,
)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", 2**20)


@pytest.fixture
def spec(store):
    return make_job(store, deadline=10**10)


def _change(spec, **changes):
    return spec.model_copy(update=changes)


def _refer(store, program):
    return ProgramRef(
        cid=store.put(encode_program(program)), root=compute_program_root(program).root
    )


def test_a_spec_whose_blobs_agree_is_taken(spec, store):
    check_spec_blobs(spec, store)


def test_a_spec_names_each_blob_once(spec):
    same = _change(spec, outer=spec.program)

    assert len(list_spec_blobs(spec)) == 4
    assert len(list_spec_blobs(same)) == 3


@pytest.mark.parametrize("name", ["program", "outer", "dataset", "initial_state"])
def test_an_absent_blob_is_not_found(spec, store, name):
    cid = getattr(spec, name).cid
    store.delete(cid)

    with pytest.raises(NotFound, match=cid):
        check_spec_blobs(spec, store)


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("program", "root"),
        ("outer", "root"),
        ("dataset", "root"),
        ("initial_state", "base_root"),
        ("initial_state", "slot_root"),
    ],
)
def test_a_root_that_its_blob_does_not_have_is_named(spec, store, name, root):
    reference = getattr(spec, name).model_copy(update={root: ZERO_HASH})

    with pytest.raises(InvalidSpec, match=f"{reference.cid} has root 0x.*says 0x00"):
        check_spec_blobs(_change(spec, **{name: reference}), store)


def _swap_outer(spec, store):
    return _change(spec, outer=_refer(store, build_outer(slots=spec.slots + 1)))


def _drop_counters(spec, store):
    step = build_step()
    tensors = tuple(tensor for tensor in step.tensors if tensor.name != "counters")
    return _change(spec, program=_refer(store, replace(step, tensors=tensors)))


def _drop_metrics(spec, store):
    step = build_step()
    return _change(spec, program=_refer(store, replace(step, outputs=step.outputs[:-1])))


def _use_step_as_outer(spec, _store):
    return _change(spec, outer=spec.program)


def _change_arithmetic(spec, _store):
    assert CONFORMANCE_DIGEST != b"\x01" * 32
    return _change(spec, conformance=b"\x01" * 32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_swap_outer, "does not take 1 slots"),
        (_drop_counters, "one input of role counters, not 0"),
        (_drop_metrics, "no metrics"),
        (_use_step_as_outer, "outer program"),
        (_change_arithmetic, "asks for arithmetic"),
    ],
)
def test_programs_that_do_not_make_a_job_are_refused(spec, store, change, reason):
    with pytest.raises(InvalidSpec, match=reason):
        check_spec_blobs(change(spec, store), store)


def test_a_dataset_or_state_of_another_size_is_refused(spec, store):
    short = DatasetRef(cid=store.put(DATASET[:-1]), root=spec.dataset.root)
    long = spec.initial_state.model_copy(update={"cid": store.put(STATE + b"\0")})

    with pytest.raises(InvalidBlob, match="15 bytes where 16"):
        check_spec_blobs(_change(spec, dataset=short), store)
    with pytest.raises(InvalidBlob, match="25 bytes: at most 24"):
        check_spec_blobs(_change(spec, initial_state=long), store)


def test_a_program_that_breaks_a_rule_is_refused(spec, store):
    step = build_step()
    invalid = replace(step, outputs=step.outputs[1:])

    with pytest.raises(InvalidProgram):
        check_spec_blobs(_change(spec, program=_refer(store, invalid)), store)


def test_bytes_that_are_no_program_are_refused(spec, store):
    reference = ProgramRef(cid=store.put(b"pickle"), root=spec.program.root)

    with pytest.raises(MarketError, match=r"program|header|bytes"):
        check_spec_blobs(_change(spec, program=reference), store)


def test_a_state_without_a_slot_half_has_a_zero_root(spec, store):
    step = build_step(with_slot=False)
    base_root = compute_named_root({"w": compute_tensor_root(WEIGHTS, STATE[:16])})
    state = StateRef(cid=store.put(STATE[:16]), base_root=base_root, slot_root=ZERO_HASH)

    check_spec_blobs(_change(spec, program=_refer(store, step), initial_state=state), store)
