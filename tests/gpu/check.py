"""Checks a machine with a CUDA GPU against its CPU, bit for bit, and times it: one command, JSON out.

``python tests/gpu/check.py run --json FILE [--programs DIR] [PART...]`` runs the parts, all if none is named,
each in a process of its own: an error on the device ends a process. ``python tests/gpu/check.py prepare DIR``
lowers the programs beforehand, for a machine whose torch cannot; without DIR they are lowered where they run.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from market.protocol.constants import CONFORMANCE_DIGEST
from market.protocol.encoding import compute_program_root, decode_program, encode_program
from market.protocol.program import Program
from tests.gpu import timing
from tests.trainer.programs import build_step, make_inputs
from trainer.exact import torch_ops
from trainer.exact.carriers import CARRIERS, QUANTIZED_BOUNDS, probe_carriers
from trainer.exact.conformance import compute_digest, compute_vectors
from trainer.execution import BackendName, Executor, StepResult
from trainer.lower.optimizer import AdamW
from trainer.lower.step import COUNTERS, DATASET, DataSpec, lower_step
from trainer.models import Llama
from trainer.states import compute_state_roots
from trainer.zoo import find_model

TOKENS = 1 << 16
BATCHES = {"tiny": 2, "demo": 4, "llama-35m": 8, "llama-350m": 4}
LIMITS_S = {"timing": 540}
LIMIT_S = 400

State = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """A model's step and where it starts."""

    model: Llama
    program: Program
    state: State
    dataset: Tensor

    def make_inputs(self, step: int, state: State, device: str) -> State:
        counters = torch.tensor([7, 0, 0, step], device=device)
        return {**state, DATASET: self.dataset.to(device), COUNTERS: counters}


def load_job(name: str, programs: Path | None) -> Job:
    """Return a job on tokens that look random; its program comes from ``programs`` if it is there."""
    source = find_model(name)
    model = source.build(0)
    assert isinstance(model, Llama)
    assert source.vocab is not None
    assert source.length is not None
    dataset = (torch.arange(TOKENS) * 2654435761 >> 7) % min(source.vocab, 256)
    dataset = dataset.to(torch.uint8)
    rule, file = AdamW(), None if programs is None else programs / f"{name}.program"
    if file is not None and file.exists():
        base = {n: p.detach().clone().contiguous() for n, p in model.named_parameters()}
        return Job(model, decode_program(file.read_bytes()), base | rule.build_slot(base), dataset)
    data = DataSpec(len(dataset), BATCHES[name], source.length)
    step = lower_step(model, None, data, rule)
    return Job(model, step.program, {**step.initial_base, **step.initial_slot}, dataset)


