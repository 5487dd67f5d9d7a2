"""Blobs by CID: the requester's uploads, and what providers publish."""

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Path, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel

from market.api.dependencies import StoreDep
from market.api.errors import PROBLEM
from market.storage.cid import Cid

router = APIRouter(prefix="/blobs", tags=["blobs"])

CidPath = Annotated[str, Path(description="CIDv1 in base32 of a raw or UnixFS block, SHA-256")]


class StoredBlob(BaseModel):
    """Where an uploaded blob is found again."""

    cid: str


class _BodyReader:
    """Lets a worker thread read a request's body, which arrives in the event loop."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while len(self._rest) < size:
            piece = from_thread.run(anext, self._body, None)
            if piece is None:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@router.put(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={413: PROBLEM, 507: PROBLEM},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def put_blob(request: Request, store: StoreDep) -> StoredBlob:
    """Keep the request's body and return its CID. Putting the same bytes again changes nothing."""
    reader = _BodyReader(aiter(request.stream()))
    return StoredBlob(cid=await run_in_threadpool(store.put_stream, reader))


@router.head("/{cid}", include_in_schema=False)
@router.get(
    "/{cid}",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The blob's bytes"},
        404: PROBLEM,
        422: PROBLEM,
    },
)
def get_blob(cid: CidPath, store: StoreDep) -> FileResponse:
    """Return the blob with that CID, hashed before it is sent."""
    name = Cid(cid)
    path = store.get_path(name, store.max_blob_bytes)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(path, headers=headers, media_type="application/octet-stream")
