"""An oracle that reads programs as real arithmetic: float64, nothing quantized, every view by index.

It shares no code with the executors. Only the bit operations of the recipes round to binary32."""

import numpy as np

from market.protocol.philox import random_words
from market.protocol.program import Instruction, Op, OutputKind, Program, TensorRole, View
from market.protocol.tensors import Dtype

_INTEGERS = {Dtype.U8: np.uint8, Dtype.I16: np.int16, Dtype.I32: np.int32, Dtype.I64: np.int64}


def _to_int(x):
    x = np.nan_to_num(np.rint(x), nan=0.0, posinf=2.0**62, neginf=-(2.0**62))
    return x.astype(np.int64)


def _bits(x):
    return np.asarray(x, np.float32).view(np.int32).astype(np.int64)


def _from_bits(x):
    return np.asarray(x, np.int64).astype(np.int32).view(np.float32).astype(np.float64)


OPS = {
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.SQRT: np.sqrt,
    Op.NEG: np.negative,
    Op.ABS: np.abs,
    Op.LT: np.less,
    Op.LE: np.less_equal,
    Op.EQ: np.equal,
    Op.SELECT: lambda c, a, b: np.where(c != 0, a, b),
    Op.TO_INT: _to_int,
    Op.FROM_INT: lambda x: x.astype(np.float64),
    Op.BITS: _bits,
    Op.FROM_BITS: _from_bits,
    Op.IADD: np.add,
    Op.ISUB: np.subtract,
    Op.IMUL: np.multiply,
    Op.IDIV: lambda a, b: np.where(b > 0, a // np.maximum(b, 1), 0),
    Op.IAND: np.bitwise_and,
    Op.IOR: np.bitwise_or,
    Op.IXOR: np.bitwise_xor,
    Op.SHL: lambda a, b: a << (b & 63),
    Op.SHR: lambda a, b: a >> (b & 63),
    Op.ILT: np.less,
    Op.IEQ: np.equal,
    Op.ISELECT: lambda c, a, b: np.where(c != 0, a, b),
}
_COMPARISONS = (Op.LT, Op.LE, Op.EQ, Op.ILT, Op.IEQ)
_ARITY = {Op.SQRT: 1, Op.NEG: 1, Op.ABS: 1, Op.TO_INT: 1, Op.FROM_INT: 1, Op.BITS: 1}
_ARITY |= {Op.FROM_BITS: 1, Op.SELECT: 3, Op.ISELECT: 3}


class Interpreter:
    def __init__(self, program: Program):
        self.program = program

    def run(self, inputs):
        """Return (state, gradients, metrics) as float64 arrays by name."""
        self.memory = {}
        for number, tensor in self.program.inputs:
            array = np.asarray(inputs[tensor.name])
            wide = np.float64 if tensor.type.dtype is Dtype.F32 else np.int64
            self.memory[number] = array.astype(wide).reshape(-1)
        with np.errstate(all="ignore"):
            for instruction in self.program.instructions:
                self._execute(instruction)
        kinds = (OutputKind.NEXT_STATE, OutputKind.GRADIENT, OutputKind.METRICS)
        return tuple(
            {name: self._get(number) for name, number in self.program.find_outputs(kind).items()}
            for kind in kinds
        )

    def _get(self, number):
        return self.memory[number].reshape(self.program.tensors[number].type.shape)

    def _places(self, view: View, shape):
        grids = np.indices(shape, dtype=np.int64, sparse=True) if shape else []
        places = np.full(shape, view.offset, np.int64)
        for grid, stride in zip(grids, view.strides, strict=True):
            places = places + grid * stride
        return places

    def _read(self, view: View, shape):
        return self.memory[view.tensor][self._places(view, shape)]

    def _write(self, view: View, shape, values):
        kind = self.program.tensors[view.tensor].type
        is_real = kind.dtype is Dtype.F32 or kind.bits
        wide = np.float64 if is_real else np.int64
        memory = self.memory.setdefault(view.tensor, np.full(kind.elements, -99, wide))
        if kind.dtype in _INTEGERS and not kind.bits:
            values = np.asarray(values).astype(_INTEGERS[kind.dtype])
        memory[self._places(view, shape)] = values

    def _execute(self, instruction: Instruction):
        getattr(self, f"_run_{instruction.kind.name.lower()}")(instruction)

    def _run_map(self, i):
        registers = [self._read(view, i.shape) for view in i.operands]
        registers += [np.uint32(p).view(np.float32).astype(np.float64) for p in i.f32_constants]
        registers += [np.int64(n) for n in i.i64_constants]
        for opcode, *arguments in i.code:
            op = Op(opcode)
            result = OPS[op](*(registers[a] for a in arguments[: _ARITY.get(op, 2)]))
            registers.append(np.asarray(result).astype(np.int64) if op in _COMPARISONS else result)
        for view in i.outputs:
            self._write(view, i.shape, registers[view.register])

    def _run_quantize(self, i):
        self._write(i.outputs[0], i.shape, self._read(i.operands[0], i.shape))

    def _run_dot(self, i):
        a, b = (self._read_narrow(view, i.shape) for view in i.operands)
        self._write_reduced(i, 1, np.einsum("...k,...k->...", a, b))

    def _read_narrow(self, view, shape):
        narrow = [n if stride else 1 for n, stride in zip(shape, view.strides, strict=True)]
        return np.broadcast_to(self._read(view, narrow), shape)

    def _write_reduced(self, i, reduced, values):
        rank = len(i.shape) - reduced
        view = i.outputs[0]
        assert not any(view.strides[rank:])
        self._write(View(view.tensor, view.offset, view.strides[:rank]), i.shape[:rank], values)

    def _run_sum(self, i):
        axes = tuple(range(len(i.shape) - i.reduced, len(i.shape)))
        self._write_reduced(i, i.reduced, self._read(i.operands[0], i.shape).sum(axes))

    def _run_max(self, i):
        axes = tuple(range(len(i.shape) - i.reduced, len(i.shape)))
        self._write_reduced(i, i.reduced, self._read(i.operands[0], i.shape).max(axes))

    def _run_gather(self, i):
        bound, stride = i.attributes
        index = np.clip(self._read(i.operands[0], i.shape), 0, bound - 1)
        places = self._places(i.operands[1], i.shape) + index * stride
        self._write(i.outputs[0], i.shape, self.memory[i.operands[1].tensor][places])

    def _run_scatter_add(self, i):
        bound, rows = i.attributes[0], i.shape[: i.reduced]
        index = np.clip(self._read(i.operands[0], i.shape), 0, bound - 1)
        source = self._read(i.operands[1], i.shape).reshape(int(np.prod(rows)), -1)
        out = np.zeros((bound, source.shape[1]))
        np.add.at(out, index.reshape(source.shape)[:, 0], source)
        self.memory[i.outputs[0].tensor] = out.reshape(-1)

    def _run_random(self, i):
        key, *counters = (int(self._read(view, (1,))[0]) for view in i.operands)
        self._write(i.outputs[0], i.shape, random_words(key % 2**64, *counters, i.shape[0]))

    def _run_iota(self, i):
        start, step = i.attributes
        count = int(np.prod(i.shape))
        values = start + step * np.arange(count, dtype=np.int64)
        self._write(i.outputs[0], i.shape, values.reshape(i.shape))

    def _run_const(self, i):
        tensor = self.program.tensors[i.outputs[0].tensor]
        dtype = _INTEGERS.get(tensor.type.dtype, np.float32)
        self._write(i.outputs[0], i.shape, np.frombuffer(tensor.literal, dtype).reshape(i.shape))


def find_roles(program: Program, *roles: TensorRole):
    return list(program.find_inputs(*roles))
