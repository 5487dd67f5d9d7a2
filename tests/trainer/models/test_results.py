"""Weight files: what loads, and what each fault is called."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from market.protocol.errors import InvalidSpec
from trainer.models import Llama, LlamaConfig
from trainer.results import load_result, load_state, save_result
from trainer.zoo import find_model

TIED = LlamaConfig(16, 8, 1, 2, 1, 12, 8, tied=True)


@pytest.fixture
def saved(tmp_path):
    """A tied decoder's weight file, and its tensors."""
    model, path = Llama(TIED, seed=3), tmp_path / "model.safetensors"
    save_result(model, dict(model.named_parameters()), path)
    return path, load_file(path)


def test_a_tied_tensor_is_saved_under_both_names_and_either_is_enough(saved):
    path, tensors = saved
    assert torch.equal(tensors["head.weight"], tensors["embedding.weight"])

    for name in ("head.weight", "embedding.weight"):
        save_file({n: t for n, t in tensors.items() if n != name}, path)
        model = Llama(TIED, seed=9)
        load_result(model, path)

        assert model.head.weight is model.embedding.weight
        assert torch.equal(model.head.weight, tensors["head.weight"])


def test_half_precision_is_widened_without_a_change(saved):
    path, tensors = saved
    save_file({name: t.bfloat16() for name, t in tensors.items()}, path)
    model = Llama(TIED)

    load_result(model, path)

    assert torch.equal(model.norm.weight, tensors["norm.weight"].bfloat16().float())
    assert model.head.weight.dtype is torch.float32


def change(name, function):
    return lambda tensors: {**tensors, name: function(tensors[name])}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: {n: x for n, x in t.items() if n != "norm.weight"}, "lacks norm.weight"),
        (lambda t: {**t, "extra": torch.zeros(2)}, "holds extra, which the model does not have"),
        (
            change("norm.weight", lambda x: x[:3].clone()),
            r"norm.weight has the shape \(3,\), not \(8,\)",
        ),
        (change("norm.weight", lambda x: x.double()), "norm.weight is F64: BF16, F16, F32"),
        (
            change("norm.weight", lambda x: x * float("inf")),
            "norm.weight holds a value that is not finite",
        ),
    ],
)
def test_a_weight_file_that_does_not_fit_is_refused_by_name(saved, damage, reason):
    path, tensors = saved
    save_file(damage(tensors), path)
    model = Llama(TIED)
    before = model.head.weight.clone()

    with pytest.raises(InvalidSpec, match=reason):
        load_result(model, path)

    assert torch.equal(model.head.weight, before)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_weight_file_is_refused(saved, size):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(InvalidSpec, match="no whole safetensors file"):
        load_result(Llama(TIED), path)


def test_a_state_of_another_model_is_refused():
    model = find_model("mlp-tiny").build(0)
    state = {name: p.detach() for name, p in model.named_parameters()}

    with pytest.raises(InvalidSpec, match=r"the state has no tensor 1\.bias"):
        load_state(model, {name: t for name, t in state.items() if name != "1.bias"})
    with pytest.raises(
        InvalidSpec, match=r"1\.bias has the shape \(2,\) in the state, not \(32,\)"
    ):
        load_state(model, {**state, "1.bias": torch.zeros(2)})
