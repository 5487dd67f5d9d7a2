"""The outer step: the next base is the base minus the mean of the slots' pseudo-gradients."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce

from market.protocol.constants import MAX_SUM_TERMS
from market.protocol.program import OutputKind, Program, TensorRole
from market.protocol.tensors import TensorType
from market.protocol.validity import require_valid_program
from trainer.lower import instructions, recipes
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import Expr, invert, select
from trainer.lower.values import Lazy, Value


def contribution_name(slot: int, tensor: str) -> str:
    """Return the input that holds a tensor of a slot's poststate."""
    return f"{slot}/{tensor}"


def lower_outer_step(base: Mapping[str, TensorType], slots: int) -> Program:
    """Return the program of plain averaging over ``slots``.

    The pseudo-gradient of a slot is base - contribution, in all tensors zero if any element of its
    contribution is not finite; next base = base - (sum in slot order) / ``slots``."""
    builder = ProgramBuilder()
    old = {name: builder.add_input(name, kind, TensorRole.BASE) for name, kind in base.items()}
    contributions = [
        {
            name: builder.add_input(contribution_name(slot, name), kind, TensorRole.CONTRIBUTION)
            for name, kind in base.items()
        }
        for slot in range(slots)
    ]
    flags = [_find_flag(builder, list(tensors.values())) for tensors in contributions]
    outputs = []
    for name, value in old.items():
        given = [tensors[name] for tensors in contributions]
        following = _average(builder, value, given, flags)
        outputs.append(NamedOutput(OutputKind.NEXT_STATE, name, following))
    program = builder.build(outputs)
    require_valid_program(program)
    return program


def _find_flag(builder: ProgramBuilder, tensors: Sequence[Lazy]) -> Value:
    """Return the scalar 1 if any element of ``tensors`` is not finite, else 0."""
    probes = [builder.map(recipes.is_nan, _probe(builder, tensor)) for tensor in tensors]
    found = reduce(lambda a, b: builder.map(lambda x, y: x + y, a, b), probes)
    return builder.store(builder.map(lambda n: invert(n.equals(0)), found))


def _probe(builder: ProgramBuilder, tensor: Lazy) -> Lazy:
    """Return a scalar that is NaN exactly if an element is not finite: an exact sum is poisoned."""
    kept = 0
    while math.prod(tensor.shape[kept:]) > MAX_SUM_TERMS:
        kept += 1
    axes = list(range(kept, len(tensor.shape)))
    if axes:
        tensor = instructions.reduce_sum(builder, tensor, axes)
    else:
        tensor = builder.to_lazy(builder.map(lambda x: x - x, tensor))
    if kept:
        tensor = instructions.reduce_max(builder, tensor, list(range(kept)))
    return builder.reshape(tensor, ())


def _average(
    builder: ProgramBuilder, old: Value, contributions: Sequence[Value], flags: Sequence[Value]
) -> Value:
    def subtract(base: Expr, new: Expr, flag: Expr) -> Expr:
        return select(flag, 0.0, base - new)

    deltas = [
        builder.map(subtract, old, new, flag)
        for new, flag in zip(contributions, flags, strict=True)
    ]
    total = reduce(lambda a, b: builder.map(lambda x, y: x + y, a, b), deltas)
    return builder.map(lambda base, mean: base - mean / len(flags), old, total)
