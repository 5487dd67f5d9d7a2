"""What `touchstone job init` does: from a preset and a text to a spec that can be posted."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from market.commands.output import build_facts, emit, format_wei
from market.protocol.errors import InvalidSpec
from market.protocol.spec import HexHash, Terms, compute_minimum_stake
from market.settings import read_settings
from trainer.jobs import Schedule
from trainer.models import PRESETS
from trainer.prepare import Recipe, prepare_job
from trainer.text import read_library_text, split_held_out

_HOUR_S: Final = 3600


class InitializedJob(BaseModel):
    """A spec that is ready to be posted."""

    spec: str
    spec_hash: HexHash
    escrow: str
    training_tokens: int
    held_out_tokens: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of `job init` say. Amounts are in wei."""

    name: str
    preset: str
    text: Path | None  # None: Python's own library
    limit: int  # bytes
    batch: int
    learning_rate: float
    warmup: int
    rounds: int
    slots: int
    segments: int
    steps: int
    samples: int
    price: int
    audit_fee: int
    poison_value: int
    stake: int | None  # None: the least allowed
    lease_time: int
    hours: int

    @property
    def recipe(self) -> Recipe:
        """How the preset is trained."""
        schedule = Schedule(self.rounds, self.slots, self.segments, self.steps)
        return Recipe(self.preset, self.batch, self.learning_rate, self.warmup, schedule)

    def build_terms(self) -> Terms:
        """Return the terms as of now."""
        terms = Terms(
            price_per_shard=self.price,
            audit_fee=self.audit_fee,
            stake_per_lease=self.stake or 0,
            poison_value=self.poison_value,
            lease_time_s=self.lease_time,
            samples=self.samples,
            deadline=int(time.time()) + self.hours * _HOUR_S,
        )
        if self.stake is not None:
            return terms
        least = compute_minimum_stake(terms, self.segments)
        return terms.model_copy(update={"stake_per_lease": least})


def init_job(wish: Wish, out: Path, held_out: Path | None, *, as_json: bool) -> None:
    """Put all that the job names into the store, and write its spec to ``out``."""
    if wish.preset not in PRESETS:
        raise InvalidSpec(f"no preset {wish.preset!r}: one of {', '.join(PRESETS)}")
    source = wish.text.read_bytes()[: wish.limit] if wish.text else read_library_text(wish.limit)
    dataset, rest = split_held_out(source)
    store = read_settings().open_store()
    spec = prepare_job(store, wish.name, wish.recipe, dataset, wish.build_terms())
    out.write_bytes(spec.document)
    if held_out:
        held_out.write_bytes(rest.numpy().tobytes())
    made = InitializedJob(
        spec=str(out),
        spec_hash=spec.spec_hash,
        escrow=str(spec.escrow),
        training_tokens=len(dataset),
        held_out_tokens=len(rest),
    )
    facts: dict[str, object] = {
        "spec": out,
        "spec hash": "0x" + spec.spec_hash.hex(),
        "to escrow": format_wei(spec.escrow),
        "stake per lease": format_wei(spec.terms.stake_per_lease),
        "training tokens": f"{len(dataset):,}",
    }
    emit(made, build_facts(wish.name, facts), as_json=as_json)
