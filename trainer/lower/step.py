"""One training step as a program: batch, forward, backward, clipping, optimizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from market.protocol.errors import InvalidSpec
from market.protocol.program import Op, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import require_valid_program
from trainer.lower import instructions
from trainer.lower.accumulation import compute_mean
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import apply, i64, select
from trainer.lower.graph import JointGraph, LossFunction, trace
from trainer.lower.layout import Layout
from trainer.lower.lowering import Lowering
from trainer.lower.noise import Noise
from trainer.lower.operators import OPERATORS
from trainer.lower.optimizer import Rule, Update, apply_rule
from trainer.lower.precision import DEFAULT_PRECISION, Precision
from trainer.lower.recompute import Recompute, recompute_values
from trainer.lower.values import Lazy, Value, get_load, load

DATASET: Final = "tokens"
COUNTERS: Final = "counters"
METRICS: Final = "metrics"  # loss, gradient norm before clipping, learning rate


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A dataset of ``tokens`` integers, read in ``batch`` rows of ``length`` inputs and targets."""

    tokens: int
    batch: int
    length: int
    dtype: Dtype = Dtype.U8

    @property
    def type(self) -> TensorType:
        """The type of the dataset tensor."""
        return TensorType(self.dtype, (self.tokens,))

    def build_example(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return what a model is traced with: inputs and targets of that many rows."""
        return _zeros(rows, self.length), _zeros(rows, self.length)


@dataclass(frozen=True, slots=True)
class RowSpec:
    """A dataset of ``rows``, each an input of ``input_shape`` and, as its last element, a class.

    A step reads ``batch`` of them. Bytes become numbers from 0 to 1: x / 255, rounded once."""

    rows: int
    batch: int
    input_shape: tuple[int, ...]
    dtype: Dtype = Dtype.U8

    @property
    def type(self) -> TensorType:
        """The type of the dataset tensor."""
        return TensorType(self.dtype, (self.rows, math.prod(self.input_shape) + 1))

    def build_example(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return what a model is traced with: inputs and classes of that many rows."""
        return torch.zeros(rows, *self.input_shape), _zeros(rows)


def _copy_weights(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.detach().clone().contiguous() for name, p in parameters.items()}


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class LoweredStep:
    """The program and the state that it starts from, halves in the order of its declarations."""

    program: Program
    initial_base: dict[str, Tensor]
    initial_slot: dict[str, Tensor]


def lower_step(  # noqa: PLR0913 - a model, what it is trained on, and how
    model: nn.Module,
    loss: LossFunction | None,
    data: DataSpec | RowSpec,
    optimizer: Rule,
    *,
    precision: Precision = DEFAULT_PRECISION,
    micro_batches: int = 1,
    recompute: Recompute = Recompute.ATTENTION,
) -> LoweredStep:
    """Return one step of training ``model`` on next tokens, or on rows and their classes.

    The model takes inputs and targets, i64[batch, length] each (of rows: f32[batch, ...] and i64[batch]),
    and returns the loss; with a ``loss`` it takes the inputs, and the loss its output and the targets. Loss
    and gradients are the means over ``micro_batches`` equal parts of the batch, which is the whole batch's
    mean where the loss weighs all rows alike. What the forward pass need not keep, ``recompute`` says.
    Raises UnsupportedOperator."""
    if micro_batches < 1 or data.batch % micro_batches:
        raise InvalidSpec(f"a batch of {data.batch} rows has no {micro_batches} equal parts")
    joint = trace(model, loss, data.build_example(data.batch // micro_batches))
    trained, frozen = _copy_weights(joint.parameters), _copy_weights(joint.frozen)
    base, slot = {**trained, **frozen}, optimizer.build_slot(trained)
    plan = _Plan(joint, data, optimizer, precision, micro_batches)
    program = recompute_values(_lower(plan, base, slot), recompute)
    require_valid_program(program)
    return LoweredStep(program, base, slot)


@dataclass(frozen=True, slots=True)
class _Plan:
    joint: JointGraph
    data: DataSpec | RowSpec
    optimizer: Rule
    precision: Precision
    micro_batches: int


def _lower(plan: _Plan, base: Mapping[str, Tensor], slot: Mapping[str, Tensor]) -> Program:
    builder = ProgramBuilder()
    state = declare(builder, base, TensorRole.BASE) | declare(builder, slot, TensorRole.SLOT)
    dataset = builder.add_input(DATASET, plan.data.type, TensorRole.DATASET)
    counters = builder.add_input(COUNTERS, TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    batch = read_batch(builder, plan.data, dataset, counters)
    seed, at = _get_counter(builder, counters, 0), _get_counter(builder, counters, 3)
    noise = Noise(seed, at, _get_place(builder, counters))

    def run(rows: Sequence[Value]) -> list[Value | None]:
        lowering = Lowering(plan.joint, builder, plan.precision, noise)
        return lowering.run(OPERATORS, rows, state)

    loss, *found = compute_mean(builder, run, batch, plan.micro_batches)
    assert loss is not None
    pairs = zip(plan.joint.parameters, found, strict=True)
    gradients = {name: _store_gradient(builder, g, base[name]) for name, g in pairs}
    step = _compute_global_step(builder, counters, plan.optimizer.steps_per_shard)
    update = apply_rule(builder, plan.optimizer, step, state, gradients)
    following = {**state, **update.state}  # what is frozen follows itself
    outputs = [NamedOutput(OutputKind.NEXT_STATE, name, following[name]) for name in state]
    outputs += [NamedOutput(OutputKind.GRADIENT, name, g) for name, g in gradients.items()]
    metrics = _join_metrics(builder, loss, update)
    return builder.build([*outputs, NamedOutput(OutputKind.METRICS, METRICS, metrics)])


def declare(
    builder: ProgramBuilder, tensors: Mapping[str, Tensor], role: TensorRole
) -> dict[str, Value]:
    """Declare state tensors as inputs and return them by name."""
    return {
        name: builder.add_input(name, TensorType(Dtype.F32, tuple(tensor.shape)), role)
        for name, tensor in tensors.items()
    }


def _get_counter(builder: ProgramBuilder, counters: Lazy, index: int) -> Lazy:
    return builder.reshape(builder.slice(counters, 0, index, index + 1), ())


def _get_place(builder: ProgramBuilder, counters: Lazy) -> Value:
    """Return the shard's number in the counters of random words: round 2^16 + slot."""
    round_index, slot = _get_counter(builder, counters, 1), _get_counter(builder, counters, 2)
    return builder.map(lambda r, s: apply(Op.SHL, r, 16) + s, round_index, slot)


def read_batch(
    builder: ProgramBuilder, data: DataSpec | RowSpec, dataset: Lazy, counters: Lazy
) -> tuple[Value, Value]:
    """Return the inputs and targets of a step's batch."""
    seed, step = _get_counter(builder, counters, 0), _get_counter(builder, counters, 3)
    place = _get_place(builder, counters)
    words = instructions.random(builder, (seed, step, place, Lazy((), "i", i64(0))), data.batch)
    if isinstance(data, RowSpec):
        return _read_rows(builder, data, dataset, words)
    return _read_windows(builder, data, dataset, words)


def _choose(builder: ProgramBuilder, words: Value, count: int) -> Lazy:
    """Return a number below ``count`` for each of the 32-bit ``words``, as a column."""
    chosen = builder.map(lambda word: apply(Op.SHR, word * count, 32), words)
    return builder.reshape(chosen, (*words.shape, 1))


def _read_windows(
    builder: ProgramBuilder, data: DataSpec, dataset: Lazy, words: Value
) -> tuple[Value, Value]:
    """Return tokens and those that follow, [batch, length] each: `compute_batch_starts`."""
    windows, width = data.tokens - data.length, data.length + 1
    rows = load(get_load(dataset).source, "i", Layout((((windows, 1),), ((width, 1),))))
    tokens = instructions.gather(builder, _choose(builder, words, windows), rows, 0)
    return builder.slice(tokens, 1, 0, data.length), builder.slice(tokens, 1, 1, width)


def _read_rows(
    builder: ProgramBuilder, data: RowSpec, dataset: Lazy, words: Value
) -> tuple[Value, Value]:
    """Return inputs, f32 [batch, ...], and classes, i64 [batch], of rows drawn with replacement."""
    rows = instructions.gather(builder, _choose(builder, words, data.rows), dataset, 0)
    width = rows.shape[1]
    inputs, labels = builder.slice(rows, 1, 0, width - 1), builder.slice(rows, 1, width - 1, width)
    if data.dtype is Dtype.F32:
        labels = builder.map(lambda x: apply(Op.TO_INT, x), labels)
    else:
        inputs = builder.map(lambda n: apply(Op.FROM_INT, n) / 255, inputs)
    shape = (data.batch, *data.input_shape)
    return builder.reshape(builder.store(inputs), shape), builder.reshape(labels, (data.batch,))


def _store_gradient(builder: ProgramBuilder, gradient: Value | None, like: Tensor) -> Value:
    """Return a parameter's gradient, stored; zeros for a parameter that the loss does not use."""
    if gradient is None:
        zeros = torch.zeros_like(like).numpy()
        return builder.copy(instructions.literal(builder, zeros), tuple(like.shape))
    return builder.store(gradient)


def _compute_global_step(builder: ProgramBuilder, counters: Lazy, steps_per_shard: int) -> Value:
    round_index, step = (_get_counter(builder, counters, n) for n in (1, 3))
    return builder.map(lambda r, s: r * steps_per_shard + s, round_index, step)


def _join_metrics(builder: ProgramBuilder, loss: Value, update: Update) -> Value:
    scalars = [builder.store(builder.reshape(loss, ())), update.norm, update.learning_rate]
    places = instructions.iota(builder, len(scalars))
    return builder.map(
        lambda n, a, b, c: select(n.equals(0), a, select(n.equals(1), b, c)), places, *scalars
    )
