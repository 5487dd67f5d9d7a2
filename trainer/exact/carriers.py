"""Carriers: ways to get exact integer matrix products out of a device.

Every carrier that is exact on a machine returns the same integers, so the choice of one is a matter
of speed alone. A carrier multiplies integers as they are or as balanced digits,
``q = sum(digit << shift)``, each digit within [-128, 127], or [-64, 64] for 14 bits.
INVARIANT: K <= 2^16, so sums of digit products fit 32 bits and totals 63.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from market.protocol.errors import NondeterministicEnvironment

QUANTIZED_BOUNDS: Final = {8: 127, 14: 8192, 16: 32639, 24: 8355711}  # |q| is at most this

_DIGIT_BITS: Final = {8: 8, 14: 7, 16: 8, 24: 8}
_F32_EXACT_BITS: Final = 24  # integers up to 2^24 are exact in binary32,
_F64_EXACT_BITS: Final = 53  # and up to 2^53 in binary64
_I16_TERMS: Final = 512  # 512 * 32639 * 128 < 2^31
_PROBE_WIDTHS: Final = ((8, 8), (14, 14), (16, 16), (24, 24), (16, 8), (14, 24))
_PROBE_SHAPES: Final = (  # B, M, N, K: saturation, then odd and degenerate sizes
    *((1, 64, 64, 256), (1, 64, 64, 1024), (1, 64, 64, 4096)),
    *((3, 33, 65, 515), (2, 1, 40, 72), (1, 7, 1, 30), (2, 3, 5, 1)),
)
_MEASURED_SHAPE: Final = (1, 512, 512, 1024)
_MEASURED_BITS: Final = 16
_MEASUREMENTS: Final = 3


@dataclass(frozen=True, slots=True)
class Carrier:
    """A way to multiply: integers [B, M, K] and [B, N, K] become int64 [B, M, N].

    ``multiply(a, b, bits_a, bits_b)`` takes i16 or i32 tensors within ``QUANTIZED_BOUNDS``.
    """

    name: str
    devices: tuple[str, ...]
    multiply: Callable[[Tensor, Tensor, int, int], Tensor]


def split_digits(q: Tensor, bits: int) -> list[Tensor]:
    """Return the balanced digits of ``q``, lowest first; digit i weighs 2^(7 i) or 2^(8 i)."""
    width = _DIGIT_BITS[bits]
    digits = []
    for _ in range(bits // width - 1):
        higher = (q + (1 << (width - 1))) >> width
        digits.append(q - (higher << width))
        q = higher
    return [*digits, q]


def is_exact(carrier: Carrier, device: torch.device) -> bool:
    """Tell whether ``carrier`` is exact on ``device``, from products of extreme and random integers."""
    if device.type not in carrier.devices:
        return False
    for batch, m, n, k in _PROBE_SHAPES:
        for bits_a, bits_b in _PROBE_WIDTHS:
            a = _probe_integers((batch, m, k), bits_a, 1)
            b = _probe_integers((batch, n, k), bits_b, 2)
            expected = torch.matmul(a.to(torch.int64), b.to(torch.int64).mT)
            product = carrier.multiply(a.to(device), b.to(device), bits_a, bits_b)
            if not torch.equal(product.cpu(), expected):
                return False
    return True


def probe_carriers(
    device: torch.device, carriers: Mapping[str, Carrier] | None = None
) -> dict[str, bool]:
    """Tell which ``carriers`` (torch's if none are given) are exact on ``device``."""
    carriers = carriers or CARRIERS
    return {name: is_exact(carrier, device) for name, carrier in carriers.items()}


def require_carrier(
    name: str, exact: Mapping[str, bool], carriers: Mapping[str, Carrier] | None = None
) -> Carrier:
    """Return the carrier called ``name``, which the probe must have found exact.

    Raises ``NondeterministicEnvironment`` otherwise: there is no silent fallback.
    """
    if not exact.get(name, False):
        usable = ", ".join(name for name, is_exact in exact.items() if is_exact) or "none"
        raise NondeterministicEnvironment(
            f"the carrier {name!r} is not exact on this machine (exact: {usable})"
        )
    return (carriers or CARRIERS)[name]


def choose_carrier(
    exact: Mapping[str, bool],
    device: torch.device,
    carriers: Mapping[str, Carrier] | None = None,
) -> Carrier:
    """Return the fastest of the ``exact`` ``carriers`` on ``device``.

    Raises ``NondeterministicEnvironment`` if there is none.
    """
    usable = [(carriers or CARRIERS)[name] for name, is_exact in exact.items() if is_exact]
    if not usable:
        raise NondeterministicEnvironment(f"no carrier is exact on {device}")
    if len(usable) == 1:
        return usable[0]
    batch, m, n, k = _MEASURED_SHAPE
    a = _probe_integers((batch, m, k), _MEASURED_BITS, 1).to(device)
    b = _probe_integers((batch, n, k), _MEASURED_BITS, 2).to(device)
    return min(usable, key=lambda carrier: _measure_s(carrier, a, b))


def _measure_s(carrier: Carrier, a: Tensor, b: Tensor) -> float:
    """Return the least time of a product, in seconds."""
    times = []
    for _ in range(_MEASUREMENTS):
        start = time.perf_counter()
        carrier.multiply(a, b, _MEASURED_BITS, _MEASURED_BITS)[
            0, 0, 0
        ].item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times)


