"""The demo's comparison: the same training in ordinary torch fp32, in a process of its own.

``python -m verifier.demo.reference SPEC.json SEED HELD_OUT OUT.json`` trains and writes the losses."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from market.protocol.spec import JobSpec, decode_spec
from market.settings import read_settings
from trainer.jobs import Schedule, fetch_job
from trainer.prepare import Recipe
from trainer.reference import ReferenceRun, compute_held_out_loss, train_reference

HELD_OUT_ROWS = 64


class ReferenceLosses(BaseModel):
    """What ordinary torch made of the job."""

    before: float
    after: float
    training: list[float]


@dataclass(frozen=True, slots=True)
class DemoRecipe:
    """What the demo's job trains: the spec names programs, and the comparison needs the module."""

    batch: int = 8
    learning_rate: float = 3e-3
    warmup_steps: int = 10
    preset: str = "demo"

    def build(self, spec: JobSpec) -> Recipe:
        """Return the recipe of ``spec``'s job."""
        schedule = Schedule(spec.rounds, spec.slots, spec.segments, spec.steps_per_segment)
        return Recipe(self.preset, self.batch, self.learning_rate, self.warmup_steps, schedule)


def read_held_out(path: Path) -> Tensor:
    """Return the held-out bytes, u8 [n]."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def run_reference(spec: JobSpec, seed: int, held_out: Tensor, dataset: Tensor) -> ReferenceLosses:
    """Train ``spec``'s job in fp32 with that job ``seed``."""
    recipe = DemoRecipe().build(spec)
    model = recipe.build_model()
    length = model.config.length
    run = ReferenceRun(model, recipe.rule, dataset, recipe.batch, length, seed, recipe.schedule)
    before = compute_held_out_loss(model, held_out, length, HELD_OUT_ROWS)
    trained, losses = train_reference(run)
    after = compute_held_out_loss(trained, held_out, length, HELD_OUT_ROWS)
    return ReferenceLosses(before=before, after=after, training=losses)


def main() -> None:
    """Run as the module's docstring says, behind everything else on the machine."""
    spec_file, seed, held_out, out = sys.argv[1:]
    os.nice(10)
    torch.set_num_threads(1)
    spec = decode_spec(Path(spec_file).read_bytes())
    files = fetch_job(read_settings().open_store(), spec)
    losses = run_reference(spec, int(seed), read_held_out(Path(held_out)), files.dataset)
    Path(out).write_text(json.dumps(losses.model_dump()))


if __name__ == "__main__":
    main()
