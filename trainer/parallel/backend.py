"""A backend whose instructions may be exchanges: the others it leaves to the backend that it wraps."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from market.protocol.program import Instruction, Kind, View
from market.protocol.tensors import TensorType
from trainer.exact.carriers import Carrier
from trainer.exact.torch_backend import view_elements, view_output
from trainer.exact.torch_ops import find_positions
from trainer.parallel import partial as parts
from trainer.parallel.partial import Communicator
from trainer.parallel.ranks import Combine, Exchange, Gather, Move, RankProgram
from trainer.workspace import Backend


class ParallelBackend:
    """Runs a rank's program: exchanges with ``others``, all else on ``inner``."""

    def __init__(
        self, rank_program: RankProgram, inner: Backend, carrier: Carrier, others: Communicator
    ) -> None:
        self._exchanges = rank_program.exchanges
        self._tensors = rank_program.program.tensors
        self._inner = inner
        self._carrier = carrier
        self._others = others

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes of a tensor's elements."""
        return self._inner.count_bytes(kind)

    def count_scratch(self, instructions: Sequence[Instruction]) -> int:
        """Return about how many bytes preparing and running instructions take besides."""
        exchanges = [self._exchanges[x] for x in instructions if x in self._exchanges]
        ordinary = [x for x in instructions if x not in self._exchanges]
        staged = max(map(self._count_staged, exchanges), default=0)
        return self._inner.count_scratch(ordinary) + staged

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Say where a tensor is from now on (a quantized tensor: as bytes)."""
        self._inner.bind(tensor, elements, exponents)

    def prepare(self, instructions: Sequence[Instruction]) -> list[Callable[[], object]]:
        """Return a function that runs each instruction."""
        ordinary = [x for x in instructions if x not in self._exchanges]
        runs = dict(zip(ordinary, self._inner.prepare(ordinary), strict=True))
        return [
            runs[x] if x in runs else partial(self._run, self._exchanges[x]) for x in instructions
        ]

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat, and its exponents."""
        return self._inner.read(tensor)

    def _read(self, tensor: int) -> Tensor:
        return self._inner.read(tensor)[0]

    def _count_staged(self, exchange: Exchange) -> int:
        if isinstance(exchange, Gather):
            return self._others.world * self._count_widest(exchange)
        if isinstance(exchange, Move):
            return self._tensors[exchange.tensor].type.nbytes
        outputs = exchange.instruction.outputs
        return 3 * 8 * sum(self._tensors[view.tensor].type.elements for view in outputs)

    def _count_widest(self, exchange: Gather) -> int:
        """Return the bytes of the largest part."""
        kind, spread = self._tensors[exchange.whole].type, exchange.spread
        widest = max(spread.get_width(rank) for rank in range(spread.world))
        return kind.nbytes // spread.period * widest

    def _run(self, exchange: Exchange) -> None:
        if isinstance(exchange, Gather):
            self._gather(exchange)
        elif isinstance(exchange, Move):
            self._move(exchange)
        elif exchange.instruction.kind is Kind.DOT:
            self._multiply(exchange)
        else:
            self._reduce(exchange)

    def _gather(self, exchange: Gather) -> None:
        part, whole, spread = self._read(exchange.part), self._read(exchange.whole), exchange.spread
        rows, world = whole.numel() // spread.period, spread.world
        even = spread.is_even
        if even and rows == 1:
            self._others.gather(part.view(torch.uint8), whole.view(torch.uint8).view(world, -1))
            return
        size = self._count_widest(exchange)
        sent = part.view(torch.uint8)
        if not even:
            sent = torch.empty(size, dtype=torch.uint8, device=part.device)
            sent[: part.numel() * part.element_size()] = part.view(torch.uint8)
        parts = torch.empty((world, size), dtype=torch.uint8, device=part.device)
        self._others.gather(sent, parts)
        table = whole.view(rows, spread.period)
        for rank in range(world):
            width = spread.get_width(rank)
            mine = parts[rank].view(whole.dtype)[: rows * width].view(rows, width)
            table[:, spread.cuts[rank] : spread.cuts[rank + 1]] = mine

    def _move(self, exchange: Move) -> None:
        values = self._read(exchange.tensor).view(torch.uint8)
        if self._others.rank == exchange.source:
            self._others.send(values, exchange.targets)
        else:
            self._others.receive(values, exchange.source)

    def _view(self, view: View, shape: Sequence[int]) -> Tensor:
        return view_elements(self._read(view.tensor), view, shape)

    def _view_rows(self, view: View, shape: Sequence[int], exponents: int) -> Tensor:
        """Return the exponents of a view whose rows are cut: of ``shape`` without the rows' axis."""
        length = shape[-1]
        strides = tuple(stride // length for stride in view.strides[:-1])
        return view_elements(
            self._read(exponents), View(exponents, view.offset // length, strides), shape[:-1]
        )

    def _multiply(self, exchange: Combine) -> None:
        instruction = exchange.instruction
        (a, b), shape = instruction.operands, instruction.shape
        out = instruction.outputs[0]
        parts.multiply(
            self._view(a, shape),
            self._view_rows(a, shape, exchange.exponents[0]),
            self._view(b, shape),
            self._view_rows(b, shape, exchange.exponents[1]),
            exchange.bits,
            view_output(self._read(out.tensor), instruction, out),
            self._carrier,
            self._others,
        )

    def _reduce(self, exchange: Combine) -> None:
        instruction, others = exchange.instruction, self._others
        kind, shape = instruction.kind, instruction.shape
        first = self._view(instruction.operands[0], shape)
        written = instruction.outputs[0]
        out = view_output(self._read(written.tensor), instruction, written)
        if kind is Kind.QUANTIZE:
            exponents = self._read(exchange.exponents[0]).view(shape[:-1])
            parts.quantize(first, instruction.attributes[0], out, exponents, others)
        elif kind is Kind.SUM:
            parts.sum_terms(first, instruction.reduced, out, others)
        elif kind is Kind.MAX:
            parts.find_greatest(first, instruction.reduced, out, others)
        elif kind is Kind.SCATTER_ADD:
            source, bound = self._view(instruction.operands[1], shape), instruction.attributes[0]
            parts.scatter_rows(first, source, instruction.reduced, bound, out, others)
        else:
            source_view, spread = instruction.operands[1], exchange.spread
            assert kind is Kind.GATHER
            assert spread is not None  # else it would be no exchange
            positions = find_positions(
                first, source_view.offset, source_view.strides, *instruction.attributes
            )
            parts.gather_elements(positions, self._read(source_view.tensor), spread, out, others)