def prepare(folder: Path) -> None:
    """Lower every program and leave its bytes in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BATCHES:
        (folder / f"{name}.program").write_bytes(encode_program(load_job(name, None).program))


@dataclass(frozen=True)
class Setting:
    """What a part runs on, and where programs lie."""

    device: str
    programs: Path | None
    steps: int


def check_device(_: Setting) -> dict[str, Any]:
    import triton

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "ok": not triton.knobs.runtime.interpret,
    }


def check_conformance(setting: Setting) -> dict[str, Any]:
    """The digest of both forms with every exact carrier, and which carriers are exact."""
    from trainer.exact import triton_ops
    from trainer.exact.triton_carriers import TRITON_CARRIERS

    device, found = torch.device(setting.device), {}
    exact = {
        "torch": probe_carriers(device),
        "triton": probe_carriers(device, TRITON_CARRIERS),
    }
    for form, ops, carriers in (
        ("torch", torch_ops, CARRIERS),
        ("triton", triton_ops, TRITON_CARRIERS),
    ):
        for name in (name for name, is_exact in exact[form].items() if is_exact):
            begin = time.perf_counter()
            vectors = compute_vectors(ops, device, carriers[name])
            found[f"{form} {name}"] = {
                "digest": compute_digest(vectors),
                "seconds": round(time.perf_counter() - begin, 1),
                "vectors": {part: compute_digest({part: vectors[part]}) for part in vectors},
            }
    conforms = all(x["digest"] == CONFORMANCE_DIGEST.hex() for x in found.values())
    wanted = {"triton int8", "triton bf16"} <= set(found)
    return {
        "release": CONFORMANCE_DIGEST.hex(),
        "exact": exact,
        "forms": found,
        "ok": conforms and wanted,
    }


def check_steps(setting: Setting) -> dict[str, Any]:
    """Steps with every kind of instruction, in every backend: eager at first, then as a graph."""
    from trainer.exact.triton_carriers import TRITON_CARRIERS

    hashes: dict[str, list[str]] = {}
    for bits in QUANTIZED_BOUNDS:
        program = build_step(bits)
        executors = {
            "cpu fused": Executor(program, backend="fused"),
            "torch": Executor(
                program, device=setting.device, backend="torch", carrier=CARRIERS["float64"]
            ),
            **{
                f"triton {name}": Executor(
                    program, device=setting.device, backend="triton", carrier=carrier
                )
                for name, carrier in TRITON_CARRIERS.items()
            },
        }
        for name, executor in executors.items():
            hashes[f"{bits} bits, {name}"] = [
                hash_result(step) for step in _run_on(executor, make_inputs(), 5)
            ]
    by_bits = [
        {tuple(h) for name, h in hashes.items() if name.startswith(f"{bits} bits")}
        for bits in QUANTIZED_BOUNDS
    ]
    return {"hashes": hashes, "ok": all(len(found) == 1 for found in by_bits)}


def hash_result(result: StepResult) -> str:
    """Return the SHA-256 of all that a step computes."""
    digest = hashlib.sha256()
    for tensor in (*result.state.values(), *result.gradients.values(), result.metrics):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _run_on(executor: Executor, inputs: State, steps: int) -> Iterator[StepResult]:
    """Yield the results of steps on the same places, so that later ones are replayed."""
    inputs = {name: tensor.clone().to(executor.device) for name, tensor in inputs.items()}
    for _ in range(steps):
        result = executor.run_step(inputs)
        yield result
        for name, tensor in result.state.items():
            inputs[name].copy_(tensor)
        executor.release(result)


def check_training(setting: Setting) -> dict[str, Any]:
    """State roots after some steps, on the CPU and on the GPU."""
    found: dict[str, Any] = {}
    for name in ("tiny", "demo"):
        job = load_job(name, setting.programs)
        backends = ("cpu", "fused"), (setting.device, "triton")
        roots = [_train(job, device, backend, setting.steps) for device, backend in backends]
        found[name] = {
            "program": compute_program_root(job.program).root.hex(),
            "roots": roots,
            "ok": roots[0] == roots[1],
        }
    return {"models": found, "ok": all(x["ok"] for x in found.values())}


def _train(job: Job, device: str, backend: BackendName, steps: int) -> str:
    executor = Executor(job.program, device=device, backend=backend)
    state = {name: tensor.to(device) for name, tensor in job.state.items()}
    result: StepResult | None = None
    for step in range(steps):
        result = executor.run_step(job.make_inputs(step, state, device), spent=result)
        state = dict(result.state)
    on_cpu = {name: tensor.cpu() for name, tensor in state.items()}
    return str(compute_state_roots(job.program, on_cpu).state.hex())


def check_dots(setting: Setting) -> dict[str, Any]:
    """Every tile of the dot kernel: its time, and that no tile changes the result."""
    return timing.sweep_dots(setting.device)


def check_timing(setting: Setting) -> dict[str, Any]:
    """Steps of model M and of 350M parameters beside torch's own."""
    found = {}
    for name in ("llama-35m", "llama-350m"):
        job = load_job(name, setting.programs)
        state = {n: tensor.to(setting.device) for n, tensor in job.state.items()}
        inputs = job.make_inputs(0, state, setting.device)
        batch = BATCHES[name], job.model.config.length
        found[name] = timing.time_exact(job.program, inputs, setting.device)
        found[name] |= timing.time_reference(job.model.to(setting.device), batch, setting.device)
        torch.cuda.empty_cache()
    return {"models": found, "ok": True}


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "device": check_device,
    "conformance": check_conformance,
    "steps": check_steps,
    "training": check_training,
    "dots": check_dots,
    "timing": check_timing,
}


def run_part(name: str, options: list[str]) -> dict[str, Any]:
    """Run a part in a process of its own; what went wrong there is its result."""
    begin = time.perf_counter()
    command = [sys.executable, __file__, "part", name, *options]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMITS_S.get(name, LIMIT_S),
        )
        text, code = done.stdout, done.returncode
        trouble = done.stderr[-4000:]
    except subprocess.TimeoutExpired as error:
        text, code, trouble = "", -1, str(error)
    result = json.loads(text.splitlines()[-1]) if code == 0 else {"ok": False, "error": trouble}
    return {**result, "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "part", "prepare"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--programs", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_intermixed_args()
    if given.command == "prepare":
        prepare(Path(given.names[0]))
        return
    if given.command == "part":
        setting = Setting(given.device, given.programs, given.steps)
        print(json.dumps(PARTS[given.names[0]](setting)))
        return
    options = ["--device", given.device, "--steps", str(given.steps)]
    options += ["--programs", str(given.programs)] if given.programs else []
    report = {}
    for name in given.names or PARTS:
        report[name] = run_part(name, options)
        print(name, json.dumps(report[name], indent=1)[:3000], flush=True)
        if given.json:
            given.json.write_text(json.dumps(report, indent=1))
    sys.exit(0 if all(part["ok"] for part in report.values()) else 1)


if __name__ == "__main__":
    main()
