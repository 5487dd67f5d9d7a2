"""The golden roots: a refactoring changes none of them; a change of a definition changes them on purpose."""

import torch

from market.protocol.encoding import compute_program_root
from market.protocol.philox import random_words
from market.protocol.records import compute_trace_root
from trainer.execution import Executor
from trainer.lower.optimizer import AdamW
from trainer.lower.step import DataSpec, lower_step
from trainer.models import PRESETS, Llama
from trainer.shards import ShardTask, hash_segment, run_segment
from trainer.states import claim_state, compute_state_roots

PROGRAM_ROOT = "e90588dd2884c2b4cf7c618c876b70436beceef6b9829e3ba54914ea56cbcb9e"
TRACE_ROOT = "91cfe8a466c6a09e6df7d8b5c4073d437a8b1a62537739981d07d3928c0f494f"


def test_a_tiny_job_has_the_golden_program_and_trace_roots():
    words = random_words(7, 0, 0, 0, 4096)
    dataset = torch.tensor([word % 97 for word in words], dtype=torch.uint8)
    config = PRESETS["tiny"]
    rule = AdamW(learning_rate=3e-3, warmup_steps=2, total_steps=6, steps_per_shard=6)
    step = lower_step(Llama(config), None, DataSpec(len(dataset), 2, config.length), rule)
    task = ShardTask(step.program, dataset, 2**63 + 1, 0, 1, 2)
    state = {**step.initial_base, **step.initial_slot}
    executor = Executor(step.program)

    claims = [claim_state(compute_state_roots(step.program, state), None)]
    for segment in range(3):
        end = run_segment(executor, task, state, segment)
        state = end.state
        claims.append(claim_state(*hash_segment(step.program, end)))

    assert compute_program_root(step.program).root.hex() == PROGRAM_ROOT
    assert compute_trace_root(claims).hex() == TRACE_ROOT
