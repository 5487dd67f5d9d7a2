"""What the daemons share: their turns, their log lines, and how they end."""

import logging
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from market.protocol.errors import ChainError

logger = logging.getLogger(__name__)

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_PATIENCE_S: Final = 5.0


class FactFormatter(logging.Formatter):
    """A fixed phrase, then the facts of the record as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``."""
        facts = {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS}
        return super().format(record) + "".join(f" {name}={value}" for name, value in facts.items())


def configure_logging() -> None:
    """Send the project's facts to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FactFormatter("%(asctime)s %(message)s"))
    for name in ("market", "trainer", "verifier"):
        package = logging.getLogger(name)
        package.setLevel(logging.INFO)
        package.addHandler(handler)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)  # whatever was being done is on disk or is done again


def end_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process, with exit code 0."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)


def run_loop(take_turn: Callable[[], bool], poll_s: float) -> None:
    """Take turns until a signal ends the process; a mute or refusing chain is asked again later."""
    end_on_signals()
    while True:
        try:
            has_worked = take_turn()
        except ChainError as error:
            logger.warning("chain refused", extra={"reason": str(error)})
            time.sleep(_PATIENCE_S)
        else:
            if not has_worked:
                time.sleep(poll_s)
