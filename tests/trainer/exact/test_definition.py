import math
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.protocol.constants import QUANTIZE_BUMPS, QUANTIZE_FLOOR
from market.protocol.program import Op
from trainer.exact import definition
from trainer.exact.carriers import QUANTIZED_BOUNDS

SPECIAL = (0, 1, 2, 0x400000, 0x7FFFFF, 0x800000, 0x800001, 0x3F7FFFFF, 0x3F800000, 0x3F800001)
SPECIAL += (0x3EFFFFFF, 0x3F000000, 0x3FC00000, 0x40200000, 0x4B000001, 0x4F000000, 0x5EFFFFFF)
SPECIAL += (0x5F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF)

repeatable = settings(deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def pairs() -> npt.NDArray[np.uint32]:
    """Special values against each other, random patterns, and numbers of like magnitude."""
    words = np.random.default_rng(1).integers(0, 2**32, (2, 60_000), dtype=np.uint32)
    words[:, 30_000:] = words[:, 30_000:] & 0x83FFFFFF | 0x3C000000
    special = np.array([x | sign for x in SPECIAL for sign in (0, 2**31)], np.uint32)
    return np.concatenate([np.array(np.meshgrid(special, special)).reshape(2, -1), words], 1)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_binary32_arithmetic_equals_numpys(name: str, pairs: npt.NDArray[np.uint32]) -> None:
    operation = getattr(definition, {"subtract": "sub"}.get(name, name[:3]))
    x, y = pairs.view(np.float32)
    with np.errstate(all="ignore"):
        expected = canonical(getattr(np, name)(x, y))

    computed = [operation(int(a), int(b)) for a, b in pairs.T]

    assert computed == expected


def test_square_roots_equal_numpys(pairs: npt.NDArray[np.uint32]) -> None:
    with np.errstate(all="ignore"):
        expected = canonical(np.sqrt(pairs[0].view(np.float32)))

    assert [definition.sqrt(int(x)) for x in pairs[0]] == expected


@pytest.mark.parametrize(
    ("name", "oracle"), [("lt", np.less), ("le", np.less_equal), ("eq", np.equal)]
)
def test_comparisons_equal_numpys(
    name: str, oracle: np.ufunc, pairs: npt.NDArray[np.uint32]
) -> None:
    with np.errstate(all="ignore"):
        expected = oracle(*pairs.view(np.float32)).astype(int).tolist()

    assert [getattr(definition, name)(int(x), int(y)) for x, y in pairs.T] == expected


@repeatable
@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_become_the_nearest_binary32(a: int) -> None:
    assert definition.from_int(a) == int(np.array(a, np.int64).astype(np.float32).view(np.uint32))


@repeatable
@given(st.integers(0, 2**32 - 1))
def test_binary32_rounds_to_the_nearest_integer_within_64_bits(x: int) -> None:
    value = float(np.array(x, np.uint32).view(np.float32))
    expected = 0 if math.isnan(value) else max(min(value, 2.0**64), -(2.0**64))

    result = definition.to_int(x)

    assert result == min(max(round(expected), -(2**63)), 2**63 - 1)


@repeatable
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_ordered_keys_order_as_numbers_do_with_signed_zeros_and_nan_apart(x: int, y: int) -> None:
    x, y = definition.canonical(x), definition.canonical(y)

    if definition.lt(x, y):
        assert definition.order_key(x) < definition.order_key(y)
    assert definition.order_key(definition.order_key(x)) & 0xFFFFFFFF == x
    assert definition.max_f32([x, 0x7FC00000]) == 0x7FC00000
    assert definition.max_f32([0x80000000, 0]) == 0


@pytest.mark.parametrize(("bits", "bound"), QUANTIZED_BOUNDS.items())
def test_quantized_integers_reach_their_bound_and_never_pass_it(bits: int, bound: int) -> None:
    threshold = 0x800000 - QUANTIZE_BUMPS[bits]
    mantissas = [m for m in (0, 1, threshold - 1, threshold, 0x7FFFFF) if m < 0x800000]
    rows = [[exponent << 23 | m] for exponent in (1, 27, 28, 127, 254) for m in mantissas]

    quantized = [definition.quantize(row, bits) for row in rows]

    assert max(abs(q[0]) for q, _ in quantized) == bound
    assert min(exponent for _, exponent in quantized) == QUANTIZE_FLOOR


@repeatable
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.randoms())
def test_sums_do_not_depend_on_order(patterns: list[int], random: Random) -> None:
    shuffled = list(patterns)
    random.shuffle(shuffled)

    assert definition.sum_f32(shuffled) == definition.sum_f32(patterns)


def test_every_operation_of_the_protocol_is_defined() -> None:
    assert set(definition.OPERATIONS) == set(Op)


def canonical(x: npt.NDArray[np.float32]) -> list[int]:
    patterns: list[int] = np.where(np.isnan(x), np.uint32(0x7FC00000), x.view(np.uint32)).tolist()
    return patterns
