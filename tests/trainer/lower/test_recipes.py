"""The recipes in binary32 against float64, in units of the last place."""

import math

import numpy as np
import pytest

from market.protocol.program import SIGNATURES, Op
from tests.trainer.lower.interpreter import OPS
from trainer.lower import recipes
from trainer.lower.expressions import Apply, Constant, Load, iterate, round_to_f32
from trainer.lower.layout import Layout

RNG = np.random.default_rng(0)


def evaluate(recipe, *arrays):
    """Run a recipe in IEEE binary32: numpy's basic operations are."""
    loads = [Load("f", n, Layout(())) for n in range(len(arrays))]
    root = recipe(*loads)
    values = {}
    with np.errstate(all="ignore"):
        for node in iterate([root]):
            if isinstance(node, Load):
                value = arrays[node.source]
            elif isinstance(node, Constant):
                word = np.uint32(node.value).view(np.float32) if node.type == "f" else node.value
                value = word if node.type == "f" else np.int64(word)
            else:
                assert isinstance(node, Apply)
                value = OPS[Op(node.op)](*(values[id(a)] for a in node.arguments))
                is_float = SIGNATURES[node.op][1] == "f"
                value = np.asarray(value).astype(np.float32 if is_float else np.int64)
                value = np.where(np.isnan(value), np.float32(np.nan), value) if is_float else value
            values[id(node)] = value
    return values[id(root)]


def ulps(found, expected):
    spacing = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    return np.max(np.abs(found.astype(np.float64) - expected) / spacing)


def uniform(low, high):
    return RNG.uniform(low, high, 200_000).astype(np.float32)


SIGMOID = np.vectorize(lambda x: 1 / (1 + math.exp(-x)))
CASES = {
    "exp": (recipes.exp, np.exp, uniform(-87, 88.7), 1.0),
    "log": (recipes.log, np.log, np.exp(uniform(-87, 88)), 0.9),
    "log near 1": (recipes.log, np.log, uniform(0.5, 2), 0.9),
    "log1p": (recipes.log1p, np.log1p, uniform(-0.999, 2), 2.5),
    "log1p near 0": (recipes.log1p, np.log1p, uniform(-1e-3, 1e-3), 2.5),
    "log1p far": (recipes.log1p, np.log1p, np.exp(uniform(0, 88)), 2.5),
    "expm1": (recipes.expm1, np.expm1, uniform(-20, 80), 1.6),
    "expm1 near 0": (recipes.expm1, np.expm1, uniform(-0.6, 0.6), 1.6),
    "sigmoid": (recipes.sigmoid, SIGMOID, uniform(-80, 30), 2.5),
    "tanh": (recipes.tanh, np.tanh, uniform(-12, 12), 1.4),
    "tanh near 0": (recipes.tanh, np.tanh, uniform(-0.01, 0.01), 1.4),
    "rsqrt": (
        recipes.reciprocal_square_root,
        lambda x: 1 / np.sqrt(x),
        np.exp(uniform(-80, 80)),
        1.5,
    ),
    "sqrt": (recipes.square_root, np.sqrt, np.exp(uniform(-80, 80)), 0.51),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_is_as_accurate_as_it_says(name):
    recipe, reference, samples, bound = CASES[name]

    error = ulps(evaluate(recipe, samples), reference(samples.astype(np.float64)))

    assert error <= bound


def test_erf_is_within_its_absolute_bound():
    x = uniform(-5, 5)

    found = evaluate(recipes.erf, x)

    assert np.max(np.abs(found - np.vectorize(math.erf)(x.astype(np.float64)))) < 4.5e-7


def f32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("recipe", "x", "expected"),
    [
        (recipes.exp, f32(-200, -np.inf, 0, 100, np.inf, np.nan), f32(0, 0, 1, np.inf, np.inf, np.nan)),
        (recipes.log, f32(0, -0.0, -1, 1, np.inf, np.nan), f32(-np.inf, -np.inf, np.nan, 0, np.inf, np.nan)),
        (recipes.log1p, f32(-1, -2, 0, -0.0, np.inf, np.nan), f32(-np.inf, np.nan, 0, -0.0, np.inf, np.nan)),
        (recipes.expm1, f32(-np.inf, 0, -0.0, 100, np.inf, np.nan), f32(-1, 0, -0.0, np.inf, np.inf, np.nan)),
        (recipes.sigmoid, f32(-np.inf, 0, np.inf, np.nan), f32(0, 0.5, 1, np.nan)),
        (recipes.tanh, f32(-np.inf, 0, np.inf, np.nan), f32(-1, 0, 1, np.nan)),
        (recipes.round_even, f32(0.5, 1.5, -0.5, -0.0, 1e20, np.nan), f32(0, 2, -0.0, -0.0, 1e20, np.nan)),
        (recipes.floor, f32(-0.5, 0.5, 2, -3.5, 1e20, np.nan), f32(-1, 0, 2, -4, 1e20, np.nan)),
        (recipes.ceil, f32(-0.5, 0.5, 2, -3.5, -1e20, np.nan), f32(-0.0, 1, 2, -3, -1e20, np.nan)),
        (recipes.truncate, f32(-1.5, 1.5, -0.5, np.inf), f32(-1, 1, -0.0, np.inf)),
        (recipes.sign, f32(-2, 0, 3, np.nan), f32(-1, 0, 1, np.nan)),
    ],
)  # fmt: skip
def test_a_recipe_is_exact_at_its_ends(recipe, x, expected):
    found = evaluate(recipe, x)

    assert found.view(np.uint32).tolist() == expected.view(np.uint32).tolist()


def test_log_of_subnormals_is_accurate():
    x = np.array([1e-45, 1e-40, 1.1754942e-38], np.float32)

    assert ulps(evaluate(recipes.log, x), np.log(x.astype(np.float64))) < 0.9


def test_the_maximum_is_by_ordered_key():
    x, y = f32(-0.0, 0.0, np.nan, 1, -np.inf), f32(0.0, -0.0, 1, np.nan, -3)

    largest, smallest = evaluate(recipes.maximum, x, y), evaluate(recipes.minimum, x, y)

    np.testing.assert_array_equal(largest, f32(0.0, 0.0, np.nan, np.nan, -3))
    assert np.signbit(largest[:2]).tolist() == [False, False]
    np.testing.assert_array_equal(smallest, f32(-0.0, -0.0, np.nan, np.nan, -np.inf))
    assert np.signbit(smallest[:2]).tolist() == [True, True]


def test_python_numbers_round_once_to_binary32():
    assert round_to_f32(0.1) == 0x3DCCCCCD
    assert round_to_f32(1e300) == 0x7F800000
    assert round_to_f32(math.nan) == 0x7FC00000
