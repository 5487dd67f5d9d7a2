"""Real text that is on every machine: the sources of Python's standard library, as bytes."""

import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from market.protocol.errors import DatasetUnavailable


def read_library_text(limit_bytes: int) -> Tensor:
    """Return the first ``limit_bytes`` of the standard library's top-level modules, by name: u8 [n]."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"\n".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not text:
        raise DatasetUnavailable(f"{folder} holds no Python source")
    return torch.frombuffer(bytearray(text[:limit_bytes]), dtype=torch.uint8)
