"""AdamW in a program against AdamW in float64, clipping and schedule included."""

import math

import numpy as np
import pytest

from market.protocol.program import OutputKind, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import require_valid_program
from tests.trainer.lower.interpreter import Interpreter
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder
from trainer.lower.optimizer import (
    BETA1_POWER,
    BETA2_POWER,
    AdamW,
    apply_adamw,
    moment_names,
)

SHAPES = {"matrix": (4, 6), "vector": (5,), "scalar": ()}
RULE = AdamW(
    learning_rate=0.01,
    weight_decay=0.2,
    clip_norm=3.0,
    warmup_steps=3,
    total_steps=9,
    final_fraction=0.25,
)


def build_program(rule):
    """A program whose inputs are the state, the gradients (as a dataset would be) and the counters."""
    builder = ProgramBuilder()
    kinds = {name: TensorType(Dtype.F32, shape) for name, shape in SHAPES.items()}
    state = {n: builder.add_input(n, kind, TensorRole.BASE) for n, kind in kinds.items()}
    slot = {m: kind for n, kind in kinds.items() for m in moment_names(n)}
    slot |= dict.fromkeys((BETA1_POWER, BETA2_POWER), TensorType(Dtype.F32, ()))
    state |= {n: builder.add_input(n, kind, TensorRole.SLOT) for n, kind in slot.items()}
    gradients = {
        n: builder.add_input(f"gradient/{n}", kind, TensorRole.DATASET) for n, kind in kinds.items()
    }
    counters = builder.add_input("counters", TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS)
    step = builder.reshape(builder.slice(counters, 0, 3, 4), ())
    update = apply_adamw(builder, rule, step, state, gradients)
    outputs = [NamedOutput(OutputKind.NEXT_STATE, n, update.state[n]) for n in state]
    outputs += [NamedOutput(OutputKind.GRADIENT, "norm", update.norm)]
    outputs += [NamedOutput(OutputKind.METRICS, "", update.learning_rate)]
    program = builder.build(outputs)
    require_valid_program(program)
    return program


def make_gradients(step):
    noise = np.random.default_rng(step)
    scale = 0.1 if step % 2 else 2.0  # below and above the clipping norm
    return {name: np.float32(noise.normal(size=shape) * scale) for name, shape in SHAPES.items()}


def follow(rule, weights, steps):
    """Stock AdamW in float64."""
    moments = {name: (np.zeros(w.shape), np.zeros(w.shape)) for name, w in weights.items()}
    for step in range(steps):
        gradients = {name: g.astype(np.float64) for name, g in make_gradients(step).items()}
        norm = math.sqrt(sum((g * g).sum() for g in gradients.values()))
        rate = rule.compute_learning_rate(step)
        for name, g in gradients.items():
            g = g * min(1.0, rule.clip_norm / norm)
            m, v = moments[name]
            m, v = m * 0.9 + g * 0.1, v * 0.95 + g * g * 0.05
            moments[name] = m, v
            decay = 1 - rate * rule.weight_decay if g.ndim >= 2 else 1
            first, second = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
            weights[name] = weights[name] * decay - rate * first / (np.sqrt(second) + 1e-8)
    return weights, moments


def test_several_steps_follow_adamw_in_float64():
    noise = np.random.default_rng(100)
    weights = {name: noise.normal(size=shape) for name, shape in SHAPES.items()}
    state = {**weights, BETA1_POWER: 1.0, BETA2_POWER: 1.0}
    state |= {m: np.zeros(shape) for n, shape in SHAPES.items() for m in moment_names(n)}
    interpreter = Interpreter(build_program(RULE))

    for step in range(8):
        gradients = {f"gradient/{n}": g for n, g in make_gradients(step).items()}
        counters = np.array([0, 0, 0, step])
        state, _, _ = interpreter.run({**state, **gradients, "counters": counters})

    expected, moments = follow(RULE, dict(weights), 8)
    for name in SHAPES:
        np.testing.assert_allclose(state[name], expected[name], rtol=1e-6, atol=1e-8)
        for found, moment in zip(moment_names(name), moments[name], strict=True):
            np.testing.assert_allclose(state[found], moment, rtol=1e-6, atol=1e-8)


def test_the_learning_rate_warms_up_and_ends_at_its_fraction():
    rates = [RULE.compute_learning_rate(step) for step in range(12)]

    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert rates[3] == pytest.approx(0.01)
    assert rates[9:] == pytest.approx([0.0025] * 3)
    assert sorted(rates[3:], reverse=True) == rates[3:]


def test_after_the_last_step_the_rate_stays():
    interpreter = Interpreter(build_program(RULE))
    state = {m: np.zeros(s) for n, s in SHAPES.items() for m in (n, *moment_names(n))}
    inputs = {**state, BETA1_POWER: 1.0, BETA2_POWER: 1.0}
    inputs |= {f"gradient/{n}": np.zeros(shape) for n, shape in SHAPES.items()}

    _, norm, rate = interpreter.run({**inputs, "counters": np.array([0, 0, 0, 500])})

    assert float(rate[""]) == np.float32(RULE.compute_learning_rate(8))
    assert float(norm["norm"]) == 0
