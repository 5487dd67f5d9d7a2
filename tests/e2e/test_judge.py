"""Accusations where a judge rules: a provider that is right answers, and loses nothing."""

from dataclasses import replace

import pytest

from market.chain.client import connect
from market.chain.deployment import DEVNET, deploy
from market.chain.devnet import get_account
from market.chain.events import AuditorReplaced, ChallengeAnswered
from market.chain.rpc import Rpc
from market.chain.structs import ChallengeStatus
from market.chain.transactions import Sender
from market.protocol.lifecycle import LeaseStatus
from tests.e2e.conftest import ETHER, TERMS
from tests.trainer.tiny_job import SCHEDULE

JUDGE = get_account(9)


@pytest.fixture
def chain(devnet):
    """A market with a judge, in place of the one without."""
    config = replace(DEVNET, judge=JUDGE.address, response_time=30)
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), config)
    with connect(devnet.url, deployment, patience_s=20) as connected:
        yield connected


@pytest.fixture
def accuse(open_world):
    """Accuse a record of the second of two true shards; return the world, the parties and the challenge."""

    def accuse_one(index):
        world = open_world(schedule=replace(SCHEDULE, rounds=1))
        provider = world.add_provider(2, leases=2, shards=2)
        auditor = world.add_auditor(4)
        world.parties.remove(world.actors[auditor])
        lease = world.run_until_status(LeaseStatus.DRAWN)
        world.chain.send(world.accounts[auditor], world.chain.calls.accuse(lease, 1, index))
        (challenge,) = world.chain.find_challenges(lease)
        return world, provider, auditor, challenge.challenge_id

    return accuse_one


@pytest.mark.parametrize("index", [0, 2])
def test_a_provider_that_is_falsely_accused_answers_and_is_paid_by_its_accuser(accuse, index):
    world, provider, auditor, challenge = accuse(index)

    world.run_until(lambda: any(world.ledger().iterate(ChallengeAnswered)))
    world.chain.send(JUDGE, world.chain.calls.rule(challenge, upheld=False))
    world.parties.append(world.actors[auditor])
    world.run_until_status(LeaseStatus.ATTESTED)

    (replaced,) = world.ledger().iterate(AuditorReplaced)
    assert replaced.loss == 2 * TERMS.stake_per_shard
    assert world.auditor_stake(auditor).staked == 3 * ETHER - replaced.loss
    assert world.provider_stake(provider).staked == 2 * TERMS.stake_per_shard
    assert world.provider_stake(provider).earned == replaced.loss * 3 // 10


def test_a_judge_that_is_silent_costs_nobody_anything(accuse):
    world, provider, auditor, challenge = accuse(1)
    world.run_until(lambda: any(world.ledger().iterate(ChallengeAnswered)))

    world.devnet.advance_time(DEVNET.ruling_time + 1)
    world.run_until_status(LeaseStatus.VOIDED)

    assert world.chain.get_challenge_status(challenge) is ChallengeStatus.DROPPED
    assert world.auditor_stake(auditor).staked == 3 * ETHER
    assert world.provider_stake(provider).staked == 2 * TERMS.stake_per_shard
