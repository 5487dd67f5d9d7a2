"""Dispatch caps: environments in which a process uses older instructions than its CPU has.

They stand in for older machines, in tests that compare bits and benchmarks that compare times. A library
reads them when it is loaded, so they take effect in a new process alone."""

import os
import platform
from pathlib import Path
from typing import Final

CAPS: Final[dict[str, dict[str, str]]] = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",
    },
    "scalar": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
    },
}

_TOLD: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "sha_ni")


def cap_environment(cap: str) -> dict[str, str]:
    """Return this process's environment under a cap of ``CAPS``."""
    return {**os.environ, **CAPS[cap]}


def describe_cpu() -> str:
    """Return the CPU's name and which of the instructions that matter here it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    found = {name.strip(): value.strip() for name, value in facts.items()}
    flags = set(found.get("flags", "").split())
    told = [flag for flag in _TOLD if flag in flags]
    return (
        f"{found.get('model name', platform.processor())} ({', '.join(told) or 'no flags known'})"
    )
