"""What the Triton kernels stand on: addressing, rounding, exponents, launching, scratch memory.

INVARIANT: a launch's shape (programs, blocks, warps, stages) decides who computes an element, never what.
Every rounding is one IEEE operation that the definition names: ``Memory.bind`` switches contraction off,
division and square root are the correctly rounded forms, and what combines elements is integer.

Kernels run on CUDA devices; under TRITON_INTERPRET=1, set before this module is imported, on CPU tensors.
"""

# ruff: noqa: PLR0124 - x == x asks for a NaN

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from market.protocol.constants import CANONICAL_NAN, POISON_EXPONENT
from trainer.exact.fused_native import Strided

Step = Callable[[], object]
Decorator = Callable[[Callable[..., Any]], Any]
jit: Final[Decorator] = triton.jit

NAN: Final = tl.constexpr(CANONICAL_NAN)
POISON: Final = tl.constexpr(POISON_EXPONENT)
MAGNITUDE: Final = tl.constexpr(0x7FFFFFFF)
INFINITY: Final = tl.constexpr(0x7F800000)
SIGN: Final = tl.constexpr(-0x80000000)
TWO_23: Final = tl.constexpr(0x4B000000)  # the pattern of 2^23
TWO_63: Final = tl.constexpr(0x5F000000)

LARGEST: Final = -2  # scratch: i32 magnitudes or keys of groups,
TOTALS: Final = -1  # and i64 sums of groups

_I32_LIMIT: Final = 2**31
_MAX_PROGRAMS: Final = 2**31 - 1


class Memory:
    """What prepared steps read and write: tensors by entry, the last two of which are scratch.

    Steps hold an entry's number, so a tensor may move between them."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        empty = (torch.empty(0, dtype=dtype, device=device) for dtype in (torch.int32, torch.int64))
        self.tensors = [*tensors, *empty]
        self._needed = [1, 1]

    def reserve(self, largest: int, totals: int = 0) -> None:
        """Have scratch for so many words, once ``allocate`` is called."""
        self._needed = [max(*pair) for pair in zip(self._needed, (largest, totals), strict=True)]

    @property
    def scratch_bytes(self) -> int:
        """The bytes of what has been reserved."""
        return 4 * self._needed[0] + 8 * self._needed[1]

    def allocate(self) -> None:
        """Make the scratch that has been reserved; steps may run from now on."""
        for entry, size in zip((LARGEST, TOTALS), self._needed, strict=True):
            self.tensors[entry] = self.tensors[entry].new_empty(size)

    def fill(self, entry: int, count: int, value: int) -> Step:
        """Return a function that sets the first ``count`` words of scratch."""
        return lambda: self.tensors[entry][:count].fill_(value)

    def bind(
        self,
        kernel: Any,
        programs: int,
        entries: Sequence[int],
        arguments: Sequence[object],
        **options: int,
    ) -> Step:
        """Return a function that runs ``programs`` programs of ``kernel`` on the current stream.

        Tensors come first, then ``arguments``; ``options`` are Triton's (warps, stages)."""
        assert 0 < programs <= _MAX_PROGRAMS
        grid, tensors = (programs,), self.tensors

        def run() -> None:
            bound = [tensors[entry] for entry in entries]
            kernel[grid](*bound, *arguments, enable_fp_fusion=False, **options)

        return run


def run_all(steps: Sequence[Step]) -> Step:
    """Return a function that does ``steps`` in order."""
    if len(steps) == 1:
        return steps[0]

    def run() -> None:
        for step in steps:
            step()

    return run


def is_wide(shape: Sequence[int], *views: Sequence[int]) -> bool:
    """Tell whether a flat index, or an offset in one of the ``views`` (strides), needs 64 bits."""
    total = 1
    for size in shape:
        total *= size
    reach = max(
        sum((size - 1) * stride for size, stride in zip(shape, view, strict=True)) for view in views
    )
    return max(total, reach) >= _I32_LIMIT // 2  # the last block may reach past the end


