"""Whole jobs on a real chain: honest parties are paid, each kind of cheat loses its stake."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from market.chain.devnet import get_account
from market.chain.events import LeaseSettled, LeaseSlashed, RecordChallenged, ShardsAttested
from market.protocol.lifecycle import LeaseStatus
from market.protocol.program import TensorRole
from market.protocol.records import split_position
from market.protocol.sampling import compute_job_seed
from market.storage.cid import Cid
from tests.e2e.conftest import TERMS
from tests.trainer.tiny_job import SCHEDULE
from trainer.evidence import fetch_manifest, fetch_record_state, name_lease
from trainer.execution import Executor
from trainer.shards import run_segment
from verifier.audit import Audit
from verifier.replay import Replay


def skip_half(executor, task, state, segment, on_step):
    """Cheat: run half of the steps, and move on by extrapolation."""
    half = replace(task, steps_per_segment=task.steps_per_segment // 2)
    end = run_segment(executor, half, state, 2 * segment, on_step)
    forged = {
        name: tensor + (tensor - state[name]) if tensor.is_floating_point() else tensor
        for name, tensor in end.state.items()
    }
    return replace(end, state=forged, metrics=torch.cat([end.metrics, end.metrics]))


def choose_other_batches(executor, task, state, segment, on_step):
    """Cheat: read another slot's data, which may be easier."""
    return run_segment(executor, replace(task, slot=task.slot + 7), state, segment, on_step)


def change_data_order(executor, task, state, segment, on_step):
    """Cheat: run the steps of the segments in another order."""
    other = SCHEDULE.segments - 1 - segment
    return run_segment(executor, task, state, other, on_step)


def flip_one_bit(executor, task, state, segment, on_step):
    """Cheat: the smallest lie there is, one bit of one weight."""
    end = run_segment(executor, task, state, segment, on_step)
    name = next(iter(end.state))
    bits = end.state[name].clone().view(torch.int32).reshape(-1)
    bits[0] ^= 1
    lie = bits.view(torch.float32).reshape(end.state[name].shape)
    return replace(end, state={**end.state, name: lie})


def forge_gradients(executor, task, state, segment, on_step):
    """Cheat: right states, and gradients that were never computed."""
    end = run_segment(executor, task, state, segment, on_step)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in end.gradients.items()}
    return replace(end, gradients=zeros)


def read_audit(world, auditor_number):
    """The only audit that an auditor keeps."""
    (path,) = (world.folder / get_account(auditor_number).address / "audits").iterdir()
    return Audit.model_validate_json(path.read_bytes())


def test_an_honest_job_is_trained_audited_paid_and_replayed(open_world):
    world = open_world()
    providers = {world.add_provider(n, leases=9) for n in (2, 3)}
    auditors = {world.add_auditor(n) for n in (4, 5)}

    world.run_until_attested()
    world.devnet.advance_time(700)
    world.run_until(lambda: set(world.statuses().values()) == {LeaseStatus.SETTLED})

    ledger = world.ledger()
    shards = world.spec.rounds * world.spec.slots
    assert len(list(ledger.iterate(LeaseSettled))) == shards
    assert not list(ledger.iterate(LeaseSlashed))
    earned = sum(world.provider_stake(operator).earned for operator in providers)
    assert earned == shards * TERMS.price_per_shard
    assert sum(world.auditor_stake(a).earned for a in auditors) == shards * TERMS.audit_fee
    files = world.files
    replay = Replay(world.job_id, files, Executor(files.program), world.chain, ledger, world.store)
    results = [result for result, _ in replay.run()]
    assert len(results) == shards
    assert all(result.divergence is None for result in results)


