"""The joint graph: one traced forward and backward pass of a module in few functional ATen operators.

`torch.export` traces the forward pass of the unchanged module; autograd then runs through that graph
under `make_fx`, which decomposes composite operators."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel

from market.protocol.errors import UnsupportedOperator

_MORE_DECOMPOSED: Final = (
    *(torch.ops.aten.leaky_relu, torch.ops.aten.hardtanh),
    torch.ops.aten.native_group_norm,
)

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class JointGraph:
    """A graph whose placeholders are ``names`` and whose results are the loss and each gradient.

    A placeholder is a parameter (its name), a constant (its tensor), or the n-th batch tensor."""

    graph: fx.Graph
    placeholders: tuple[str | Tensor | int, ...]
    parameters: dict[str, nn.Parameter]


class _WithLoss(nn.Module):
    """A module and the loss of its output and the last batch tensor."""

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        """Return the scalar loss."""
        return self.loss(self.model(*batch[:-1]), batch[-1])


def trace(model: nn.Module, loss: LossFunction | None, batch: Sequence[Tensor]) -> JointGraph:
    """Return the joint graph of ``model``; with a ``loss``, of loss(model(*inputs), targets)."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    whole = model if loss is None else _WithLoss(model, loss)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = _export(whole, tuple(batch))
        names = {id(p): name for name, p in parameters.items()}
        placeholders = tuple(_find_placeholders(whole, program, names))
        examples = _find_examples(placeholders, parameters, batch)
        graph = _differentiate(program, placeholders, examples, list(parameters))
    return JointGraph(graph, placeholders, parameters)


def _export(model: nn.Module, batch: tuple[Tensor, ...]) -> ExportedProgram:
    try:
        program = export(model, batch, strict=False)
    except (GuardOnDataDependentSymNode, torch._dynamo.exc.UserError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedOperator(
            "torch.export cannot trace the model as one straight line; control flow that depends on "
            f"data has no lowering: {reason}"
        ) from error
    return program


def _is_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _find_placeholders(
    model: nn.Module, program: ExportedProgram, names: dict[int, str]
) -> Iterator[str | Tensor | int]:
    batch = 0
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            yield batch
            batch += 1
        elif spec.kind is InputKind.PARAMETER:
            assert spec.target is not None
            parameter = model.get_parameter(spec.target)
            yield names.get(id(parameter), parameter.detach())
        else:
            tables: dict[str, Any] = {**program.state_dict, **program.constants}
            tensor = tables.get(str(spec.target))
            if not isinstance(tensor, Tensor):
                raise UnsupportedOperator(f"the model's input {spec.target} is no tensor")
            yield tensor.detach()


def _find_examples(
    placeholders: Sequence[str | Tensor | int],
    parameters: dict[str, nn.Parameter],
    batch: Sequence[Tensor],
) -> list[Tensor]:
    def find(item: str | Tensor | int) -> Tensor:
        if isinstance(item, str):
            return parameters[item].detach().requires_grad_()
        return batch[item] if isinstance(item, int) else item

    return [find(item) for item in placeholders]


def _differentiate(
    program: ExportedProgram,
    placeholders: Sequence[str | Tensor | int],
    examples: Sequence[Tensor],
    parameters: Sequence[str],
) -> fx.Graph:
    """Return the graph of the loss and the gradient of each parameter (None if it has none)."""
    first = {item: at for at, item in reversed([*enumerate(placeholders)]) if isinstance(item, str)}

    def joint(*tensors: Tensor) -> tuple[Tensor, ...]:
        tied = [
            tensors[first[item]] if isinstance(item, str) else tensor
            for item, tensor in zip(placeholders, tensors, strict=True)
        ]
        with fx.traceback.preserve_node_meta():
            loss = fx.Interpreter(program.graph_module).run(*tied)[0]
        if loss.numel() != 1:
            raise UnsupportedOperator(f"the loss has the shape {tuple(loss.shape)}: one number")
        used = [tensors[first[name]] for name in parameters if name in first]
        found = iter(torch.autograd.grad(loss.reshape(()), used, allow_unused=True))
        return (loss, *(next(found) if name in first else None for name in parameters))

    graph = _trace_with_origins(joint, examples)
    if any(_is_in_place(node) for node in graph.graph.nodes):
        pure = torch.func.functionalize(fx.Interpreter(graph).run, remove="mutations")
        graph = _trace_with_origins(pure, examples)
        _require_no_changed_input(graph.graph, program)
    graph.graph.eliminate_dead_code()
    return graph.graph


def _require_no_changed_input(graph: fx.Graph, program: ExportedProgram) -> None:
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    specs = dict(zip(placeholders, program.graph_signature.input_specs, strict=True))
    for node in graph.nodes:
        if _is_in_place(node):
            changed = specs[node.args[0]]
            raise UnsupportedOperator(
                f"the model changes its buffer {changed.target} in the forward pass, as BatchNorm does "
                "while training; only parameters have a next value"
            )


def _trace_with_origins(function: Callable[..., Any], examples: Sequence[Tensor]) -> fx.GraphModule:
    """Return the decomposed graph of ``function``, whose nodes remember the modules they are from."""
    core: Any = torch._decomp.core_aten_decompositions()  # untyped
    table = {**dict(core.items()), **torch._decomp.get_decompositions(_MORE_DECOMPOSED)}
    del table[torch.ops.aten.embedding_dense_backward.default]  # one scatter_add
    with fx.traceback.preserve_node_meta():
        traced = make_fx(function, decomposition_table=table, tracing_mode="fake")(*examples)
    assert isinstance(traced, fx.GraphModule)
    return traced


def describe_origin(node: fx.Node) -> str:
    """Return the path and class of the module that produced ``node``, and its line."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "in the backward pass"
    path, kind = stack[-1][0], stack[-1][1]
    name = kind if isinstance(kind, str) else kind.__name__
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    source = f": {lines[-1]}" if lines else ""
    return f"in {path or 'the model'} ({name.rsplit('.', 1)[-1]}){source}"
