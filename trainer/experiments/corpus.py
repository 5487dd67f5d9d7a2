"""Real text as tokens: the bytes of Python's standard library, or pieces of its words."""

from dataclasses import dataclass
from typing import Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from market.protocol.tensors import Dtype
from trainer.data import split_held_out
from trainer.text import read_library_text

BYTES: Final = 256  # the vocabulary of a text that is not cut into words


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens to train on and tokens held out, one axis each."""

    training: Tensor
    held_out: Tensor

    @property
    def dtype(self) -> Dtype:
        """The protocol's type of a token."""
        return Dtype.U8 if self.training.dtype == torch.uint8 else Dtype.I32


def read_corpus(vocabulary: int, limit_bytes: int) -> Corpus:
    """Return the first ``limit_bytes`` of the text, one block in twenty held out.

    A ``vocabulary`` above 256 is learned from the training part by byte-pair encoding."""
    training, held_out = split_held_out(read_library_text(limit_bytes))
    if vocabulary == BYTES:
        return Corpus(training, held_out)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = _decode(training).splitlines(keepends=True)
    tokenizer.train_from_iterator(lines, trainer)
    return Corpus(_encode(tokenizer, training), _encode(tokenizer, held_out))


def _decode(text: Tensor) -> str:
    return text.numpy().tobytes().decode("utf-8", errors="replace")  # a block may cut a character


def _encode(tokenizer: Tokenizer, text: Tensor) -> Tensor:
    return torch.tensor(tokenizer.encode(_decode(text)).ids, dtype=torch.int32)
