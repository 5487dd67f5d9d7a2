"""No way out pays: what each earns is measured at a deployed market, how often it comes is computed."""

from collections.abc import Callable
from fractions import Fraction
from math import comb

import pytest

from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.protocol.constants import PUNISHED_DENOMINATOR, PUNISHED_NUMERATOR
from market.protocol.errors import TransactionReverted
from market.protocol.lifecycle import LeaseStatus
from market.protocol.spec import compute_minimum_stake
from tests.conftest import Party
from tests.market.chain.cheats import CONFIG, Stage, deploy_market, play, set_stage
from tests.market.chain.synthetic import make_spec

COLLUDING = Fraction(1, 3)  # share of the tickets
LIE = 2  # the segment that the cheat did not compute: it ends in record 3
SECOND_KEY = get_account(8)  # the cheat's, that no operator has


@pytest.fixture(scope="module")
def stage(anvil):
    with Devnet(DevnetConfig(anvil)) as devnet, deploy_market(devnet) as chain:
        yield set_stage(devnet, chain)


def commit_and_draw(stage: Stage, wanted: Callable[[bool, bool], bool]) -> None:
    """Draw an auditor and segments such that ``wanted(is a friend, the lie is drawn)``."""
    stage.claim()
    stage.commit()
    stage.draw(lambda auditor, drawn: wanted(stage.is_friend(auditor), LIE in drawn))


def be_unlucky(stage: Stage) -> None:
    commit_and_draw(stage, lambda friend, caught: not friend and caught)


def lie_and_be_lucky(stage: Stage) -> None:
    commit_and_draw(stage, lambda friend, caught: not friend and not caught)
    stage.attest()
    stage.settle()


def lie_to_a_friend(stage: Stage) -> None:
    commit_and_draw(stage, lambda friend, caught: friend and caught)
    stage.attest()
    stage.settle()


def lie_and_be_silent(stage: Stage) -> None:
    be_unlucky(stage)
    challenge_id = stage.accuse(LIE + 1)
    stage.wait(CONFIG.response_time)
    stage.send(stage.chain.calls.resolve(challenge_id))


def lie_and_stand_by_it(stage: Stage) -> None:
    be_unlucky(stage)
    challenge_id = stage.accuse(LIE + 1)
    stage.answer(challenge_id, LIE + 1)
    stage.rule(challenge_id)


def withhold(stage: Stage) -> None:
    be_unlucky(stage)
    stage.report(burns=True)


def withhold_until_a_friend_is_drawn(stage: Stage) -> None:
    be_unlucky(stage)
    stage.report(burns=False)
    stage.draw(lambda auditor, _: stage.is_friend(auditor))
    stage.attest()
    stage.settle()


def withhold_twice(stage: Stage) -> None:
    be_unlucky(stage)
    stage.report(burns=False)
    stage.draw(lambda auditor, _: not stage.is_friend(auditor))
    stage.report(burns=True)


def withdraw_in_time(stage: Stage) -> None:
    stage.claim()
    stage.commit()
    stage.cheat.send(stage.chain.calls.withdraw_commitment(stage.lease_id))


def let_the_draw_lapse(stage: Stage) -> None:
    stage.claim()
    stage.commit()
    stage.devnet.mine(CONFIG.draw_distance + 257)
    stage.send(stage.chain.calls.slash(stage.lease_id))


def abandon(stage: Stage) -> None:
    stage.claim()
    stage.wait(stage.spec.terms.lease_time_s)
    stage.send(stage.chain.calls.expire(stage.lease_id))


def throw_the_game(stage: Stage) -> int:
    """Be accused by one's own second key, before anybody else does it; return what that key paid."""
    commit_and_draw(stage, lambda friend, caught: not friend and not caught)
    stage.attest()
    second = Party(stage.chain, SECOND_KEY)
    challenge_id = stage.challenge(second, LIE + 1)
    stage.wait(CONFIG.response_time)
    stage.send(stage.chain.calls.resolve(challenge_id))
    return stage.bond


