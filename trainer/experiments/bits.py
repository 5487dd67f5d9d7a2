"""What bits cost in accuracy: the gradients of one step with each role's operands narrowed in turn.

Cases are a decoder at its initial weights, trained, and trained with channels that stand out; and a small one
under vocabularies of up to 65,536, as many terms as a contraction may have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel

from market.protocol.philox import random_words
from trainer.experiments.corpus import Corpus
from trainer.experiments.errors import (
    Case,
    GradientErrors,
    GradientProgram,
    compare_gradients,
    compute_torch_gradients,
    read_first_batch,
)
from trainer.experiments.trials import TORCH_ARITHMETICS, Trial, train
from trainer.lower.precision import ROLES, Precision
from trainer.models import Llama, LlamaConfig

OUTLIER_FACTOR: Final = 75
OUTLIER_CHANNELS: Final = 4
VOCABULARIES: Final = (256, 2048, 8192, 32768, 65536)
SMALL_DECODER: Final = LlamaConfig(256, 64, 1, 2, 2, 128, 64)  # under vocabularies of any size
LOGITS_ARITHMETICS: Final = (*TORCH_ARITHMETICS, *(f"logits={bits}" for bits in (14, 16, 24)))

Report = Callable[[GradientErrors], None]


class BitsReport(BaseModel):
    """Errors of gradients by role, by place in a training run and by vocabulary."""

    errors: list[GradientErrors]


def list_arithmetics() -> Iterator[str]:
    """Yield torch's two, the same bits everywhere, and one role narrow where the others have 24."""
    yield from TORCH_ARITHMETICS
    yield from ("8", "14", "16", "24")
    for role in ROLES:
        for bits in (8, 14, 16):
            yield narrow_role(role, bits)


def narrow_role(role: str, bits: int) -> str:
    """Return the arithmetic in which one role has ``bits`` and the others 24."""
    return ",".join(f"{name}={bits if name == role else 24}" for name in ROLES)


def plant_outliers(model: Llama) -> None:
    """Multiply a few channels of every normalized row by 75; the weights that read them make up for it.

    The function stays the same but for rounding."""
    step = model.config.d_model // OUTLIER_CHANNELS
    weights = dict(model.named_parameters())
    readers = {"norm": ["head"]}
    for i in range(model.config.layers):
        attention = [f"blocks.{i}.attention.{name}" for name in ("q", "k", "v")]
        readers[f"blocks.{i}.attention_norm"] = attention
        readers[f"blocks.{i}.mlp_norm"] = [f"blocks.{i}.gate", f"blocks.{i}.up"]
    with torch.no_grad():
        for norm, linears in readers.items():
            weights[f"{norm}.weight"][::step] *= OUTLIER_FACTOR
            for linear in linears:
                weights[f"{linear}.weight"][:, ::step] /= OUTLIER_FACTOR


def make_zipf_corpus(vocabulary: int, count: int) -> Corpus:
    """Return tokens whose n-th is about as frequent as 1/n, to train on; none held out."""
    words = random_words(vocabulary, 0, 0, 2, count)
    tokens = [min(vocabulary - 1, int(vocabulary ** (word / 2**32)) - 1) for word in words]
    return Corpus(torch.tensor(tokens, dtype=torch.int32), torch.empty(0, dtype=torch.int32))


def compare_roles(
    trial: Trial, folder: Path, arithmetics: Sequence[str], report: Report
) -> list[GradientErrors]:
    """Return the errors at the initial weights, after ``trial``, and with outliers planted then."""
    trained, planted = (_train(trial, folder) for _ in range(2))
    plant_outliers(planted)
    initial = Case("initial", trial.build_model())
    cases = [initial, Case("trained", trained), Case("outliers", planted)]
    return _compare(cases, trial.read_corpus(), trial.batch, arithmetics, report)


def compare_logits(trial: Trial, folder: Path, report: Report) -> list[GradientErrors]:
    """Return the errors for bits of the logits' gradient at the initial weights and after ``trial``."""
    cases = [Case("initial", trial.build_model()), Case("trained", _train(trial, folder))]
    return _compare(cases, trial.read_corpus(), trial.batch, LOGITS_ARITHMETICS, report)


def _train(trial: Trial, folder: Path) -> Llama:
    return train(trial, trial.read_corpus(), folder / trial.name)[0].build_trained()


def compare_vocabularies(
    config: LlamaConfig,
    sizes: Sequence[int],
    batch: int,
    arithmetics: Sequence[str],
    report: Report,
) -> list[GradientErrors]:
    """Return the errors at initial weights under vocabularies of several ``sizes``."""
    found = []
    for size in sizes:
        corpus = make_zipf_corpus(size, 1 << 14)
        case = Case("initial, small model", Llama(replace(config, vocab=size)))
        found += _compare([case], corpus, batch, arithmetics, report)
    return found


def _compare(
    cases: Sequence[Case],
    corpus: Corpus,
    batch: int,
    arithmetics: Sequence[str],
    report: Report,
) -> list[GradientErrors]:
    """Return the errors of every case in every arithmetic; the models have one shape."""
    first = read_first_batch(cases[0].model, corpus, batch)
    expected = [compute_torch_gradients(case.model, first, "fp64") for case in cases]
    found = []
    for arithmetic in arithmetics:
        program = None
        if arithmetic not in TORCH_ARITHMETICS:
            precision = Precision.parse(arithmetic)
            program = GradientProgram(cases[0].model, corpus, batch, precision)
        for case, truth in zip(cases, expected, strict=True):
            gradients = (
                program.compute_gradients(case.model)
                if program
                else compute_torch_gradients(case.model, first, arithmetic)
            )
            found.append(compare_gradients(case, arithmetic, gradients, truth))
            report(found[-1])
    return found
