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
from trainer.lower.refusals import (
    WRAPPED,
    describe_changed_tensor,
    locate_failure,
    refuse_new_buffers,
    summarize,
    unwrap,
)

_MORE_DECOMPOSED: Final = (
    *(torch.ops.aten.leaky_relu, torch.ops.aten.hardtanh),
    *(torch.ops.aten.native_group_norm, torch.ops.aten.linalg_vector_norm),
    *(torch.ops.aten.native_batch_norm, torch.ops.aten.native_batch_norm_backward),
)

_DECOMPOSED_FIRST: Final = (  # what autograd would give an operator of its own
    *(torch.ops.aten.upsample_nearest1d.vec, torch.ops.aten.upsample_nearest2d.vec),
    *(torch.ops.aten.upsample_linear1d.vec, torch.ops.aten.upsample_bilinear2d.vec),
)
_NOT_DECOMPOSED: Final = (
    torch.ops.aten.embedding_dense_backward.default,  # one scatter_add
    torch.ops.aten.native_dropout.default,
)

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class JointGraph:
    """A graph whose placeholders are ``names`` and whose results are the loss and each gradient.

    A placeholder is a parameter (its name), a constant (its tensor), or the n-th batch tensor.
    ``parameters`` are trained; ``frozen`` ones (requires_grad=False) have no gradient."""

    graph: fx.Graph
    placeholders: tuple[str | Tensor | int, ...]
    parameters: dict[str, nn.Parameter]
    frozen: dict[str, nn.Parameter]


class _WithLoss(nn.Module):
    """A module and the loss of its output and the last batch tensor."""

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)
        self.loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        """Return the scalar loss."""
        return self.loss(self.get_submodule(WRAPPED)(*batch[:-1]), batch[-1])


def trace(model: nn.Module, loss: LossFunction | None, batch: Sequence[Tensor]) -> JointGraph:
    """Return the joint graph of ``model``; with a ``loss``, of loss(model(*inputs), targets)."""
    named = dict(model.named_parameters())
    parameters = {name: p for name, p in named.items() if p.requires_grad}
    frozen = {name: p for name, p in named.items() if not p.requires_grad}
    whole = model if loss is None else _WithLoss(model, loss)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = _export(whole, tuple(batch))
        names = {id(p): name for name, p in named.items()}
        placeholders = tuple(_find_placeholders(whole, program, names))
        examples = _find_examples(placeholders, named, batch)
        try:
            graph = _differentiate(program, placeholders, examples, list(parameters))
        except RuntimeError as error:
            raise UnsupportedOperator(
                f"torch cannot differentiate it: {summarize(error)}"
            ) from error
    return JointGraph(graph, placeholders, parameters, frozen)


def _export(model: nn.Module, batch: tuple[Tensor, ...]) -> ExportedProgram:
    try:
        with refuse_new_buffers(model):
            program = export(model, batch, strict=False)
    except (GuardOnDataDependentSymNode, torch._dynamo.exc.UserError) as error:
        raise UnsupportedOperator(
            f"control flow that depends on data, {locate_failure(model, error)}, has no lowering: a step "
            f"is one straight line ({summarize(error)})"
        ) from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedOperator(
            f"torch cannot trace what happens {locate_failure(model, error)} ({summarize(error)})"
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
            parameter = parameters[item]
            return parameter.detach().requires_grad_(parameter.requires_grad)
        return batch[item] if isinstance(item, int) else item

    return [find(item) for item in placeholders]


class _ForwardPass(fx.Interpreter):
    """Runs an exported forward pass; a dropout stays one operator, whose mask is words of a step's own."""

    def run_node(self, node: fx.Node) -> Any:
        """Run one node; an error of torch names it and the module that it is from."""
        try:
            return super().run_node(node)
        except RuntimeError as error:
            raise UnsupportedOperator(
                f"{node.target} {describe_origin(node)} has no lowering: {summarize(error)}"
            ) from error

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run one operator."""
        if target in _DECOMPOSED_FIRST:
            return torch._decomp.decomposition_table[target](*args, **kwargs)
        if target is not torch.ops.aten.dropout.default:
            return super().call_function(target, args, kwargs)
        x, chance, is_training = args
        if not is_training or chance == 0:
            return x
        return torch.ops.aten.native_dropout.default(x, chance, is_training)[0]


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
            forward_pass = _ForwardPass(program.graph_module)
            forward_pass.extra_traceback = False  # it would rewrite our errors
            loss = forward_pass.run(*tied)[0]
        if loss.numel() != 1:
            raise UnsupportedOperator(f"the loss has the shape {tuple(loss.shape)}: one number")
        used = [tensors[first[name]] for name in parameters if name in first]
        if not loss.requires_grad:
            raise UnsupportedOperator("the loss depends on no parameter that is trained")
        found = iter(torch.autograd.grad(loss.reshape(()), used, allow_unused=True))
        return (loss, *(next(found) if name in first else None for name in parameters))

    graph = _trace_with_origins(joint, examples)
    if any(_is_in_place(node) for node in graph.graph.nodes):
        pure = torch.func.functionalize(fx.Interpreter(graph).run, remove="mutations")
        with torch.no_grad():
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
            raise UnsupportedOperator(describe_changed_tensor(unwrap(str(changed.target))))


def _trace_with_origins(function: Callable[..., Any], examples: Sequence[Tensor]) -> fx.GraphModule:
    """Return the decomposed graph of ``function``, whose nodes remember the modules they are from."""
    core: Any = torch._decomp.core_aten_decompositions()  # untyped
    table = {**dict(core.items()), **torch._decomp.get_decompositions(_MORE_DECOMPOSED)}
    for whole in _NOT_DECOMPOSED:
        table.pop(whole, None)
    with fx.traceback.preserve_node_meta():
        traced = make_fx(function, decomposition_table=table, tracing_mode="fake")(*examples)
    assert isinstance(traced, fx.GraphModule)
    return traced


def describe_origin(node: fx.Node) -> str:
    """Return the path and class of the module that produced ``node``, and its line."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "in the backward pass"
    path, kind = unwrap(stack[-1][0]), stack[-1][1]
    name = kind if isinstance(kind, str) else kind.__name__
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    source = f": {lines[-1]}" if lines else ""
    return f"in {path or 'the model'} ({name.rsplit('.', 1)[-1]}){source}"
