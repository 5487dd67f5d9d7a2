"""The API from outside: uploading blobs, drafting jobs, fetching what was published."""

import ssl
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from pydantic import ValidationError

from market.api.drafts import JobDraft
from market.chain.calls import Calls
from market.chain.deployment import Deployment
from market.chain.structs import Address
from market.chain.transactions import Call
from market.protocol.errors import (
    MarketError,
    NodeUnavailable,
    NotFound,
    ProtocolError,
)
from market.protocol.spec import JobSpec
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES, Cid

_TIMEOUT_S: Final = 60.0


@cache
def get_tls() -> ssl.SSLContext:
    """Return the process's one TLS context: reading the certificates takes tens of milliseconds."""
    return ssl.create_default_context()


class _ChunkReader:
    """Reads a response's body in whole chunks."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_bytes(CHUNK_BYTES)

    def read(self, _size: int, /) -> bytes:
        return next(self._chunks, b"")


class ApiClient:
    """The API at ``url``. Nothing that it answers is believed unchecked."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, verify=get_tls())
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def has_blob(self, cid: Cid) -> bool:
        """Check whether the API keeps a blob."""
        return self._send(self._client.build_request("HEAD", f"/blobs/{cid}")).is_success

    def put_blob(self, cid: Cid, path: Path) -> None:
        """Upload the blob named ``cid``, which is the file at ``path``."""
        with path.open("rb") as source:
            response = self._send(self._client.build_request("PUT", "/blobs", content=source))
        _require_success(response)
        if response.json() != {"cid": cid}:
            raise ProtocolError(f"the API keeps blob {cid} as {response.text[:200]}")

    def fetch_blob(self, cid: Cid, store: BlobStore) -> None:
        """Copy the blob named ``cid`` into ``store``, unless it is there."""
        if store.has(cid):
            return
        response = self._send(self._client.build_request("GET", f"/blobs/{cid}"), stream=True)
        try:
            if not response.is_success:
                response.read()
                _require_success(response)
            store.put_stream(_ChunkReader(response), expected=cid)
        except httpx.TransportError as error:
            raise NodeUnavailable(f"the API stopped sending blob {cid}: {error!r}") from error
        finally:
            response.close()

    def draft_job(self, spec: JobSpec, requester: Address, deployment: Deployment) -> Call:
        """Have the API store ``spec``; return the call that posts it for ``requester``, computed here.

        Raises ProtocolError if the API would have the requester sign anything else."""
        headers = {"content-type": "application/json"}
        request = self._client.build_request(
            "POST",
            "/jobs",
            params={"requester": requester},
            content=spec.document,
            headers=headers,
        )
        response = self._send(request)
        _require_success(response)
        try:
            draft = JobDraft.model_validate_json(response.content)
        except ValidationError as error:
            raise ProtocolError(f"the API answered with no draft: {error}") from error
        call = Calls(deployment.market, deployment.ether).create_job(spec, requester)
        given, wanted = draft.transaction, (call.to, "0x" + call.data.hex(), call.value)
        if (given.to, given.data, given.value) != wanted or given.chain_id != deployment.chain_id:
            raise ProtocolError(
                f"the API asks to sign another transaction: {given.value} wei to {given.to} "
                f"on chain {given.chain_id} with {given.data[:74]}..."
            )
        return call

    def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            return self._client.send(request, stream=stream)
        except httpx.TransportError as error:
            raise NodeUnavailable(f"no answer from the API at {self._url}: {error!r}") from error


def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    detail = f"the API refused: {_read_detail(response)}"
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        raise NodeUnavailable(detail)
    if response.status_code == HTTPStatus.NOT_FOUND:
        raise NotFound(detail)
    if response.is_client_error:
        raise ProtocolError(detail)
    raise MarketError(detail)


def _read_detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    match problem:
        case {"detail": str(detail)}:
            return detail
    return f"status {response.status_code}"
