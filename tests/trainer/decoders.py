"""A small decoder's step whose scores are its largest tensors, and inputs for it."""

from functools import cache

import torch
from torch import Tensor

from trainer.lower.optimizer import AdamW
from trainer.lower.recompute import Recompute
from trainer.lower.step import COUNTERS, DATASET, DataSpec, LoweredStep, lower_step
from trainer.models import Llama, LlamaConfig

TOKENS = 1000
CONFIG = LlamaConfig(vocab=32, d_model=16, layers=2, heads=2, kv_heads=1, d_ff=24, length=64)


@cache
def lower_decoder(batch: int = 2) -> LoweredStep:
    """Return a step in which nothing is computed again."""
    data = DataSpec(TOKENS, batch, CONFIG.length)
    return lower_step(Llama(CONFIG), None, data, AdamW(), recompute=Recompute.NOTHING)


def make_decoder_inputs(step: LoweredStep) -> dict[str, Tensor]:
    """Return the initial state, tokens and counters."""
    tokens = (torch.arange(TOKENS) * 31 % 101 % CONFIG.vocab).to(torch.uint8)
    state = {**step.initial_base, **step.initial_slot}
    return {**state, DATASET: tokens, COUNTERS: torch.tensor([5, 0, 0, 3])}