def divide_up(count: int, size: int) -> int:
    """Return how many blocks of ``size`` hold ``count``."""
    return -(-count // size)


def cover(count: int, most: int) -> int:
    """Return the least power of two that is at least ``count``, or ``most``, itself one, if that is less."""
    return int(min(1 << (count - 1).bit_length(), most))


def pick(sizes: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Return the ``sizes`` (or strides) of the ``axes``."""
    return tuple(sizes[axis] for axis in axes)


def move_to(view: Strided, strides: tuple[int, ...]) -> Strided:
    """Return ``view`` with other strides."""
    return Strided(view.entry, view.dtype, view.offset, strides)


@jit
def find_lines(block: tl.tensor, SIZE: tl.constexpr, WIDE: tl.constexpr) -> tl.tensor:
    """Return the indices in a block of ``SIZE``."""
    if WIDE:
        return block * tl.full([], SIZE, tl.int64) + tl.arange(0, SIZE)
    else:  # noqa: RET505 - Triton compiles the branch that it takes alone
        return block * SIZE + tl.arange(0, SIZE)


@jit
def find_offset(index: tl.tensor, sizes: tl.tensor, strides: tl.tensor) -> tl.tensor:
    """Return the offset of the flat ``index`` in a view."""
    offset = tl.zeros_like(index)
    for i in tl.static_range(len(sizes) - 1, 0, -1):
        offset += (index % sizes[i]) * strides[i]
        index = index // sizes[i]
    return offset + index * strides[0]


@jit
def as_bits(x: tl.tensor) -> tl.tensor:
    """Return the pattern of ``x`` as int32."""
    return x.to(tl.int32, bitcast=True)


@jit
def as_float(bits: tl.tensor) -> tl.tensor:
    """Return the binary32 whose pattern is ``bits``."""
    return bits.to(tl.float32, bitcast=True)


@jit
def canonical(x: tl.tensor) -> tl.tensor:
    """Return ``x``, or the one NaN that is stored."""
    return tl.where(x == x, x, as_float(tl.full([], NAN, tl.int32)))


@jit
def magnitude(x: tl.tensor) -> tl.tensor:
    """Return ``|x|``."""
    return as_float(as_bits(x) & MAGNITUDE)


@jit
def round_even(x: tl.tensor) -> tl.tensor:
    """Return ``x`` rounded to the nearest integer, ties to even, as binary32; -0 and NaN stay.

    Below 2^23 the sum with 2^23 has no room for a fraction, so the addition itself rounds, to even."""
    size = magnitude(x)
    limit = as_float(tl.full([], TWO_23, tl.int32))
    rounded = tl.where(size < limit, (size + limit) - limit, size)
    return as_float(as_bits(rounded) | (as_bits(x) & SIGN))


@jit
def round_to_i32(x: tl.tensor) -> tl.tensor:
    """Return the int32 nearest to ``x``, ties to even, for ``|x| <= 2^23``."""
    rounded = magnitude(x) + as_float(tl.full([], TWO_23, tl.int32))  # its last place is one
    size = as_bits(rounded) - TWO_23
    return tl.where(as_bits(x) < 0, -size, size)


@jit
def get_exponent(largest: tl.tensor, BUMP: tl.constexpr, FLOOR: tl.constexpr) -> tl.tensor:
    """Return the exponent of a group from the largest of its magnitudes' patterns."""
    exponent = tl.maximum(((largest + BUMP) >> 23) - 126, FLOOR)
    return tl.where(largest >= INFINITY, POISON, exponent)


@jit
def scale_up(x: tl.tensor, exponent: tl.tensor, FRACTION_BITS: tl.constexpr) -> tl.tensor:
    """Return ``x * 2^(FRACTION_BITS - exponent)``, to be rounded to an integer; 0 for poison."""
    scale = as_float((-exponent + FRACTION_BITS + 127) << 23)
    return tl.where(exponent == POISON, 0.0, x * scale)


@jit
def get_unscale(exponent: tl.tensor, fraction_bits: tl.tensor) -> tl.tensor:
    """Return 2^(exponent - fraction_bits), NaN for poison."""
    bits = (exponent - fraction_bits + 127) << 23
    return as_float(tl.where(exponent == POISON, NAN, bits))


@jit
def clamp_index(index: tl.tensor, bound: tl.tensor) -> tl.tensor:
    """Return the int64 index that a gather or a scatter uses."""
    return tl.minimum(tl.maximum(index.to(tl.int64), 0), bound - 1)
