import random
from collections import Counter
from itertools import product
from math import prod

import pytest

from market.protocol.program import View
from trainer.parallel.spread import (
    Access,
    Placement,
    Spread,
    divide,
    find_placements,
    find_written_spread,
    is_local,
    localize,
)


def list_elements(shape: tuple[int, ...], view: View) -> list[int]:
    indices = product(*(range(size) for size in shape))
    return [view.offset + sum(map(int.__mul__, index, view.strides)) for index in indices]


def globalize(element: int, spread: Spread, rank: int) -> int:
    row, column = divmod(element, spread.get_width(rank))
    return row * spread.period + spread.cuts[rank] + column


def draw_access(draw: random.Random) -> tuple[tuple[int, ...], Access]:
    """Return an iteration over a tensor, its axes permuted, merged or sliced, and a spread of the tensor."""
    dimensions = [draw.choice((2, 3, 4, 6)) for _ in range(draw.randint(1, 4))]
    strides = [prod(dimensions[axis + 1 :]) for axis in range(len(dimensions))]
    axis, world = draw.randrange(len(dimensions)), draw.randint(1, 3)
    cuts = [0, *sorted(draw.sample(range(1, 6), world - 1)), 6]
    spread = Spread(6, tuple(cuts)) if dimensions[axis] == 6 else divide(dimensions[axis], 2)
    axes = list(zip(dimensions, strides, strict=True))
    if len(axes) > 1 and draw.random() < 0.5:
        merged = draw.randrange(len(axes) - 1)
        (first, _), (second, step) = axes[merged : merged + 2]
        axes[merged : merged + 2] = [(first * second, step)]
    if draw.random() < 0.5:
        draw.shuffle(axes)
    if draw.random() < 0.3:
        axes.insert(draw.randrange(len(axes) + 1), (3, 0))
    view = View(0, 0, tuple(step for _, step in axes))
    return tuple(size for size, _ in axes), Access(view, spread.scale(strides[axis]))


@pytest.mark.parametrize("seed", range(60))
def test_parts_touch_each_element_as_often_as_the_whole_and_only_their_own(seed: int) -> None:
    shape, access = draw_access(random.Random(seed))
    spread = access.spread
    assert spread is not None

    for placement in find_placements(shape, access):
        touched: Counter[int] = Counter()
        for rank in range(spread.world):
            part = localize(shape, [access], placement, rank)
            assert part is not None
            local = list_elements(part.shape, part.views[0])
            assert max(local) < 10_000
            touched.update(globalize(element, spread, rank) for element in local)

        assert touched == Counter(list_elements(shape, access.view))


def test_most_views_of_a_spread_tensor_can_be_cut() -> None:
    draws = [draw_access(random.Random(seed)) for seed in range(60)]

    assert sum(any(find_placements(*drawn)) for drawn in draws) > 50


def test_columns_read_as_one_flat_axis_are_cut_in_every_row() -> None:
    access = Access(View(0, 0, (1,)), divide(8, 2))

    (placement,) = find_placements((32,), access)
    part = localize((32,), [access], placement, 1)

    assert placement == Placement(0, Spread(8, (0, 4, 8)))
    assert part is not None
    assert (part.shape, part.origins) == ((4, 4), (0, 0))
    assert part.views == (View(0, 0, (4, 1)),)


def test_a_half_of_each_head_goes_with_its_head() -> None:
    halves = [Access(View(0, offset, (16, 8, 1)), divide(16, 2)) for offset in (0, 4)]

    (placement,) = find_placements((3, 2, 4), halves[1])

    assert placement == Placement(1, divide(2, 2))
    assert is_local((3, 2, 4), halves, placement, 2)


def test_a_view_is_not_cut_if_a_rank_would_do_nothing_or_a_row_is_not_whole() -> None:
    of_one_rank = Access(View(0, 1, (1,)), divide(8, 2))
    across_rows = Access(View(0, 0, (3,)), Spread(8, (0, 4, 8)))

    assert list(find_placements((3,), of_one_rank)) == []
    assert list(find_placements((5,), across_rows)) == []


def test_an_index_that_reaches_beyond_a_part_is_not_local() -> None:
    rows = Access(View(0, 0, (4,)), Spread(12, (0, 4, 12)))

    within = Access(rows.view, rows.spread, (4, 1))
    beyond = Access(rows.view, rows.spread, (5, 1))

    assert [list(find_placements((3,), access)) for access in (within, beyond)] == [
        [Placement(0, Spread(3, (0, 1, 3)))],
        [],
    ]


def test_what_a_cut_writes_is_spread_over_the_tensor() -> None:
    heads = Placement(1, divide(4, 2))

    assert find_written_spread(View(0, 0, (32, 8, 1)), heads, 96) == Spread(32, (0, 16, 32))
    assert find_written_spread(View(0, 0, (8, 0, 1)), heads, 24) is None
    assert find_written_spread(View(0, 0, (40, 8, 1)), heads, 120) is None
