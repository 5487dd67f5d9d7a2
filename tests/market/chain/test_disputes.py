"""A market with a judge and a guardian: challenges with a bond, rulings, and the bounded pause."""

from dataclasses import replace

import pytest

from market.chain.client import connect
from market.chain.deployment import DEVNET, deploy
from market.chain.devnet import get_account
from market.chain.events import ChallengeAnswered, Paused, Resumed
from market.chain.exits import send_resolution
from market.chain.rpc import Rpc
from market.chain.structs import ChallengeStatus, Role
from market.chain.transactions import Sender
from market.protocol.errors import TransactionReverted
from market.protocol.lifecycle import LeaseStatus
from tests.market.chain.synthetic import (
    ETHER,
    SEGMENTS,
    attest_lease,
    commit_lease,
    make_claims,
    make_spec,
    open_record,
    open_state,
)

GUARDIAN, JUDGE, CHALLENGER = (get_account(index) for index in (7, 8, 9))
TRACES = [make_claims()] * 2
STAKE = 8 * ETHER
BOND = STAKE // 10


@pytest.fixture
def chain(devnet):
    """A market with a guardian and a judge, who are outside it."""
    config = replace(DEVNET, guardian=GUARDIAN.address, judge=JUDGE.address)
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), config)
    with connect(devnet.url, deployment, patience_s=20) as connected:
        yield connected


@pytest.fixture
def attested(chain, devnet, post_job, claim_shards, provider, auditor) -> int:
    """A lease of two shards that its auditor attested."""
    lease = claim_shards(post_job(make_spec(chain.get_time() + 10_000, slots=2)), 2)
    commit_lease(devnet, provider, lease, TRACES)
    attest_lease(auditor, lease, TRACES)
    return lease


@pytest.fixture
def place(chain, attested) -> tuple[int, int]:
    """The shard and the index of a record that the auditor vouched for."""
    shard, segment = divmod(chain.get_drawn_segments(attested)[0], SEGMENTS)
    return shard, segment + 1


@pytest.fixture
def challenge(chain, attested, place) -> int:
    """A challenge of that record."""
    chain.send(CHALLENGER, chain.calls.challenge(attested, *place, 0, BOND))
    (challenged,) = chain.find_challenges(attested)
    return challenged.challenge_id


@pytest.fixture
def answered(chain, provider, challenge, place) -> int:
    """The challenge, whose record its provider opened."""
    shard, index = place
    before, opened = open_state(TRACES, shard, index - 1), open_record(TRACES, shard, index)
    provider.send(chain.calls.answer(challenge, before, opened))
    return challenge


def test_a_challenge_waits_with_the_lease_until_it_is_decided(chain, devnet, attested, challenge):
    found = chain.get_challenge(challenge)

    assert (found.lease_id, found.bond, found.by_auditor) == (attested, BOND, False)
    assert chain.get_lease(attested).challenges == 1
    assert chain.count_challenges() == 1
    devnet.advance_time(DEVNET.challenge_window + 1)
    assert chain.get_status(attested) is LeaseStatus.ATTESTED


def test_a_record_that_does_not_exist_cannot_be_challenged(chain, attested):
    for shard, index in ((2, 0), (0, 5)):
        with pytest.raises(TransactionReverted, match="ChallengeNoSuchRecord"):
            chain.send(CHALLENGER, chain.calls.challenge(attested, shard, index, 0, BOND))
    with pytest.raises(TransactionReverted, match=f"AssetWrongPayment.1, {BOND}"):
        chain.send(CHALLENGER, chain.calls.challenge(attested, 0, 0, 0, 1))


def test_an_answer_opens_the_accused_record_and_the_one_before_it(
    chain, provider, attested, challenge, place
):
    shard, index = place
    right, wrong = (open_state(TRACES, shard, i) for i in (index - 1, index))
    opened = open_record(TRACES, shard, index)

    with pytest.raises(TransactionReverted, match="AuditInvalidOpening"):
        provider.send(chain.calls.answer(challenge, wrong, opened))
    provider.send(chain.calls.answer(challenge, right, opened))

    told = [e for e in chain.get_job_events(1) if isinstance(e, ChallengeAnswered)]
    assert [(event.before, event.opened) for event in told] == [(right, opened)]
    assert chain.get_status(attested) is LeaseStatus.ATTESTED


def test_a_challenge_that_is_upheld_takes_both_stakes(chain, attested, answered, provider, auditor):
    chain.send(JUDGE, chain.calls.rule(answered, upheld=True))

    assert chain.get_challenge_status(answered) is ChallengeStatus.UPHELD
    assert chain.get_status(attested) is LeaseStatus.SLASHED
    assert chain.get_account(provider.operator, Role.PROVIDER, 0).staked == 0
    assert chain.get_account(auditor.operator, Role.AUDITOR, 0).staked == 0
    assert chain.get_credit(CHALLENGER.address, 0) == BOND + 2 * STAKE * 3 // 10


def test_a_challenge_that_is_rejected_costs_its_bond(chain, attested, answered, provider):
    chain.send(JUDGE, chain.calls.rule(answered, upheld=False))

    assert chain.get_challenge_status(answered) is ChallengeStatus.REJECTED
    assert chain.get_status(attested) is LeaseStatus.ATTESTED
    assert chain.get_credit(CHALLENGER.address, 0) == 0
    assert chain.get_account(provider.operator, Role.PROVIDER, 0).earned == BOND * 3 // 10


def test_a_challenge_that_nobody_ruled_is_dropped(chain, devnet, attested, answered):
    devnet.advance_time(DEVNET.ruling_time + 1)

    assert send_resolution(chain, get_account(6), answered)

    assert chain.get_challenge_status(answered) is ChallengeStatus.DROPPED
    assert chain.get_credit(CHALLENGER.address, 0) == BOND
    assert chain.get_lease(attested).challenges == 0


def test_only_the_judge_rules_and_only_on_an_answer(chain, challenge):
    with pytest.raises(TransactionReverted, match="ChallengeNotJudge"):
        chain.send(CHALLENGER, chain.calls.rule(challenge, upheld=True))
    with pytest.raises(TransactionReverted, match="ChallengeInUnexpectedStatus"):
        chain.send(JUDGE, chain.calls.rule(challenge, upheld=True))


def test_a_pause_stops_the_markets_time_and_new_jobs(chain, devnet, requester):
    spec = make_spec(chain.get_time() + 1000)
    call = chain.calls.create_job(spec, requester.account.address)
    paused = chain.send(GUARDIAN, chain.calls.pause()).block_number
    then = chain.get_time()
    devnet.advance_time(20)

    stood_still = chain.get_time()
    until = chain.find_pause()
    with pytest.raises(TransactionReverted, match="ClockPaused"):
        requester.send(call)
    resumed = chain.send(GUARDIAN, chain.calls.unpause()).block_number
    requester.send(call)

    assert stood_still == then
    assert chain.get_block_time() - chain.get_time() >= 20
    told = chain.find_events(paused, resumed, (Paused, Resumed))
    assert [type(event) for event in told] == [Paused, Resumed]
    assert told[0].until == until
    assert chain.find_pause() is None


def test_nobody_else_can_pause(chain, requester):
    with pytest.raises(TransactionReverted, match="ClockNotGuardian"):
        requester.send(chain.calls.pause())
