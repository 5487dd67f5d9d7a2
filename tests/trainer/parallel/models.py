"""Small steps to divide: lowered once for each shape."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from market.protocol.philox import random_words
from market.protocol.program import Program, TensorRole
from trainer.execution import Executor, StepResult
from trainer.lower.optimizer import SGD, AdamW
from trainer.lower.step import DataSpec, RowSpec, lower_step
from trainer.models import Llama, LlamaConfig
from trainer.vision import Mlp, MlpConfig

TOKENS = 512
CLASSES = 5


@cache
def lower_llama(layers: int, batch: int) -> tuple[Program, dict[str, Tensor]]:
    """Return the step of a decoder with grouped heads, and the state that it begins with."""
    config = LlamaConfig(48, 32, layers, heads=4, kv_heads=2, d_ff=40, length=6)
    rule = AdamW(learning_rate=3e-3, warmup_steps=0, total_steps=9, steps_per_shard=9)
    step = lower_step(Llama(config), None, DataSpec(TOKENS, batch, config.length), rule)
    return step.program, {**step.initial_base, **step.initial_slot}


def make_dataset(program: Program) -> Tensor:
    (kind,) = program.find_inputs(TensorRole.DATASET).values()
    words = random_words(5, 0, 0, 0, kind.elements)
    return torch.tensor([word % CLASSES for word in words], dtype=torch.uint8).view(kind.shape)


def get_bits(result: StepResult) -> dict[str, bytes]:
    tensors = {**result.state, "metrics": result.metrics}
    tensors |= {f"gradient of {name}": tensor for name, tensor in result.gradients.items()}
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors.items()}


def run_steps(executor: Executor, state: Mapping[str, Tensor]) -> list[dict[str, bytes]]:
    """Return the bits of two steps' results, the second beginning where the first one ended."""
    dataset, last = make_dataset(executor.program), None
    found = []
    for step in range(2):
        counters = torch.tensor([5, 0, 1, step])
        inputs = {**state, "tokens": dataset, "counters": counters}
        last = executor.run_step(inputs, spent=last)
        state = dict(last.state)
        found.append(get_bits(last))
    return found


@cache
def lower_mlp(batch: int, micro_batches: int, width: int = 16) -> tuple[Program, dict[str, Tensor]]:
    """Return the step of four layers with dropout, its gradients accumulated over micro-batches."""
    model = Mlp(MlpConfig((12,), (width, width, width), CLASSES, dropout=0.25))
    data = RowSpec(TOKENS // 16, batch, (12,))
    rule = SGD(learning_rate=0.1, warmup_steps=0, total_steps=9, steps_per_shard=9)
    loss = nn.functional.cross_entropy
    step = lower_step(model, loss, data, rule, micro_batches=micro_batches)
    return step.program, {**step.initial_base, **step.initial_slot}
