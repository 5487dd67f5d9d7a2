from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.philox import compute_batch_starts, random_words
from market.protocol.sampling import (
    choose_segments,
    compute_job_seed,
    compute_segment_seed,
    draw_panel,
    draw_segments,
    draw_tickets,
)

mix_hashes = st.binary(min_size=32, max_size=32)


@given(lease=st.integers(1, 2**64), mix=mix_hashes, n=st.integers(2, 256), data=st.data())
def test_a_draw_gives_different_segments(lease, mix, n, data):
    m = data.draw(st.integers(1, min(16, n)))

    segments = draw_segments(lease, mix, n, m)

    assert len(segments) == len(set(segments)) == m
    assert all(0 <= segment < n for segment in segments)
    assert segments == choose_segments(compute_segment_seed(lease, mix), n, m)


def test_every_subset_is_drawn_about_as_often():
    draws = Counter(
        tuple(sorted(draw_segments(1, i.to_bytes(32, "big"), 5, 2))) for i in range(4000)
    )

    assert set(draws) == set(combinations(range(5), 2))
    assert max(abs(count - 400) for count in draws.values()) < 100  # five standard deviations


@given(mix=mix_hashes)
def test_leases_and_purposes_draw_independently(mix):
    seeds = {compute_job_seed(job, mix) for job in range(8)}
    tickets = {tuple(draw_tickets(lease, mix, 1000)) for lease in range(8)}
    panels = {tuple(draw_panel(lease, mix, 1000)[:32]) for lease in range(8)}

    assert len(seeds) == 8
    assert len(tickets | panels) == 16


def test_the_seed_of_segments_has_48_bits_and_is_never_zero():
    seeds = [compute_segment_seed(lease, bytes(32)) for lease in range(1000)]

    assert 2**47 < max(seeds) < 2**48
    assert min(seeds) > 0


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**31),
    tokens=st.integers(130, 10**7),
)
def test_batches_stay_inside_the_dataset(seed, step, tokens):
    starts = compute_batch_starts(seed, 3, 2, step, 16, tokens, 128)

    assert all(0 <= start <= tokens - 129 for start in starts)


@pytest.mark.parametrize("coordinate", range(4))
def test_a_batch_depends_on_seed_round_slot_and_step(coordinate):
    coordinates = [7, 1, 2, 3]
    first = compute_batch_starts(*coordinates, 16, 10**6, 128)

    coordinates[coordinate] += 1

    assert compute_batch_starts(*coordinates, 16, 10**6, 128) != first


def test_random_words_are_a_prefix_of_longer_streams():
    assert random_words(1, 2, 3, 4, 5) == random_words(1, 2, 3, 4, 9)[:5]
