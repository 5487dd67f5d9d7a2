from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.errors import InvalidBlob, InvalidProgram
from market.protocol.hashing import ZERO_HASH, hash_node
from market.protocol.tensors import (
    Dtype,
    TensorType,
    compute_named_root,
    compute_state_root,
    compute_tensor_root,
    compute_tile_leaves,
)

plain_types = st.builds(
    TensorType,
    st.sampled_from(list(Dtype)),
    st.lists(st.integers(1, 40), max_size=3).map(tuple),
)


def _domain(dtype: int, bits: int, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(size.to_bytes(4, "big") for size in (*shape, *[0] * (6 - len(shape))))
    return b"TSTN" + bytes([1, dtype, bits, len(shape)]) + dims


def test_a_leaf_is_the_hash_that_the_specification_spells_out():
    kind = TensorType(Dtype.F32, (257,))
    data = bytes(range(256)) * 4 + b"\1\2\3\4"

    leaves = compute_tile_leaves(kind, data)

    domain = _domain(5, 0, (257,))
    first = sha256(domain + bytes(4) + data[:1024]).digest()
    second = sha256(domain + bytes(4) + data[1024:] + bytes(28)).digest()
    assert leaves == [first, second]
    assert compute_tensor_root(kind, data) == hash_node(first, second)


def test_tiles_of_a_quantized_tensor_stay_in_their_row_and_carry_its_exponent():
    kind = TensorType(Dtype.I16, (2, 600), 16)
    data = bytes(i % 256 for i in range(2400))

    leaves = compute_tile_leaves(kind, data, [-3, 255])

    domain = _domain(2, 16, (2, 600))
    minus_three, poison = b"\xff\xff\xff\xfd", b"\0\0\0\xff"
    tail = bytes(16)
    assert leaves == [
        sha256(domain + minus_three + data[:1024]).digest(),
        sha256(domain + minus_three + data[1024:1200] + tail).digest(),
        sha256(domain + poison + data[1200:2224]).digest(),
        sha256(domain + poison + data[2224:] + tail).digest(),
    ]


@given(kind=plain_types, data=st.data())
def test_every_byte_the_type_and_the_shape_are_bound(kind, data):
    raw = bytearray(data.draw(st.binary(min_size=kind.nbytes, max_size=kind.nbytes)))
    root = compute_tensor_root(kind, raw)
    position = data.draw(st.integers(0, kind.nbytes - 1))

    raw[position] ^= 1 << data.draw(st.integers(0, 7))

    assert compute_tensor_root(kind, raw) != root
    raw_again = bytes(kind.nbytes)
    other_shape = TensorType(kind.dtype, (1, *kind.shape))
    assert compute_tensor_root(other_shape, raw_again) != compute_tensor_root(kind, raw_again)


def test_named_tensors_are_bound_to_their_names_and_their_order():
    roots = {"a": compute_tensor_root(TensorType(Dtype.U8, (1,)), b"\0"), "b": ZERO_HASH}

    swapped = {"b": ZERO_HASH, "a": roots["a"]}
    renamed = {"a": roots["a"], "c": ZERO_HASH}

    assert len({compute_named_root(r) for r in (roots, swapped, renamed)}) == 3
    assert compute_named_root({}) == ZERO_HASH


def test_the_halves_of_a_state_are_not_interchangeable():
    base, slot = compute_named_root({"a": ZERO_HASH}), compute_named_root({"b": ZERO_HASH})

    assert compute_state_root(base, slot) != compute_state_root(slot, base)


def test_bytes_of_another_size_are_refused():
    with pytest.raises(InvalidBlob, match="3 bytes"):
        compute_tensor_root(TensorType(Dtype.F32, (1,)), b"\0\0\0")


@pytest.mark.parametrize(
    ("dtype", "shape", "bits"),
    [
        (Dtype.F32, (0,), 0),
        (Dtype.F32, (1,) * 7, 0),
        (Dtype.F32, (2**20, 2**21), 0),
        (Dtype.F32, (4,), 16),
        (Dtype.I16, (4,), 24),
        (Dtype.I16, (), 16),
    ],
)
def test_types_outside_the_limits_are_refused(dtype, shape, bits):
    with pytest.raises(InvalidProgram):
        TensorType(dtype, shape, bits)
