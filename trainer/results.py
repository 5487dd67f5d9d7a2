"""Weights in and out of an ordinary module: safetensors under the module's own names.

A file holds every name of the module's `state_dict`, a tied tensor under each of its names, so it loads
back strictly into the class that it is from. Nothing is unpickled."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from market.protocol.errors import InvalidSpec

_EXACT: Final = {"F32", "F16", "BF16"}  # binary32 holds all of their values


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a job's base tensors into the parameters of ``model``, by their names."""
    for name, parameter in model.named_parameters():
        if name not in state:
            raise InvalidSpec(f"the state has no tensor {name}")
        if state[name].shape != parameter.shape:
            raise InvalidSpec(
                f"{name} has the shape {tuple(state[name].shape)} in the state, not "
                f"{tuple(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[name])


def list_aliases(model: nn.Module) -> dict[str, str]:
    """Return the further names that tied parameters have in `state_dict`, and the first of each."""
    first = {id(p): name for name, p in model.named_parameters()}
    named = model.state_dict(keep_vars=True).items()
    owners = {name: first[id(tensor)] for name, tensor in named if id(tensor) in first}
    return {name: owner for name, owner in owners.items() if name != owner}


def save_result(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Write what a job's ``state`` makes of ``model``, which has these weights afterwards."""
    load_state(model, state)
    tensors = {name: t.detach().clone().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load_result(
    model: nn.Module, path: Path, *, prefix: str = "", ignored: Collection[str] = ()
) -> None:
    """Load a weight file into ``model``; one of a tied tensor's names is enough.

    Names that lack the ``prefix`` have it added; those that match a pattern of ``ignored`` may be strange.
    Raises InvalidSpec for a file that is truncated, lacks a name or has a strange one, or for another shape,
    a type that binary32 does not hold, or a value that is not finite."""
    expected = model.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = {_complete(name, prefix, expected): name for name in file.keys()}  # noqa: SIM118
            for name in set(names) - set(expected):
                if any(re.search(pattern, name) for pattern in ignored):
                    del names[name]
            _require_names(path, model, names)
            tensors = {
                name: _read(path, file, stored, expected[name]) for name, stored in names.items()
            }
    except (SafetensorError, OSError) as error:
        raise InvalidSpec(f"{path} is no whole safetensors file: {error}") from error
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def _complete(name: str, prefix: str, expected: Mapping[str, Tensor]) -> str:
    return prefix + name if name not in expected and prefix + name in expected else name


def _require_names(path: Path, model: nn.Module, names: Mapping[str, str]) -> None:
    aliases: dict[int, list[str]] = defaultdict(list)
    for name, tensor in model.state_dict(keep_vars=True).items():
        aliases[id(tensor)].append(name)
    missing = [group[0] for group in aliases.values() if not any(name in names for name in group)]
    if missing:
        raise InvalidSpec(f"{path} lacks {', '.join(missing)}")
    strange = set(names) - {name for group in aliases.values() for name in group}
    if strange:
        raise InvalidSpec(
            f"{path} holds {', '.join(sorted(strange))}, which the model does not have"
        )


def _read(path: Path, file: Any, name: str, like: Tensor) -> Tensor:
    """Return a tensor, its shape and type checked before it is read."""
    header = file.get_slice(name)
    shape, dtype = tuple(header.get_shape()), header.get_dtype()
    if shape != tuple(like.shape):
        raise InvalidSpec(f"{path}: {name} has the shape {shape}, not {tuple(like.shape)}")
    if like.is_floating_point() and dtype not in _EXACT:
        raise InvalidSpec(f"{path}: {name} is {dtype}: {', '.join(sorted(_EXACT))}")
    tensor: Tensor = file.get_tensor(name).to(like.dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidSpec(f"{path}: {name} holds a value that is not finite")
    return tensor
