"""What `touchstone provider run` does."""

import logging
from collections.abc import Callable
from typing import Final

from rich.progress import TaskID

from market.commands.output import build_progress
from market.settings import Settings, read_settings
from market.storage.blobs import BlobStore
from trainer.commands.conformance import require_release_arithmetic, use_threads
from trainer.daemon import configure_logging, end_on_signals, run_loop
from trainer.evidence import Shard
from trainer.execution import Executor
from trainer.jobs import JobFiles
from trainer.parallel.group import join_group
from trainer.parallel.lead import Leader, follow
from trainer.parallel.strategies import StrategyName
from trainer.provider import Provider, ProviderSetup
from trainer.shards import TrainSegment

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5


BuildExecutor = Callable[[JobFiles], Executor]


def build_provider(
    settings: Settings, build_executor: BuildExecutor, train: TrainSegment
) -> Provider:
    """Return the provider whose key, blobs and home the settings name."""
    progress = build_progress()
    bars: dict[int, TaskID] = {}
    is_seen = progress.console.is_terminal

    def show_step(shard: Shard, step: int, steps: int) -> None:
        if not is_seen:
            return
        if shard.lease_id not in bars:
            progress.start()
            name = f"lease {shard.lease_id}, round {shard.round_index}, slot {shard.slot}"
            bars[shard.lease_id] = progress.add_task(name, total=steps)
        progress.update(bars[shard.lease_id], completed=step + 1)

    return Provider(
        ProviderSetup(
            chain=settings.connect(),
            account=settings.read_account(),
            public=settings.open_store(),
            private=BlobStore(settings.data_dir / "private", settings.max_blob_bytes),
            home=settings.data_dir,
            build_executor=build_executor,
            train=train,
            on_step=show_step,
        )
    )


def provide(threads: int | None, train: TrainSegment, strategy: StrategyName | None = None) -> None:
    """Provide until a signal ends it: alone, or with the processes that torchrun started with this one."""
    use_threads(threads)
    require_release_arithmetic()
    configure_logging()
    if strategy is None:
        _run_provider(lambda files: Executor(files.program, threads=threads), train)
        return
    with join_group() as group:
        logger.info("group joined", extra={"rank": group.rank, "processes": group.world})
        if group.rank > 0:
            end_on_signals()
            follow(group, threads)
            return
        leader = Leader(group, threads)
        try:
            _run_provider(lambda files: leader.build_executor(files.program, strategy), train)
        finally:
            leader.end()


def _run_provider(build_executor: BuildExecutor, train: TrainSegment) -> None:
    settings = read_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    run_loop(build_provider(settings, build_executor, train).take_turn, POLL_S)
