"""The smallest real job: a tiny decoder on real text, two rounds of two slots."""

from typing import Any

from market.protocol.program import TensorRole
from trainer.data import split_held_out
from trainer.jobs import Schedule
from trainer.lower.optimizer import AdamW
from trainer.lower.outer import lower_outer_step
from trainer.lower.step import DataSpec, lower_step
from trainer.models import PRESETS, Llama
from trainer.text import read_library_text

SCHEDULE = Schedule(rounds=2, slots=2, segments=3, steps_per_segment=2)
_cache: dict[float, dict[str, Any]] = {}


def build_tiny_job(learning_rate: float = 3e-3) -> dict[str, Any]:
    """Return what `publish_job` takes but the schedule, the terms and the store."""
    if learning_rate not in _cache:
        _cache[learning_rate] = _lower(learning_rate)
    return _cache[learning_rate]


def _lower(learning_rate: float) -> dict[str, Any]:
    config = PRESETS["tiny"]
    dataset, _ = split_held_out(read_library_text(400_000))
    optimizer = AdamW(
        learning_rate=learning_rate,
        warmup_steps=0,
        total_steps=SCHEDULE.rounds * SCHEDULE.steps,
        steps_per_shard=SCHEDULE.steps,
    )
    step = lower_step(Llama(config), None, DataSpec(len(dataset), 2, config.length), optimizer)
    outer = lower_outer_step(step.program.find_inputs(TensorRole.BASE), SCHEDULE.slots)
    return {
        "name": "tiny",
        "model": "llama tiny",
        "program": step.program,
        "outer": outer,
        "dataset": dataset,
        "initial": {**step.initial_base, **step.initial_slot},
    }