def _probe_integers(shape: tuple[int, int, int], bits: int, seed: int) -> Tensor:
    """Return CPU integers: rows in turn extreme, of either sign, of extreme digits, random."""
    bound, width = QUANTIZED_BOUNDS[bits], _DIGIT_BITS[bits]
    greatest = (1 << (width - 1)) - 1
    weights = [1 << shift for shift in range(0, bits - width + 1, width)]
    alike, opposed = (
        greatest * sum(weights),
        greatest * weights[-1] - (greatest + 1) * sum(weights[:-1]),
    )

    i = torch.arange(shape[0] * shape[1] * shape[2]).view(shape)
    mixed = (i + 1) * 0x9E3779B97F4A7C1 * (2 * seed + 1)  # wraps; the high bits are well mixed
    random = ((mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B >> 32) & 0x7FFFFFFF
    sign = (random & 1) * 2 - 1
    kinds = [
        torch.full_like(i, bound),
        torch.full_like(i, -bound),
        sign * bound,
        sign * alike,
        sign * opposed,
        (random >> 1) % (2 * bound + 1) - bound,
    ]
    kind = torch.arange(shape[1]).view(1, -1, 1).expand(shape) % len(kinds)
    q = torch.stack(kinds).gather(0, kind.unsqueeze(0))[0]
    return q.to(torch.int32 if bits > 16 else torch.int16)


def _multiply_float64(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Multiply whole integers, K chunked so that every partial sum stays below 2^53."""
    chunk = 1 << (_F64_EXACT_BITS - bits_a - bits_b + 2)
    parts = zip(torch.split(a, chunk, -1), torch.split(b, chunk, -1), strict=True)
    return _add(
        torch.matmul(x.to(torch.float64), y.to(torch.float64).mT).to(torch.int64) for x, y in parts
    )


def _multiply_int16(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Multiply integers in 16 bits by digits in 8, K chunked so that every partial sum fits 32 bits.

    Wider integers take `_multiply_float64`, as there is no unit for them."""
    if max(bits_a, bits_b) > 16:
        return _multiply_float64(a, b, bits_a, bits_b)
    width = _DIGIT_BITS[bits_b]
    whole = torch.split(a.to(torch.int32), _I16_TERMS, -1)
    return _add(
        torch.bmm(x, y.mT).to(torch.int64) << (i * width)
        for i, digit in enumerate(split_digits(b, bits_b))
        for x, y in zip(whole, torch.split(digit.to(torch.int32), _I16_TERMS, -1), strict=True)
    )


def _multiply_float32(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Multiply digits in binary32, K chunked so that every partial sum stays within 2^24."""
    return _multiply_digits(a, b, bits_a, bits_b, torch.float32, lambda x, y: torch.bmm(x, y.mT))


def _multiply_bf16(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Multiply digits in bfloat16 with binary32 sums, chunked likewise."""
    return _multiply_digits(
        a,
        b,
        bits_a,
        bits_b,
        torch.bfloat16,
        lambda x, y: torch.bmm(x, y.mT, out_dtype=torch.float32),
    )


def _multiply_digits(
    a: Tensor,
    b: Tensor,
    bits_a: int,
    bits_b: int,
    dtype: torch.dtype,
    multiply: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    width_a, width_b = _DIGIT_BITS[bits_a], _DIGIT_BITS[bits_b]
    chunk = 1 << (_F32_EXACT_BITS - (width_a - 1) - (width_b - 1))
    digits_b = [torch.split(y.to(dtype), chunk, -1) for y in split_digits(b, bits_b)]
    products = []
    for i, x in enumerate(split_digits(a, bits_a)):
        chunks = torch.split(x.to(dtype), chunk, -1)
        for j, y in enumerate(digits_b):
            product = _add(multiply(*pair).to(torch.int64) for pair in zip(chunks, y, strict=True))
            products.append(product << (i * width_a + j * width_b))
    return _add(products)


def _multiply_int8(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Multiply digits on an integer unit.

    8 bits take one product, 14 three (Karatsuba), 16 four, 24 nine.
    """
    digits_a, digits_b = split_digits(a, bits_a), split_digits(b, bits_b)
    if bits_a == bits_b == 14:
        (low_a, high_a), (low_b, high_b) = digits_a, digits_b
        low, high = _int8_product(low_a, low_b), _int8_product(high_a, high_b)
        cross = _int8_product(low_a + high_a, low_b + high_b) - low - high
        return (high.to(torch.int64) << 14) + (cross.to(torch.int64) << 7) + low
    left = [digit.to(torch.int8) for digit in digits_a]
    right = [digit.to(torch.int8) for digit in digits_b]
    total = _int8_product(left[0], right[0]).to(torch.int64)
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            if i + j > 0:
                weight = 1 << (i * _DIGIT_BITS[bits_a] + j * _DIGIT_BITS[bits_b])
                total.add_(_int8_product(x, y), alpha=weight)  # in place: larger than the caches
    return total


def _int8_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the int32 product of digits.

    K is padded to multiples of 8: with K = 1 ``_int_mm`` is wrong on CPUs (torch 2.13), and CUDA
    refuses others. CUDA also wants N in multiples of 8 and more than 16 rows.
    """
    (m, k), n = a.shape[1:], b.shape[1]
    more_m, more_n = (max(17 - m, 0), -n % 8) if a.is_cuda else (0, 0)
    x = pad(a.to(torch.int8), (0, -k % 8, 0, more_m))
    y = pad(b.to(torch.int8), (0, -k % 8, 0, more_n))
    out = torch.empty((x.shape[0], x.shape[1], y.shape[1]), dtype=torch.int32, device=x.device)
    for i in range(x.shape[0]):
        torch._int_mm(x[i], y[i].t(), out=out[i])
    return out[:, :m, :n]


def _add(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of int64 tensors, in the memory of the first."""
    total, *rest = terms
    for term in rest:
        total += term
    return total


CARRIERS: Final = {
    carrier.name: carrier
    for carrier in (
        Carrier("int8", ("cpu", "cuda"), _multiply_int8),
        Carrier("bf16", ("cuda",), _multiply_bf16),
        Carrier("int16", ("cpu",), _multiply_int16),
        Carrier("float32", ("cpu", "cuda", "mps"), _multiply_float32),
        Carrier("float64", ("cpu", "cuda"), _multiply_float64),
    )
}
