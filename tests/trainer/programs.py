"""Tiny programs built by hand: every kind of instruction, and the state that a step needs."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from market.protocol.program import (
    Instruction,
    Kind,
    Op,
    Output,
    OutputKind,
    Program,
    TensorRole,
    View,
)
from market.protocol.program import Tensor as Declaration
from market.protocol.tensors import Dtype, TensorType, get_quantized_dtype

ROWS, INPUTS, OUTPUTS, TOKENS = 5, 4, 3, 64
ONE_TENTH, ONE_16TH = 0x3DCCCCCD, 0x3D800000  # binary32 patterns


@dataclass
class Draft:
    """A program being written."""

    tensors: list[Declaration] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    def declare(self, dtype: Dtype, *shape: int, bits: int = 0, **rest: Any) -> int:
        self.tensors.append(Declaration(TensorType(dtype, shape, bits), **rest))
        return len(self.tensors) - 1

    def view(self, tensor: int, *strides: int, offset: int = 0, register: int = 0) -> View:
        """Return a view with these strides, or the whole tensor in order if none are given."""
        return View(tensor, offset, strides or self.tensors[tensor].type.strides, register)

    def run(
        self, kind: Kind, shape: tuple[int, ...], operands: list[View], *outputs: View, **rest: Any
    ) -> None:
        self.instructions.append(Instruction(kind, shape, tuple(operands), outputs, **rest))

    def quantize(self, x: View, *shape: int, bits: int = 16) -> int:
        q = self.declare(get_quantized_dtype(bits), *shape, bits=bits)
        self.run(Kind.QUANTIZE, shape, [x], self.view(q), attributes=(bits, 0))
        return q

    def multiply(self, a: int, b: int) -> int:
        """Return the product of the quantized matrices ``a`` [M, K] and ``b`` [N, K]."""
        (m, k), (n, _) = self.tensors[a].type.shape, self.tensors[b].type.shape
        out = self.declare(Dtype.F32, m, n)
        views = [self.view(a, k, 0, 1), self.view(b, 0, k, 1)]
        self.run(Kind.DOT, (m, n, k), views, self.view(out, n, 1, 0))
        return out

    def finish(self) -> Program:
        return Program(tuple(self.tensors), tuple(self.instructions), tuple(self.outputs))


def build_step(bits: int = 16) -> Program:
    """Return a step that fits a matrix to rows of tokens: it uses every kind of instruction."""
    draft = Draft()
    w = draft.declare(Dtype.F32, OUTPUTS, INPUTS, role=TensorRole.BASE, name="w")
    moment = draft.declare(Dtype.F32, OUTPUTS, INPUTS, role=TensorRole.SLOT, name="w.moment")
    data = draft.declare(Dtype.U8, TOKENS, role=TensorRole.DATASET, name="tokens")
    counters = draft.declare(Dtype.I64, 4, role=TensorRole.COUNTERS, name="counters")
    start, x = _read_batch(draft, data, counters)
    qx, qw = (
        draft.quantize(draft.view(x), ROWS, INPUTS, bits=bits),
        draft.quantize(draft.view(w), OUTPUTS, INPUTS),
    )
    y = draft.multiply(qx, qw)
    error, loss = _compute_error(draft, y)
    columns = draft.quantize(draft.view(error, 1, OUTPUTS), OUTPUTS, ROWS)
    gradient = draft.multiply(
        columns, draft.quantize(draft.view(x, 1, INPUTS), INPUTS, ROWS, bits=bits)
    )
    counted = draft.declare(Dtype.F32, OUTPUTS, INPUTS)
    draft.run(
        Kind.SCATTER_ADD,
        (ROWS, INPUTS),
        [draft.view(start, 1, 0), draft.view(x)],
        draft.view(counted, 0, 1),
        reduced=1,
        attributes=(OUTPUTS, INPUTS),
    )
    _update(draft, w, moment, gradient, counted)
    metrics = draft.declare(Dtype.F32, 2)
    draft.run(Kind.MAP, (1,), [draft.view(loss, 0)], draft.view(metrics, 1))
    code = ((Op.FROM_INT, 0, 0, 0),)
    draft.run(
        Kind.MAP,
        (1,),
        [draft.view(start, 0)],
        draft.view(metrics, 1, offset=1, register=1),
        code=code,
    )
    draft.outputs += [
        Output(OutputKind.GRADIENT, gradient, "w"),
        Output(OutputKind.METRICS, metrics, "metrics"),
    ]
    return draft.finish()


def _read_batch(draft: Draft, data: int, counters: int) -> tuple[int, int]:
    """Return the rows' start positions and their tokens as f32 [ROWS, INPUTS]."""
    places = draft.declare(Dtype.I64, ROWS)
    draft.run(Kind.IOTA, (ROWS,), [], draft.view(places), attributes=(0, 1))
    zero = draft.declare(Dtype.I64, literal=bytes(8))
    draft.run(Kind.CONST, (), [], View(zero, 0, ()))
    words = draft.declare(Dtype.I64, ROWS)
    key, step, none = (
        draft.view(counters, 0),
        draft.view(counters, 0, offset=3),
        draft.view(zero, 0),
    )
    draft.run(Kind.RANDOM, (ROWS,), [key, step, none, none], draft.view(words))
    start = draft.declare(Dtype.I64, ROWS)
    code = ((Op.IMUL, 0, 2, 0), (Op.SHR, 4, 3, 0), (Op.IADD, 5, 1, 0))
    constants = TOKENS - INPUTS - ROWS, 32
    views = [draft.view(words), draft.view(places)]
    draft.run(
        Kind.MAP,
        (ROWS,),
        views,
        draft.view(start, 1, register=6),
        code=code,
        i64_constants=constants,
    )
    tokens = draft.declare(Dtype.U8, ROWS, INPUTS)
    views = [draft.view(start, 1, 0), draft.view(data, 0, 1)]
    bound = TOKENS - INPUTS
    draft.run(Kind.GATHER, (ROWS, INPUTS), views, draft.view(tokens), attributes=(bound, 1))
    x = draft.declare(Dtype.F32, ROWS, INPUTS)
    code = ((Op.FROM_INT, 0, 0, 0), (Op.MUL, 2, 1, 0))
    out = draft.view(x, INPUTS, 1, register=3)
    draft.run(
        Kind.MAP, (ROWS, INPUTS), [draft.view(tokens)], out, code=code, f32_constants=(ONE_16TH,)
    )
    return start, x


