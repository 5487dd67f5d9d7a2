"""The demo's processes: each a command that a user would type, with its output in a file of its own."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from market.protocol.errors import MarketError

_STOP_AFTER_S: Final = 10


class Stage:
    """Starts processes and ends those that it started, by pid, whatever happens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `python -m` ``arguments`` as ``name``; its output goes to ``name``.log."""
        with self.get_log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run `python -m` ``arguments`` to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode != 0:
            words = " ".join(arguments[:4])
            raise MarketError(f"`{words} ...` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def get_log(self, name: str) -> Path:
        """Return the file with the output of ``name``."""
        return self._folder / f"{name}.log"

    def require_healthy(self) -> None:
        """Raise MarketError with the end of its output if a process has failed."""
        for name, process in self._running.items():
            if process.poll():
                tail = self.get_log(name).read_text(errors="replace")[-2000:]
                raise MarketError(f"{name} ended with {process.returncode}: {tail}")

    def wait_for(self, name: str, timeout_s: float) -> None:
        """Wait for ``name`` to end well."""
        try:
            code = self._running[name].wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MarketError(f"{name} is not done after {timeout_s:.0f} s") from error
        del self._running[name]
        if code != 0:
            tail = self.get_log(name).read_text(errors="replace")[-2000:]
            raise MarketError(f"{name} ended with {code}: {tail}")

    def stop(self) -> None:
        """End all that still run, the last started first."""
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            process.terminate()
            try:
                process.wait(_STOP_AFTER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until ``holds``; raise MarketError naming ``what`` did not happen in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise MarketError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.25)


def get_peak_memory() -> int:
    """Return the largest resident size of any process that was started and has ended, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
