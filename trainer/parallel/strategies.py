"""The strategies: data, tensor and pipeline parallelism as ways to place instructions.

All share one rule: what every rank has or ends with is computed by every rank, unless it multiplies."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from market.protocol.errors import UnsupportedPartition
from market.protocol.program import Instruction, Kind, Program, TensorRole
from trainer.parallel.partition import ProgramPartition, get_operand
from trainer.parallel.planner import Planner, Proposal, Strategy, plan
from trainer.parallel.spread import Access, Placement, Spread, divide, find_placements
from trainer.parallel.stages import PipelineStrategy

Order = tuple[float, ...]  # flags and bytes, least first


class StrategyName(StrEnum):
    """How a step is divided: by rows of the batch, by features, or by layers."""

    DATA = "data"
    TENSOR = "tensor"
    PIPELINE = "pipeline"


class DataStrategy:
    """Cuts the batch: each rank takes its rows through the model, and the ranks add weight gradients.

    A contraction over tokens is done in parts: exponents are the maximum over all ranks, the integer products
    are summed, and each sum is rounded once."""

    def __init__(self, program: Program, world: int) -> None:
        self._rows = {
            instruction: _count_rows(program, instruction)
            for instruction in program.instructions
            if _reads_dataset(program, instruction)
        }
        if not self._rows:
            raise UnsupportedPartition("data: the program reads no rows of a dataset")
        rows = min(self._rows.values())
        if rows < world:
            raise UnsupportedPartition(f"data: batches of {rows} rows for {world} processes")

    def place(self, planner: Planner, instruction: Instruction) -> Proposal:
        """Return who does ``instruction``."""
        if instruction in self._rows:
            cut = Placement(0, divide(self._rows[instruction], planner.world))
            proposal = planner.propose(instruction, cut)
            assert proposal is not None  # every rank has the dataset
            return proposal
        if instruction.kind is not Kind.DOT:
            return _place_cheaply(planner, instruction)
        return min(_propose_dots(planner, instruction), key=_prefer_sums(planner, instruction))


class TensorStrategy:
    """Cuts the matrices: each rank multiplies by its features or heads; rows are joined where needed."""

    def place(self, planner: Planner, instruction: Instruction) -> Proposal:
        """Return who does ``instruction``."""
        if instruction.kind is not Kind.DOT:
            return _place_cheaply(planner, instruction)
        return min(_propose_dots(planner, instruction), key=_prefer_weights(planner, instruction))


def _reads_dataset(program: Program, instruction: Instruction) -> bool:
    return (
        instruction.kind is Kind.GATHER
        and len(instruction.shape) > 0
        and (program.tensors[instruction.operands[1].tensor].role is TensorRole.DATASET)
    )


def _count_rows(program: Program, batch: Instruction) -> int:
    """Return the rows of the least part of a batch that is read at once: a micro-batch, if there are any."""
    found = {batch.shape[0]}
    whole = {
        batch.outputs[0].tensor
    }  # tensors that have all rows, computed from the batch element by element
    for instruction in program.instructions:
        for view in instruction.operands:
            if view.tensor in whole:
                row = program.tensors[view.tensor].type.elements // batch.shape[0]
                reach = sum(
                    (n - 1) * step for n, step in zip(instruction.shape, view.strides, strict=True)
                )
                rows = (view.offset + reach) // row - view.offset // row + 1
                if batch.shape[0] % rows == 0:
                    found.add(rows)
                if rows == batch.shape[0] and instruction.kind is Kind.MAP:
                    whole.update(output.tensor for output in instruction.outputs)
    return min(found)


def _is_reduced(instruction: Instruction, axis: int) -> bool:
    rank, reduced = len(instruction.shape), instruction.reduced
    if instruction.kind is Kind.SCATTER_ADD:
        return axis < reduced
    return axis >= rank - (1 if instruction.kind is Kind.DOT else reduced)


def _place_cheaply(planner: Planner, instruction: Instruction) -> Proposal:
    """Return what moves the fewest bytes: everyone does all, or each the part of which it has an operand."""
    proposals = [planner.propose_everyone(instruction)]
    if proposals[0].bytes == 0:
        return proposals[0]
    spreads = planner.list_spreads(instruction)
    for number, spread in enumerate(spreads):
        access = get_operand(instruction, number, spread)
        for placement in find_placements(instruction.shape, access):
            partial = _is_reduced(instruction, placement.axis)
            proposals += _keep(planner.propose(instruction, placement, partial=partial))
    if instruction.kind is Kind.GATHER and spreads[1] is not None:
        proposals += _keep(planner.propose(instruction, None, partial=True))
    return min(proposals, key=lambda proposal: proposal.bytes)


def _keep(proposal: Proposal | None) -> list[Proposal]:
    return [] if proposal is None else [proposal]


def _propose_dots(planner: Planner, instruction: Instruction) -> list[Proposal]:
    """Return the ways to share the multiplications of a `dot`; all of it by everyone if there is none."""
    cuts = dict.fromkeys(_find_cuts(planner, instruction))
    proposals: list[Proposal] = []
    for placement in cuts:
        partial = _is_reduced(instruction, placement.axis)
        proposals += _keep(planner.propose(instruction, placement, partial=partial))
    return proposals or [planner.propose_everyone(instruction)]


def _find_cuts(planner: Planner, instruction: Instruction) -> Iterator[Placement]:
    """Yield the cuts that follow operands as they are spread, then an even one through each axis."""
    last = len(instruction.shape) - 1
    for view in instruction.operands:
        for spread in planner.find_quantized_spreads(view):
            yield from find_placements(instruction.shape, Access(view, spread))
    for axis in range(last + 1):
        if instruction.shape[axis] >= planner.world:
            yield Placement(axis, divide(instruction.shape[axis], planner.world))


def _prefer_sums(planner: Planner, instruction: Instruction) -> Callable[[Proposal], Order]:
    """Order the proposals: first sums over tokens that are where they are, then by bytes moved."""
    last = len(instruction.shape) - 1
    rows: list[set[Spread]] = [
        {s for s in planner.find_quantized_spreads(view) if s.period == instruction.shape[last]}
        for view in instruction.operands
    ]
    here = rows[0] & rows[1]

    def order(proposal: Proposal) -> Order:
        cut = proposal.placement
        is_here = cut is not None and cut.axis == last and cut.spread in here
        return not is_here, proposal.bytes, _count_most(proposal)

    return order


def _prefer_weights(planner: Planner, instruction: Instruction) -> Callable[[Proposal], Order]:
    """Order the proposals by bytes moved; among equals, first those that cut a weight."""
    weights = [view for view in instruction.operands if planner.is_state(planner.get_source(view))]

    def order(proposal: Proposal) -> Order:
        cut = proposal.placement
        cuts_weight = cut is not None and any(view.strides[cut.axis] for view in weights)
        return proposal.bytes, not cuts_weight, _count_most(proposal)

    return order


def _count_most(proposal: Proposal) -> float:
    """Return the share of the multiplications that the busiest rank would do."""
    if proposal.placement is None:
        return 1.0
    spread = proposal.placement.spread
    return max(spread.get_width(rank) for rank in range(spread.world)) / spread.period


_BUILDERS: Final[dict[StrategyName, Callable[[Program, int], Strategy]]] = {
    StrategyName.DATA: DataStrategy,
    StrategyName.TENSOR: lambda _program, _world: TensorStrategy(),
    StrategyName.PIPELINE: PipelineStrategy,
}


def partition(program: Program, world: int, strategy: StrategyName) -> ProgramPartition:
    """Return a valid ``program`` divided over ``world`` ranks; raise UnsupportedPartition if it cannot be."""
    return plan(program, world, _BUILDERS[strategy](program, world))
