"""Steps replayed as CUDA graphs: thousands of launches for the price of one.

A graph holds addresses. A step's inputs and results move between few places, so there is a graph for each set
of places that comes back.
"""

from collections.abc import Sequence
from typing import Final

import torch

from trainer.exact.triton_native import Step, run_all

_MOST_GRAPHS: Final = 8
_MOST_PLACES: Final = 64  # sets of addresses seen once

Places = tuple[int, ...]


class GraphKeeper:
    """Runs steps on a CUDA device: the first time at some places one by one, then as a graph."""

    def __init__(self) -> None:
        self._graphs: dict[Places, torch.cuda.CUDAGraph] = {}
        self._seen: dict[Places, None] = {}

    def run(self, steps: Sequence[Step], places: Places) -> None:
        """Run ``steps``, always the same ones, on tensors at ``places``."""
        if places in self._graphs:
            self._graphs[places].replay()
        elif places in self._seen:
            self._graphs[places] = _capture(steps)
            self._graphs[places].replay()
        else:
            self._seen[places] = None
            run_all(steps)()  # compiles what capturing could not
        if len(self._seen) > _MOST_PLACES:
            del self._seen[next(iter(self._seen))]
        if len(self._graphs) > _MOST_GRAPHS:
            torch.cuda.synchronize()  # it may still be running
            del self._graphs[next(iter(self._graphs))]


def _capture(steps: Sequence[Step]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_all(steps)()
    return graph
