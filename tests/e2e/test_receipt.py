"""Receipts hold as made, and not when any of their claims is changed; replays find forged records."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from market.protocol.errors import InvalidBlob
from market.protocol.lifecycle import LeaseStatus
from tests.e2e.test_market import flip_one_bit
from trainer.evidence import build_task, compute_base, fetch_shard, list_sets
from trainer.execution import Executor
from verifier.receipt import Books, build_receipt, check_receipt, read_receipt
from verifier.replay import replay_shard

LEASES = "leases, and manifests that lead to their roots"


@pytest.fixture
def settled(open_world):
    """A job with one slashed lease, finished and paid."""
    world = open_world()
    world.add_provider(2, flip_one_bit)
    world.add_auditor(4)
    world.run_until_status(LeaseStatus.ACCUSED)
    world.add_provider(3, leases=9)
    world.devnet.advance_time(6)
    world.run_until_attested()
    world.devnet.advance_time(700)
    ended = {LeaseStatus.SETTLED, LeaseStatus.SLASHED}
    world.run_until(lambda: set(world.statuses().values()) == ended)
    return world


def find_faults(world, receipt, model=None):
    found = check_receipt(receipt, world.chain, world.ledger(), world.store, model)
    return {check.name: check.fault for check in found if check.fault}


def change_lease(receipt, **changes):
    first, *rest = receipt.leases
    return receipt.model_copy(update={"leases": (first.model_copy(update=changes), *rest)})


def change_slash(receipt, **changes):
    (slash,) = receipt.slashes
    return receipt.model_copy(update={"slashes": (slash.model_copy(update=changes),)})


def test_a_receipt_holds_as_made_and_no_claim_of_it_can_be_changed(settled, tmp_path):
    files = settled.files
    ledger, store = settled.ledger(), settled.store
    receipt = build_receipt(Books(settled.chain, ledger, store, files, settled.job_id))
    path, model = tmp_path / "receipt.json", tmp_path / "model.safetensors"
    path.write_text(receipt.text)
    sets = list_sets(ledger, settled.job_id, settled.spec.rounds)
    save_file(compute_base(files, ledger, store, sets), model)

    assert read_receipt(path) == receipt
    assert find_faults(settled, receipt, model) == {}

    other = bytes(32)
    false_ones = {
        "the job and its spec": receipt.model_copy(update={"spec_hash": other}),
        "every round is closed": receipt.model_copy(update={"rounds": receipt.rounds[1:]}),
        LEASES: change_lease(receipt, auditor=receipt.leases[0].provider),
        "payments": change_lease(receipt, paid=receipt.leases[0].paid + 1),
        "slashes": change_slash(receipt, claimed=other),
        "the outer steps lead to the model": receipt.model_copy(update={"model_root": other}),
    }
    for claim, false_one in false_ones.items():
        assert claim in find_faults(settled, false_one)
    contributions = change_lease(receipt, contributions=(other,))
    assert LEASES in find_faults(settled, contributions)
    no_slashes = receipt.model_copy(update={"slashes": ()})
    assert "slashes" in find_faults(settled, no_slashes)
    weights = load_file(model)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1
    save_file(weights, model)
    assert f"{model.name} is that model" in find_faults(settled, receipt, model)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 2}', "[]"])
def test_what_is_no_receipt_is_refused(text, tmp_path):
    path = tmp_path / "receipt.json"
    path.write_text(text)

    with pytest.raises(InvalidBlob, match="is no receipt"):
        read_receipt(path)


def test_a_replay_finds_the_first_record_that_a_manifest_forges(settled):
    files, ledger = settled.files, settled.ledger()
    shard = list_sets(ledger, settled.job_id, 1)[0][0]
    shown = fetch_shard(files, ledger, settled.store, shard)
    forged = shown.records[2].model_copy(update={"slot_root": bytes(32)})
    records = (*shown.records[:2], forged, *shown.records[3:])
    task = build_task(settled.chain, files, shard)
    false_one = shown.model_copy(update={"records": records})

    _, divergence = replay_shard(Executor(files.program), task, false_one, files.initial)
    _, nothing = replay_shard(Executor(files.program), task, shown, files.initial)
    elsewhere = replace(task, slot=task.slot + 1)
    _, other_data = replay_shard(Executor(files.program), elsewhere, shown, files.initial)

    assert nothing is None
    assert divergence is not None
    assert divergence.record_index == 2
    assert other_data is not None
    assert other_data.record_index == 1
