"""Hugging Face classes that are lowered unchanged, built from their configuration alone.

The classes are the installed library's own: no code comes from a model's folder, nothing is downloaded."""

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from market.protocol.errors import InvalidSpec, TrainingError
from trainer.models import fill_uniform
from trainer.results import load_result

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"
_MAX_CONFIG_BYTES: Final = 2**20
_RESIDUAL_OUTPUTS: Final = "c_proj.weight"  # GPT-2 divides these by sqrt(2 layers)


@dataclass(frozen=True, slots=True)
class Family:
    """A configuration class and the model class that is built from it."""

    config: str
    model: str
    eats_tokens: bool = True


FAMILIES: Final = {
    "llama": Family("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": Family("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": Family("Qwen3Config", "Qwen3ForCausalLM"),
    "gpt2": Family("GPT2Config", "GPT2LMHeadModel"),
    "vit": Family("ViTConfig", "ViTForImageClassification", eats_tokens=False),
}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A family and a valid configuration of it."""

    family: Family
    config: Any

    def build(self, seed: int, weights: Path | None = None) -> nn.Module:
        """Return the model with its ``weights``, or with initial ones from ``seed``."""
        model: nn.Module = _find_class(self.family.model)(self.config)
        model.train()
        if weights is None:
            _initialize(model, self.config, seed)
        else:
            ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
            prefix = f"{getattr(model, 'base_model_prefix', '')}."
            load_result(model, weights, prefix=prefix, ignored=ignored)
        return model


def compute_token_loss(output: Any, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of each position's target: the class's own loss on the next token."""
    return nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten())


def compute_class_loss(output: Any, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of each row's class."""
    return nn.functional.cross_entropy(output.logits, targets)


def draw_blueprint(kind: str, settings: Mapping[str, Any]) -> Blueprint:
    """Return the model of type ``kind`` with these ``settings``; raise InvalidSpec if there is none."""
    family = FAMILIES.get(kind)
    if family is None:
        raise InvalidSpec(f"a model of type {kind!r}: one of {', '.join(FAMILIES)}")
    named = settings.get("architectures") or [family.model]
    if named != [family.model]:
        raise InvalidSpec(f"the architectures {named}: of type {kind!r} only {family.model}")
    if "quantization_config" in settings:
        raise InvalidSpec("the weights are quantized: only whole ones can be trained")
    dropped = ("architectures", "auto_map", "torch_dtype", "dtype", "use_cache")
    kept = {name: value for name, value in settings.items() if name not in dropped}
    config_class = _find_class(family.config)
    faults = importlib.import_module("huggingface_hub.errors").StrictDataclassError
    try:
        config = config_class.from_dict(kept, attn_implementation="eager", use_cache=False)
    except (faults, ValueError, TypeError, KeyError, ArithmeticError, AttributeError) as error:
        raise InvalidSpec(f"no {family.config}: {error}") from error
    return Blueprint(family, config)


def read_blueprint(path: Path) -> tuple[Blueprint, Path | None]:
    """Return the model that a folder's (or its) `config.json` describes, and its weight file if there."""
    file = path / _CONFIG if path.is_dir() else path
    try:
        data = file.read_bytes()
        settings = json.loads(data)
    except (OSError, ValueError) as error:
        raise InvalidSpec(f"{file} holds no JSON: {error}") from error
    if not isinstance(settings, dict) or len(data) > _MAX_CONFIG_BYTES:
        raise InvalidSpec(f"{file} is no model's configuration")
    blueprint = draw_blueprint(str(settings.get("model_type")), settings)
    weights = file.parent / _WEIGHTS
    if weights.is_file():
        return blueprint, weights
    others = sorted(p.name for p in file.parent.glob("*") if p.suffix in (".bin", ".safetensors"))
    if others:
        raise InvalidSpec(
            f"{file.parent} holds {', '.join(others)}, but weights are read from {_WEIGHTS}"
        )
    return blueprint, None


def _find_class(name: str) -> Any:
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise TrainingError(
            f"{name} needs the library transformers: pip install 'touchstone-market[models]'"
        ) from error
    return getattr(library, name)


def _initialize(model: nn.Module, config: Any, seed: int) -> None:
    """Fill what the class fills with normal values with uniform ones of the same deviation."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim < 2:
            continue
        bound = config.initializer_range * math.sqrt(3)
        if name.endswith(_RESIDUAL_OUTPUTS):
            bound /= math.sqrt(2 * config.num_hidden_layers)
        fill_uniform(parameter, bound, seed, index)
