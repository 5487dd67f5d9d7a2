from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from market.protocol.constants import BPS, CONFORMANCE_DIGEST
from market.protocol.economics import (
    LEASE_GAS,
    AssetPolicy,
    Claim,
    Decline,
    Facts,
    History,
    Offer,
    Policy,
    Reason,
    Wait,
    choose_slots,
    compute_floor,
    compute_jitter,
    compute_training_time,
    decide_claim,
    estimate_lease,
    find_refusal,
    fit_shards,
)
from market.protocol.prices import Ramp

GWEI = 10**9
ETHER = 10**18
REQUESTER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"

# A shard of 128 steps at 0.4 s on a machine of 400 W, for 0.01 ether; 0.1 milliether a kWh.
ASSET = AssetPolicy(energy_price=ETHER // 10_000)
POLICY = Policy(assets={0: ASSET}, watts=400, jitter=0)
FACTS = Facts(
    operator=7,
    policy=POLICY,
    history=History(settled=50, lapsed=1),
    step_us=400_000,
    backlog=0,
    leases=0,
    free_stake=ETHER,
    gas_price=GWEI,
    expiry_fee_bps=500,
    lock_time=1_000,
)
OFFER = Offer(
    job_id=3,
    requester=REQUESTER,
    conformance=CONFORMANCE_DIGEST,
    asset=0,
    is_over=False,
    is_open=True,
    round=1,
    shards=1,
    steps=128,
    ramp=Ramp(full_price=ETHER // 100, floor_bps=1_000, ramp_time=600, opened_at=10_000),
    stake_per_shard=ETHER // 10,
    lease_time=300,
    deadline=20_000,
)
LATE = 15_000  # the ramp is over


def amounts(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most)


ramps = st.builds(
    Ramp,
    full_price=st.integers(1, 2**80 - 1),
    floor_bps=amounts(BPS),
    ramp_time=st.one_of(st.just(0), st.integers(1, 40), amounts(2**32 - 1)),
    opened_at=amounts(2**32),
)
assets = st.builds(
    AssetPolicy,
    energy_price=amounts(ETHER),
    ether_price=amounts(2 * ETHER),
    floor_per_shard=amounts(2**78),
    floor_per_second=amounts(2**60),
)
policies = st.builds(
    Policy,
    assets=st.fixed_dictionaries({0: assets}),
    watts=amounts(100_000),
    capital_bps=amounts(BPS),
    max_leases=st.integers(1, 3),
    jitter=amounts(60),
)
facts = st.builds(
    Facts,
    operator=amounts(2**32 - 1),
    policy=policies,
    history=st.builds(History, amounts(1000), amounts(1000), amounts(1000)),
    step_us=st.integers(1, 2_000_000),
    backlog=amounts(1000),
    leases=amounts(2),
    free_stake=st.integers(2**82, 2**90),
    gas_price=amounts(100 * GWEI),
    expiry_fee_bps=amounts(BPS),
    lock_time=amounts(10**6),
)


@st.composite
def offers(draw, ramp=ramps):
    chosen = draw(ramp)
    return Offer(
        job_id=draw(amounts(2**40)),
        requester=REQUESTER,
        conformance=CONFORMANCE_DIGEST,
        asset=0,
        is_over=False,
        is_open=True,
        round=draw(amounts(1023)),
        shards=draw(amounts(4)),
        steps=draw(st.integers(4, 10_000)),
        ramp=chosen,
        stake_per_shard=draw(amounts(2**80 - 1)),
        lease_time=draw(st.integers(1, 2**32 - 1)),
        deadline=chosen.opened_at + draw(amounts(2**33)),
        bounty=draw(st.one_of(st.just(0), amounts(2**78))),
    )


@st.composite
def likely_cases(draw):
    """What a provider would claim at some price of the ramp, most often."""
    price = draw(st.integers(ETHER // 1000, ETHER))
    ramp = Ramp(price, draw(amounts(2_000)), draw(st.integers(10, 40)), draw(amounts(2**32)))
    offer = replace(
        OFFER,
        job_id=draw(amounts(2**40)),
        ramp=ramp,
        shards=draw(st.integers(1, 3)),
        stake_per_shard=draw(amounts(15 * price)),
        lease_time=1_000,
        deadline=ramp.opened_at + draw(st.integers(30, 100)),
    )
    asset = replace(ASSET, floor_per_shard=draw(st.integers(price // 4, price)))
    policy = replace(POLICY, assets={0: asset}, jitter=draw(amounts(20)))
    gas_price = draw(amounts(price // 1_000_000))
    return replace(FACTS, policy=policy, gas_price=gas_price, free_stake=2**90), offer


# -- the estimate


def test_an_estimate_is_the_sum_worked_out_by_hand():
    estimate = estimate_lease(FACTS, OFFER, BPS)

    # 128 * 0.4 s are 52 s: 400 W for 52 s are 20,800 J of 3.6 MJ a kWh.
    assert estimate.energy == -(-20_800 * 10**14 // 3_600_000)
    assert estimate.gas == LEASE_GAS * GWEI
    lapse, fault = Fraction(2, 151), Fraction(1, 1051)
    pay, stake, fee = ETHER // 100, ETHER // 10, ETHER // 200
    loss = (fee + pay) * lapse + (stake + pay) * fault
    assert loss <= estimate.loss < loss + 1
    assert estimate.capital == -(-stake * 500 * 1_052 // (BPS * 365 * 86_400))
    costs = estimate.energy + estimate.gas + estimate.loss + estimate.capital
    assert estimate.profit == pay - costs


@given(facts=facts, offer=offers(), data=st.data())
def test_a_higher_price_never_lowers_the_expected_profit(facts, offer, data):
    low = data.draw(st.integers(0, BPS))
    high = data.draw(st.integers(low, BPS))

    assert estimate_lease(facts, offer, low).profit <= estimate_lease(facts, offer, high).profit


@pytest.mark.parametrize(
    "change",
    [
        {"gas_price": 2 * GWEI},
        {"step_us": 500_000},
        {"lock_time": 10**7},
        {"expiry_fee_bps": 1_000},
        {"history": History(settled=50, lapsed=2)},
        {"history": History(settled=50, lapsed=1, slashed=1)},
        {"policy": replace(POLICY, watts=500)},
        {"policy": replace(POLICY, capital_bps=1_000)},
        {"policy": replace(POLICY, assets={0: replace(ASSET, energy_price=ETHER)})},
        {"policy": replace(POLICY, assets={0: replace(ASSET, ether_price=2 * ETHER)})},
    ],
)
def test_what_costs_more_leaves_less(change):
    before = estimate_lease(FACTS, OFFER, BPS).profit

    assert estimate_lease(replace(FACTS, **change), OFFER, BPS).profit < before


def test_a_history_of_paid_leases_makes_losses_less_likely():
    assert History(settled=900).lapse_odds < History().lapse_odds == Fraction(1, 100)
    assert History(settled=900).fault_odds < History().fault_odds == Fraction(1, 1000)


# -- the decision


@given(
    case=st.one_of(likely_cases(), st.tuples(facts, offers())),
    delay=st.one_of(amounts(40), amounts(2**33)),
)
def test_a_claim_is_never_at_a_loss_nor_below_the_floor(case, delay):
    facts, offer = case
    now = offer.ramp.opened_at + delay

    decision = decide_claim(facts, offer, now)

    if isinstance(decision, Claim):
        estimate = estimate_lease(facts, offer, offer.ramp.compute_bps(now))
        assert decision.profit == estimate.profit >= 0
        assert estimate.pay >= compute_floor(facts, offer)
        assert offer.stake <= facts.free_stake
        assert now <= offer.deadline
        time = facts.backlog + compute_training_time(facts, offer)
        assert time * 1.3 <= offer.lease_time + 1e-6


@given(case=likely_cases(), delay=amounts(5))
def test_who_waits_claims_at_the_moment_announced_and_at_no_moment_before(case, delay):
    facts, offer = case
    now = offer.ramp.opened_at + delay
    decision = decide_claim(facts, offer, now)
    assume(isinstance(decision, Wait))

    assert isinstance(decide_claim(facts, offer, decision.until), Claim)
    assert decide_claim(facts, offer, decision.until - 1) == decision
    assert decision.price_bps == offer.ramp.compute_bps(decision.until)


@given(case=likely_cases())
def test_without_jitter_the_wait_ends_when_the_ramp_reaches_what_is_asked_for(case):
    facts, offer = case
    facts = replace(facts, policy=replace(facts.policy, jitter=0))
    decision = decide_claim(facts, offer, offer.ramp.opened_at)
    assume(isinstance(decision, Wait))

    def is_enough(time: int) -> bool:
        estimate = estimate_lease(facts, offer, offer.ramp.compute_bps(time))
        return estimate.profit >= 0 and estimate.pay >= compute_floor(facts, offer)

    moments = range(offer.ramp.opened_at, offer.ramp.opened_at + 41)
    assert decision.until == next(time for time in moments if is_enough(time))


@given(case=likely_cases(), delay=amounts(60), more=amounts(2**80))
def test_a_better_price_never_turns_a_claim_into_a_refusal(case, delay, more):
    facts, offer = case
    now = offer.ramp.opened_at + delay
    assume(isinstance(decide_claim(facts, offer, now), Claim))

    richer = replace(offer, ramp=replace(offer.ramp, full_price=offer.ramp.full_price + more))

    assert isinstance(decide_claim(facts, richer, now), Claim)


def test_a_good_offer_is_claimed_at_the_price_of_the_moment():
    decision = decide_claim(FACTS, OFFER, LATE)

    assert decision == Claim(BPS, estimate_lease(FACTS, OFFER, BPS).profit)


def test_a_floor_above_the_ramps_beginning_is_waited_for():
    asset = replace(ASSET, floor_per_shard=55 * ETHER // 10_000)
    facts = replace(FACTS, policy=replace(POLICY, assets={0: asset}))

    assert decide_claim(facts, OFFER, OFFER.ramp.opened_at) == Wait(10_300, 5_500)
    assert isinstance(decide_claim(facts, OFFER, 10_300), Claim)


def test_a_floor_per_second_counts_the_measured_training_of_all_shards():
    asset = AssetPolicy(floor_per_second=10)
    facts = replace(FACTS, policy=replace(POLICY, assets={0: asset}))

    assert compute_floor(facts, replace(OFFER, shards=3)) == 10 * 154  # 3 * 51.2 s, rounded up


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_over": True}, Reason.JOB_ENDED),
        ({"deadline": LATE - 1}, Reason.JOB_ENDED),
        ({"asset": 1}, Reason.ASSET_NOT_ACCEPTED),
        ({"conformance": bytes(32)}, Reason.CONFORMANCE_DIFFERS),
        ({"is_open": False}, Reason.ROUND_NOT_OPEN),
        ({"shards": 0}, Reason.SHARDS_TAKEN),
        ({"lease_time": 67}, Reason.TOO_SLOW),  # 52 s and 30%
        ({"stake_per_shard": ETHER + 1, "bounty": ETHER}, Reason.STAKE_LACKING),
        ({"ramp": replace(OFFER.ramp, full_price=ETHER // 10_000)}, Reason.UNPROFITABLE),
        ({"ramp": replace(OFFER.ramp, floor_bps=0, ramp_time=10**7)}, Reason.RAMP_TOO_SLOW),
    ],
)
def test_an_offer_is_declined_for_what_is_wrong_with_it(change, reason):
    decision = decide_claim(FACTS, replace(OFFER, **change), LATE)

    assert isinstance(decision, Decline)
    assert decision.reason is reason


@pytest.mark.parametrize(
    ("change", "reason", "offered", "required"),
    [
        ({"free_stake": 5}, Reason.STAKE_LACKING, 5, ETHER // 10),
        ({"leases": 1}, Reason.TOO_MANY_LEASES, 1, 2),
        ({"backlog": 200}, Reason.TOO_SLOW, 300, 328),
        (
            {"policy": replace(POLICY, assets={0: AssetPolicy(floor_per_shard=ETHER)})},
            Reason.PRICE_BELOW_FLOOR,
            ETHER // 100,
            ETHER,
        ),
    ],
)
def test_a_decline_says_what_was_offered_and_what_it_would_take(change, reason, offered, required):
    decision = decide_claim(replace(FACTS, **change), OFFER, LATE)

    assert decision == Decline(reason, offered, required)


def test_a_denied_requester_is_refused_before_anything_is_fetched():
    policy = replace(POLICY, denied=frozenset({REQUESTER}))

    assert find_refusal(policy, OFFER, LATE) == Decline(Reason.REQUESTER_DENIED, detail=REQUESTER)
    assert find_refusal(POLICY, OFFER, LATE) is None


def test_the_missing_profit_is_what_an_unprofitable_job_would_have_to_pay_more():
    poor = replace(OFFER, ramp=replace(OFFER.ramp, full_price=ETHER // 10_000))

    decision = decide_claim(FACTS, poor, LATE)

    assert isinstance(decision, Decline)
    assert decision.required - decision.offered == -estimate_lease(FACTS, poor, BPS).profit


def test_providers_wait_for_each_other_by_a_number_of_their_own():
    facts = [replace(FACTS, operator=n, policy=replace(POLICY, jitter=12)) for n in range(1, 200)]

    delays = [compute_jitter(fact, OFFER) for fact in facts]

    assert set(delays) == set(range(13))
    assert delays == [compute_jitter(fact, OFFER) for fact in facts]


def test_nobody_waits_where_the_price_does_not_rise():
    facts = replace(FACTS, policy=replace(POLICY, jitter=12))
    flat = replace(OFFER, ramp=replace(OFFER.ramp, ramp_time=0))

    assert compute_jitter(facts, flat) == 0


def test_operators_begin_at_different_slots():
    firsts = {choose_slots(operator, 3, 1, 16, 0, 1)[0] for operator in range(1, 200)}

    assert firsts == set(range(16))


@given(
    operator=amounts(2**32 - 1),
    slots=st.integers(1, 64),
    taken=amounts(2**64 - 1),
    most=st.integers(1, 8),
)
def test_the_slots_chosen_are_free_neighbours_and_there_are_some_if_one_is_free(
    operator, slots, taken, most
):
    chosen = choose_slots(operator, 3, 1, slots, taken, most)

    free = {slot for slot in range(slots) if not taken >> slot & 1}
    assert set(chosen) <= free
    assert bool(chosen) == bool(free)
    assert len(chosen) <= most
    assert len(chosen) == most or chosen.stop not in free


def test_an_idle_round_is_divided_without_remainders():
    starts = {choose_slots(operator, 3, 1, 8, 0, 4) for operator in range(1, 50)}

    assert starts == {range(4), range(4, 8)}


@given(case=likely_cases(), most=st.integers(1, 64), stake=amounts(50 * ETHER))
def test_as_many_shards_are_taken_as_time_and_stake_allow(case, most, stake):
    facts, offer = case
    facts, offer = replace(facts, free_stake=stake), replace(offer, shards=1)

    count = fit_shards(facts, offer, most)

    def is_possible(shards: int) -> bool:
        wider = replace(offer, shards=shards)
        time = compute_training_time(facts, wider)
        return time * 13 <= offer.lease_time * 10 and wider.stake <= stake

    assert 1 <= count <= most
    assert count == 1 or is_possible(count)
    assert count == most or not is_possible(count + 1)
