"""Leases of several shards, and rounds that close without all their slots."""

from dataclasses import replace

import pytest

from market.chain.devnet import get_account
from market.chain.events import LeaseSettled, RecordChallenged, RoundClosed, ShardsAttested
from market.protocol.lifecycle import LeaseStatus
from market.protocol.records import split_position
from tests.e2e.conftest import TERMS
from tests.e2e.test_market import flip_one_bit
from tests.trainer.tiny_job import SCHEDULE
from trainer.evidence import compute_base, find_last, list_sets
from trainer.execution import Executor
from trainer.rounds import compute_next_base
from verifier.receipt import Books, build_receipt, check_receipt
from verifier.replay import Replay

ONE_ROUND = replace(SCHEDULE, rounds=1)
PARTIAL = TERMS.model_copy(update={"round_time_s": 300, "quorum": 1})


def replay(world):
    files = world.files
    executor = Executor(files.program)
    again = Replay(world.job_id, files, executor, world.chain, world.ledger(), world.store)
    return [result for result, _ in again.run()]


def test_a_lease_of_two_shards_is_trained_audited_paid_replayed_and_receipted(open_world):
    world = open_world(schedule=ONE_ROUND)
    provider = world.add_provider(2, leases=2, shards=2)
    auditor = world.add_auditor(4)

    world.run_until_attested()
    world.devnet.advance_time(700)
    world.run_until_status(LeaseStatus.SETTLED)

    (claimed,) = world.leases().values()
    (settled,) = world.ledger().iterate(LeaseSettled)
    assert claimed.count == 2
    assert settled.pay == world.provider_stake(provider).earned == 2 * TERMS.price_per_shard
    assert settled.fee == world.auditor_stake(auditor).earned == TERMS.audit_fee
    assert world.provider_stake(provider).locked == world.auditor_stake(auditor).locked == 0
    assert [result.divergence for result in replay(world)] == [None, None]
    books = Books(world.chain, world.ledger(), world.store, world.files, world.job_id)
    checks = check_receipt(build_receipt(books), world.chain, world.ledger(), world.store, None)
    assert [check for check in checks if check.fault] == []


def test_of_a_lease_whose_segments_are_all_false_the_first_drawn_is_accused(open_world):
    world = open_world(schedule=ONE_ROUND)
    provider = world.add_provider(2, flip_one_bit, leases=2, shards=2)
    world.add_auditor(4)

    lease = world.run_until_status(LeaseStatus.ACCUSED)
    drawn = world.chain.get_drawn_segments(lease)
    world.devnet.advance_time(6)
    world.run_until_status(LeaseStatus.SLASHED)

    (challenge,) = world.ledger().iterate(RecordChallenged)
    shard, segment = divmod(drawn[0], world.spec.segments)
    assert split_position(challenge.position, world.spec.segments) == (shard, segment + 1)
    assert world.provider_stake(provider).staked == 0


def test_a_second_shard_that_begins_elsewhere_is_accused_of_its_record_0(open_world):
    world = open_world(schedule=ONE_ROUND)
    world.add_provider(2, leases=2, shards=2)
    world.add_auditor(4)
    origins = world.parties[0]._training._origins
    compute = origins.compute_prestate

    def begin_elsewhere(files, job_id, round_index, slot):
        state = compute(files, job_id, round_index, slot)
        return {name: tensor * (1 - slot) for name, tensor in state.items()}

    origins.compute_prestate = begin_elsewhere  # zeros in slot 1

    world.run_until_status(LeaseStatus.ACCUSED)

    (challenge,) = world.ledger().iterate(RecordChallenged)
    assert split_position(challenge.position, world.spec.segments) == (1, 0)


def test_a_lease_of_two_shards_survives_restarts_between_any_two_turns(open_world):
    world = open_world(schedule=ONE_ROUND)
    world.add_provider(2, leases=2, shards=2)
    world.add_auditor(4)

    def restart() -> bool:
        provider = world.build_provider(get_account(2), shards=2)
        world.parties[:] = [provider, world.build_auditor(get_account(4))]
        return world.chain.get_job(world.job_id).round == 1

    world.run_until(restart)

    assert list(world.statuses().values()) == [LeaseStatus.ATTESTED]
    assert (world.folder / "store").exists()


@pytest.fixture
def partial_world(open_world):
    """A job whose first round closed with one slot alone, and whose second with both."""
    world = open_world(terms=PARTIAL)
    first = world.add_provider(2, leases=1)
    world.add_auditor(4)
    world.run_until_status(LeaseStatus.ATTESTED)
    world.devnet.advance_time(301)
    world.run_until(lambda: world.chain.get_job(world.job_id).round == 1)
    account = get_account(2)
    more = world.chain.calls.stake(first, 0, 3 * TERMS.stake_per_shard)
    world.chain.send(account, more)
    world.run_until_attested()
    return world


def test_a_slot_that_misses_a_round_contributes_nothing_and_begins_with_the_specs(partial_world):
    world = partial_world
    ledger, files = world.ledger(), world.files
    sets = list_sets(ledger, world.job_id, world.spec.rounds)

    (slot,) = sets[0]
    assert sorted(sets[1]) == [0, 1]
    assert [event.attested for event in ledger.iterate(RoundClosed)] == [1 << slot, 0b11]
    assert find_last(sets[:1], slot) is not None
    assert find_last(sets[:1], 1 - slot) is None
    results = replay(world)
    assert len(results) == len(list(ledger.iterate(ShardsAttested))) == 3
    assert all(result.divergence is None for result in results)
    first = compute_base(files, ledger, world.store, sets[:1])
    unchanged = compute_next_base(files.outer, first, [None, None])
    assert all(bool((unchanged[name] == first[name]).all()) for name in first)
