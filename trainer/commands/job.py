"""What `touchstone job init` and `touchstone job tokenizer` do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from rich.console import Console
from torch import Tensor

from market.commands.output import build_facts, build_progress, emit, format_wei
from market.protocol.constants import BPS
from market.protocol.errors import InvalidSpec
from market.protocol.spec import HexHash, Terms, compute_minimum_stake
from market.settings import read_settings
from trainer.data import Source, ignore_progress, read_rows, read_tokens, split_held_out, to_tokens
from trainer.prepare import Recipe, prepare_job
from trainer.text import read_library_text
from trainer.tokens import Report, read_documents, read_text, train_tokenizer

LIBRARY_BYTES: Final = 4_000_000  # of Python's own library, where no dataset is named
_HOUR_S: Final = 3600


class InitializedJob(BaseModel):
    """A spec that is ready to be posted."""

    spec: str
    spec_hash: HexHash
    escrow: str
    training_tokens: int  # or rows
    held_out_tokens: int


class TrainedTokenizer(BaseModel):
    """A tokenizer that was learned from a text."""

    file: str
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the options say of the data. Without a ``path`` it is Python's own library."""

    path: Path | None
    tokenizer: Path | None
    field: str | None
    separator: str | None
    limit: int | None  # tokens or rows


@dataclass(frozen=True, slots=True)
class Offer:
    """What the options say of the terms. Amounts are in wei."""

    samples: int
    price: int
    floor: float  # share of the price at the opening of a round
    ramp_time: int
    audit_fee: int
    poison_value: int
    stake: int | None  # None: the least allowed
    lease_time: int
    round_time: int
    quorum: int | None  # None: all slots
    hours: int

    def build_terms(self, segments: int) -> Terms:
        """Return the terms as of now."""
        terms = Terms(
            price_per_shard=self.price,
            floor_bps=round(self.floor * BPS),
            ramp_time_s=self.ramp_time,
            audit_fee=self.audit_fee,
            stake_per_shard=self.stake or 0,
            poison_value=self.poison_value,
            lease_time_s=self.lease_time,
            round_time_s=self.round_time,
            quorum=self.quorum,
            samples=self.samples,
            deadline=int(time.time()) + self.hours * _HOUR_S,
        )
        if self.stake is not None:
            return terms
        least = compute_minimum_stake(terms, segments)
        return terms.model_copy(update={"stake_per_shard": least})


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of `job init` say."""

    name: str
    recipe: Recipe
    dataset: Dataset
    offer: Offer


def init_job(wish: Wish, out: Path, held_out: Path | None, *, as_json: bool) -> None:
    """Put all that the job names into the store, and write its spec to ``out``."""
    settings = read_settings()
    training, rest = split_held_out(_read(wish, settings.max_blob_bytes))
    terms = wish.offer.build_terms(wish.recipe.schedule.segments)
    with Console(stderr=True).status("") as status:
        store = settings.open_store()
        spec = prepare_job(store, wish.name, wish.recipe, training, terms, status.update)
    out.write_bytes(spec.document)
    if held_out:
        held_out.write_bytes(rest.numpy().tobytes())
    made = InitializedJob(
        spec=str(out),
        spec_hash=spec.spec_hash,
        escrow=str(spec.escrow),
        training_tokens=len(training),
        held_out_tokens=len(rest),
    )
    facts: dict[str, object] = {
        "spec": out,
        "spec hash": "0x" + spec.spec_hash.hex(),
        "to escrow": format_wei(spec.escrow),
        "stake per shard": format_wei(spec.terms.stake_per_shard),
        f"training {'tokens' if training.ndim == 1 else 'rows'}": f"{len(training):,}",
    }
    emit(made, build_facts(wish.name, facts), as_json=as_json)


def _read(wish: Wish, max_bytes: int) -> Tensor:
    """Return the dataset that the model takes."""
    asked, model = wish.dataset, wish.recipe.find_source()
    if asked.path is None:
        if asked.tokenizer or asked.field is not None or asked.separator is not None:
            raise InvalidSpec(
                "a tokenizer, a field and a separator are for a dataset: name its file"
            )
        if model.vocab is None:
            raise InvalidSpec(f"{wish.recipe.model} takes rows and their classes: name their file")
        text = read_library_text(LIBRARY_BYTES if asked.limit is None else asked.limit)
        return to_tokens(text.numpy(), model.vocab, "Python's library")
    source = Source(
        asked.path, asked.tokenizer, asked.field, asked.separator, asked.limit, max_bytes
    )
    if model.vocab is None:
        assert model.input_shape is not None
        assert model.classes is not None
        return read_rows(source, model.input_shape, model.classes)
    with _show_reading(asked.path) as report:
        return read_tokens(source, model.vocab, report)


@contextmanager
def _show_reading(path: Path) -> Iterator[Report]:
    """Yield what hears how much of ``path`` has been read, and draws a bar of it for people."""
    with build_progress() as progress:
        if not progress.console.is_terminal:
            yield ignore_progress
            return
        bar = progress.add_task(f"reading {path.name}", total=path.stat().st_size)
        yield lambda read: progress.update(bar, completed=read)


def make_tokenizer(
    text: Path, field: str | None, vocabulary: int, out: Path, *, as_json: bool
) -> None:
    """Learn a tokenizer from ``text`` and write it to ``out``."""
    is_jsonl = text.suffix == ".jsonl"
    if is_jsonl != (field is not None):
        raise InvalidSpec(f"{text}: a .jsonl file, and no other, needs the field with its text")
    with _show_reading(text) as report:
        pieces = read_text(text, report) if field is None else read_documents(text, field, report)
        tokenizer = train_tokenizer(pieces, vocabulary)
    out.write_text(tokenizer.to_str())
    made = TrainedTokenizer(file=str(out), vocabulary=tokenizer.get_vocab_size())
    facts: dict[str, object] = {"file": out, "tokens": made.vocabulary}
    emit(made, build_facts("tokenizer", facts), as_json=as_json)