def test_honest_work_earns_the_price(stage):
    assert play(stage, lie_and_be_lucky) == stage.price  # the market cannot tell; nobody looked


@pytest.mark.parametrize("scene", [lie_to_a_friend, withhold_until_a_friend_is_drawn])
def test_a_cheat_that_escapes_earns_the_price_and_no_more(stage, scene):
    assert play(stage, scene) == stage.price


@pytest.mark.parametrize(
    "scene",
    [lie_and_be_silent, lie_and_stand_by_it, withhold, withhold_twice, let_the_draw_lapse],
)
def test_every_exit_after_an_unlucky_draw_costs_the_whole_stake(stage, scene):
    assert play(stage, scene) == -stage.stake
    assert stage.get_status() is LeaseStatus.SLASHED


def test_losing_to_oneself_gives_back_less_than_a_third(stage):
    assert play(stage, throw_the_game) == -stage.stake * 7 // 10


@pytest.mark.parametrize(
    ("scene", "fee_bps"),
    [(withdraw_in_time, CONFIG.withdraw_fee_bps), (abandon, CONFIG.expiry_fee_bps)],
)
def test_giving_up_before_the_draw_costs_its_fee(stage, scene, fee_bps):
    fee = stage.stake * fee_bps // 10_000
    assert play(stage, scene) == pytest.approx(-fee, abs=1)


def test_nothing_is_withdrawn_after_the_draw(stage):
    be_unlucky(stage)

    with pytest.raises(TransactionReverted):
        stage.cheat.send(stage.chain.calls.withdraw_commitment(stage.lease_id))


def compute_escape_by_withholding(colluding: Fraction) -> Fraction:
    """Return how often who is drawn by an honest auditor escapes by withholding (see StakeRule.sol)."""
    honest = 1 - colluding
    blocked = 1 - sum(comb(7, i) * colluding**i * honest ** (7 - i) for i in range(3))
    return blocked * colluding / (1 - honest * blocked)


def compute_gain(
    price: int, stake: int, segments: int, samples: int, shards: int, lies: int
) -> Fraction:
    """Return what lying in ``lies`` of ``shards`` shards gains on average over honest work at cost.

    The two ends and what they earn are those that the scenes above measured: the price of every shard
    if it escapes; if it does not, no price, and the loss of every shard's stake."""
    total = shards * segments
    found = 1 - Fraction(comb(total - lies, samples), comb(total, samples))
    caught = (1 - COLLUDING) * found * (1 - compute_escape_by_withholding(COLLUDING))
    saved = lies * price  # work that was not done, worth at most its price
    return saved - caught * shards * (stake + price)


def test_the_share_that_is_punished_is_what_the_rule_assumes():
    punished = 1 - compute_escape_by_withholding(COLLUDING)

    assert 0 < punished - Fraction(PUNISHED_NUMERATOR, PUNISHED_DENOMINATOR) < Fraction(1, 50)


@pytest.mark.parametrize(
    ("segments", "samples"),
    [(2, 1), (2, 2), (4, 2), (20, 1), (20, 2), (20, 5), (256, 2), (256, 16)],
)
@pytest.mark.parametrize("shards", [1, 2, 8])
def test_at_the_least_stake_no_number_of_lies_pays(segments, samples, shards):
    terms = make_spec(2**39).terms.model_copy(update={"samples": samples})
    price, stake = terms.price_per_shard, compute_minimum_stake(terms, segments)

    gains = [
        compute_gain(price, stake, segments, samples, shards, lies) for lies in range(1, shards + 1)
    ]

    assert max(gains) <= 0


def test_at_half_the_least_stake_lying_pays():
    terms = make_spec(2**39).terms
    price, stake = terms.price_per_shard, compute_minimum_stake(terms, 20) // 2

    assert compute_gain(price, stake, 20, terms.samples, 1, 1) > 0
