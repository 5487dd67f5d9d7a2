import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from market.protocol.errors import NondeterministicEnvironment
from tests.trainer.exact import definition_ops
from trainer.commands.conformance import report_conformance
from trainer.exact import torch_ops
from trainer.exact.carriers import CARRIERS, probe_carriers
from trainer.exact.conformance import (
    ConformanceReport,
    compute_digest,
    compute_vectors,
    require_conformance,
    run_conformance,
)

CPU = torch.device("cpu")
SCRIPT = """
import torch
from trainer.exact import torch_ops
from trainer.exact.conformance import run_conformance
print(run_conformance(torch_ops, torch.device("cpu")).digest)
"""
ENVIRONMENTS = {
    "one thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "SSE4.1": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
}


@pytest.fixture(scope="module")
def report() -> ConformanceReport:
    return run_conformance(torch_ops, CPU)


def test_the_definition_has_the_same_digest(report: ConformanceReport) -> None:
    by_definition = compute_vectors(definition_ops, CPU, CARRIERS["float64"])
    by_torch = compute_vectors(torch_ops, CPU, CARRIERS["float64"])

    for name, results in by_definition.items():
        assert compute_digest({name: by_torch[name]}) == compute_digest({name: results}), name
    assert compute_digest(by_definition) == report.digest


def test_the_digest_does_not_depend_on_the_carrier(report: ConformanceReport) -> None:
    names = [name for name, exact in probe_carriers(CPU).items() if exact]

    assert {run_conformance(torch_ops, CPU, name).digest for name in names} == {report.digest}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_digest_does_not_depend_on_threads_or_instruction_set(
    name: str, report: ConformanceReport
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **ENVIRONMENTS[name],
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.strip() == report.digest


@pytest.fixture
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushing")
def test_flushing_subnormal_numbers_is_found_and_refused() -> None:
    flushed = run_conformance(torch_ops, CPU, "float64")
    torch.set_flush_denormal(False)
    release = run_conformance(torch_ops, CPU, "float64").digest

    with pytest.raises(NondeterministicEnvironment, match=f"{flushed.digest}.*{release}"):
        require_conformance(flushed, release)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(NondeterministicEnvironment, match="CUDA"):
        report_conformance("cuda", as_json=True)


def test_a_conforming_machine_is_accepted(report: ConformanceReport) -> None:
    require_conformance(report, report.digest)


def test_the_adam_chain_neither_dies_nor_explodes() -> None:
    p = compute_vectors(torch_ops, CPU, CARRIERS["float64"])["adam"][2]

    assert p.isfinite().all()
    assert p.unique().numel() == p.numel()
