"""Times on a GPU: the dot kernel's tiles, and whole steps beside torch's own."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from market.protocol.program import Program
from market.protocol.tensors import Dtype
from trainer.execution import Executor
from trainer.models import Llama

ROUNDS = 7
SHAPES = ((2048, 2048, 2048), (8192, 4096, 1024), (256, 256, 64))  # M, N, K; the last in a batch
BATCHES = {256: 128}
PRODUCTS = (
    *(((8, 8), "int8"), ((16, 8), "int8"), ((16, 16), "int8"), ((24, 24), "int8")),
    *(((8, 8), "bf16"), ((16, 16), "bf16")),
)
TILES = (  # rows, columns, terms, warps, stages
    *((128, 128, 128, 8, 3), (128, 128, 64, 8, 4), (128, 256, 64, 8, 3), (128, 64, 64, 8, 4)),
    *((128, 64, 128, 8, 3), (64, 128, 64, 4, 3), (64, 128, 128, 4, 3), (64, 64, 64, 4, 4)),
    *((64, 64, 128, 4, 3), (128, 128, 64, 4, 3), (256, 64, 64, 8, 3), (64, 256, 64, 8, 3)),
)


def measure_ms(step: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of ``step``, the device's work included, after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:]) * 1e3


def measure_kernel_ms(step: Callable[[], object], repeats: int = 20) -> float:
    """Return the time of ``step`` on the device when it is queued over and over."""
    step()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    best = float("inf")
    for _ in range(3):
        events[0].record()
        for _ in range(repeats):
            step()
        events[1].record()
        torch.cuda.synchronize()
        best = min(best, events[0].elapsed_time(events[1]) / repeats)
    return best


def sweep_dots(device: str) -> dict[str, Any]:
    """Return times and effective rates of all tiles by shape, widths and carrier, and torch's own."""
    found: dict[str, Any] = {}
    alike = True
    for shape in SHAPES:
        found[str(shape)] = {"torch": _time_torch(shape, device)}
        for widths, carrier in PRODUCTS:
            tiles, same = _sweep(shape, widths, carrier, device)
            best = min((x for x in tiles.items() if "ms" in x[1]), key=lambda x: x[1]["ms"])
            found[str(shape)][f"{widths} {carrier}"] = {"best": best, "tiles": tiles}
            alike = alike and same
    return {"shapes": found, "same bits in all tiles": alike, "ok": alike}


def _time_torch(shape: tuple[int, int, int], device: str) -> dict[str, float]:
    m, n, k = shape
    batch = BATCHES.get(m, 1)
    a, b = (torch.randn(batch, rows, k, device=device) for rows in (m, n))
    x, y = a.bfloat16(), b.bfloat16()
    found = {
        "fp32 ms": measure_kernel_ms(lambda: torch.bmm(a, b.mT)),
        "bf16 ms": measure_kernel_ms(lambda: torch.bmm(x, y.mT)),
    }
    if batch == 1:
        i, j = (x[0] * 20).to(torch.int8), (y[0] * 20).to(torch.int8).t()
        found["int8 ms"] = measure_kernel_ms(lambda: torch._int_mm(i, j))
    return found


def _sweep(
    shape: tuple[int, int, int], widths: tuple[int, int], carrier: str, device: str
) -> tuple[dict[str, Any], bool]:
    """Return what each tile takes, and whether all give the same bits."""
    from triton.runtime.errors import OutOfResources

    from trainer.exact.triton_dot import Tile

    tiles: dict[str, Any] = {}
    first: Tensor | None = None
    same = True
    for numbers in TILES:
        step, out = _plan_dot(shape, widths, carrier, Tile(*numbers), device)
        try:
            step()
        except OutOfResources as error:
            tiles[str(numbers)] = {"error": str(error)}
            continue
        first = out if first is None else first
        same = same and torch.equal(out, first)
        milliseconds = measure_kernel_ms(step)
        rate = 2 * out.numel() * shape[2] / milliseconds / 1e9
        tiles[str(numbers)] = {"ms": milliseconds, "effective tflops": rate}
    return tiles, same


