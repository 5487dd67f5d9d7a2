"""How far losses part: trials that differ in their arithmetic, on the same held-out text."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from market.protocol.spec import HexHash
from trainer.experiments.trials import Report, Trial, average_points, ignore, train
from trainer.reference import compute_held_out_loss

HELD_OUT_WINDOWS: Final = 512


class Curve(BaseModel):
    """What a finished trial gave. Losses are nats per token; a point is the mean of ten steps."""

    model_config = ConfigDict(extra="forbid")

    model: str
    arithmetic: str
    seed: int
    parameters: int
    steps: int
    batch: int
    length: int
    learning_rate: float
    training: list[float]
    held_out: float
    held_out_windows: int
    program_root: HexHash | None  # of exact arithmetic alone
    state_root: HexHash | None


class Curves(BaseModel):
    """Curves to be compared."""

    curves: list[Curve]

    def find_gap(self, curve: Curve) -> float | None:
        """Return how far the held-out loss is from that of the fp32 run of the same seed, as a fraction."""
        for other in self.curves:
            if other.arithmetic == "fp32" and other.seed == curve.seed:
                return curve.held_out / other.held_out - 1
        return None


def run_trial(trial: Trial, folder: Path, report: Report = ignore) -> Curve:
    """Train, or continue what ``folder`` holds, and return the curve."""
    corpus = trial.read_corpus()
    training, losses = train(trial, corpus, folder, report)
    model, roots = training.build_trained(), training.compute_roots()
    length = model.config.length
    return Curve(
        model=trial.model,
        arithmetic=trial.arithmetic,
        seed=trial.seed,
        parameters=sum(p.numel() for p in model.parameters()),
        steps=trial.steps,
        batch=trial.batch,
        length=length,
        learning_rate=trial.learning_rate,
        training=average_points(losses),
        held_out=round(compute_held_out_loss(model, corpus.held_out, length, HELD_OUT_WINDOWS), 6),
        held_out_windows=HELD_OUT_WINDOWS,
        program_root=roots[0] if roots else None,
        state_root=roots[1] if roots else None,
    )
