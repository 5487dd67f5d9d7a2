"""Muon in a program: the orthogonal factor against float64, and whole steps against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from market.protocol.program import OutputKind, TensorRole
from market.protocol.tensors import Dtype, TensorType
from tests.trainer.lower.interpreter import Interpreter
from tests.trainer.lower.oracle import make_inputs, make_tokens, read_rows, relative_error, to_torch
from trainer.execution import Executor
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalize
from trainer.lower.step import COUNTERS, DataSpec, lower_step

DATA = DataSpec(1000, 4, 6)
RULE = Muon(
    learning_rate=0.01,
    weight_decay=0.2,
    total_steps=20,
    hidden=("1.weight", "3.weight"),
)


def build_program(shape):
    builder = ProgramBuilder()
    matrix = builder.add_input("matrix", TensorType(Dtype.F32, shape), TensorRole.DATASET)
    found = orthogonalize(builder, matrix)
    return builder.build([NamedOutput(OutputKind.GRADIENT, "found", found)])


def orthogonalize_in_float64(matrix):
    a, b, c = COEFFICIENTS
    x = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    x = x / x.norm()
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def make_matrix(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 1e-3


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4)])
def test_the_iteration_is_that_of_float64(shape):
    matrix = make_matrix(shape)

    _, found, _ = Interpreter(build_program(shape)).run({"matrix": matrix})

    assert relative_error(found["found"], orthogonalize_in_float64(matrix)) < 1e-5


def test_singular_values_become_about_one_in_16_bits():
    matrix = make_matrix((12, 20))

    found = Executor(build_program((12, 20))).run_step({"matrix": matrix}).gradients["found"]

    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert relative_error(found, orthogonalize_in_float64(matrix)) < 5e-3


def test_a_gradient_of_zeros_moves_nothing():
    found = Executor(build_program((3, 4))).run_step({"matrix": torch.zeros(3, 4)})

    assert not found.gradients["found"].any()


def build_model():
    torch.manual_seed(0)
    layers = [nn.Embedding(256, 12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)]
    return nn.Sequential(*layers, nn.Linear(12, 256))


def compute_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train_stock(tokens, steps):
    """torch's Muon, which iterates in bfloat16, and its AdamW, on float64 gradients."""
    model = build_model().double()
    named = dict(model.named_parameters())
    hidden = torch.optim.Muon(
        [named[n] for n in RULE.hidden], weight_decay=0.2, adjust_lr_fn="match_rms_adamw"
    )
    rest = [p for n, p in named.items() if n not in RULE.hidden]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.2},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(RULE.beta1, RULE.beta2))
    for step in range(steps):
        inputs, targets = read_rows(tokens, DATA, index=step)
        model.zero_grad()
        compute_loss(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), RULE.clip_norm)
        for optimizer in (hidden, adam):
            for group in optimizer.param_groups:
                group["lr"] = RULE.compute_learning_rate(step)
            optimizer.step()
    return {name: p.detach() for name, p in named.items()}


def test_training_follows_torchs_muon():
    tokens = make_tokens(DATA.tokens)
    step = lower_step(build_model(), compute_loss, DATA, RULE)
    executor, inputs = Executor(step.program), to_torch(make_inputs(step, tokens))

    for index in range(4):
        inputs[COUNTERS][3] = index
        inputs.update(executor.run_step(inputs).state)

    before = {name: p.detach() for name, p in build_model().named_parameters()}
    for name, expected in train_stock(tokens, 4).items():
        moved, stock = inputs[name] - before[name], expected - before[name]
        assert relative_error(moved, stock) < 0.03, name


def test_hidden_matrices_keep_a_mean_and_the_rest_two_moments():
    base = {name: p.detach() for name, p in build_model().named_parameters()}

    slot = RULE.build_slot(base)

    assert [name for name in slot if name.startswith("momentum/")] == [
        "momentum/1.weight",
        "momentum/3.weight",
    ]
    assert "moment1/0.weight" in slot
    assert "moment1/1.weight" not in slot