def _plan_dot(
    shape: tuple[int, int, int], widths: tuple[int, int], carrier: str, tile: Any, device: str
) -> tuple[Callable[[], object], Tensor]:
    """Return a dot of random digits and where it goes."""
    from trainer.exact.fused_native import Strided
    from trainer.exact.triton_carriers import get_digit_type
    from trainer.exact.triton_dot import Operand, plan_dot
    from trainer.exact.triton_native import Memory
    from trainer.exact.triton_quantize import DIGITS, get_pitch

    m, n, k = shape
    batch, pitch = BATCHES.get(m, 1), get_pitch(k)
    generator = torch.Generator(device).manual_seed(1)
    tensors = []
    for rows, bits in zip((m, n), widths, strict=True):
        size = (batch * rows, DIGITS[bits], pitch)
        digits = torch.randint(-128, 128, size, device=device, generator=generator)
        tensors += [
            digits.to(torch.int8),
            torch.zeros(batch * rows, dtype=torch.int32, device=device),
        ]
    out = torch.zeros(batch, m, n, device=device)
    a = Operand(0, widths[0], Strided(1, Dtype.I32, 0, (m, 1, 0)))
    b = Operand(2, widths[1], Strided(3, Dtype.I32, 0, (n, 0, 1)))
    target = Strided(4, Dtype.F32, 0, (m * n, n, 1))
    memory = Memory([*tensors, out], out.device)
    dtype = get_digit_type(carrier)
    return plan_dot(memory, (batch, m, n, k), a, b, target, dtype, tile), out


def time_exact(program: Program, inputs: dict[str, Tensor], device: str) -> dict[str, Any]:
    """Return the times of an exact step, replayed as a graph and launch by launch, and its memory."""
    begin = time.perf_counter()
    executor = Executor(program, device=device, backend="triton")
    torch.cuda.synchronize()
    prepared = time.perf_counter()
    executor.release(executor.run_step(inputs))
    torch.cuda.synchronize()
    return {
        "carrier": executor.carrier.name,
        "instructions": len(program.instructions),
        "prepare_s": prepared - begin,
        "first_step_s": time.perf_counter() - prepared,
        "exact_ms": measure_ms(lambda: executor.release(executor.run_step(inputs))),
        "exact_without_graph_ms": measure_ms(
            lambda: executor.release(executor.run_step(inputs, after=_ignore)), 3
        ),
        "kinds_ms": _measure_kinds(executor, inputs),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "arena_gib": executor.arena_bytes / 2**30,
    }


def _ignore(_: int) -> None:
    pass


def _measure_kinds(executor: Executor, inputs: dict[str, Tensor]) -> dict[str, float]:
    """Return the milliseconds of each kind of instruction in one step without a graph."""
    marks: list[tuple[str, torch.cuda.Event]] = []

    def mark(name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append((name, event))

    mark("start")
    instructions = executor.program.instructions
    executor.release(
        executor.run_step(inputs, after=lambda i: mark(instructions[i].kind.name.lower()))
    )
    torch.cuda.synchronize()
    kinds: dict[str, float] = defaultdict(float)
    for (_, before), (name, after) in pairwise(marks):
        kinds[name] += before.elapsed_time(after)
    return dict(kinds)


def time_reference(model: Llama, batch: tuple[int, int], device: str) -> dict[str, float]:
    """Return the times of the same step in float32 (no TF32) and under bf16 autocast, compiled or not."""
    tokens = torch.randint(0, 256, (batch[0], batch[1] + 1), device=device)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    compiled = torch.compile(model)

    def step(run: Callable[[Tensor, Tensor], Tensor], *, bf16: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = run(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    torch.backends.cuda.matmul.allow_tf32 = False
    return {
        "fp32_ms": measure_ms(lambda: step(model, bf16=False)),
        "fp32_compiled_ms": measure_ms(lambda: step(compiled, bf16=False)),
        "bf16_ms": measure_ms(lambda: step(model, bf16=True)),
        "bf16_compiled_ms": measure_ms(lambda: step(compiled, bf16=True)),
    }
