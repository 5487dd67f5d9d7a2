"""The API over a store of its own."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from market.api.app import create_app
from market.chain.client import Chain
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES

LIMIT = 4 * CHUNK_BYTES

Serve = Callable[[FastAPI], httpx.Client]


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """What the API keeps."""
    return BlobStore(tmp_path / "served", LIMIT)


@pytest.fixture
def api(serve: Serve, chain: Chain, store: BlobStore) -> httpx.Client:
    """A client of the API."""
    return serve(create_app(chain, store))
