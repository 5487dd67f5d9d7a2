"""The same training gives the same states whatever instructions and threads the kernels use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",
}
SCALAR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "NUMBA_CPU_NAME": "x86-64",
    "NUMBA_CPU_FEATURES": "",
}
MODES = {
    "fused, two threads": ({}, "fused", 2),
    "fused, one thread": ({}, "fused", 1),
    "fused, AVX2": (AVX2, "fused", 2),
    "fused, scalar": (SCALAR, "fused", 2),
    "torch, two threads": ({}, "torch", 2),
    "torch, AVX2": (AVX2, "torch", 2),
    "torch, scalar": (SCALAR, "torch", 1),
}


def _train(mode: str) -> tuple[str, str]:
    environment, backend, threads = MODES[mode]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.trainer.train_states", backend, str(threads)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    digest, capability = done.stdout.split()
    return digest, capability


@pytest.fixture(scope="module")
def native() -> str:
    return _train("torch, two threads")[0]


@pytest.mark.parametrize("mode", sorted(MODES))
def test_24_steps_give_the_same_states_in_every_mode(mode, native):
    digest, capability = _train(mode)

    assert digest == native
    caps = {"AVX2": "AVX2", "scalar": "DEFAULT"}
    wanted = next((name for word, name in caps.items() if word in mode), capability)
    assert capability == wanted  # the cap took effect
