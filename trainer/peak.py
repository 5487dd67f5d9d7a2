"""How much memory exactness costs: the peak of a process that trains, against one that trains in eager torch.

Each side runs in a process of its own: ``python -m trainer.peak SIDE MODEL BATCH THREADS [PROGRAM]``."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from market.protocol.encoding import decode_program, encode_program
from trainer.execution import Executor
from trainer.lower.optimizer import AdamW
from trainer.lower.recompute import Recompute
from trainer.lower.step import DataSpec, lower_step
from trainer.shards import ShardTask, run_segment
from trainer.states import get_state_types
from trainer.zoo import find_model

STEPS: Final = 3  # the second is the first to write over a result
_TOKENS: Final = 1 << 16
_KIBIBYTE: Final = 1024


def compare_peak_memory(
    model: str, batch: int, threads: int, recompute: Recompute = Recompute.ATTENTION
) -> dict[str, float]:
    """Return the peak MiB of training a decoder exactly, and in eager float32 with AdamW, and their ratio.

    The exact side trains a segment, and keeps the state that it begins at. What a process has once its
    modules are imported is not counted. Linux only."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        program.write_bytes(_lower(model, batch, recompute))
        exact, eager = (
            _run_side([side, model, str(batch), str(threads), str(program)])
            for side in ("exact", "eager")
        )
    return {"exact_mib": exact, "fp32_mib": eager, "ratio": exact / eager}


def _lower(model: str, batch: int, recompute: Recompute) -> bytes:
    source = find_model(model)
    assert source.length is not None
    data = DataSpec(_TOKENS, batch, source.length)
    step = lower_step(source.build(0), source.loss, data, AdamW(), recompute=recompute)
    return encode_program(step.program)


def _run_side(arguments: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "trainer.peak", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(json.loads(done.stdout))


def _train_exactly(file: Path, threads: int) -> None:
    executor = Executor(decode_program(file.read_bytes()), threads=threads)
    program = executor.program
    state = {name: torch.full(kind.shape, 0.01) for name, kind in get_state_types(program).items()}
    task = ShardTask(program, torch.ones(_TOKENS, dtype=torch.uint8), 1, 0, 0, STEPS)
    run_segment(executor, task, state, 0)


def _train_eagerly(model: str, batch: int) -> None:
    source = find_model(model)
    module, length = source.build(0), source.length
    loss = source.loss
    assert length is not None
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, foreach=False)
    tokens = torch.full((batch, length), 1)
    compute_loss: Callable[[], Tensor] = (
        (lambda: module(tokens, tokens)) if loss is None else (lambda: loss(module(tokens), tokens))
    )
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        compute_loss().backward()  # type: ignore[no-untyped-call]  # torch declares no type for it
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()


def _read_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) / _KIBIBYTE


def _main() -> None:
    side, model, batch, threads, program = sys.argv[1:]
    before = _read_mib("VmRSS")
    torch.set_num_threads(int(threads))
    if side == "exact":
        _train_exactly(Path(program), int(threads))
    else:
        _train_eagerly(model, int(batch))
    sys.stdout.write(json.dumps(_read_mib("VmHWM") - before))


if __name__ == "__main__":
    _main()
