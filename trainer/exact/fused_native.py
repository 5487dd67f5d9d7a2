"""What the fused CPU kernels stand on: typed memory at addresses, bit casts, launching on torch's threads.

A kernel is a C function of the address of its arguments. It finds tensors through a table of addresses, so
what is prepared outlives the buffers it is pointed at. INVARIANT: numba neither contracts a multiplication
and an addition nor reorders float operations (``fastmath`` off): a kernel rounds where its source says.

Compiled kernels are cached under a digest of all sources named ``fused_*``: in NUMBA_CACHE_DIR if that is
set, else beside the sources, or in ~/.cache/touchstone where those are not writable.
"""

# ruff: noqa: ARG001 - an intrinsic's parameters are those of the function it defines

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numba
import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]  # it has no stubs

from market.protocol.errors import NondeterministicEnvironment
from market.protocol.tensors import Dtype

# The head of a launch's arguments (i64); those of its kernel follow.
NEXT_CHUNK: Final = 0  # the first chunk that no thread took
NEXT_THREAD: Final = 1  # threads that entered
CHUNKS: Final = 2
TABLE: Final = 3  # address of the table of addresses
SCRATCH_BYTES: Final = 4  # of each thread
HEAD: Final = 5

SCRATCH: Final = 0  # the table's entry for scratch memory

TILE: Final = 16  # rows and columns of a block transposed in registers
PARALLEL_COST: Final = 1 << 16  # element operations below which threads cost more than they save

TORCH_DTYPES: Final = {
    Dtype.U8: torch.uint8,
    Dtype.I16: torch.int16,
    Dtype.I32: torch.int32,
    Dtype.I64: torch.int64,
    Dtype.F32: torch.float32,
}
DTYPES: Final = {dtype: kind for kind, dtype in TORCH_DTYPES.items()}

Word = Any  # inside kernels numbers have numba's types, of which mypy knows nothing
Decorator = Callable[[Callable[..., Any]], Any]
types: Any = numba.types
config: Any = numba.config
intrinsic: Decorator = numba.extending.intrinsic
compile_function: Final[Decorator] = numba.njit(error_model="numpy")


def _define_pointer(element: Any) -> Any:
    @intrinsic
    def pointer(_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), generate

    return pointer


def _define_cast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return cast