def _compute_error(draft: Draft, y: int) -> tuple[int, int]:
    """Return ``y`` less its rows' maxima, and the sum of its squares."""
    greatest = draft.declare(Dtype.F32, ROWS)
    draft.run(Kind.MAX, (ROWS, OUTPUTS), [draft.view(y)], draft.view(greatest, 1, 0), reduced=1)
    error, squares = (
        draft.declare(Dtype.F32, ROWS, OUTPUTS),
        draft.declare(Dtype.F32, ROWS, OUTPUTS),
    )
    code = ((Op.SUB, 0, 1, 0), (Op.MUL, 2, 2, 0))
    stores = [
        draft.view(error, OUTPUTS, 1, register=2),
        draft.view(squares, OUTPUTS, 1, register=3),
    ]
    draft.run(
        Kind.MAP, (ROWS, OUTPUTS), [draft.view(y), draft.view(greatest, 1, 0)], *stores, code=code
    )
    loss = draft.declare(Dtype.F32)
    draft.run(Kind.SUM, (ROWS, OUTPUTS), [draft.view(squares)], draft.view(loss, 0, 0), reduced=2)
    return error, loss


def _update(draft: Draft, w: int, moment: int, gradient: int, counted: int) -> None:
    """Write the next matrix and its moment."""
    code = (
        *((Op.MUL, 1, 4, 0), (Op.ADD, 5, 2, 0), (Op.ADD, 6, 3, 0)),
        *((Op.MUL, 7, 4, 0), (Op.SUB, 0, 8, 0)),
    )
    views = [draft.view(tensor) for tensor in (w, moment, gradient, counted)]
    next_w, next_moment = (draft.declare(Dtype.F32, OUTPUTS, INPUTS) for _ in range(2))
    stores = (
        draft.view(next_w, INPUTS, 1, register=9),
        draft.view(next_moment, INPUTS, 1, register=6),
    )
    draft.run(Kind.MAP, (OUTPUTS, INPUTS), views, *stores, code=code, f32_constants=(ONE_TENTH,))
    draft.outputs += [
        Output(OutputKind.NEXT_STATE, next_w, "w", w),
        Output(OutputKind.NEXT_STATE, next_moment, "w.moment", moment),
    ]


def build_outer() -> Program:
    """Return an outer step: the base becomes the sum of two contributions, and a counter stays as it is."""
    draft = Draft()
    base = draft.declare(Dtype.F32, 2, 3, role=TensorRole.BASE, name="w")
    kept = draft.declare(Dtype.I32, 2, role=TensorRole.BASE, name="kept")
    views = [
        draft.view(draft.declare(Dtype.F32, 2, 3, role=TensorRole.CONTRIBUTION, name=f"{slot}/w"))
        for slot in range(2)
    ]
    out = draft.declare(Dtype.F32, 2, 3)
    code = ((Op.ADD, 0, 1, 0),)
    draft.run(Kind.MAP, (2, 3), views, draft.view(out, 3, 1, register=2), code=code)
    draft.outputs = [
        Output(OutputKind.NEXT_STATE, out, "w", base),
        Output(OutputKind.NEXT_STATE, kept, "kept", kept),
    ]
    return draft.finish()


def build_chain(length: int, size: int) -> Program:
    """Return a step whose state of ``size`` elements passes through ``length`` maps."""
    draft = Draft()
    state = last = draft.declare(Dtype.F32, size, role=TensorRole.BASE, name="w")
    for _ in range(length):
        out = draft.declare(Dtype.F32, size)
        view = replace(draft.view(out), register=1)
        draft.run(Kind.MAP, (size,), [draft.view(last)], view, code=((Op.ADD, 0, 0, 0),))
        last = out
    draft.outputs = [Output(OutputKind.NEXT_STATE, last, "w", state)]
    return draft.finish()


def make_inputs(step: int = 0) -> dict[str, Tensor]:
    """Return inputs for ``build_step``."""
    generator = torch.Generator().manual_seed(step)
    return {
        "w": torch.randn(OUTPUTS, INPUTS, generator=generator),
        "w.moment": torch.randn(OUTPUTS, INPUTS, generator=generator),
        "tokens": torch.randint(0, 256, (TOKENS,), dtype=torch.uint8, generator=generator),
        "counters": torch.tensor([7, 0, 0, step]),
    }
