"""Making a job out of a model and a dataset: what `touchstone job init` does."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import from_json
from torch import Tensor, nn

from market.protocol.errors import InvalidSpec
from market.protocol.program import TensorRole
from market.protocol.spec import JobSpec, Terms
from market.storage.blobs import BlobStore
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.jobs import Schedule, publish_job
from trainer.lora import Adapters
from trainer.lower.muon import Muon
from trainer.lower.optimizer import SGD, AdamW, Rule
from trainer.lower.outer import lower_outer_step
from trainer.lower.precision import Precision
from trainer.lower.step import DataSpec, RowSpec, lower_step
from trainer.zoo import ModelSource, adapt_model, find_model

_LEARNING_RATES: Final = {"adamw": 3e-3, "sgd": 0.1, "muon": 3e-3}
_DTYPES: Final = {kind: dtype for dtype, kind in TORCH_DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: what a spec says of itself, so that anyone can build the model again.

    ``adapted`` names layers, by the ends of their names and with commas between, whose updates of low
    ``rank`` are then all that is trained; ``length`` is the context, by default the longest there is."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    model: str
    batch: int
    learning_rate: float
    warmup_steps: int
    schedule: Schedule
    optimizer: str = "adamw"
    micro_batches: int = 1
    bits: str = "auto"
    length: int | None = None
    adapted: str = ""
    rank: int = 8
    seed: int = 0  # of the initial weights

    def __post_init__(self) -> None:
        get_learning_rate(self.optimizer)

    def find_source(self) -> ModelSource:
        """Return the model to be; raise InvalidSpec if there is none."""
        source = find_model(self.model)
        if not self.adapted:
            return source
        return adapt_model(source, Adapters(tuple(self.adapted.split(",")), self.rank))

    def build_model(self) -> nn.Module:
        """Return the module as the job begins with it."""
        return self.find_source().build(self.seed)

    def build_rule(self, model: nn.Module) -> Rule:
        """Return the optimizer of ``model`` over all rounds of a slot."""
        rule: Rule
        if self.optimizer == "muon":
            rule = Muon(hidden=find_hidden_matrices(model, self.find_source()))
        else:
            rule = SGD() if self.optimizer == "sgd" else AdamW()
        return replace(
            rule,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            total_steps=self.schedule.rounds * self.schedule.steps,
            steps_per_shard=self.schedule.steps,
        )

    def build_data(self, dataset: Tensor) -> DataSpec | RowSpec:
        """Return how a step reads ``dataset``; raise InvalidSpec if it holds no whole window."""
        source, dtype = self.find_source(), _DTYPES[dataset.dtype]
        if source.input_shape is not None:
            return RowSpec(len(dataset), self.batch, source.input_shape, dtype)
        length = self.get_length(source)
        if len(dataset) <= length:
            raise InvalidSpec(f"a dataset of {len(dataset)} tokens: a window takes {length + 1}")
        return DataSpec(len(dataset), self.batch, length, dtype)

    def get_length(self, source: ModelSource) -> int:
        """Return the context; raise InvalidSpec for one that is longer than the model takes."""
        assert source.length is not None
        length = source.length if self.length is None else self.length
        if not 1 <= length <= source.length:
            raise InvalidSpec(
                f"a context of {length} tokens: 1 to {source.length} for {self.model}"
            )
        return length

    def describe(self) -> str:
        """Return what `read_recipe` reads back from a spec: the schedule stands there already."""
        facts = {name: value for name, value in asdict(self).items() if name != "schedule"}
        return json.dumps(facts, sort_keys=True)


def get_learning_rate(optimizer: str) -> float:
    """Return the peak rate of an optimizer where none is given; raise InvalidSpec if there is no such."""
    if optimizer not in _LEARNING_RATES:
        raise InvalidSpec(f"no optimizer {optimizer!r}: one of {', '.join(_LEARNING_RATES)}")
    return _LEARNING_RATES[optimizer]


def read_recipe(spec: JobSpec) -> Recipe:
    """Return the recipe of a job that `prepare_job` made; raise InvalidSpec for any other."""
    recipe = find_recipe(spec)
    if recipe is None:
        raise InvalidSpec(f"{spec.name!r} describes no recipe: its model is {spec.model[:80]!r}")
    return recipe


def find_recipe(spec: JobSpec) -> Recipe | None:
    """Return the recipe that a spec describes; None where its model is described in another way."""
    schedule = Schedule(spec.rounds, spec.slots, spec.segments, spec.steps_per_segment)
    try:
        facts = json.dumps({**from_json(spec.model), "schedule": asdict(schedule)})
        return TypeAdapter(Recipe).validate_json(facts)
    except (TypeError, ValueError):
        return None


def find_hidden_matrices(model: nn.Module, source: ModelSource) -> tuple[str, ...]:
    """Return the names of the trained matrices that are neither embeddings nor the output layer."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    outputs = source.vocab if source.classes is None else source.classes
    return tuple(
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.ndim == 2 and id(p) not in embeddings and p.shape[0] != outputs
    )


def ignore_stage(stage: str) -> None:
    """Report nothing."""


def prepare_job(
    store: BlobStore,
    name: str,
    recipe: Recipe,
    dataset: Tensor,
    terms: Terms,
    on_stage: Callable[[str], None] = ignore_stage,
) -> JobSpec:
    """Lower the recipe's step on ``dataset``, put all it names into ``store`` and return its spec.

    ``on_stage`` hears what is done next."""
    on_stage("lowering the model")
    model = recipe.build_model()
    step = lower_step(
        model,
        recipe.find_source().loss,
        recipe.build_data(dataset),
        recipe.build_rule(model),
        precision=Precision.parse(recipe.bits),
        micro_batches=recipe.micro_batches,
    )
    outer = lower_outer_step(step.program.find_inputs(TensorRole.BASE), recipe.schedule.slots)
    on_stage("storing the programs, the data and the initial state")
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
