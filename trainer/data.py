"""A requester's file as the dataset tensor: tokens of a model's vocabulary, or rows and their classes.

INVARIANT: a file's size is bounded before any of it is read, nothing is unpickled, and no token or class
leaves here that the model has no place for."""

import math
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from market.protocol.errors import DatasetUnavailable, InvalidSpec
from market.protocol.tensors import Dtype
from trainer.tokens import (
    Report,
    encode_all,
    find_end,
    load_tokenizer,
    read_documents,
    read_text,
)

_TABLES: Final = (".npy", ".safetensors")
_DTYPES: Final[dict[Dtype, type[np.generic]]] = {
    Dtype.U8: np.uint8,
    Dtype.I16: np.int16,
    Dtype.I32: np.int32,
}
_BLOCK_TOKENS: Final = 8192
_HELD_OUT_EVERY: Final = 20  # one block of twenty is 5%


def ignore_progress(read: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset's file; what it holds follows from its suffix.

    `.bin` are raw little-endian 16-bit tokens, `.npy` an array, `.safetensors` the tensor named ``field``,
    `.jsonl` a document in the ``field`` of each line, and anything else is text. ``limit`` counts tokens
    (of text without a ``tokenizer``: bytes) or rows."""

    path: Path
    tokenizer: Path | None = None
    field: str | None = None
    separator: str | None = None
    limit: int | None = None
    max_bytes: int = 2**34

    def __post_init__(self) -> None:
        suffix = self.path.suffix
        if self.tokenizer and suffix in (".bin", *_TABLES):
            raise InvalidSpec(f"a tokenizer for {self.path}, which holds numbers and no text")
        if self.field is not None and suffix not in (".jsonl", ".safetensors"):
            raise InvalidSpec(f"a field for {self.path}: only .jsonl and .safetensors have fields")
        if self.separator is not None and suffix != ".jsonl":
            raise InvalidSpec(f"a separator for {self.path}: only .jsonl has documents")


def choose_dtype(vocab: int) -> Dtype:
    """Return the smallest element type that holds the tokens of a vocabulary."""
    if vocab <= 2**8:
        return Dtype.U8
    return Dtype.I16 if vocab <= 2**15 else Dtype.I32


def read_tokens(source: Source, vocab: int, report: Report = ignore_progress) -> Tensor:
    """Return the tokens in a file as the smallest type that holds ``vocab`` of them.

    Raises InvalidSpec naming the first that is out of the vocabulary; ``report`` hears bytes read."""
    try:
        found = _read_numbers(source, report)
    except OSError as error:
        raise DatasetUnavailable(f"{source.path} cannot be read: {error}") from error
    return to_tokens(found, vocab, str(source.path))


def to_tokens(numbers: NDArray[Any], vocab: int, name: str) -> Tensor:
    """Return ``numbers`` as tokens; raise InvalidSpec naming one that is out of the vocabulary."""
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= vocab):
        at = int(np.flatnonzero((numbers < 0) | (numbers >= vocab))[0])
        raise InvalidSpec(
            f"{name}: token {int(numbers[at])} at position {at} is out of the vocabulary of {vocab}"
        )
    return torch.from_numpy(np.array(numbers, dtype=_DTYPES[choose_dtype(vocab)]))


def _read_numbers(source: Source, report: Report) -> NDArray[Any]:
    _require_size(source)
    suffix = source.path.suffix
    if suffix == ".bin":
        return _read_raw(source)
    if suffix in _TABLES:
        table = _read_table(source)
        if table.ndim != 1 or table.dtype.kind not in "iu" or table.dtype.itemsize > 4:
            raise InvalidSpec(
                f"{source.path} is {table.dtype} of shape {table.shape}: tokens are one axis of integers "
                "of at most 32 bits"
            )
        return table[: source.limit]
    tokenizer = load_tokenizer(source.tokenizer) if source.tokenizer else None
    if suffix == ".jsonl":
        if source.field is None:
            raise InvalidSpec(f"{source.path}: name the field that holds a document's text")
        documents = read_documents(source.path, source.field, report)
        return encode_all(documents, tokenizer, find_end(tokenizer, source.separator), source.limit)
    if tokenizer is None:  # bytes, of any encoding
        return np.fromfile(source.path, np.uint8, -1 if source.limit is None else source.limit)
    return encode_all(read_text(source.path, report), tokenizer, None, source.limit)


def _require_size(source: Source) -> None:
    size = source.path.stat().st_size
    if size == 0:
        raise InvalidSpec(f"{source.path} is empty")
    if size > source.max_bytes:
        raise InvalidSpec(f"{source.path} has {size} bytes: at most {source.max_bytes}")


def _read_raw(source: Source) -> NDArray[Any]:
    size = source.path.stat().st_size
    if size % 2:
        raise InvalidSpec(f"{source.path} has {size} bytes: a .bin file is tokens of 16 bits")
    return np.fromfile(source.path, "<u2", -1 if source.limit is None else source.limit)


def _read_table(source: Source) -> NDArray[Any]:
    """Return the array in a .npy file, or a tensor of a .safetensors file."""
    if source.path.suffix == ".safetensors":
        return _read_named_tensor(source)
    try:
        found: NDArray[Any] = np.lib.format.open_memmap(source.path, mode="r")
    except (ValueError, EOFError, OverflowError, SyntaxError, TokenError) as error:
        raise InvalidSpec(f"{source.path} is no .npy file of plain numbers: {error}") from error
    return found


def _read_named_tensor(source: Source) -> NDArray[Any]:
    try:
        with safe_open(source.path, framework="pt") as file:
            names = list(file.keys())
            name = names[0] if source.field is None and len(names) == 1 else source.field
            if name not in names:
                raise InvalidSpec(
                    f"{source.path}: name one of its {len(names)} tensors, not {name!r}"
                    f" ({', '.join(names[:8])})"
                )
            tensor: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise InvalidSpec(f"{source.path} is no whole safetensors file: {error}") from error
    if tensor.is_floating_point() and tensor.dtype is not torch.float32:
        raise InvalidSpec(f"{source.path}: {name} is {tensor.dtype}: integers or float32")
    return tensor.numpy()


def read_rows(source: Source, input_shape: tuple[int, ...], classes: int) -> Tensor:
    """Return the table in a file, u8 or f32 [rows, elements of an input and a class].

    Raises InvalidSpec naming the first row whose class there is not, or that is not finite."""
    if source.path.suffix not in _TABLES:
        raise InvalidSpec(f"{source.path}: rows are in a .npy or .safetensors file")
    try:
        _require_size(source)
        table = _read_table(source)
    except OSError as error:
        raise DatasetUnavailable(f"{source.path} cannot be read: {error}") from error
    width = math.prod(input_shape) + 1
    is_number = table.dtype in (np.uint8, np.float32)
    if table.ndim != 2 or table.shape[1] != width or not is_number:
        raise InvalidSpec(
            f"{source.path} is {table.dtype} of shape {table.shape}: a row is {width} numbers (an input of "
            f"shape {input_shape} and its class), uint8 or float32"
        )
    table = table[: source.limit]
    _require_classes(table, classes, source.path)
    return torch.from_numpy(np.array(table, order="C"))


def _require_classes(table: NDArray[Any], classes: int, path: Path) -> None:
    labels = table[:, -1]
    is_class = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
    if not is_class.all():
        row = int(np.flatnonzero(~is_class)[0])
        raise InvalidSpec(f"{path}: row {row} has the class {labels[row]}, out of {classes}")
    if table.dtype == np.float32 and not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InvalidSpec(f"{path}: row {row} has an element that is not finite")


def split_held_out(data: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is trained on and what is held out: one block of tokens, or one row, in twenty.

    Raises InvalidSpec for fewer than twenty."""
    block, unit = (_BLOCK_TOKENS, "tokens") if data.ndim == 1 else (1, "rows")
    least = _HELD_OUT_EVERY * block
    if len(data) < least:
        raise InvalidSpec(
            f"a dataset of {len(data)} {unit}: at least {least}, to hold out one block"
        )
    blocks = list(torch.split(data, block))
    held_out = blocks[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    del blocks[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    return torch.cat(blocks), torch.cat(held_out)
