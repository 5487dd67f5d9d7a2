"""Trials: the same training in three arithmetics, that survives a kill."""

from dataclasses import replace

import pytest
import torch

from market.protocol.errors import InvalidSpec
from trainer.experiments.loss import Curves, run_trial
from trainer.experiments.trials import MODELS, Trial, train
from trainer.models import Llama

TRIAL = Trial("tiny", "16", 3, 20, 2, segment=10, warmup_steps=5, text_bytes=400_000)


class Killed(Exception):
    """The process ended."""


def kill(_step, _loss):
    raise Killed


@pytest.mark.parametrize("arithmetic", ["16", "fp32"])
def test_a_trial_that_was_killed_ends_where_another_does(arithmetic, tmp_path):
    trial = TRIAL.vary(arithmetic, 3)
    whole = run_trial(trial, tmp_path / "whole")
    with pytest.raises(Killed):
        run_trial(trial, tmp_path / "killed", kill)
    seen = []

    resumed = run_trial(trial, tmp_path / "killed", lambda step, _: seen.append(step))

    assert resumed == whole
    assert seen == [20]  # the first ten steps were not taken again


def test_arithmetics_begin_alike_and_part_by_their_roundings(tmp_path):
    corpus = TRIAL.read_corpus()

    losses = {
        name: train(TRIAL.vary(name, 3), corpus, tmp_path / name)[1]
        for name in ("16", "fp32", "bf16")
    }

    exact, bf16 = (
        max(abs(x - y) for x, y in zip(losses[name], losses["fp32"], strict=True))
        for name in ("16", "bf16")
    )
    assert 0 < exact < 1e-3
    assert exact < bf16 < 3e-2
    assert losses["16"][-1] < losses["16"][0] - 0.1


def test_a_gap_is_taken_from_the_fp32_run_of_the_same_seed(tmp_path):
    curve = run_trial(replace(TRIAL, steps=10), tmp_path)
    exact = [curve.model_copy(update={"seed": s, "held_out": 2.02}) for s in (0, 1)]
    fp32 = curve.model_copy(update={"seed": 1, "held_out": 2.0, "arithmetic": "fp32"})

    gaps = [Curves(curves=[*exact, fp32]).find_gap(one) for one in exact]

    assert gaps == [None, pytest.approx(0.01)]


@pytest.mark.parametrize("change", [{"model": "huge"}, {"steps": 25}, {"segment": 5}])
def test_an_impossible_trial_is_refused(change):
    with pytest.raises(InvalidSpec, match=str(*change.values())):
        replace(TRIAL, **change)


def test_the_models_have_the_sizes_that_the_page_gives():
    with torch.device("meta"):
        models = {name: Llama(MODELS[name]) for name in ("10m", "words-32k")}

    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert sizes == {"10m": 10_818_432, "words-32k": 8_856_192}
