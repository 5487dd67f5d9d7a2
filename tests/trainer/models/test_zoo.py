"""Each kind of model: lowered, trained exactly, compared with autograd, loaded back into its class."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from market.protocol.errors import InvalidSpec
from tests.trainer.models.training import (
    MEDIAN_BOUND,
    WORST_BOUND,
    FixedDropout,
    compute_errors,
    run_steps,
    train,
)
from trainer.execution import Executor
from trainer.results import load_result, load_state, save_result
from trainer.zoo import PRESET_NAMES, find_model

DECODERS = ["hf-llama-tiny", "qwen2-tiny", "qwen3-tiny", "gpt2-tiny"]
CLASSIFIERS = ["vit-tiny", "resnet-tiny", "mlp-tiny"]
OWN_CLASSES = {
    "hf-llama-tiny": "LlamaForCausalLM",
    "qwen2-tiny": "Qwen2ForCausalLM",
    "qwen3-tiny": "Qwen3ForCausalLM",
    "gpt2-tiny": "GPT2LMHeadModel",
    "vit-tiny": "ViTForImageClassification",
}


@pytest.mark.parametrize("name", DECODERS + CLASSIFIERS)
def test_the_gradients_of_the_first_step_are_those_of_autograd(name):
    errors = compute_errors(train(name))

    assert np.median(errors) < MEDIAN_BOUND
    assert max(errors) < WORST_BOUND


@pytest.mark.parametrize("name", DECODERS)
def test_the_loss_is_the_one_that_the_class_computes_itself(name):
    source = find_model(name)
    model = source.build(1).eval()
    window = torch.arange(24).reshape(2, 12) * 7 % source.vocab

    own = model(input_ids=window, labels=window).loss

    ours = source.loss(model(window[:, :-1]), window[:, 1:])
    pairs = zip(
        *(torch.autograd.grad(x, list(model.parameters())) for x in (own, ours)), strict=True
    )
    assert abs(float(own.detach() - ours.detach())) < 1e-6
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in pairs)


@pytest.mark.parametrize("name", DECODERS + CLASSIFIERS)
def test_a_state_is_a_model_of_its_class_that_has_the_program_s_loss(name, tmp_path):
    trial, path = train(name), tmp_path / "model.safetensors"
    save_result(trial.source.build(0), trial.results[-2].state, path)

    model = trial.source.build(9)
    assert type(model).__name__ == OWN_CLASSES.get(name, type(model).__name__)
    model.load_state_dict(load_file(path), strict=True)

    inputs, targets = trial.read(len(trial.results) - 1)
    with torch.no_grad(), FixedDropout(len(trial.results) - 1):
        loss = float(trial.source.loss(model.double()(inputs), targets))
    assert abs(loss - trial.losses[-1]) < 1e-3 * loss


@pytest.mark.parametrize("name", ["gpt2-tiny", "resnet-tiny"])
def test_both_backends_give_the_same_bits(name):
    trial = train(name)
    slow = Executor(trial.step.program, backend="torch")

    last = run_steps(slow, trial.step, trial.table, 2)[-1]

    assert all(torch.equal(last.state[n], t) for n, t in trial.results[1].state.items())
    assert torch.equal(last.metrics, trial.results[1].metrics)


@pytest.mark.parametrize("name", DECODERS)
def test_a_trained_decoder_generates_what_its_scores_say(name, tmp_path):
    trial, path = train(name), tmp_path / "model.safetensors"
    save_result(trial.source.build(0), trial.state, path)
    model = trial.source.build(9).eval()
    load_result(model, path)
    prompt = trial.read(0)[0][:1, :5]

    tokens = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)

    assert trial.losses[-1] < trial.losses[0]
    assert tokens.shape == (1, 13)
    with torch.no_grad():
        scores = model(tokens).logits[0, 4:-1]
    assert bool(torch.isfinite(scores).all())
    assert tokens[0, 5:].tolist() == scores.argmax(-1).tolist()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_trained_classifier_scores_every_class(name):
    trial = train(name)
    model = trial.source.build(9).eval()
    load_state(model, trial.state)

    with torch.no_grad():
        output = model(trial.read(0)[0].float())

    scores = getattr(output, "logits", output)
    assert scores.shape == (trial.data.batch, trial.source.classes)
    assert bool(torch.isfinite(scores).all())
    assert not torch.allclose(F.softmax(scores, -1), torch.full_like(scores, 0.1), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in PRESET_NAMES if "m" not in name.split("-")[-1]])
def test_initial_weights_depend_on_the_seed_alone(name):
    source = find_model(name)
    torch.manual_seed(1)
    first = source.build(5)
    torch.manual_seed(2)
    second, other = source.build(5), source.build(6)

    pairs = zip(first.parameters(), second.parameters(), other.parameters(), strict=True)

    assert all(torch.equal(a, b) and (a.ndim < 2 or not torch.equal(a, c)) for a, b, c in pairs)


def test_a_name_that_is_no_model_is_refused_with_the_presets():
    with pytest.raises(
        InvalidSpec, match=r"no model 'llama-9t': one of demo, tiny, .*mlp-tiny, or"
    ):
        find_model("llama-9t")
