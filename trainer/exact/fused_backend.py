"""A program's instructions prepared for the fused CPU kernels.

The kernels find tensors through a table of addresses, so what is prepared once serves every step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from market.protocol.program import Instruction, Kind, Program, View
from market.protocol.tensors import Dtype, TensorType
from trainer.exact.fused_index import plan_gather, plan_random, plan_scatter_add
from trainer.exact.fused_map import plan_map
from trainer.exact.fused_multiply import (
    FORM_DTYPES,
    Operand,
    count_products,
    get_digits,
    get_form,
    get_scratch,
    join_digits,
    plan_dot,
)
from trainer.exact.fused_native import SCRATCH, Strided, Table, Work, prepare
from trainer.exact.fused_quantize import get_row_bytes, plan_quantize
from trainer.exact.fused_reduce import get_reduction, plan_reduce

_PRODUCTS = SCRATCH + 1
_FIRST = _PRODUCTS + 1  # then an entry for each tensor's elements and one for its exponents
_ALIGNMENT = 64


class FusedBackend:
    """Runs instructions on CPU tensors; quantized ones are kept in the form that the carrier takes."""

    def __init__(self, program: Program, carrier: str, threads: int) -> None:
        self._program = program
        self._carrier = carrier
        self._table = Table(np.zeros(_FIRST + 2 * len(program.tensors), dtype=np.int64), threads)
        self._elements: list[Tensor | None] = [None] * len(program.tensors)
        self._exponents: list[Tensor | None] = [None] * len(program.tensors)
        self._scratch: Tensor
        self._products: Tensor

    def count_bytes(self, kind: TensorType) -> int:
        """Return the bytes that a tensor of type ``kind`` takes here, without exponents."""
        if not kind.bits:
            return kind.nbytes
        rows = kind.elements // kind.shape[-1]
        return rows * get_row_bytes(kind.bits, get_form(self._carrier, kind.bits), kind.shape[-1])

    def count_scratch(self, instructions: Sequence[Instruction]) -> int:
        """Return the bytes that ``instructions`` share for products and for what threads keep."""
        distinct = {(x.kind, x.shape, x.code): x for x in instructions}.values()
        works = [self._plan(x) for x in distinct if x.kind is not Kind.DOT]
        kept = max([self._table.threads * work.scratch for work in works], default=0)
        return kept + max(
            [self._count_product_bytes(x) for x in distinct if x.kind is Kind.DOT], default=0
        )

    def bind(self, tensor: int, elements: Tensor, exponents: Tensor | None = None) -> None:
        """Let ``tensor`` be at ``elements`` (for a quantized tensor: bytes) from now on.

        A quantized tensor cannot move once instructions are prepared."""
        kind = self._program.tensors[tensor].type
        self._table.addresses[_FIRST + 2 * tensor] = elements.data_ptr()
        if exponents is not None:
            self._table.addresses[_FIRST + 2 * tensor + 1] = exponents.data_ptr()
            form = get_form(self._carrier, kind.bits)
            digits = elements.view(FORM_DTYPES[form])
            elements = digits.view(-1, get_digits(form, kind.bits), kind.shape[-1])
        self._elements[tensor], self._exponents[tensor] = elements, exponents

    def prepare(self, instructions: Sequence[Instruction]) -> list[Callable[[], object]]:
        """Return a function for each of ``instructions``, which share scratch memory."""
        self._reserve_products(instructions)
        works = {
            i: self._plan(instruction)
            for i, instruction in enumerate(instructions)
            if instruction.kind is not Kind.DOT
        }
        dots = [get_scratch(*self._get_dot(x)) for x in instructions if x.kind is Kind.DOT]
        scratch = max([*dots, *(work.scratch for work in works.values())], default=0)
        needed = self._table.threads * scratch
        self._scratch = torch.empty(needed + _ALIGNMENT, dtype=torch.uint8)
        address = self._scratch.data_ptr()
        self._table.addresses[SCRATCH] = address + -address % _ALIGNMENT
        return [
            prepare(works[i], self._table) if i in works else self._prepare_dot(instruction)
            for i, instruction in enumerate(instructions)
        ]

    def read(self, tensor: int) -> tuple[Tensor, Tensor | None]:
        """Return a tensor's elements, flat and in the protocol's form, and the exponents of its rows."""
        elements, exponents = self._elements[tensor], self._exponents[tensor]
        assert elements is not None
        kind = self._program.tensors[tensor].type
        if exponents is None:
            return elements.view(-1), None
        return join_digits(elements, get_form(self._carrier, kind.bits), kind.bits).view(
            -1
        ), exponents

    def _view(self, view: View) -> Strided:
        dtype = self._program.tensors[view.tensor].type.dtype
        return Strided(_FIRST + 2 * view.tensor, dtype, view.offset, view.strides)

    def _view_rows(self, view: View) -> Strided:
        """Return a quantized operand's view by rows, of its exponents."""
        length = self._program.tensors[view.tensor].type.shape[-1]
        strides = tuple(stride // length for stride in view.strides[:-1])
        return Strided(_FIRST + 2 * view.tensor + 1, Dtype.I32, view.offset // length, strides)

    def _plan(self, instruction: Instruction) -> Work:
        shape, kind = instruction.shape, instruction.kind
        views = [self._view(view) for view in instruction.operands]
        out = self._view(instruction.outputs[0])
        first, second = instruction.attributes
        if kind is Kind.MAP:
            outputs = [(view.register, self._view(view)) for view in instruction.outputs]
            constants = instruction.f32_constants, instruction.i64_constants
            return plan_map(shape, instruction.code, *constants, views, outputs)
        if kind is Kind.QUANTIZE:
            rows = self._view_rows(instruction.outputs[0])
            dense = Strided(out.entry, out.dtype, rows.offset, out.strides)  # of rows in their form
            return plan_quantize(
                shape, views[0], first, get_form(self._carrier, first), dense, rows
            )
        if kind in (Kind.SUM, Kind.MAX):
            what = get_reduction(views[0].dtype, maximum=kind is Kind.MAX)
            return plan_reduce(shape, instruction.reduced, what, views[0], out)
        if kind is Kind.GATHER:
            return plan_gather(shape, views[0], views[1], first, second, out)
        if kind is Kind.SCATTER_ADD:
            return plan_scatter_add(shape, instruction.reduced, views[0], views[1], first, out)
        assert kind is Kind.RANDOM
        return plan_random(shape[0], views, out)

    def _get_operand(self, view: View) -> Operand:
        digits = self._elements[view.tensor]
        assert digits is not None
        return Operand(digits, self._program.tensors[view.tensor].type.bits, self._view_rows(view))

    def _count_product_bytes(self, instruction: Instruction) -> int:
        """Return the bytes of a dot's products and scratch, wherever its operands will be."""
        for view in instruction.operands:
            if self._elements[view.tensor] is None:
                kind = self._program.tensors[view.tensor].type
                nowhere = torch.empty(self.count_bytes(kind), dtype=torch.uint8, device="meta")
                rows = kind.elements // kind.shape[-1]
                self.bind(view.tensor, nowhere, torch.empty(rows, dtype=torch.int32, device="meta"))
        dot, size = self._get_dot(instruction), 4 if self._carrier == "int8" else 8
        return size * count_products(*dot) + self._table.threads * get_scratch(*dot)

    def _get_dot(
        self, instruction: Instruction
    ) -> tuple[tuple[int, ...], Operand, Operand, Strided]:
        a, b = (self._get_operand(view) for view in instruction.operands)
        out = self._view(instruction.outputs[0])
        out = Strided(out.entry, out.dtype, out.offset, out.strides[:-1])
        return instruction.shape[:-1], a, b, out

    def _reserve_products(self, instructions: Sequence[Instruction]) -> None:
        dots = [self._get_dot(x) for x in instructions if x.kind is Kind.DOT]
        dtype = torch.int32 if self._carrier == "int8" else torch.float64
        self._products = torch.empty(
            max([count_products(*dot) for dot in dots], default=1), dtype=dtype
        )
        self._table.addresses[_PRODUCTS] = self._products.data_ptr()

    def _prepare_dot(self, instruction: Instruction) -> Callable[[], object]:
        return plan_dot(*self._get_dot(instruction), self._products, _PRODUCTS, self._table)
