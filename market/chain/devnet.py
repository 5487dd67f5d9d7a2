"""A local chain for development and tests: Anvil as a child process, its state in a file."""

import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from eth_account import Account
from eth_account.signers.local import LocalAccount

from market.chain.rpc import Rpc
from market.protocol.errors import ChainError, MarketError, NodeUnavailable, NotFound

CHAIN_ID: Final = 31_337
ACCOUNTS: Final = 10

# Anvil's own mnemonic, known to everybody: its keys hold play money.
_MNEMONIC: Final = "test test test test test test test test test test test junk"
_START_TIMEOUT_S: Final = 20
_STOP_TIMEOUT_S: Final = 20
_STATE_INTERVAL_S: Final = 1
_MACHINES: Final = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

logger = logging.getLogger(__name__)


@cache
def get_account(index: int) -> LocalAccount:
    """Return the funded account ``index`` of every devnet."""
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account


def find_anvil(configured: Path | None) -> Path:
    """Return the Anvil binary: ``configured``, or on PATH, or from the contracts' tools."""
    bundled = _get_bundled_path()
    on_path = shutil.which("anvil")
    for candidate in (configured, Path(on_path) if on_path else None, bundled):
        if candidate is not None and candidate.is_file():
            return candidate
    raise NotFound(
        f"no Anvil: searched TOUCHSTONE_ANVIL ({configured or 'not set'}), `anvil` on PATH and "
        f"{bundled}; `npm ci` in contracts/ installs it"
    )


def _get_bundled_path() -> Path:
    system = platform.system().lower()
    machine = _MACHINES.get(platform.machine(), platform.machine())
    repository = Path(__file__).parents[2]
    package = repository / f"contracts/node_modules/@foundry-rs/anvil-{system}-{machine}"
    return package / "bin/anvil"


@dataclass(frozen=True, slots=True)
class DevnetConfig:
    """What to start. Blocks come with transactions, and every ``block_time_s`` if given."""

    anvil: Path
    port: int | None = None  # None: any free one
    state_file: Path | None = None
    block_time_s: int | None = None

    def build_command(self, port: int) -> list[str]:
        """Return the command line that serves this devnet on ``port``."""
        command = [str(self.anvil), "--host", "127.0.0.1", "--port", str(port), "--silent"]
        command += ["--chain-id", str(CHAIN_ID), "--accounts", str(ACCOUNTS)]
        if self.block_time_s is not None:
            command += ["--block-time", str(self.block_time_s), "--mixed-mining"]
        if self.state_file is not None:
            command += ["--state", str(self.state_file)]
            command += ["--state-interval", str(_STATE_INTERVAL_S)]
        return command


class Devnet:
    """A running Anvil; leaving its context stops it after it has saved its state."""

    def __init__(self, config: DevnetConfig) -> None:
        self.port = _find_free_port() if config.port is None else config.port
        _require_free_port(self.port)
        self.rpc = Rpc(self.url)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process ends
        self._process = subprocess.Popen(
            config.build_command(self.port),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the keyboard is for us to pass on
            stdout=self._errors,
            stderr=self._errors,
            env=_build_environment(os.environ),
        )
        try:
            self._wait_until_ready()
        except MarketError:
            self.kill()
            raise
        logger.info("devnet started", extra={"url": self.url, "pid": self.pid})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the node answers JSON-RPC."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of Anvil."""
        return self._process.pid

    def stop(self) -> None:
        """End Anvil; its state is saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End Anvil at once, as a crash would."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Return Anvil's exit status once it has ended."""
        return self._process.wait()

    def advance_time(self, seconds: int) -> None:
        """Mine a block ``seconds`` later than now."""
        self.rpc.call("evm_increaseTime", [seconds])
        self.mine(1)

    def mine(self, blocks: int) -> None:
        """Mine ``blocks`` empty blocks."""
        self.rpc.call("anvil_mine", [hex(blocks)])

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self.rpc.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ChainError(f"Anvil ended at its start: {self._read_errors()}")
            if self._is_ready():
                return
            time.sleep(0.02)
        raise NodeUnavailable(f"Anvil did not answer on {self.url} within {_START_TIMEOUT_S} s")

    def _is_ready(self) -> bool:
        try:
            self.rpc.call("eth_chainId", [])
        except NodeUnavailable:
            return False
        return True

    def _read_errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read(2000).decode(errors="replace").strip()


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ChainError(f"port {port} of 127.0.0.1 is taken: {error.strerror}") from None


def _build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` without the settings through which Anvil would fork a remote chain."""
    return {name: value for name, value in environment.items() if not name.startswith("ANVIL_")}
