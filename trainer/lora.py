"""Low-rank adapters (LoRA): frozen layers that a product of two narrow trainable matrices adds to.

The layers stay the modules that they are, with their names; each gets the parameters `lora_a` [rank, in]
and `lora_b` [out, rank]."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from market.protocol.errors import InvalidSpec
from trainer.models import fill_uniform

_ADAPTER_PART = 1  # c2 of the initial words; the model's own weights have 0


@dataclass(frozen=True, slots=True)
class Adapters:
    """Which linear layers are adapted, by the ends of their names, and the ``rank`` of the update."""

    layers: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank


def add_adapters(model: nn.Module, adapters: Adapters, seed: int) -> None:
    """Freeze all of ``model`` and adapt the named layers; it computes what it did until it is trained."""
    if adapters.rank < 1:
        raise InvalidSpec(f"adapters of rank {adapters.rank}: at least 1")
    model.requires_grad_(requires_grad=False)
    for index, (name, layer) in enumerate(_find_layers(model, adapters)):
        weight = _get_linear_weight(name, layer)
        outputs, inputs = weight.shape
        layer.lora_a = nn.Parameter(torch.empty(adapters.rank, inputs))
        layer.lora_b = nn.Parameter(torch.zeros(outputs, adapters.rank))
        fill_uniform(layer.lora_a, inputs**-0.5, seed, index, _ADAPTER_PART)
        layer.register_forward_hook(_Adapter(adapters.scale))


def merge_adapters(model: nn.Module) -> None:
    """Add each adapter's product (computed in float64, rounded once) to its layer, and remove it."""
    for layer in model.modules():
        for key, hook in [*layer._forward_hooks.items()]:
            if not isinstance(hook, _Adapter):
                continue
            del layer._forward_hooks[key]
            _merge(layer, hook.scale)


def _merge(layer: nn.Module, scale: float) -> None:
    weight = _get_linear_weight("", layer)
    a, b = layer.lora_a, layer.lora_b
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    with torch.no_grad():
        weight.copy_(weight.double() + b.double() @ a.double() * scale)
    del layer.lora_a, layer.lora_b


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A forward hook that adds the adapter's product to a layer's output."""

    scale: float

    def __call__(self, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        a, b = layer.lora_a, layer.lora_b
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        return output + nn.functional.linear(nn.functional.linear(arguments[0], a), b) * self.scale


def _find_layers(model: nn.Module, adapters: Adapters) -> Iterator[tuple[str, nn.Module]]:
    modules = dict(model.named_modules())
    for end in adapters.layers:
        if not any(_is_called(name, end) for name in modules):
            raise InvalidSpec(f"the model has no layer called {end!r}")
    for name, module in modules.items():
        if any(_is_called(name, end) for end in adapters.layers):
            yield name, module


def _is_called(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)


def _get_linear_weight(name: str, layer: nn.Module) -> Tensor:
    """Return the weight as [out, in]; the linear layers of GPT-2 (`Conv1D`) keep its transpose."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach()
    if type(layer).__name__ == "Conv1D":
        weight = layer.weight
        assert isinstance(weight, Tensor)
        return weight.detach().t()
    raise InvalidSpec(f"{name} is a {type(layer).__name__}: only linear layers have adapters")
