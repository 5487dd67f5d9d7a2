"""The API's client, which believes nothing that it has not hashed."""

import os

import pytest
from fastapi import FastAPI, Response

from market.api.client import ApiClient
from market.chain.devnet import get_account
from market.protocol.errors import (
    InvalidBlob,
    MarketError,
    NodeUnavailable,
    NotFound,
    ProtocolError,
)
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES, compute_cid
from tests.market.storage.programs import make_job

LIMIT = 4 * CHUNK_BYTES
REQUESTER = get_account(1).address


@pytest.fixture
def mine(tmp_path):
    return BlobStore(tmp_path / "mine", LIMIT)


@pytest.fixture
def client(api):
    with ApiClient(str(api.base_url)) as connected:
        yield connected


def test_a_blob_travels_there_and_back(client, mine, store, tmp_path):
    data = os.urandom(CHUNK_BYTES + 5)
    cid = mine.put(data)

    client.put_blob(cid, mine.get_path(cid, LIMIT))
    fetched = BlobStore(tmp_path / "other", LIMIT)
    client.fetch_blob(cid, fetched)

    assert client.has_blob(cid)
    assert store.get(cid, LIMIT) == fetched.get(cid, LIMIT) == data


def test_a_blob_that_the_api_lacks_is_not_found(client, mine):
    cid = compute_cid(b"absent")

    assert not client.has_blob(cid)
    with pytest.raises(NotFound, match=cid):
        client.fetch_blob(cid, mine)


def test_bytes_that_are_not_the_blob_are_not_kept(serve, mine, tmp_path):
    liar = FastAPI()
    liar.get("/blobs/{cid}")(lambda: Response(b"something else"))
    kept = mine.put(b"something else")

    with ApiClient(str(serve(liar).base_url)) as client, pytest.raises(InvalidBlob, match=kept):
        client.fetch_blob(compute_cid(b"wanted"), mine)

    assert [path.name for path in (tmp_path / "mine").iterdir()] == [kept]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotFound),
        (409, ProtocolError),
        (422, ProtocolError),
        (500, MarketError),
        (503, NodeUnavailable),
    ],
)
def test_a_refusal_keeps_its_reason(serve, chain, mine, status, error):
    app = FastAPI()
    app.post("/jobs")(lambda: Response('{"detail": "for a reason"}', status))
    spec = make_job(mine, chain.get_time() + 1000)

    with (
        ApiClient(str(serve(app).base_url)) as client,
        pytest.raises(error, match="for a reason") as caught,
    ):
        client.draft_job(spec, REQUESTER, chain.deployment)
    assert type(caught.value) is error


def test_an_answer_that_is_no_draft_is_refused(serve, chain, mine):
    app = FastAPI()
    app.post("/jobs")(lambda: {"spec_hash": 1})
    spec = make_job(mine, chain.get_time() + 1000)

    with (
        ApiClient(str(serve(app).base_url)) as client,
        pytest.raises(ProtocolError, match="no draft"),
    ):
        client.draft_job(spec, REQUESTER, chain.deployment)


def test_a_dead_api_is_unavailable(mine):
    with ApiClient("http://127.0.0.1:9") as client, pytest.raises(NodeUnavailable, match="API"):
        client.fetch_blob(compute_cid(b""), mine)


def test_an_upload_that_the_api_names_otherwise_is_refused(serve, mine):
    app = FastAPI()
    app.put("/blobs")(lambda: {"cid": "another"})
    cid = mine.put(b"data")

    with (
        ApiClient(str(serve(app).base_url)) as client,
        pytest.raises(ProtocolError, match="keeps blob"),
    ):
        client.put_blob(cid, mine.get_path(cid, LIMIT))
