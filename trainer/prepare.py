"""Making a job out of a preset and a text: what `touchstone job init` does."""

import json
from dataclasses import asdict, dataclass

from torch import Tensor

from market.protocol.program import TensorRole
from market.protocol.spec import JobSpec, Terms
from market.storage.blobs import BlobStore
from trainer.jobs import Schedule, publish_job
from trainer.lower.optimizer import AdamW
from trainer.lower.outer import lower_outer_step
from trainer.lower.step import DataSpec, lower_step
from trainer.models import PRESETS, Llama


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a preset is trained: the data's shape, the rule and the schedule."""

    preset: str
    batch: int
    learning_rate: float
    warmup_steps: int
    schedule: Schedule
    seed: int = 0  # of the initial weights

    @property
    def rule(self) -> AdamW:
        """The optimizer over all rounds of a slot."""
        return AdamW(
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            total_steps=self.schedule.rounds * self.schedule.steps,
            steps_per_shard=self.schedule.steps,
        )

    def build_model(self) -> Llama:
        """The module as the job begins with it."""
        return Llama(PRESETS[self.preset], self.seed)


def prepare_job(
    store: BlobStore, name: str, recipe: Recipe, dataset: Tensor, terms: Terms
) -> JobSpec:
    """Lower the preset on ``dataset`` (u8 [tokens]), put all it names into ``store``, return its spec."""
    model = recipe.build_model()
    data = DataSpec(len(dataset), recipe.batch, model.config.length)
    step = lower_step(model, None, data, recipe.rule)
    outer = lower_outer_step(step.program.find_inputs(TensorRole.BASE), recipe.schedule.slots)
    return publish_job(
        store,
        name=name,
        model=json.dumps({"preset": recipe.preset, **asdict(model.config)}, sort_keys=True),
        program=step.program,
        outer=outer,
        dataset=dataset,
        initial={**step.initial_base, **step.initial_slot},
        schedule=recipe.schedule,
        terms=terms,
    )
