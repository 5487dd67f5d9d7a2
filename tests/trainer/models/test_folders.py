"""Folders with a `config.json`: which are models, what of them is read, and what is never run."""

import json

import pytest
import torch
from safetensors.torch import save_file

from market.protocol.errors import InvalidSpec
from trainer.results import save_result
from trainer.zoo import find_model

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "evil.Model"},
    "torch_dtype": "bfloat16",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}


def write(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def test_a_folder_without_weights_is_a_model_to_be_initialized(tmp_path):
    write(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")

    source = find_model(str(tmp_path))

    assert (source.vocab, source.length, source.classes) == (40, 20, None)
    first, second = source.build(1), source.build(2)
    assert type(first).__name__ == "LlamaForCausalLM"
    assert {p.dtype for p in first.parameters()} == {torch.float32}
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_a_folder_s_weights_are_those_of_every_seed(tmp_path):
    source = find_model(str(write(tmp_path)))
    model = source.build(1)
    save_result(model, dict(model.named_parameters()), tmp_path / "model.safetensors")

    built = find_model(str(tmp_path / "config.json")).build(2)

    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), built.parameters(), strict=True)
    )


def test_names_may_lack_the_prefix_of_the_class_and_old_masks_are_ignored(tmp_path):
    settings = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 20}
    folder = write(tmp_path, architectures=["GPT2LMHeadModel"], **settings)
    model = find_model(str(folder)).build(4)
    tensors = {
        name.removeprefix("transformer."): t.clone()
        for name, t in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 20, 20)}, folder / "model.safetensors")

    built = find_model(str(folder)).build(5)

    assert torch.equal(built.lm_head.weight, tensors["wte.weight"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mamba"}, "type 'mamba': one of llama, qwen2, qwen3, gpt2, vit"),
        ({"model_type": None}, "type 'None'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "only LlamaForCausalLM"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantized"),
        ({"vocab_size": "many"}, "no LlamaConfig: .*vocab_size"),
        ({"num_attention_heads": 0}, "no LlamaConfig"),
        ({"num_attention_heads": 5}, "no LlamaConfig: .*not a multiple"),
    ],
)
def test_a_configuration_that_is_no_model_of_ours_is_refused(tmp_path, changes, reason):
    with pytest.raises(InvalidSpec, match="(?s)" + reason):
        find_model(str(write(tmp_path, **changes)))


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_file_that_holds_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(
        InvalidSpec, match=r"config.json (holds no JSON|is no model's configuration)"
    ):
        find_model(str(tmp_path))


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match=r"holds no JSON: .*No such file"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.safetensors"])
def test_weights_that_are_not_read_are_not_passed_over_in_silence(tmp_path, name):
    (write(tmp_path) / name).write_bytes(b"weights")

    with pytest.raises(InvalidSpec, match=f"holds {name}, but weights are read from model.safet"):
        find_model(str(tmp_path))
