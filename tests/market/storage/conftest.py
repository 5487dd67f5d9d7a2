"""Indexes of a market at which everything happens, in SQLite and in a PostgreSQL of their own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from market.chain.client import Chain, connect
from market.chain.deployment import deploy
from market.chain.devnet import Devnet, DevnetConfig, get_account
from market.chain.rpc import Rpc
from market.chain.transactions import Sender
from market.storage.index.database import open_database
from tests.market.storage.activity import CONFIG

NewDatabase = Callable[[], Engine]


@pytest.fixture(scope="module")
def market_devnet(anvil: Path) -> Iterator[Devnet]:
    """A chain of their own for tests that fork it."""
    with Devnet(DevnetConfig(anvil)) as running:
        yield running


@pytest.fixture
def market(market_devnet: Devnet) -> Iterator[Chain]:
    """A market with short clocks, a guardian and a judge."""
    with Sender(Rpc(market_devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, get_account(0), CONFIG)
    with connect(market_devnet.url, deployment, patience_s=20) as connected:
        yield connected


@pytest.fixture
def new_database(tmp_path: Path) -> Iterator[NewDatabase]:
    """Return an empty SQLite index at every call."""
    with ExitStack() as stack:
        numbers = count()

        def create() -> Engine:
            engine = open_database(f"sqlite:///{tmp_path}/index-{next(numbers)}.sqlite")
            stack.callback(engine.dispose)
            return engine

        yield create


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server on a socket of its own; skips where the machine has none."""
    initdb, server = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL server: `initdb` and `postgres` are not on PATH")
    with tempfile.TemporaryDirectory(prefix="index-") as folder:  # pytest's are its user's alone
        run = _become_nobody(folder)
        create = [*run, initdb, "-D", f"{folder}/data", "-U", "index", "-A", "trust"]
        subprocess.run(create, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        serve = [*run, server, "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses="]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(serve, cwd=folder, stdout=log, stderr=log)
        yield f"postgresql+psycopg://index@/postgres?host={folder}"
        process.send_signal(signal.SIGINT)  # end without waiting for clients
        process.wait()


def _become_nobody(folder: str) -> list[str]:
    """Return what runs a command as somebody who may run PostgreSQL, which root may not."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
