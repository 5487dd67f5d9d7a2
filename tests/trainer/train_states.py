"""Trains the tiny job for 24 steps and prints the hash of its states: run in a process of its own.

``python tests/trainer/train_states.py BACKEND THREADS``"""

import sys

import torch

from market.protocol.hashing import compute_digest
from tests.trainer.tiny_job import build_tiny_job
from trainer.execution import Executor
from trainer.shards import ShardTask, run_segment
from trainer.states import compute_state_roots

SEGMENTS, STEPS = 3, 8


def main() -> None:
    backend, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    job = build_tiny_job()
    executor = Executor(job["program"], backend=backend, threads=threads)
    task = ShardTask(job["program"], job["dataset"], 2**63 + 11, 0, 1, STEPS)
    state, roots = job["initial"], b""
    for segment in range(SEGMENTS):
        state = run_segment(executor, task, state, segment).state
        found = compute_state_roots(task.program, state)
        roots += found.base + found.slot
    print(compute_digest(roots).hex(), torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()
