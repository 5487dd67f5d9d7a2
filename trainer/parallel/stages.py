"""Pipeline parallelism: layers in stages, each on the rank that multiplies by its weights.

A layer is what the first number in a weight's name tells: `blocks.3.attention.q.weight` is of `blocks.3`.
A weight without a number is multiplied where the activations are."""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Final

from market.protocol.errors import UnsupportedPartition
from market.protocol.program import Instruction, Kind, OutputKind, Program, TensorRole
from trainer.parallel.planner import Planner, Proposal

_LAYER: Final = re.compile(r"^(?:.*?\.)?\d+(?=\.)")


class PipelineStrategy:
    """Puts an instruction where its weights' layer is, else where most of what it reads is."""

    def __init__(self, program: Program, world: int) -> None:
        sources = {
            i.outputs[0].tensor: i.operands[0].tensor
            for i in program.instructions
            if i.kind is Kind.QUANTIZE
        }
        self._stages = assign_stages(program, sources, world)
        self._gradients = {
            tensor: self._stages[name]
            for name, tensor in program.find_outputs(OutputKind.GRADIENT).items()
            if name in self._stages
        }
        self._weights = {
            i: self._stages[t.name] for i, t in program.inputs if t.name in self._stages
        }

    def place(self, planner: Planner, instruction: Instruction) -> Proposal:
        """Return who does ``instruction``."""
        is_dot = instruction.kind is Kind.DOT
        reads = [
            planner.get_source(view) if is_dot else view.tensor for view in instruction.operands
        ]
        if not is_dot and all(planner.is_everywhere(tensor) for tensor in reads):
            return planner.propose_everyone(instruction)
        written = [view.tensor for view in instruction.outputs]
        named = [self._weights[t] for t in reads if t in self._weights]
        named += [self._gradients[t] for t in written if t in self._gradients]
        rank = named[0] if named else self._find_nearest(planner, reads)
        return Proposal(frozenset({rank}))

    def _find_nearest(self, planner: Planner, reads: list[int]) -> int:
        """Return the rank that lacks the fewest bytes; among equals, that of what was written last."""
        newest = max(reads, key=lambda tensor: planner.latest.get(tensor, -1), default=None)

        def order(rank: int) -> tuple[int, bool, int]:
            lacking = {t for t in reads if rank not in planner.whole[t]}
            size = sum(planner.tensors[tensor].type.nbytes for tensor in lacking)
            return size, newest in lacking, planner.products[rank]

        return min(range(planner.world), key=order)


def assign_stages(program: Program, sources: Mapping[int, int], world: int) -> dict[str, int]:
    """Return the stage of every layer's weights by name: the busiest stage multiplies as little as can be.

    ``sources`` maps quantized tensors to what they are made from."""
    layers, loads = _find_layers(program, sources)
    if len(loads) < world:
        raise UnsupportedPartition(f"pipeline: {world} stages for a model of {len(loads)} layers")
    cuts = cut_evenly(loads, world)
    return {name: sum(cut <= layer for cut in cuts) for name, layer in layers.items()}


def cut_evenly(loads: Sequence[int], groups: int) -> list[int]:
    """Return where to cut ``loads`` into so many nonempty ``groups`` that the greatest is least."""
    totals = [0, *accumulate(loads)]
    best: list[tuple[int, list[int]]] = [(total, []) for total in totals]  # of the first so many
    for group in range(1, groups):
        best = [
            min(
                (
                    (max(best[i][0], totals[end] - totals[i]), [*best[i][1], i])
                    for i in range(group, end)
                ),
                default=(totals[-1] + 1, []),
            )
            for end in range(len(totals))
        ]
    return best[-1][1]


def _find_layers(program: Program, sources: Mapping[int, int]) -> tuple[dict[str, int], list[int]]:
    """Return the layer of each weight, numbered by first use, and the multiply-adds of each layer.

    A `dot` without a layer's weight counts for the layer that was used last."""
    names = {i: t.name for i, t in program.inputs if t.role is TensorRole.BASE}
    layers: dict[str, int] = {}
    numbers: dict[str, int] = {}
    loads: dict[int, int] = {}
    current = 0
    for instruction in program.instructions:
        for view in instruction.operands:
            name = names.get(sources.get(view.tensor, view.tensor), "")
            if found := _LAYER.match(name):
                current = layers[name] = numbers.setdefault(found[0], len(numbers))
        if instruction.kind is Kind.DOT:
            loads[current] = loads.get(current, 0) + prod(instruction.shape)
    return layers, [loads.get(layer, 0) for layer in range(len(numbers))]
