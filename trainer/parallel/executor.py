"""The executor of one process of a group: the same interface and the same bits as one process alone."""

import torch

from market.protocol.errors import UnsupportedPartition
from market.protocol.hashing import compute_digest
from market.protocol.program import Program
from trainer.execution import BackendName, Executor, Observe
from trainer.parallel.backend import ParallelBackend
from trainer.parallel.partial import Communicator
from trainer.parallel.partition import ProgramPartition
from trainer.parallel.ranks import RankProgram, list_steps
from trainer.parallel.schedule import arrange_stages
from trainer.parallel.strategies import StrategyName, partition
from trainer.workspace import Backend, Workspace


class ParallelExecutor(Executor):
    """Runs this rank's part of each step of ``program``; all ranks call `run_step` with the same inputs.

    INVARIANT: every rank returns the results that `Executor` returns. ``after`` is told the numbers of this
    rank's own instructions and exchanges."""

    def __init__(
        self,
        program: Program,
        strategy: StrategyName,
        others: Communicator,
        *,
        device: str = "cpu",
        backend: BackendName | None = None,
        threads: int | None = None,
    ) -> None:
        self.partition = partition(program, others.world, strategy)
        _require_agreement(self.partition, others)
        self._rank_program = _build_rank(self.partition, others.rank)
        self._others = others
        program = self._rank_program.program
        super().__init__(program, device=device, backend=backend, threads=threads)

    def require_unobserved(self, observe: Observe | None) -> None:
        """Raise UnsupportedPartition if somebody wants to see every value."""
        if observe is not None:
            raise UnsupportedPartition("a divided step has no observer: no rank has every value")

    def _build_backend(self) -> Backend:
        inner = super()._build_backend()
        return ParallelBackend(self._rank_program, inner, self.carrier, self._others)

    def _prepare_observed(self) -> Workspace:
        raise UnsupportedPartition("a divided step has no observer: no rank has every value")


def _require_agreement(divided: ProgramPartition, others: Communicator) -> None:
    """Raise UnsupportedPartition unless all ranks divided the program alike: else they would mix up parts."""
    words = torch.frombuffer(bytearray(compute_digest(divided.encode())), dtype=torch.int32)
    both = torch.cat([words, ~words])  # the least is the complement of the greatest complement
    others.maximize(both)
    if not torch.equal(both, torch.cat([words, ~words])):
        raise UnsupportedPartition(
            f"rank {others.rank} divides the program in another way than others: is it another release?"
        )


def _build_rank(divided: ProgramPartition, rank: int) -> RankProgram:
    """Return what ``rank`` runs; stages of a pipeline are arranged together."""
    if not divided.is_staged:
        return list_steps(divided, rank).build_program()
    stages, _ = arrange_stages([list_steps(divided, other) for other in range(divided.world)])
    return stages[rank].build_program()
