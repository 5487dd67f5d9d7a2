"""One training step as a program: batch, forward, backward, clipping, AdamW."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from market.protocol.program import Op, OutputKind, Program, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import require_valid_program
from trainer.lower import instructions
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import apply, i64, select
from trainer.lower.graph import JointGraph, LossFunction, trace
from trainer.lower.layout import Layout
from trainer.lower.lowering import Lowering
from trainer.lower.noise import Noise
from trainer.lower.operators import OPERATORS
from trainer.lower.optimizer import (
    BETA1_POWER,
    BETA2_POWER,
    AdamW,
    Update,
    apply_adamw,
    moment_names,
)
from trainer.lower.precision import DEFAULT_PRECISION, Precision
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


@dataclass(frozen=True, slots=True)
class LoweredStep:
    """The program and the state that it starts from, halves in the order of its declarations."""

    program: Program
    initial_base: dict[str, Tensor]
    initial_slot: dict[str, Tensor]


def lower_step(
    model: nn.Module,
    loss: LossFunction | None,
    data: DataSpec,
    optimizer: AdamW,
    *,
    precision: Precision = DEFAULT_PRECISION,
) -> LoweredStep:
    """Return one step of training ``model`` on next tokens.

    The model takes inputs and targets, i64[batch, length] each, and returns the loss; with a ``loss``
    it takes the inputs, and the loss its output and the targets. Raises UnsupportedOperator."""
    example = torch.zeros(data.batch, data.length, dtype=torch.int64)
    joint = trace(model, loss, (example, example.clone()))
    base = {name: p.detach().clone().contiguous() for name, p in joint.parameters.items()}
    slot = {name: torch.zeros_like(base[p]) for p in base for name in moment_names(p)}
    slot |= {BETA1_POWER: torch.ones(()), BETA2_POWER: torch.ones(())}
    program = _lower(joint, base, slot, data, optimizer, precision)
    require_valid_program(program)
    return LoweredStep(program, base, slot)


def _lower(
    joint: JointGraph,
    base: Mapping[str, Tensor],
    slot: Mapping[str, Tensor],
    data: DataSpec,
    optimizer: AdamW,
    precision: Precision,
) -> Program:
    builder = ProgramBuilder()
    state = declare(builder, base, TensorRole.BASE) | declare(builder, slot, TensorRole.SLOT)
    dataset = builder.add_input(DATASET, data.type, TensorRole.DATASET)
    counters = builder.add_input(COUNTERS, TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    batch = read_batch(builder, data, dataset, counters)
    seed, at = _get_counter(builder, counters, 0), _get_counter(builder, counters, 3)
    noise = Noise(seed, at, _get_place(builder, counters))
    loss, *found = Lowering(joint, builder, precision, noise).run(OPERATORS, batch, state)
    pairs = zip(base.items(), found, strict=True)
    gradients = {name: _store_gradient(builder, g, tensor) for (name, tensor), g in pairs}
    step = _compute_global_step(builder, counters, optimizer.steps_per_shard)
    update = apply_adamw(builder, optimizer, step, state, gradients)
    outputs = [NamedOutput(OutputKind.NEXT_STATE, name, update.state[name]) for name in state]
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
    builder: ProgramBuilder, data: DataSpec, dataset: Lazy, counters: Lazy
) -> tuple[Value, Value]:
    """Return the inputs and targets, [batch, length] each: `compute_batch_starts` in instructions."""
    seed, step = _get_counter(builder, counters, 0), _get_counter(builder, counters, 3)
    place = _get_place(builder, counters)
    words = instructions.random(builder, (seed, step, place, Lazy((), "i", i64(0))), data.batch)
    windows = data.tokens - data.length
    starts = builder.map(lambda word: apply(Op.SHR, word * windows, 32), words)
    width = data.length + 1
    rows = load(get_load(dataset).source, "i", Layout((((windows, 1),), ((width, 1),))))
    index = builder.reshape(starts, (data.batch, 1))
    tokens = instructions.gather(builder, index, rows, 0)
    return builder.slice(tokens, 1, 0, data.length), builder.slice(tokens, 1, 1, width)


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
