"""The dot kernel's carriers: digits as int8, or as bfloat16 for chips whose int8 unit is slow."""

from functools import cache, partial
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainer.exact.carriers import Carrier, choose_carrier, probe_carriers
from trainer.exact.fused_native import DTYPES, Strided
from trainer.exact.triton_dot import Operand, plan_dot
from trainer.exact.triton_native import Memory
from trainer.exact.triton_quantize import split_digits

INTERPRETED: Final[bool] = triton.knobs.runtime.interpret

# Triton's interpreter has no product of bfloat16; binary32 stands for it there: digits and sums fit as well
_DIGIT_TYPES: Final = {"int8": tl.int8, "bf16": tl.float32 if INTERPRETED else tl.bfloat16}


def get_digit_type(carrier: str) -> Any:
    """Return Triton's type of the digits that ``carrier`` multiplies."""
    return _DIGIT_TYPES[carrier]


def _multiply(a: Tensor, b: Tensor, bits_a: int, bits_b: int, *, carrier: str) -> Tensor:
    """Return the int64 product [B, M, N] of integers [B, M, K] and [B, N, K]."""
    (batch, m, k), n = a.shape, b.shape[1]
    out = torch.empty((batch, m, n), dtype=torch.int64, device=a.device)
    digits = [split_digits(x.reshape(-1, k), bits) for x, bits in ((a, bits_a), (b, bits_b))]
    none = torch.empty(0, dtype=torch.int32, device=a.device)  # exponents
    memory = Memory([digits[0], none, digits[1], none, out], a.device)
    view_a, view_b, view_out = (
        Strided(entry, DTYPES[torch.int64], 0, strides)
        for entry, strides in ((1, (m, 1, 0)), (3, (n, 0, 1)), (4, (m * n, n, 1)))
    )
    operands = Operand(0, bits_a, view_a), Operand(2, bits_b, view_b)
    plan_dot(memory, (batch, m, n, k), *operands, view_out, get_digit_type(carrier))()
    return out


TRITON_CARRIERS: Final = {
    name: Carrier(name, ("cpu",) if INTERPRETED else ("cuda",), partial(_multiply, carrier=name))
    for name in _DIGIT_TYPES
}


@cache
def choose_triton_carrier(device: torch.device) -> Carrier:
    """Return the fastest exact carrier of the dot kernel on ``device``."""
    return choose_carrier(probe_carriers(device, TRITON_CARRIERS), device, TRITON_CARRIERS)
