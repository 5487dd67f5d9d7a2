"""Whole steps: the preset, ordinary modules, the batch, and what the executor makes of them."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from market.protocol.encoding import compute_program_root, encode_program
from market.protocol.philox import compute_batch_starts
from market.protocol.program import Kind, Op, TensorRole
from market.protocol.tensors import Dtype, TensorType
from tests.trainer.lower.interpreter import Interpreter
from tests.trainer.lower.oracle import (
    OPTIMIZER,
    SEED,
    compute_autograd,
    find_errors,
    make_inputs,
    make_tokens,
    read_rows,
    relative_error,
    to_torch,
)
from trainer.execution import Executor
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.expressions import apply
from trainer.lower.precision import Precision
from trainer.lower.step import COUNTERS, DATASET, DataSpec, OutputKind, lower_step, read_batch
from trainer.models import PRESETS, Llama, LlamaConfig

TINY = PRESETS["tiny"]
DATA = DataSpec(5000, 3, TINY.length)
ORACLE_BOUND = 1e-6
BITS_16_MEDIAN = 1e-3  # measured 2.6e-4; numerics.md has 4.5e-4 to 1.9e-3 for larger models


class Classifier(nn.Module):
    """Bias, GELU, LayerNorm and a plain output: a module that knows nothing of losses."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 12)
        self.hidden = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.LayerNorm(20))
        self.out = nn.Linear(20, 256)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens):
        return self.out(self.hidden(self.embedding(tokens)))


def next_token_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("tied", [False, True])
def test_the_decoder_has_the_gradients_of_autograd(heads, tied):
    model = Llama(LlamaConfig(256, 32, 2, *heads, 48, 16, tied))

    errors = find_errors(model, data=DATA, round_index=2, slot=5, index=3)

    assert len(errors) == len(list(model.parameters())) + 1
    assert max(errors.values()) < ORACLE_BOUND


def test_a_plain_module_with_a_loss_has_the_gradients_of_autograd():
    torch.manual_seed(0)

    errors = find_errors(Classifier(), next_token_loss, DataSpec(1000, 3, 8))

    assert max(errors.values()) < ORACLE_BOUND


def test_a_parameter_that_the_loss_does_not_use_has_a_zero_gradient():
    data = DataSpec(1000, 3, 8)
    step = lower_step(Classifier(), next_token_loss, data, OPTIMIZER)

    _, gradients, _ = Interpreter(step.program).run(make_inputs(step, make_tokens(1000)))

    assert gradients["unused"].tolist() == [0, 0, 0]


def test_with_exact_arithmetic_gradients_have_the_accuracy_of_16_bits():
    model = Llama(TINY)
    step, tokens = lower_step(model, None, DATA, OPTIMIZER), make_tokens(DATA.tokens)

    result = Executor(step.program).run_step(to_torch(make_inputs(step, tokens)))

    loss, expected = compute_autograd(model, read_rows(tokens, DATA))
    errors = [relative_error(result.gradients[name], g) for name, g in expected.items()]
    assert np.median(errors) < BITS_16_MEDIAN
    assert max(errors) < 4 * BITS_16_MEDIAN
    assert abs(float(result.metrics[0]) - loss) < 1e-4 * loss


def test_24_bits_are_more_accurate_than_14():
    model, tokens = Llama(TINY), make_tokens(DATA.tokens)
    _, expected = compute_autograd(model, read_rows(tokens, DATA))
    medians = []
    for bits in (14, 24):
        step = lower_step(model, None, DATA, OPTIMIZER, precision=Precision.uniform(bits))
        result = Executor(step.program).run_step(to_torch(make_inputs(step, tokens)))
        errors = [relative_error(result.gradients[name], g) for name, g in expected.items()]
        medians.append(np.median(errors))

    assert medians[0] > 1e-4
    assert medians[1] < 1e-5


