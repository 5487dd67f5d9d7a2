"""Text as tokens: bytes, or the numbers that a tokenizer of the `tokenizers` library gives.

Text is read in pieces of whole lines, so memory follows the tokens and not the text."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from market.protocol.errors import InvalidSpec, TrainingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT: Final = "<|endoftext|>"
_PIECE_BYTES: Final = 2**20
_BATCH_CHARACTERS: Final = 2**23  # of texts that are encoded side by side
_LEAST_VOCABULARY: Final = 257  # every byte, and the end of a text
_MAX_TOKENIZER_BYTES: Final = 2**28

Report = Callable[[int], None]  # hears how many bytes have been read


def _find_library() -> Any:
    """Return the library that requesters install, and providers need not."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise TrainingError(
            "a tokenizer needs the library tokenizers: pip install 'touchstone-market[models]'"
        ) from error


def load_tokenizer(path: Path) -> "Tokenizer":
    """Return the tokenizer in a `tokenizer.json`; raise InvalidSpec if there is none."""
    library, size = _find_library(), path.stat().st_size
    if size > _MAX_TOKENIZER_BYTES:
        raise InvalidSpec(f"{path} has {size} bytes: at most {_MAX_TOKENIZER_BYTES}")
    try:
        found: Tokenizer = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InvalidSpec(f"{path} is no tokenizer of the tokenizers library: {error}") from error
    return found


def find_end(tokenizer: "Tokenizer | None", separator: str | None) -> NDArray[Any]:
    """Return the tokens that end a document: those of any text in bytes, else one token by its name.

    If ``separator`` is None, a line's end in bytes and `<|endoftext|>` of a tokenizer."""
    if tokenizer is None:
        return _encode_bytes("\n" if separator is None else separator)
    token = END_OF_TEXT if separator is None else separator
    number = tokenizer.token_to_id(token)
    if number is None:
        raise InvalidSpec(f"the tokenizer has no token {token!r} to separate documents with")
    return np.array([number], dtype=np.int32)


def read_text(path: Path, report: Report) -> Iterator[str]:
    """Yield the text at ``path`` in pieces of whole lines; raise InvalidSpec unless it is UTF-8."""
    at = 0
    with path.open("rb") as file:
        while lines := file.readlines(_PIECE_BYTES):
            piece = b"".join(lines)
            try:
                text = piece.decode()
            except UnicodeDecodeError as error:
                place = f"byte {at + error.start} is {piece[error.start]:#04x}"
                raise InvalidSpec(f"{path} is no UTF-8 text: {place}") from error
            at += len(piece)
            report(at)
            yield text


def read_documents(path: Path, field: str, report: Report) -> Iterator[str]:
    """Yield the text in ``field`` of each line of a JSONL file; raise InvalidSpec naming a line without."""
    at = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            at += len(line)
            report(at)
            if line.strip():
                yield _parse_document(line, field, f"{path}, line {number}")


def _parse_document(line: bytes, field: str, place: str) -> str:
    try:
        record = from_json(line)
    except ValueError as error:
        raise InvalidSpec(f"{place} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidSpec(f"{place} is no JSON object")
    if field not in record:
        raise InvalidSpec(f"{place} has no field {field!r}: it has {', '.join(record) or 'none'}")
    text = record[field]
    if not isinstance(text, str):
        raise InvalidSpec(f"{place}: the field {field!r} is no text")
    return text


def encode_all(
    texts: Iterable[str], tokenizer: "Tokenizer | None", end: NDArray[Any] | None, limit: int | None
) -> NDArray[Any]:
    """Return the first ``limit`` tokens of ``texts``, with ``end`` after each: bytes without a tokenizer."""
    parts: list[NDArray[Any]] = [np.zeros(0, dtype=np.uint8)]
    count = 0
    for batch in _batch(texts):
        for tokens in _encode(batch, tokenizer):
            new = [tokens] if end is None else [tokens, end]
            parts += new
            count += sum(map(len, new))
        if limit is not None and count >= limit:
            break
    return np.concatenate(parts)[:limit]


def _encode(texts: list[str], tokenizer: "Tokenizer | None") -> list[NDArray[Any]]:
    if tokenizer is None:
        return [_encode_bytes(text) for text in texts]
    found = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [np.array(encoded.ids, dtype=np.int32) for encoded in found]


def _encode_bytes(text: str) -> NDArray[Any]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _batch(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> "Tokenizer":
    """Return a byte-level BPE tokenizer of ``texts`` with that many tokens, `<|endoftext|>` the first."""
    if vocabulary < _LEAST_VOCABULARY:
        raise InvalidSpec(f"a vocabulary of {vocabulary} tokens: at least {_LEAST_VOCABULARY}")
    library = _find_library()
    tokenizer: Tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
