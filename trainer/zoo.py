"""The models that a job can name: presets of ours, and folders with a Hugging Face `config.json`.

Initial weights come from Philox words, so a reference and a seed name the same bits everywhere."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import nn

from market.protocol.errors import InvalidSpec
from trainer.families import (
    Blueprint,
    compute_class_loss,
    compute_token_loss,
    draw_blueprint,
    read_blueprint,
)
from trainer.lora import Adapters, add_adapters
from trainer.lower.graph import LossFunction
from trainer.models import PRESETS, Llama, LlamaConfig
from trainer.vision import Mlp, MlpConfig, ResNet, ResNetConfig


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to be and what it eats: tokens (``vocab``, ``length``) or rows (``input_shape``, ``classes``).

    ``build`` takes the seed of the initial weights. Without a ``loss`` the model returns its own."""

    name: str
    build: Callable[[int], nn.Module]
    loss: LossFunction | None
    vocab: int | None
    length: int | None
    input_shape: tuple[int, ...] | None
    classes: int | None


_LLAMAS: Final = {
    **PRESETS,
    "llama-10m": LlamaConfig(8192, 256, 8, 4, 4, 704, 256),
    "llama-35m": LlamaConfig(8192, 512, 8, 8, 8, 1408, 256),
    "llama-350m": LlamaConfig(16384, 1024, 24, 16, 16, 2816, 1024),
}
_DECODER: Final = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": None,
}
_HUGGING_FACE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "hf-llama-tiny": ("llama", _DECODER),
    "qwen2-tiny": ("qwen2", {**_DECODER, "tie_word_embeddings": True}),
    "qwen3-tiny": ("qwen3", {**_DECODER, "head_dim": 8}),
    "gpt2-tiny": (
        "gpt2",
        {
            "vocab_size": 256,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 32,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
    "vit-tiny": (
        "vit",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
            "num_channels": 3,
            "num_labels": 10,
        },
    ),
}
_MLPS: Final = {"mlp-tiny": MlpConfig((64,), (32,), 10, dropout=0.1)}
_RESNETS: Final = {"resnet-tiny": ResNetConfig((3, 16, 16), (8, 16), 1, 10, groups=4)}

PRESET_NAMES: Final = (*_LLAMAS, *_HUGGING_FACE, *_RESNETS, *_MLPS)


def find_model(reference: str) -> ModelSource:
    """Return the model of a preset's name, or of a folder or its `config.json`.

    Raises InvalidSpec if there is none, or for a configuration or weight file that is wrong."""
    if reference in _LLAMAS:
        llama = _LLAMAS[reference]
        build = partial(Llama, llama)
        return _eat_tokens(reference, build, None, llama.vocab, llama.length)
    if reference in _MLPS:
        mlp = _MLPS[reference]
        return _eat_rows(reference, partial(Mlp, mlp), mlp.input_shape, mlp.classes)
    if reference in _RESNETS:
        resnet = _RESNETS[reference]
        return _eat_rows(reference, partial(ResNet, resnet), resnet.input_shape, resnet.classes)
    if reference in _HUGGING_FACE:
        return _adopt(reference, draw_blueprint(*_HUGGING_FACE[reference]), None)
    if not Path(reference).exists():
        raise InvalidSpec(
            f"no model {reference!r}: one of {', '.join(PRESET_NAMES)}, or a folder with a config.json"
        )
    return _adopt(reference, *read_blueprint(Path(reference)))


def adapt_model(source: ModelSource, adapters: Adapters) -> ModelSource:
    """Return the model with its weights frozen and low-rank adapters on the named layers."""

    def build(seed: int) -> nn.Module:
        model = source.build(seed)
        add_adapters(model, adapters, seed)
        return model

    return replace(source, build=build)


def _eat_tokens(
    name: str,
    build: Callable[[int], nn.Module],
    loss: LossFunction | None,
    vocab: int,
    length: int,
) -> ModelSource:
    return ModelSource(name, build, loss, vocab, length, input_shape=None, classes=None)


def _eat_rows(
    name: str,
    build: Callable[[int], nn.Module],
    shape: tuple[int, ...],
    classes: int,
    loss: LossFunction = nn.functional.cross_entropy,
) -> ModelSource:
    return ModelSource(name, build, loss, None, None, input_shape=shape, classes=classes)


def _adopt(name: str, blueprint: Blueprint, weights: Path | None) -> ModelSource:
    config, build = blueprint.config, partial(blueprint.build, weights=weights)
    if blueprint.family.eats_tokens:
        length = config.max_position_embeddings
        return _eat_tokens(name, build, compute_token_loss, config.vocab_size, length)
    shape = (config.num_channels, config.image_size, config.image_size)
    return _eat_rows(name, build, shape, config.num_labels, compute_class_loss)