@pytest.mark.parametrize(
    "cheat",
    [skip_half, choose_other_batches, change_data_order, flip_one_bit, forge_gradients],
)
def test_a_cheating_provider_loses_its_stake_and_the_shard_is_done_again(open_world, cheat):
    world = open_world()
    cheater = world.add_provider(2, cheat)
    auditor = world.add_auditor(4)
    accused = world.run_until_status(LeaseStatus.ACCUSED)
    honest = world.add_provider(3, leases=9)

    world.devnet.advance_time(6)
    world.run_until_attested()

    ledger = world.ledger()
    (slashed,) = ledger.iterate(LeaseSlashed)
    assert slashed.lease_id == accused
    assert slashed.amount == TERMS.stake_per_shard
    assert slashed.rewarded == slashed.amount * 3 // 10
    assert world.provider_stake(cheater).staked == 0
    assert world.auditor_stake(auditor).earned == slashed.rewarded
    attested = {event.lease_id for event in ledger.iterate(ShardsAttested)}
    assert {world.leases()[lease].operator for lease in attested} == {honest}


def test_an_auditor_keeps_the_two_hashes_that_differ_and_accuses_that_record(open_world):
    world = open_world()
    world.add_provider(2, flip_one_bit)
    world.add_auditor(4)

    accused = world.run_until_status(LeaseStatus.ACCUSED)

    found = read_audit(world, 4).difference
    (challenge,) = world.ledger().iterate(RecordChallenged)
    manifest = fetch_manifest(world.ledger(), world.store, accused, world.spec.segments)
    assert split_position(challenge.position, world.spec.segments) == (found.shard, found.index)
    assert found.claimed == manifest.traces[found.shard][found.index].compute_record(found.index)
    assert found.claimed != found.recomputed


@pytest.mark.parametrize("role", [TensorRole.BASE, TensorRole.SLOT])
def test_a_provider_that_begins_elsewhere_is_accused_of_record_0(open_world, role):
    world = open_world()
    world.add_provider(3, leases=9)
    world.add_auditor(4)
    world.run_until(lambda: world.chain.get_job(world.job_id).round == 1)
    world.parties.pop(0)
    cheater = world.add_provider(2)
    origins = world.parties[-1]._training._origins
    compute = origins.compute_prestate

    def begin_elsewhere(files, *place):
        state = compute(files, *place)
        names = files.program.find_inputs(role)
        return {**state, **{name: torch.zeros_like(state[name]) for name in names}}

    origins.compute_prestate = begin_elsewhere  # what follows is true, from a state nobody gave it

    accused = world.run_until_status(LeaseStatus.ACCUSED)

    (challenge,) = world.ledger().iterate(RecordChallenged)
    assert challenge.position == 0
    assert world.leases()[accused].operator == cheater


def test_training_that_diverges_to_nan_is_committed_audited_and_attested(open_world):
    world = open_world(learning_rate=1e30)
    world.add_provider(2, leases=9)
    world.add_auditor(4)

    world.run_until_attested()

    ledger = world.ledger()
    (first, *_) = ledger.iterate(ShardsAttested)
    manifest = fetch_manifest(ledger, world.store, first.lease_id, world.spec.segments)
    assert not list(ledger.iterate(LeaseSlashed))
    (shard,) = manifest.shards
    last = fetch_record_state(world.files, world.store, shard, world.spec.segments)
    assert any(bool(tensor.isnan().any()) for tensor in last.values())


def test_daemons_that_are_restarted_before_every_turn_lose_nothing(open_world):
    world = open_world()
    world.add_provider(2, leases=9)
    world.add_auditor(4)
    provider, auditor = get_account(2), get_account(4)

    def restart() -> bool:
        world.parties[:] = [world.build_provider(provider), world.build_auditor(auditor)]
        return world.chain.get_job(world.job_id).round == world.spec.rounds

    world.run_until(restart)

    statuses = set(world.statuses().values())
    assert statuses <= {LeaseStatus.ATTESTED, LeaseStatus.FINAL, LeaseStatus.SETTLED}
    assert len(world.leases()) == world.spec.rounds * world.spec.slots


def test_one_key_may_provide_and_audit_for_two_operators(open_world):
    world = open_world(schedule=replace(SCHEDULE, rounds=1))
    provider, auditor = world.add_provider(2, leases=2), world.add_auditor(2)

    world.run_until_attested()

    assert {claimed.operator for claimed in world.leases().values()} == {provider}
    attested = world.ledger().iterate(ShardsAttested)
    assert {event.auditor for event in attested} == {auditor}


