"""Low-rank adapters on frozen weights from a file: trained exactly, merged back into the class."""

import json

import numpy as np
import pytest
import torch

from market.protocol.errors import InvalidSpec
from tests.trainer.models.training import MEDIAN_BOUND, WORST_BOUND, compute_errors, train_source
from trainer.lora import Adapters, add_adapters, merge_adapters
from trainer.results import load_result, load_state, save_result
from trainer.zoo import adapt_model, find_model

TARGETS = {
    "hf-llama-tiny": ("q_proj", "v_proj", "gate_proj"),
    "gpt2-tiny": ("c_attn", "mlp.c_proj"),
}


@pytest.fixture(scope="module", params=TARGETS)
def tuned(request, tmp_path_factory):
    """Adapters trained on the weights in a folder: the trial, and the folder's own model."""
    folder, preset = tmp_path_factory.mktemp("base"), find_model(request.param)
    base = preset.build(77)
    config = base.config.to_dict() | {"architectures": [type(base).__name__]}
    (folder / "config.json").write_text(json.dumps(config))
    save_result(base, dict(base.named_parameters()), folder / "model.safetensors")
    source = find_model(str(folder))
    return train_source(adapt_model(source, Adapters(TARGETS[request.param], rank=4)), 3), source


def test_only_adapters_are_trained_and_have_moments(tuned):
    trial, _ = tuned
    frozen = trial.step.initial_base.keys() - trial.results[0].gradients.keys()

    assert all(name.endswith(("lora_a", "lora_b")) for name in trial.results[0].gradients)
    assert all(trial.state[name] is trial.step.initial_base[name] for name in frozen)
    assert {name.split("/")[1] for name in trial.step.initial_slot if "moment" in name} == set(
        trial.results[0].gradients
    )
    assert trial.losses[-1] < trial.losses[0]


def test_the_gradients_of_adapters_are_those_of_autograd(tuned):
    trial, _ = tuned

    errors = compute_errors(trial)

    assert np.median(errors) < MEDIAN_BOUND
    assert max(errors) < WORST_BOUND


def test_merged_adapters_leave_a_model_of_the_class_that_computes_the_same(tuned, tmp_path):
    trial, plain = tuned
    adapted = trial.source.build(0).eval()
    load_state(adapted, trial.state)
    tokens = trial.read(0)[0]
    expected = adapted(tokens).logits

    merge_adapters(adapted)

    save_result(adapted, dict(adapted.named_parameters()), tmp_path / "model.safetensors")
    merged = plain.build(0).eval()
    before = merged(tokens).logits
    load_result(merged, tmp_path / "model.safetensors")
    assert torch.allclose(merged(tokens).logits, expected, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_adapters_change_nothing_until_they_are_trained():
    model = find_model("mlp-tiny").build(3).eval()
    x = torch.linspace(-1, 1, 128).reshape(2, 64)
    before = model(x)

    add_adapters(model, Adapters(("1",), rank=2), seed=4)

    assert torch.equal(model(x), before)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["1.lora_a", "1.lora_b"]


@pytest.mark.parametrize(
    ("adapters", "reason"),
    [
        (Adapters(("nowhere",)), "no layer called 'nowhere'"),
        (Adapters(("2",)), "2 is a GELU: only linear layers"),
        (Adapters(("1",), rank=0), "rank 0: at least 1"),
    ],
)
def test_adapters_that_fit_no_layer_are_refused(adapters, reason):
    with pytest.raises(InvalidSpec, match=reason):
        add_adapters(find_model("mlp-tiny").build(0), adapters, seed=0)
