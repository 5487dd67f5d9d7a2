"""Optimizers in a program against torch's own in float64, clipping and schedule included."""

import numpy as np
import pytest
import torch
from torch import nn

from market.protocol.program import OutputKind, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import require_valid_program
from tests.trainer.lower.interpreter import Interpreter
from trainer.execution import Executor
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.optimizer import SGD, AdamW, apply_rule, moment_names, momentum_name

SHAPES = {"matrix": (4, 6), "vector": (5,), "scalar": ()}
SCHEDULE = {
    "learning_rate": 0.01,
    "clip_norm": 3.0,
    "warmup_steps": 3,
    "total_steps": 9,
    "final_fraction": 0.25,
}
RULE = AdamW(weight_decay=0.2, **SCHEDULE)
SGD_RULES = {
    "plain": SGD(momentum=0, **SCHEDULE),
    "momentum": SGD(**SCHEDULE),
    "Nesterov and decay": SGD(momentum=0.8, nesterov=True, weight_decay=0.2, **SCHEDULE),
}
RULES = {"AdamW": RULE, **SGD_RULES}

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def make_weights():
    noise = np.random.default_rng(100)
    return {n: torch.tensor(noise.normal(size=s), dtype=torch.float32) for n, s in SHAPES.items()}


def make_gradients(step):
    noise = np.random.default_rng(step)
    scale = 0.1 if step % 2 else 2.0  # below and above the clipping norm
    return {name: np.float32(noise.normal(size=shape) * scale) for name, shape in SHAPES.items()}


def build_program(rule):
    """A program whose inputs are the state, the gradients (as a dataset would be) and the counters."""
    builder = ProgramBuilder()
    kinds = {name: TensorType(Dtype.F32, shape) for name, shape in SHAPES.items()}
    state = {n: builder.add_input(n, kind, TensorRole.BASE) for n, kind in kinds.items()}
    for name, tensor in rule.build_slot(make_weights()).items():
        kind = TensorType(Dtype.F32, tuple(tensor.shape))
        state[name] = builder.add_input(name, kind, TensorRole.SLOT)
    gradients = {
        n: builder.add_input(f"gradient/{n}", kind, TensorRole.DATASET) for n, kind in kinds.items()
    }
    counters = builder.add_input("counters", TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    step = builder.reshape(builder.slice(counters, 0, 3, 4), ())
    update = apply_rule(builder, rule, step, state, gradients)
    outputs = [NamedOutput(OutputKind.NEXT_STATE, n, update.state[n]) for n in state]
    outputs += [NamedOutput(OutputKind.GRADIENT, "norm", update.norm)]
    outputs += [NamedOutput(OutputKind.METRICS, "", update.learning_rate)]
    program = builder.build(outputs)
    require_valid_program(program)
    return program


def make_inputs(state, step):
    gradients = {f"gradient/{name}": torch.tensor(g) for name, g in make_gradients(step).items()}
    return {**state, **gradients, "counters": torch.tensor([0, 0, 0, step])}


def build_stock(rule, weights):
    """torch's optimizer with the same constants; decay is for tensors of two axes or more."""
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": rule.weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    if isinstance(rule, AdamW):
        return torch.optim.AdamW(groups, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)
    return torch.optim.SGD(groups, lr=1.0, momentum=rule.momentum, nesterov=rule.nesterov)


def follow(rule, steps):
    """Return the weights, and torch's state for each, after the same steps in float64."""
    weights = {name: nn.Parameter(w.double()) for name, w in make_weights().items()}
    stock = build_stock(rule, list(weights.values()))
    for step in range(steps):
        for name, gradient in make_gradients(step).items():
            weights[name].grad = torch.tensor(gradient, dtype=torch.float64)
        nn.utils.clip_grad_norm_(weights.values(), rule.clip_norm)
        for group in stock.param_groups:
            group["lr"] = rule.compute_learning_rate(step)
        stock.step()
    return {n: w.detach() for n, w in weights.items()}, {n: stock.state[weights[n]] for n in SHAPES}


def run_oracle(rule, steps):
    state = {**make_weights(), **rule.build_slot(make_weights())}
    interpreter = Interpreter(build_program(rule))
    for step in range(steps):
        state, _, _ = interpreter.run(make_inputs(state, step))
    return state


@each_rule
def test_several_steps_follow_torchs_optimizer_in_float64(rule):
    state = run_oracle(rule, 8)

    weights, kept = follow(rule, 8)
    for name in SHAPES:
        np.testing.assert_allclose(state[name], weights[name], rtol=1e-6, atol=1e-8)
        slot = moment_names(name) if isinstance(rule, AdamW) else [momentum_name(name)]
        stock = [kept[name].get(k) for k in ("exp_avg", "exp_avg_sq", "momentum_buffer")]
        for found, expected in zip(slot, (v for v in stock if v is not None), strict=False):
            np.testing.assert_allclose(state[found], expected, rtol=1e-6, atol=1e-6)


@each_rule
def test_every_execution_gives_the_same_bits(rule):
    program = build_program(rule)
    found = []
    for backend, threads in (("fused", 1), ("fused", 2), ("torch", 1)):
        executor = Executor(program, backend=backend, threads=threads)
        state = {**make_weights(), **rule.build_slot(make_weights())}
        for step in range(8):
            state = executor.run_step(make_inputs(state, step)).state
        found.append(state)

    weights, _ = follow(rule, 8)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])
    for name in SHAPES:
        np.testing.assert_allclose(found[0][name], weights[name], rtol=1e-4, atol=1e-6)


def test_sgd_without_momentum_keeps_nothing():
    assert SGD(momentum=0).build_slot(make_weights()) == {}


def test_the_learning_rate_warms_up_and_ends_at_its_fraction():
    rates = [RULE.compute_learning_rate(step) for step in range(12)]

    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[3] == pytest.approx(0.01)
    assert rates[9:] == pytest.approx([0.0025] * 3)
    assert sorted(rates[3:], reverse=True) == rates[3:]


def test_after_the_last_step_the_rate_stays():
    state = {**make_weights(), **RULE.build_slot(make_weights())}
    inputs = make_inputs(state, 0) | {"counters": torch.tensor([0, 0, 0, 500])}
    inputs |= {f"gradient/{n}": torch.zeros(shape) for n, shape in SHAPES.items()}

    _, norm, rate = Interpreter(build_program(RULE)).run(inputs)

    assert float(rate[""]) == np.float32(RULE.compute_learning_rate(8))
    assert float(norm["norm"]) == 0