def _define_float_function(name: str) -> Any:
    @intrinsic
    def function(_context: Any, value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.call(builder.module.declare_intrinsic(name, [ir.FloatType()]), arguments)

        return types.float32(types.float32), generate

    return function


u8_at: Final = _define_pointer(types.uint8)
i8_at: Final = _define_pointer(types.int8)
i16_at: Final = _define_pointer(types.int16)
i32_at: Final = _define_pointer(types.int32)
i64_at: Final = _define_pointer(types.int64)
f32_at: Final = _define_pointer(types.float32)
f64_at: Final = _define_pointer(types.float64)
as_bits: Final = _define_cast(types.float32, types.int32)
as_f32: Final = _define_cast(types.int32, types.float32)
round_even: Final = _define_float_function("llvm.rint")
square_root: Final = _define_float_function("llvm.sqrt")


@intrinsic
def add_atomically(_context: Any, address: Any, amount: Any) -> Any:
    """Add ``amount`` to the i64 at ``address`` and return what it was."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


@compile_function
def power_of_two(exponent: Any) -> Any:
    """Return 2^``exponent`` as binary32, for -126 <= ``exponent`` <= 127."""
    return as_f32(np.int32((exponent + 127) << 23))


@compile_function
def canonical(x: Any) -> Any:
    """Return ``x``, or the one NaN that is stored."""
    return as_f32(np.int32(0x7FC00000)) if x != x else x  # noqa: PLR0124 - a NaN


def compile_kernel(function: Callable[[int], None]) -> Callable[[], int]:
    """Return a function that compiles a kernel once and returns its address."""
    return cache(lambda: int(_compile(function).address))


_compiling: Final = Lock()  # numba reads the one CACHE_DIR of the process


@cache  # keeps what is compiled alive as long as its address may be called
def _compile(function: Callable[[int], None]) -> Any:
    return compile_cached(function, sorted(Path(__file__).parent.glob("fused_*.py")))


def compile_cached(function: Callable[[int], None], sources: Sequence[Path]) -> Any:
    """Return a kernel compiled, or read from the cache of what was compiled from the same ``sources``."""
    with _compiling:
        before, config.CACHE_DIR = config.CACHE_DIR, str(_find_cache_directory(sources))
        try:
            return numba.cfunc(types.void(types.int64), cache=True, error_model="numpy")(function)
        finally:
            config.CACHE_DIR = before


def _find_cache_directory(sources: Sequence[Path]) -> Path:
    digest = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    here = Path(__file__).parent
    if config.CACHE_DIR:
        base = Path(config.CACHE_DIR)
    elif os.access(here, os.W_OK):
        base = here / "__pycache__"
    else:
        base = Path.home() / ".cache" / "touchstone"
    return base / f"kernels-{digest[:16]}"


_Kernel: Final = ctypes.CFUNCTYPE(None, ctypes.c_int64)


@cache
def _find_parallel() -> Callable[[int, int, int, int], None]:
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except AttributeError:
        raise NondeterministicEnvironment(
            "this build of torch has no GNU OpenMP runtime to run fused kernels on: use threads=1"
        ) from None
    parallel.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel is to do; ``scratch`` is bytes for each thread, ``cost`` rough element operations."""

    kernel: int
    arguments: Sequence[int]
    chunks: int
    scratch: int
    cost: int


@dataclass(frozen=True, slots=True)
class Table:
    """Addresses that kernels find tensors by; entry ``SCRATCH`` is memory for ``threads`` threads."""

    addresses: "np.ndarray[Any, np.dtype[np.int64]]"
    threads: int


def prepare(work: Work, table: Table) -> Callable[[], None]:
    """Return a function that does ``work`` on what ``table`` points at when it is called."""
    head = [0, 0, work.chunks, table.addresses.ctypes.data, work.scratch]
    arguments = np.array([*head, *work.arguments], dtype=np.int64)
    address = arguments.ctypes.data
    counters = arguments[:CHUNKS]
    threads = min(table.threads, work.chunks) if work.cost >= PARALLEL_COST else 1
    if threads > 1:
        parallel, kernel = _find_parallel(), work.kernel

        def run() -> None:
            counters.fill(0)
            parallel(kernel, address, threads, 0)

    else:
        call = _Kernel(work.kernel)

        def run() -> None:
            counters.fill(0)
            call(address)

    return run


def run_now(work: Work, addresses: Sequence[int], threads: int) -> None:
    """Do ``work`` on tensors at ``addresses`` (the table's entries from 1 on)."""
    scratch = np.empty(work.scratch * threads + 64, dtype=np.uint8)
    table = np.array([scratch.ctypes.data, *addresses], dtype=np.int64)
    prepare(work, Table(table, threads))()


@dataclass(frozen=True, slots=True)
class Strided:
    """A view that a kernel reads or writes: an entry of the table, an offset and strides in elements."""

    entry: int
    dtype: Dtype
    offset: int
    strides: tuple[int, ...]


def collapse_axes(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Merge neighbouring axes wherever each of ``strides`` allows it; drop axes of one element.

    The result has at least one axis."""
    sizes: list[int] = []
    merged: list[list[int]] = []  # by axis, then view
    for axis, size in enumerate(shape):
        steps = [view[axis] for view in strides]
        if size == 1:
            continue
        if sizes and all(
            outer == step * size for outer, step in zip(merged[-1], steps, strict=True)
        ):
            sizes[-1] *= size
            merged[-1] = steps
        else:
            sizes.append(size)
            merged.append(steps)
    if not sizes:
        return (1,), [(0,) for _ in strides]
    return tuple(sizes), [tuple(axis[view] for axis in merged) for view in range(len(strides))]


@intrinsic
def transpose_tile(
    _context: Any, source: Any, source_step: Any, target: Any, target_step: Any
) -> Any:
    """Write the transpose of 16 x 16 words at ``source`` to ``target``; steps between rows are in bytes."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, source_step, target, target_step = arguments
        vector = ir.VectorType(ir.IntType(32), TILE)

        def find_row(base: Any, step: Any, row: int) -> Any:
            address = builder.add(base, builder.mul(step, ir.Constant(ir.IntType(64), row)))
            return builder.inttoptr(address, vector.as_pointer())

        rows = [builder.load(find_row(source, source_step, row), align=4) for row in range(TILE)]
        half = TILE // 2
        for _ in range(TILE.bit_length() - 1):  # interleaving halves log2(16) times transposes
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [_interleave(builder, *pair, part) for pair in pairs for part in (0, half)]
        for row, value in enumerate(rows):
            builder.store(value, find_row(target, target_step, row), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def _interleave(builder: Any, first: Any, second: Any, start: int) -> Any:
    lanes = [start + i // 2 + (TILE if i % 2 else 0) for i in range(TILE)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), TILE), lanes)
    return builder.shuffle_vector(first, second, mask)
