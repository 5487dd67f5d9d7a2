"""Compiles Triton kernels of every kind for a GPU that is not there, and runs none: in a process of its own.

``python tests/trainer/exact/compile_kernels.py CAPABILITY CARRIER``; PTX is left in TRITON_CACHE_DIR."""

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from trainer.exact import triton_ops
from trainer.exact.conformance import compute_vectors
from trainer.exact.triton_carriers import TRITON_CARRIERS


class _Loader:
    def load_binary(self, *_: object) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132}


class AbsentDevice:
    """A device of some compute capability for which kernels are compiled, and on which none run."""

    utils = _Loader()

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def launcher_cls(self, *_: object) -> Any:
        return lambda *_: None


def compile_dot(size: int, bits: int, carrier: str) -> None:
    dtype = torch.int32 if bits > 16 else torch.int16
    q = torch.zeros(1, size, dtype=dtype).expand(size, size)
    exponents = torch.zeros(size, dtype=torch.int32)
    shape = (size, size)
    a = q[:, None].expand(*shape, size), exponents[:, None].expand(shape)
    b = q[None].expand(*shape, size), exponents[None].expand(shape)
    triton_ops.run_dot(*a, *b, bits, bits, torch.zeros(shape), TRITON_CARRIERS[carrier])


def main() -> None:
    capability, carrier = int(sys.argv[1]), sys.argv[2]
    driver.set_active(AbsentDevice(capability))
    names = ("arithmetic", "unary", "comparisons", "strided", "indexed", "generators")
    compute_vectors(triton_ops, torch.device("cpu"), TRITON_CARRIERS[carrier], names)
    compile_dot(256, 16, carrier)
    x = torch.zeros(3, 40_000)
    triton_ops.run_sum(x, 1, torch.zeros(3))
    triton_ops.run_max(x[:, :300], 1, torch.zeros(3))
    q, exponents = torch.zeros(3, 40_000, dtype=torch.int16), torch.zeros(3, dtype=torch.int32)
    triton_ops.run_quantize(x, 16, q, exponents)
    triton_ops.run_quantize(x.view(40_000, 3), 16, q.view(40_000, 3), torch.zeros(40_000).int())


if __name__ == "__main__":
    main()
