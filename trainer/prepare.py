"""Making a job out of a preset and a text: what `touchstone job init` does."""

import json
from dataclasses import asdict, dataclass

from torch import Tensor

from market.protocol.errors import InvalidSpec
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
        """Return the module as the job begins with it."""
        return Llama(PRESETS[self.preset], self.seed)

    def describe(self) -> str:
        """Return what `read_recipe` reads back from a spec: the schedule stands there already."""
        facts = {name: value for name, value in asdict(self).items() if name != "schedule"}
        return json.dumps(facts, sort_keys=True)


def read_recipe(spec: JobSpec) -> Recipe:
    """Return the recipe of a job that `prepare_job` made; raise InvalidSpec for any other."""
    schedule = Schedule(spec.rounds, spec.slots, spec.segments, spec.steps_per_segment)
    try:
        return Recipe(schedule=schedule, **json.loads(spec.model))
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"{spec.name!r} describes no preset: {error}") from error


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
        model=recipe.describe(),
        program=step.program,
        outer=outer,
        dataset=dataset,
        initial={**step.initial_base, **step.initial_slot},
        schedule=recipe.schedule,
        terms=terms,
    )
