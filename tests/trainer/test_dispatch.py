"""The same training gives the same states whatever instructions and threads the kernels use."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.dispatch import cap_environment

REPOSITORY = Path(__file__).parents[2]
MODES = {
    "fused, two threads": ("native", "fused", 2),
    "fused, one thread": ("native", "fused", 1),
    "fused, AVX2": ("avx2", "fused", 2),
    "fused, scalar": ("scalar", "fused", 2),
    "torch, two threads": ("native", "torch", 2),
    "torch, AVX2": ("avx2", "torch", 2),
    "torch, scalar": ("scalar", "torch", 1),
}


def _train(mode: str) -> tuple[str, str]:
    cap, backend, threads = MODES[mode]
    # As pytest does: a warning is an error, but for the one that web3 gives when it is imported.
    strict = ["-W", "error", "-W", "ignore:websockets.legacy is deprecated:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *strict, "-m", "tests.trainer.train_states", backend, str(threads)],
        cwd=REPOSITORY,
        env=cap_environment(cap),
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
