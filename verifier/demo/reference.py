"""The demo's comparison: the same training in ordinary torch fp32, in a process of its own.

``python -m verifier.demo.reference SPEC.json SEED HELD_OUT OUT.json`` trains and writes the losses."""

import json
import os
import sys
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from market.protocol.spec import JobSpec, decode_spec
from market.settings import read_settings
from trainer.jobs import fetch_job
from trainer.prepare import read_recipe
from trainer.reference import ReferenceRun, compute_held_out_loss, train_reference

HELD_OUT_ROWS = 64


class ReferenceLosses(BaseModel):
    """What ordinary torch made of the job."""

    before: float
    after: float
    training: list[float]


def read_held_out(path: Path) -> Tensor:
    """Return the held-out bytes of the demo's text, u8 [n]."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def run_reference(spec: JobSpec, seed: int, held_out: Tensor, dataset: Tensor) -> ReferenceLosses:
    """Train ``spec``'s job in fp32 with that job ``seed``."""
    recipe = read_recipe(spec)
    model, source = recipe.build_model(), recipe.find_source()
    data, rule = recipe.build_data(dataset), recipe.build_rule(model)
    run = ReferenceRun(model, rule, dataset, data, seed, recipe.schedule, source.loss)
    length = recipe.get_length(source)
    before = compute_held_out_loss(model, held_out, length, HELD_OUT_ROWS, source.loss)
    trained, losses = train_reference(run)
    after = compute_held_out_loss(trained, held_out, length, HELD_OUT_ROWS, source.loss)
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
