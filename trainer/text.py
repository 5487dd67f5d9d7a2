"""Real text that is on every machine: the sources of Python's standard library, as bytes."""

import sysconfig
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from market.protocol.errors import DatasetUnavailable, InvalidSpec

_BLOCK_BYTES: Final = 8192
_HELD_OUT_EVERY: Final = 20  # one block of twenty is 5%


def read_library_text(limit_bytes: int) -> bytes:
    """Return the first ``limit_bytes`` of the standard library's top-level modules, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"\n".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not text:
        raise DatasetUnavailable(f"{folder} holds no Python source")
    return text[:limit_bytes]


def split_held_out(text: bytes) -> tuple[Tensor, Tensor]:
    """Return the training and the held-out bytes of ``text`` (one block in twenty), each u8 [n].

    Raises InvalidSpec for a text of fewer than twenty blocks."""
    if len(text) < _HELD_OUT_EVERY * _BLOCK_BYTES:
        least = _HELD_OUT_EVERY * _BLOCK_BYTES
        raise InvalidSpec(f"a text of {len(text)} bytes: at least {least}, to hold out one block")
    blocks = [text[at : at + _BLOCK_BYTES] for at in range(0, len(text), _BLOCK_BYTES)]
    held_out = b"".join(blocks[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY])
    del blocks[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    return _to_tokens(b"".join(blocks)), _to_tokens(held_out)


def _to_tokens(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
