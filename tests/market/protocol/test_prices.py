from hypothesis import given
from hypothesis import strategies as st

from market.protocol.constants import BPS
from market.protocol.prices import Percentiles, Ramp, find_percentiles

ramps = st.builds(
    Ramp,
    full_price=st.integers(1, 2**80 - 1),
    floor_bps=st.integers(0, BPS),
    ramp_time=st.one_of(st.just(0), st.integers(1, 40), st.integers(0, 2**32 - 1)),
    opened_at=st.integers(0, 2**32),
)


@given(ramp=ramps, bps=st.integers(0, BPS))
def test_a_ramp_reaches_a_share_at_the_moment_computed_and_not_before(ramp, bps):
    time = ramp.compute_time(bps)

    assert ramp.compute_bps(time) >= bps
    assert time == ramp.opened_at or ramp.compute_bps(time - 1) < bps


@given(ramp=ramps, price=st.integers(0, 2**80))
def test_a_price_is_reached_at_the_share_found_and_at_none_below(ramp, price):
    bps = ramp.find_bps(price)

    assert (bps is None) == (price > ramp.full_price)
    if bps is not None:
        assert ramp.compute_price(bps) >= price
        assert bps == ramp.floor_bps or ramp.compute_price(bps - 1) < price


def test_a_ramp_goes_from_its_floor_to_the_full_price():
    ramp = Ramp(full_price=7, floor_bps=1_000, ramp_time=600, opened_at=10_000)

    assert [ramp.compute_bps(10_000 + t) for t in (0, 300, 599, 600, 9_999)] == [
        1_000,
        5_500,
        9_985,
        10_000,
        10_000,
    ]


@given(prices=st.lists(st.integers(0, 2**96), min_size=1, max_size=50))
def test_percentiles_are_prices_with_enough_others_at_or_below_them(prices):
    found = find_percentiles(prices)

    for share, price in ((10, found.p10), (50, found.p50), (90, found.p90)):
        assert price in prices
        assert sum(other <= price for other in prices) * 100 >= share * len(prices)
        assert sum(other < price for other in prices) * 100 < share * len(prices)


def test_percentiles_of_nothing_are_none():
    assert find_percentiles([]) is None
    assert find_percentiles([4]) == Percentiles(4, 4, 4)
