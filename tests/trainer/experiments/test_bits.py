"""The experiment over widths: cases, errors, costs, tokens and pictures."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.experiments.bits import (
    SMALL_DECODER,
    compare_roles,
    compare_vocabularies,
    list_arithmetics,
    make_zipf_corpus,
    narrow_role,
    plant_outliers,
)
from trainer.experiments.corpus import read_corpus
from trainer.experiments.cost import measure_costs
from trainer.experiments.plots import plot_all
from trainer.experiments.trials import Trial
from trainer.models import PRESETS, Llama

TRIAL = Trial("tiny", "16", 3, 10, 2, segment=10, warmup_steps=5, text_bytes=400_000)
DATA = Path(__file__).parents[3] / "docs" / "benchmarks" / "data"


def ignore(errors):
    pass


def test_planted_outliers_stand_out_and_leave_the_function_as_it_was():
    model = Llama(PRESETS["tiny"]).double()
    planted = copy.deepcopy(model)
    tokens = torch.arange(16)[None]

    plant_outliers(planted)

    assert torch.allclose(planted(tokens, tokens), model(tokens, tokens), rtol=1e-9)
    assert int((planted.blocks[0].mlp_norm.weight > 50).sum()) == 4


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    names = ["fp32", "bf16", "8", "16", "24", narrow_role("logits", 8)]
    found = compare_roles(TRIAL, folder, names, ignore)
    return {(e.weights, e.arithmetic): e.median for e in found}


def test_fewer_bits_of_all_or_of_one_role_are_a_larger_error(errors):
    fp32, bf16, e8, e16, e24, logits = (e for (case, _), e in errors.items() if case == "trained")

    assert fp32 < 2e-6
    assert e24 < 5e-6
    assert 1e-4 < e16 < 1e-3
    assert e16 < logits < e8 < 0.2
    assert e16 < bf16 < e8


def test_outliers_cost_exact_bits_and_not_bf16(errors):
    assert errors["outliers", "16"] > 5 * errors["trained", "16"]
    assert errors["outliers", "bf16"] < 2 * errors["trained", "bf16"]


def test_a_larger_vocabulary_needs_more_bits_of_the_logits_gradient():
    config = replace(SMALL_DECODER, d_model=16, d_ff=16, length=16)
    names = ["logits=16", "logits=24"]

    found = compare_vocabularies(config, [64, 4096], 1, names, ignore)

    errors = {(e.vocabulary, e.arithmetic): e.median for e in found}
    assert errors[4096, "logits=16"] > 1.5 * errors[64, "logits=16"]
    assert errors[4096, "logits=24"] < errors[4096, "logits=16"] / 2


def test_each_role_is_narrowed_to_each_width_once():
    found = list(list_arithmetics())

    assert len(found) == len(set(found)) == 6 + 5 * 3
    assert narrow_role("logits", 8) == "weight=24,activation=24,gradient=24,logits=8,attention=24"


def test_zipf_s_tokens_are_rarer_the_larger_they_are():
    tokens = make_zipf_corpus(1000, 5000).training

    counts = torch.bincount(tokens, minlength=1000)
    assert counts.shape == (1000,)
    assert 0.08 < counts[0] / 5000 < 0.12  # 1 / log2(1000)
    assert counts[:10].sum() > 3 * counts[500:].sum()


def test_a_vocabulary_is_learned_from_the_training_part():
    letters, words = read_corpus(256, 400_000), read_corpus(400, 400_000)

    assert len(words.held_out) < 0.7 * len(letters.held_out)
    assert int(words.training.max()) == 399
    assert words.dtype.size == 4


def test_the_products_of_digits_are_counted():
    uniform, mixed = measure_costs(TRIAL, ["24", "weight=8"], rounds=1)

    assert uniform.products == 9
    assert 2 < mixed.products < 4
    assert uniform.milliseconds > 0


def test_the_page_s_pictures_can_be_drawn_from_its_figures(tmp_path):
    paths = list(plot_all(DATA, tmp_path / "images"))

    assert len(paths) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
