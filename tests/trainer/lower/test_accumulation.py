"""Gradient accumulation: the same mean, the memory of one part, and noise of its own for each part."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from market.protocol.encoding import compute_program_root
from market.protocol.errors import InvalidSpec
from market.protocol.program import Kind
from tests.trainer.lower.interpreter import Interpreter
from tests.trainer.lower.oracle import (
    OPTIMIZER,
    compute_autograd,
    make_inputs,
    make_tokens,
    read_rows,
    relative_error,
    to_torch,
)
from trainer.execution import Executor
from trainer.lower.step import DataSpec, lower_step

DATA = DataSpec(1000, 6, 8)


class Net(nn.Module):
    def __init__(self, chance=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(256, 12)
        self.norm = nn.LayerNorm(12)
        self.hidden = nn.Linear(12, 20)
        self.dropout = nn.Dropout(chance)
        self.out = nn.Linear(20, 256)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens):
        return self.out(self.dropout(F.gelu(self.hidden(self.norm(self.embedding(tokens))))))


class Deep(nn.Module):
    """Weights that take much more memory than activations."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        self.layers = nn.Sequential(*(nn.Linear(32, 32) for _ in range(16)), nn.Linear(32, 256))

    def forward(self, tokens):
        return self.layers(self.embedding(tokens))


def next_token_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def lower(micro_batches, data=DATA, model=None):
    model = model or Net()
    return lower_step(model, next_token_loss, data, OPTIMIZER, micro_batches=micro_batches)


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 6])
def test_parts_add_up_to_the_gradient_of_the_whole_batch(micro_batches):
    step, tokens = lower(micro_batches), make_tokens(DATA.tokens)

    _, gradients, metrics = Interpreter(step.program).run(make_inputs(step, tokens, index=3))

    loss, expected = compute_autograd(Net(), read_rows(tokens, DATA, index=3), next_token_loss)
    assert metrics["metrics"][0] == pytest.approx(loss, rel=1e-7)
    assert all(relative_error(gradients[name], g) < 1e-6 for name, g in expected.items())
    assert set(gradients) - set(expected) == {"unused"}
    assert not gradients["unused"].any()


def test_the_executor_agrees_with_the_whole_batch():
    tokens, found = make_tokens(DATA.tokens), []
    for micro_batches in (1, 3):
        step = lower(micro_batches)
        found.append(Executor(step.program).run_step(to_torch(make_inputs(step, tokens))))

    whole, parts = found

    assert float(parts.metrics[0]) == pytest.approx(float(whole.metrics[0]), rel=1e-4)
    for name, gradient in whole.gradients.items():
        assert relative_error(parts.gradients[name], gradient) < 2e-3, name


def test_activations_take_the_memory_of_one_part():
    arenas = []
    for micro_batches in (1, 2, 4, 8):
        step = lower(micro_batches, DataSpec(5000, 64, 32))
        arenas.append(Executor(step.program).arena_bytes)

    weights = sum(p.numel() * 4 for p in Net().parameters())
    sums_and_quantized = 4 * weights
    for micro_batches, arena in zip((2, 4, 8), arenas[1:], strict=True):
        assert arena <= arenas[0] / micro_batches + sums_and_quantized


def test_a_gradient_is_added_up_as_soon_as_it_is_there():
    step = lower(4, DataSpec(1000, 4, 2), Deep())

    arena = Executor(step.program).arena_bytes

    weights = sum(p.numel() * 4 for p in Deep().parameters())
    sums, quantized = weights, weights  # 16 bits along each of two axes
    assert arena < 1.1 * (sums + quantized)


def test_only_sums_of_gradients_and_quantized_weights_outlive_a_part():
    program = lower(3).program
    instructions = program.instructions
    last_read = {v.tensor: at for at, i in enumerate(instructions) for v in i.operands}
    ends = [
        at for at, i in enumerate(instructions) if i.kind is Kind.SCATTER_ADD
    ]  # the last gradient
    weights = {p.numel() for p in Net().parameters()}
    tokens = DATA.batch * (DATA.length + 1)

    survivors = [
        program.tensors[view.tensor].type
        for end in ends[:-1]
        for at in range(end)
        for view in instructions[at].outputs
        if last_read.get(view.tensor, 0) > end + 1
    ]

    assert any(kind.bits for kind in survivors)
    assert all(kind.elements in weights or kind.elements <= tokens for kind in survivors)


def test_quantized_weights_are_shared_by_the_parts():
    counts = [
        sum(i.kind is Kind.QUANTIZE for i in lower(parts).program.instructions)
        for parts in (1, 2, 3)
    ]

    of_weights = 2 * 2  # two linear layers, each along both axes
    assert counts[2] - counts[1] == counts[1] - counts[0] == counts[0] - of_weights


def test_each_part_has_noise_of_its_own():
    step = lower(2, model=Net(0.5))
    interpreter = Interpreter(step.program)
    interpreter.run(make_inputs(step, make_tokens(DATA.tokens)))

    draws = [i for i in step.program.instructions if i.kind is Kind.RANDOM]
    streams = [int(interpreter.memory[i.operands[3].tensor][i.operands[3].offset]) for i in draws]

    assert streams == [0, 2, 3]
    words = [interpreter.memory[i.outputs[0].tensor] for i in draws[1:]]
    assert not np.array_equal(*words)


def test_one_part_is_the_program_without_accumulation():
    plain = lower_step(Net(), next_token_loss, DATA, OPTIMIZER)

    roots = {compute_program_root(step.program).root for step in (plain, lower(1))}

    assert len(roots) == 1


@pytest.mark.parametrize("micro_batches", [0, 4, 7])
def test_a_batch_that_cannot_be_cut_is_refused(micro_batches):
    with pytest.raises(InvalidSpec, match=f"6 rows has no {micro_batches} equal parts"):
        lower(micro_batches)
