"""Layouts against numpy: a view of a layout reads what numpy's view of the array reads."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.lower.layout import Layout, Renaming, align, dense

SHAPES = st.lists(st.sampled_from((1, 2, 3, 4, 6)), min_size=1, max_size=4)


def read(layout: Layout, memory: np.ndarray) -> np.ndarray:
    sizes = [size for size, _ in layout.factors]
    grids = np.indices(sizes) if sizes else []
    places = sum((g * s for g, (_, s) in zip(grids, layout.factors, strict=True)), layout.offset)
    return memory.reshape(-1)[np.asarray(places, int)].reshape(layout.shape)


def find_pairs(size: int) -> list[tuple[int, int]]:
    return [(size // n, n) for n in range(1, 9) if size % n == 0]


@st.composite
def views(draw):
    """A layout of a dense tensor after some views, and the same views of the array."""
    shape = draw(SHAPES)
    array = np.arange(np.prod(shape)).reshape(shape)
    layout, view = dense(shape), array
    for _ in range(draw(st.integers(0, 4))):
        move = draw(st.sampled_from(("permute", "reshape", "slice", "expand")))
        if move == "permute":
            order = draw(st.permutations(range(view.ndim)))
            layout, view = layout.permute(order), view.transpose(order)
        elif move == "reshape":
            sizes = draw(st.sampled_from(find_pairs(view.size)))
            moved = layout.reshape(sizes)
            if moved is not None:
                layout, view = moved, view.reshape(sizes)
        elif move == "slice":
            axis = draw(st.integers(0, view.ndim - 1))
            start = draw(st.integers(0, view.shape[axis] - 1))
            step = draw(st.integers(1, 3))
            moved = layout.slice(axis, start, view.shape[axis], step)
            if moved is not None:
                cut = [slice(None)] * view.ndim
                cut[axis] = slice(start, None, step)
                layout, view = moved, view[tuple(cut)]
        else:
            shape = (2, *(n if n > 1 else 3 for n in view.shape))[-4:]
            if len(shape) >= view.ndim:
                layout, view = layout.expand(shape), np.broadcast_to(view, shape)
    return array, layout, view


@given(views())
@settings(max_examples=300, deadline=None)
def test_a_view_of_a_layout_is_a_view_of_the_array(case):
    memory, layout, view = case

    np.testing.assert_array_equal(read(layout, memory), view)


@given(views())
@settings(max_examples=200, deadline=None)
def test_layouts_that_align_visit_the_same_elements(case):
    memory, layout, view = case

    walk = align([layout, dense(view.shape)])

    if walk is not None:
        strides = zip(walk.shape, walk.strides[0], strict=True)
        flat = read(Layout((tuple(strides),), layout.offset), memory)
        np.testing.assert_array_equal(flat.reshape(-1), view.reshape(-1))


def test_expanded_heads_regroup_without_a_copy():
    heads = dense((2, 5, 2, 8)).reshape((2, 5, 2, 1, 8)).expand((2, 5, 2, 3, 8))

    regrouped = heads.reshape((2, 5, 6, 8)).permute((0, 2, 1, 3)).reshape((12, 5, 8))

    expected = np.arange(160).reshape(2, 5, 2, 8).repeat(3, axis=2).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(read(regrouped, np.arange(160)), expected.reshape(12, 5, 8))


def test_a_renaming_follows_factors_that_it_splits():
    source = dense((4, 6)).permute((1, 0))
    renaming = Renaming.to_order(source.factors)

    axes = renaming.rename(dense((24,)).axes)

    stored = np.arange(24).reshape(4, 6).T.copy()
    assert axes is not None
    np.testing.assert_array_equal(read(Layout(axes), stored), np.arange(24))


def test_factors_that_cut_across_those_of_a_renaming_have_no_names_there():
    renaming = Renaming.to_order([(8, 1), (9, 8)])

    assert renaming.rename(dense((24, 3)).axes) is None
    assert renaming.rename(dense((18, 4)).axes) is not None
