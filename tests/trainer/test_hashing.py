"""The compiled hashing against the plain definition in `market.protocol.tensors`."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.protocol.errors import InvalidBlob
from market.protocol.tensors import Dtype, TensorType, compute_tensor_root, get_quantized_dtype
from trainer.hashing import Elements, compute_tensor_roots

TILE, UNIT = 1024, 256 * 1024  # bytes: a leaf's, and what one thread hashes at a time
MAX_ELEMENTS = 1 << 17


def _is_small(kind: TensorType) -> bool:
    return kind.elements <= MAX_ELEMENTS


plain_types = st.builds(
    TensorType,
    st.sampled_from(list(Dtype)),
    st.lists(st.integers(1, 9) | st.integers(250, 260), max_size=6)
    .filter(lambda shape: _is_small(TensorType(Dtype.U8, tuple(shape))))
    .map(tuple),
)
# Rows of 1 to 5 tiles, whole and broken ones, of both sizes of integers.
row_lengths = st.sampled_from([1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513, 600, 1100])
quantized_types = st.builds(
    lambda bits, rows, length: TensorType(get_quantized_dtype(bits), (*rows, length), bits),
    st.sampled_from([8, 14, 16, 24]),
    st.lists(st.integers(1, 7), max_size=2),
    row_lengths,
)


def _draw_elements(kind: TensorType, source: random.Random) -> Elements:
    rows = kind.elements // kind.shape[-1] if kind.bits else 0
    exponents = [source.randrange(-(2**31), 2**31) for _ in range(rows)]
    return Elements(kind, source.randbytes(kind.nbytes), exponents)


def _define_root(tensor: Elements) -> bytes:
    return compute_tensor_root(tensor.kind, tensor.data, tensor.exponents)


@settings(max_examples=60)
@given(
    kinds=st.lists(plain_types | quantized_types, max_size=5),
    seed=st.integers(0, 2**32),
    threads=st.integers(1, 3),
)
def test_every_root_is_the_defined_one_whatever_the_type_and_the_threads(kinds, seed, threads):
    source = random.Random(seed)
    tensors = [_draw_elements(kind, source) for kind in kinds]

    roots = compute_tensor_roots(tensors, threads)

    assert roots == [_define_root(tensor) for tensor in tensors]


@pytest.mark.parametrize("whole", [0, 1, 15, 16, 17, 31, 32, 255, 256, 257, 512, 769])
@pytest.mark.parametrize("rest", [1, 28, 31, 32, 33, 1023, 1024])
def test_any_number_of_tiles_with_any_last_one_has_the_defined_root(whole, rest):
    size = whole * TILE + rest
    tensor = Elements(TensorType(Dtype.U8, (size,)), random.Random(size).randbytes(size))

    assert compute_tensor_roots([tensor], 2) == [_define_root(tensor)]


def test_bytes_at_an_odd_address_have_the_same_root():
    data = random.Random(1).randbytes(UNIT + 4 * TILE + 9)
    kind = TensorType(Dtype.I64, (UNIT // 8 + 3,))

    shifted = Elements(kind, memoryview(data)[1 : 1 + kind.nbytes])

    assert compute_tensor_roots([shifted]) == [_define_root(shifted)]


def test_bytes_of_another_size_than_their_type_are_refused():
    with pytest.raises(InvalidBlob, match="3 bytes"):
        Elements(TensorType(Dtype.F32, (1,)), b"\0\0\0")
