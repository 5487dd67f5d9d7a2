"""What `touchstone provider run` does."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from trainer.provider import Provider
from trainer.shards import TrainSegment
from trainer.training import ProviderSetup

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5


BuildExecutor = Callable[[JobFiles], Executor]


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """What the options of `provider run` say."""

    threads: int | None
    most_shards: int = 1
    self_check: bool = True
    strategy: StrategyName | None = None


def build_provider(
    settings: Settings,
    options: ProviderOptions,
    build_executor: BuildExecutor,
    train: TrainSegment,
) -> Provider:
    """Return the provider whose key, blobs and home the settings name."""
    progress = build_progress()
    bars: dict[Shard, TaskID] = {}
    is_seen = progress.console.is_terminal

    def show_step(shard: Shard, step: int, steps: int) -> None:
        if not is_seen:
            return
        if shard not in bars:
            progress.start()
            name = f"lease {shard.lease_id}, round {shard.round_index}, slot {shard.slot}"
            bars[shard] = progress.add_task(name, total=steps)
        progress.update(bars[shard], completed=step + 1)

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
            most_shards=options.most_shards,
            self_check=options.self_check,
        )
    )


def provide(options: ProviderOptions, train: TrainSegment) -> None:
    """Provide until a signal ends it: alone, or with the processes that torchrun started with this one."""
    threads, strategy = options.threads, options.strategy
    use_threads(threads)
    require_release_arithmetic()
    configure_logging()
    if strategy is None:
        _run_provider(options, lambda files: Executor(files.program, threads=threads), train)
        return
    with join_group() as group:
        logger.info("group joined", extra={"rank": group.rank, "processes": group.world})
        if group.rank > 0:
            end_on_signals()
            follow(group, threads)
            return
        leader = Leader(group, threads)
        try:
            _run_provider(
                options, lambda files: leader.build_executor(files.program, strategy), train
            )
        finally:
            leader.end()


def _run_provider(
    options: ProviderOptions, build_executor: BuildExecutor, train: TrainSegment
) -> None:
    settings = read_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    provider = build_provider(settings, options, build_executor, train)
    run_loop(provider.take_turn, POLL_S)
