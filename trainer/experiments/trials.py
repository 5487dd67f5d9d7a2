"""Training runs that differ in their arithmetic alone: exact, torch's fp32, or bf16 autocast.

Two such trials begin at the same weights, read the same batches and follow the same schedule. A run is saved
after every segment and continues where it was killed."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from market.protocol.encoding import compute_program_root
from market.protocol.errors import InvalidSpec
from market.protocol.hashing import Hash32
from trainer.execution import Executor
from trainer.experiments.corpus import Corpus, read_corpus
from trainer.jobs import Schedule
from trainer.lower.optimizer import AdamW
from trainer.lower.precision import Precision
from trainer.lower.step import DataSpec, lower_step
from trainer.models import PRESETS, Llama, LlamaConfig
from trainer.reference import ReferenceRun, build_optimizer, read_batch, take_step
from trainer.shards import ShardTask, run_segment
from trainer.states import compute_state_roots

MODELS: Final = {
    **PRESETS,
    "10m": LlamaConfig(256, 384, 6, 6, 6, 1024, 128),  # 10,818,432 parameters, byte-level
    "words-2k": LlamaConfig(2048, 128, 2, 4, 2, 480, 64),
    "words-8k": LlamaConfig(8192, 128, 2, 4, 2, 480, 64),
    "words-32k": LlamaConfig(32768, 128, 2, 4, 2, 480, 64),  # 8,856,192 parameters
}
TORCH_ARITHMETICS: Final = ("fp32", "bf16")
NUDGED: Final = (
    "nudged"  # fp32 from weights of which one differs in its last bit: the noise of any run
)
STEPS_PER_POINT: Final = 10  # of a loss curve


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run. ``arithmetic`` is fp32, bf16 (autocast), nudged, or what `Precision.parse` reads."""

    model: str
    arithmetic: str
    seed: int
    steps: int
    batch: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    segment: int = 50  # steps
    text_bytes: int = 8_000_000
    threads: int = 1

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InvalidSpec(f"no model {self.model!r}: one of {', '.join(MODELS)}")
        if self.steps % self.segment or self.segment % STEPS_PER_POINT:
            raise InvalidSpec(
                f"{self.steps} steps in segments of {self.segment}: a segment divides the steps "
                f"and is a multiple of {STEPS_PER_POINT}"
            )

    @property
    def rule(self) -> AdamW:
        """The optimizer and its schedule."""
        return AdamW(
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            total_steps=self.steps,
            steps_per_shard=self.steps,
        )

    @property
    def name(self) -> str:
        """A file's name for it, different for different trials."""
        facts = (self.model, self.arithmetic, self.seed, self.steps, self.batch, self.learning_rate)
        return "-".join(map(str, facts))

    def vary(self, arithmetic: str, seed: int) -> "Trial":
        """Return the same trial in another arithmetic and with another seed."""
        return replace(self, arithmetic=arithmetic, seed=seed)

    def build_model(self) -> Llama:
        """Return the model with its initial weights."""
        return Llama(MODELS[self.model], self.seed)

    def read_corpus(self) -> Corpus:
        """Return the text in the model's tokens."""
        return read_corpus(MODELS[self.model].vocab, self.text_bytes)


Report = Callable[[int, float], None]


class Training(Protocol):
    """A run in progress: the trainable state and a way to advance it by a segment."""

    def run_segment(self, segment: int) -> list[float]:
        """Train a segment and return the loss of each of its steps."""

    def read_state(self) -> dict[str, Any]:
        """Return what `write_state` continues from."""

    def write_state(self, state: dict[str, Any]) -> None:
        """Continue from what `read_state` returned."""

    def build_trained(self) -> Llama:
        """Return the model with its weights of now."""

    def compute_roots(self) -> tuple[Hash32, Hash32] | None:
        """Return the roots of the program and of the state, if there is a program."""


class ExactTraining:
    """A trial that executes a program."""

    def __init__(self, trial: Trial, corpus: Corpus) -> None:
        self._trial = trial
        model = trial.build_model()
        data = DataSpec(len(corpus.training), trial.batch, model.config.length, corpus.dtype)
        precision = Precision.parse(trial.arithmetic)
        step = lower_step(model, None, data, trial.rule, precision=precision)
        self._task = ShardTask(step.program, corpus.training, trial.seed, 0, 0, trial.segment)
        self._executor = Executor(step.program, threads=trial.threads)
        self._state = {**step.initial_base, **step.initial_slot}

    def run_segment(self, segment: int) -> list[float]:
        """Execute a segment of the program."""
        end = run_segment(self._executor, self._task, self._state, segment)
        self._state = end.state
        losses: list[float] = end.metrics[:, 0].tolist()
        return losses

    def read_state(self) -> dict[str, Any]:
        """Return the tensors of the state."""
        return dict(self._state)

    def write_state(self, state: dict[str, Any]) -> None:
        """Take the tensors of a state."""
        self._state = state

    def build_trained(self) -> Llama:
        """Return the model that a requester would load."""
        model = self._trial.build_model()
        model.load_state_dict({name: self._state[name] for name in model.state_dict()})
        return model

    def compute_roots(self) -> tuple[Hash32, Hash32]:
        """Return the roots of the program and of the state."""
        program = self._task.program
        state = compute_state_roots(program, self._state).state
        return compute_program_root(program).root, state