def test_an_auditor_that_is_silent_is_replaced_and_the_provider_is_paid(open_world):
    world = open_world()
    provider = world.add_provider(2, leases=9)
    world.add_auditor(4)
    world.run_until_status(LeaseStatus.DRAWN)
    silent = world.parties.pop()
    world.add_auditor(5)

    world.devnet.advance_time(121)
    world.run_until_status(LeaseStatus.COMMITTED)
    world.parties.append(silent)  # the only ticket listed before the commitment is its own
    world.run_until_attested()

    assert world.provider_stake(provider).staked == 9 * TERMS.stake_per_shard


def test_auditors_alone_draw_the_seed_of_a_job(open_world):
    world = open_world()
    world.add_auditor(4)

    world.run_until(lambda: world.chain.get_job(world.job_id).seeded)

    seed_block = world.chain.get_job(world.job_id).seed_block
    block = world.chain.rpc.call("eth_getBlockByNumber", [hex(seed_block), False])
    mix_hash = bytes.fromhex(block["mixHash"][2:])
    assert world.chain.get_seed(world.job_id) == compute_job_seed(world.job_id, mix_hash)


@pytest.mark.parametrize("missing", ["dataset", "program"])
def test_a_provider_claims_nothing_of_a_job_whose_blobs_it_cannot_fetch(open_world, missing):
    world = open_world()
    world.add_provider(2)
    cid = Cid(getattr(world.spec, missing).cid)
    kept = world.store.get(cid, 10**8)
    world.store.delete(cid)

    world.run_until(lambda: world.chain.get_job(world.job_id).seeded)
    for _ in range(5):
        world.parties[0].take_turn()

    assert world.leases() == {}
    world.store.put(kept)  # late, and nothing is lost
    world.run_until(lambda: len(world.leases()) == 1)


def test_a_provider_refuses_a_job_whose_program_is_not_the_specs(open_world):
    world = open_world()
    world.add_provider(2)
    damaged = world.folder / "store" / world.spec.program.cid
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(data)

    world.run_until(lambda: world.chain.get_job(world.job_id).seeded)
    for _ in range(5):
        world.parties[0].take_turn()

    assert world.leases() == {}


def test_states_that_another_lease_begins_from_survive_the_end_of_a_lease(open_world):
    world = open_world()
    world.add_provider(2, skip_half, leases=2)  # both leases of round 0 begin from one state
    world.add_auditor(4)
    world.run_until(lambda: len(world.leases()) == 2)
    world.devnet.advance_time(6)
    world.run_until(lambda: LeaseStatus.SLASHED in world.statuses().values())

    world.run_until(lambda: set(world.statuses().values()) == {LeaseStatus.SLASHED})

    assert len(list(world.ledger().iterate(LeaseSlashed))) == 2


def test_a_withdrawn_commitment_costs_a_fee_and_reopens_the_shard(open_world):
    world = open_world()
    operator = world.add_provider(2)
    lease = world.run_until_status(LeaseStatus.LEASED)
    while world.chain.get_status(lease) is LeaseStatus.LEASED:
        world.parties[0].take_turn()  # and no block more, so that the draw is not half-way yet

    world.chain.send(get_account(2), world.chain.calls.withdraw_commitment(lease))

    assert world.chain.get_status(lease) is LeaseStatus.WITHDRAWN
    assert world.chain.get_round(world.job_id, 0).taken == 0
    left = world.provider_stake(operator)
    assert left.locked == 0
    assert 0 < left.staked < TERMS.stake_per_shard


def test_progress_of_another_chains_lease_with_the_same_number_is_not_taken_up(open_world):
    world = open_world()
    world.add_provider(2)
    world.run_until(lambda: len(world.leases()) == 1)
    world.run_until(lambda: LeaseStatus.COMMITTED in world.statuses().values())
    (kept,) = (world.folder / get_account(2).address / "leases").iterdir()
    (claimed,) = world.leases().values()

    name = name_lease(world.chain, world.ledger(), claimed)
    other_seed = SimpleNamespace(deployment=world.chain.deployment, get_seed=lambda _job: 7)

    assert kept.stem == f"{name}-0"
    assert name_lease(other_seed, world.ledger(), claimed) != name
