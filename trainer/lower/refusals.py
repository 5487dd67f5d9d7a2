"""What tracing cannot follow, said with the path of the module where it happened."""

import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
from torch import nn

from market.protocol.errors import UnsupportedOperator

WRAPPED: Final = "traced_model"  # where a model lies in the module that adds its loss
_TORCH: Final = str(Path(torch.__file__).parent)


def unwrap(path: str) -> str:
    """Return the path of a module or tensor in the model itself."""
    return path.removeprefix(WRAPPED).removeprefix(".")


def locate_failure(model: nn.Module, error: BaseException) -> str:
    """Return the module of ``model`` in which ``error`` was raised, and the line."""
    paths = {id(module): path for path, module in model.named_modules()}
    where, line = "in the model", ""
    for at in _walk(error.__traceback__):
        frame = at.tb_frame
        module, file = frame.f_locals.get("self"), frame.f_code.co_filename
        if isinstance(module, nn.Module) and id(module) in paths:
            path = unwrap(paths[id(module)])
            where = f"in {path or 'the model'} ({type(module).__name__})"
        if not file.startswith((_TORCH, "<")) and where != "in the model":
            line = linecache.getline(file, at.tb_lineno).strip()
    return f"{where}: {line}" if line else where


def _walk(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def summarize(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


@contextmanager
def refuse_new_buffers(model: nn.Module) -> Iterator[None]:
    """Raise UnsupportedOperator when a module's forward pass puts another tensor in place of a buffer.

    Tracing would forget that tensor without a word."""
    before: dict[int, dict[str, Any]] = {}
    handles = []

    def remember(module: nn.Module, _arguments: Any) -> None:
        before[id(module)] = dict(module._buffers)

    def compare(module: nn.Module, _arguments: Any, _result: Any) -> None:
        for name, old in before[id(module)].items():
            if module._buffers.get(name) is not old:
                path = next(path for path, other in model.named_modules() if other is module)
                raise UnsupportedOperator(
                    describe_changed_tensor(unwrap(f"{path}.{name}".lstrip(".")))
                )

    for module in model.modules():
        if module._buffers:
            handles.append(module.register_forward_pre_hook(remember))
            handles.append(module.register_forward_hook(compare))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def describe_changed_tensor(name: str) -> str:
    """Return why a model that writes to its buffer or parameter ``name`` cannot be lowered."""
    return (
        f"the model changes its {name} in the forward pass, as BatchNorm does while training; "
        "only the optimizer gives tensors a next value"
    )
