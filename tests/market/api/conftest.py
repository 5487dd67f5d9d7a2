"""The API as a process serves it, on a port of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from market.api.app import create_app
from market.chain.client import Chain
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES

LIMIT = 4 * CHUNK_BYTES

Serve = Callable[[FastAPI], httpx.Client]


@contextmanager
def _serve(app: FastAPI) -> Iterator[httpx.Client]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, ws="none", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=5)) as client:
            yield client
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an application until the test ends; return a client of it."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(_serve(app))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """What the API keeps."""
    return BlobStore(tmp_path / "served", LIMIT)


@pytest.fixture
def api(serve: Serve, chain: Chain, store: BlobStore) -> httpx.Client:
    """A client of the API."""
    return serve(create_app(chain, store))