@pytest.mark.parametrize("place", [(0, 0, 0), (3, 7, 1000), (1023, 255, 2**20 - 1)])
@pytest.mark.parametrize("seed", [0, 2**64 - 3])
def test_the_batch_is_the_one_that_the_seed_orders(place, seed):
    data = DataSpec(777, 5, 9)
    builder = ProgramBuilder()
    dataset = builder.add_input(DATASET, data.type, TensorRole.DATASET)
    counters = builder.add_input(COUNTERS, TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    values = read_batch(builder, data, dataset, counters)
    reals = [builder.map(lambda n: n, value) for value in values]
    outputs = [NamedOutput(OutputKind.METRICS, "", _to_f32(builder, value)) for value in reals]
    tokens = make_tokens(data.tokens)
    signed = seed - 2**64 if seed >= 2**63 else seed
    inputs = {DATASET: tokens, COUNTERS: np.array([signed, *place])}

    found = [Interpreter(builder.build([o])).run(inputs)[2][""] for o in outputs]

    starts = compute_batch_starts(seed, *place, data.batch, data.tokens, data.length)
    assert found[0].tolist() == [tokens[at : at + 9].tolist() for at in starts]
    assert found[1].tolist() == [tokens[at + 1 : at + 10].tolist() for at in starts]


def _to_f32(builder, value):
    return builder.map(lambda n: apply(Op.FROM_INT, n), value)


def test_the_same_model_lowers_to_the_same_bytes():
    programs = [lower_step(Llama(TINY), None, DATA, OPTIMIZER).program for _ in range(2)]

    assert encode_program(programs[0]) == encode_program(programs[1])
    assert compute_program_root(programs[0]).root == compute_program_root(programs[1]).root


def test_the_inputs_and_outputs_are_declared_in_module_order():
    model = Llama(LlamaConfig(256, 32, 1, 4, 2, 48, 16, tied=True))
    step = lower_step(model, None, DATA, OPTIMIZER)
    program, names = step.program, [name for name, _ in model.named_parameters()]

    base, slot = program.find_inputs(TensorRole.BASE), program.find_inputs(TensorRole.SLOT)

    assert "head.weight" not in names
    assert list(base) == list(step.initial_base) == names
    assert list(slot) == list(step.initial_slot)
    assert list(program.find_outputs(OutputKind.NEXT_STATE)) == [*base, *slot]
    assert list(program.find_outputs(OutputKind.GRADIENT)) == names
    metrics = program.find_outputs(OutputKind.METRICS)
    assert program.tensors[metrics["metrics"]].type == TensorType(Dtype.F32, (3,))


def test_a_layer_takes_few_instructions():
    counts = []
    for layers in (1, 2):
        model = Llama(LlamaConfig(256, 32, layers, 4, 2, 48, 16))
        kinds = Counter(
            i.kind for i in lower_step(model, None, DATA, OPTIMIZER).program.instructions
        )
        counts.append(kinds)

    layer = counts[1] - counts[0]

    parameters = 9
    others = {Kind.QUANTIZE, Kind.DOT}
    rest = sum(n for kind, n in layer.items() if kind not in others) - 2 * parameters
    assert rest <= 34
    assert layer[Kind.DOT] == 3 * 7 + 3 * 2
    assert layer[Kind.QUANTIZE] <= 48


def test_a_frozen_parameter_is_state_that_follows_itself():
    model = Llama(TINY)
    model.embedding.weight.requires_grad_(requires_grad=False)
    step, tokens = lower_step(model, None, DATA, OPTIMIZER), make_tokens(DATA.tokens)
    inputs = to_torch(make_inputs(step, tokens))

    result = Executor(step.program).run_step(inputs)

    name = "embedding.weight"
    assert result.state[name] is inputs[name]
    assert name not in result.gradients
    assert not any(slot.endswith(name) for slot in step.initial_slot)
    assert max(find_errors(model, data=DATA).values()) < ORACLE_BOUND


def test_training_follows_stock_adamw_in_float64():
    model, tokens = Llama(TINY), make_tokens(DATA.tokens)
    step = lower_step(model, None, DATA, OPTIMIZER)
    executor, inputs = Executor(step.program), to_torch(make_inputs(step, tokens))
    reference = copy.deepcopy(model).double()
    update = make_stock_update(reference)
    losses = []

    for index in range(6):
        inputs[COUNTERS] = torch.tensor([SEED, 0, 0, index])
        result = executor.run_step(inputs)
        inputs.update(result.state)
        losses.append((float(result.metrics[0]), update(tokens, index)))

    found, expected = zip(*losses, strict=True)
    assert found == pytest.approx(expected, rel=1e-4)
    for name, parameter in reference.named_parameters():
        assert relative_error(inputs[name], parameter.detach()) < 1e-3, name


def make_stock_update(model):
    """Return a function that takes one step as torch does and returns the loss before it."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    stock = torch.optim.AdamW(groups, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2))

    def update(tokens, index):
        for group in stock.param_groups:
            group["lr"] = OPTIMIZER.compute_learning_rate(index)
        stock.zero_grad()
        loss = model(*read_rows(tokens, DATA, index=index))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        stock.step()
        return loss.item()

    return update