class _Autocast(nn.Module):
    """A model whose forward pass torch runs in bfloat16 wherever its autocast does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> Any:
        """Return the loss."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(*batch)


def _nudge(weight: Tensor) -> None:
    """Move the first element by one unit in its last place."""
    with torch.no_grad():
        first = weight.view(-1)[:1]
        first.copy_(torch.nextafter(first, first + 1))


class TorchTraining:
    """A trial that torch runs, in fp32 or under bf16 autocast."""

    def __init__(self, trial: Trial, corpus: Corpus) -> None:
        self._model = trial.build_model()
        if trial.arithmetic == NUDGED:
            _nudge(self._model.head.weight)
        self._steps = trial.segment
        self._whole = _Autocast(self._model) if trial.arithmetic == "bf16" else self._model
        length = self._model.config.length
        schedule = Schedule(1, 1, trial.steps // trial.segment, trial.segment)
        data = DataSpec(len(corpus.training), trial.batch, length, corpus.dtype)
        self._run = ReferenceRun(
            self._model, trial.rule, corpus.training, data, trial.seed, schedule
        )
        self._optimizer = build_optimizer(self._whole, trial.rule)
        torch.set_num_threads(trial.threads)

    def run_segment(self, segment: int) -> list[float]:
        """Take the steps of a segment."""
        steps = range(segment * self._steps, (segment + 1) * self._steps)
        return [self.take_step(step) for step in steps]

    def take_step(self, step: int) -> float:
        """Take one step and return its loss."""
        batch = read_batch(self._run, 0, 0, step)
        return take_step(self._run, self._whole, self._optimizer, batch, step)

    def read_state(self) -> dict[str, Any]:
        """Return the weights and the optimizer's state."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def write_state(self, state: dict[str, Any]) -> None:
        """Take the weights and the optimizer's state."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def build_trained(self) -> Llama:
        """Return the model, which evaluates in fp32."""
        return self._model

    def compute_roots(self) -> None:
        """Return nothing: no two machines would agree."""


def ignore(step: int, loss: float) -> None:
    """Report nothing."""


def train(
    trial: Trial, corpus: Corpus, folder: Path, report: Report = ignore
) -> tuple[Training, list[float]]:
    """Train, or continue what ``folder`` holds; return the run and the loss of each step.

    ``report`` hears the number of steps done and the mean loss of the last ten, after each segment."""
    folder.mkdir(parents=True, exist_ok=True)
    is_torch = trial.arithmetic in (*TORCH_ARITHMETICS, NUDGED)
    kind = TorchTraining if is_torch else ExactTraining
    training: Training = kind(trial, corpus)
    losses = _load(folder, training)
    for segment in range(len(losses) // trial.segment, trial.steps // trial.segment):
        losses += training.run_segment(segment)
        _save(folder, training, losses)
        last = losses[-STEPS_PER_POINT:]
        report(len(losses), sum(last) / len(last))
    return training, losses


def _save(folder: Path, training: Training, losses: list[float]) -> None:
    """Write all of a run's progress in one file, so that a kill leaves the old one or the new."""
    torch.save({"losses": losses, "state": training.read_state()}, folder / "progress.new")
    os.replace(folder / "progress.new", folder / "progress.pt")
    points = enumerate(average_points(losses), 1)
    lines = [json.dumps({"step": i * STEPS_PER_POINT, "loss": loss}) for i, loss in points]
    (folder / "losses.jsonl").write_text("\n".join(lines) + "\n")


def average_points(losses: list[float]) -> list[float]:
    """Return the mean of every ten losses."""
    parts = [losses[at : at + STEPS_PER_POINT] for at in range(0, len(losses), STEPS_PER_POINT)]
    return [round(sum(part) / len(part), 5) for part in parts]


def _load(folder: Path, training: Training) -> list[float]:
    file = folder / "progress.pt"
    if not file.exists():
        return []
    whole = torch.load(file, weights_only=True)
    training.write_state(whole["state"])
    losses: list[float] = whole["losses"]
    return losses
