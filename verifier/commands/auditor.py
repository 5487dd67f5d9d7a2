"""What `touchstone auditor run` does."""

from market.settings import Settings, read_settings
from trainer.commands.conformance import require_release_arithmetic, use_threads
from trainer.commands.provider import POLL_S
from trainer.daemon import configure_logging, run_loop
from trainer.execution import Executor
from verifier.auditor import Auditor, AuditorSetup


def build_auditor(settings: Settings, threads: int | None) -> Auditor:
    """Return the auditor whose key, blobs and home the settings name."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Auditor(
        AuditorSetup(
            chain=settings.connect(),
            account=settings.read_account(),
            store=settings.open_store(),
            home=settings.data_dir,
            build_executor=lambda files: Executor(files.program, threads=threads),
        )
    )


def audit(threads: int | None) -> None:
    """Audit until a signal ends it."""
    use_threads(threads)
    require_release_arithmetic()
    configure_logging()
    run_loop(build_auditor(read_settings(), threads).take_turn, POLL_S)
