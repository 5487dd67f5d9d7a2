"""The web API. It holds nobody's key: what moves money is returned unsigned."""

from typing import Final

from fastapi import FastAPI

from market.api import blobs, health, jobs
from market.api.errors import install_error_handlers
from market.api.limits import BodyLimit
from market.chain.client import Chain
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.storage.blobs import BlobStore

_DESCRIPTION: Final = """\
A compute market that pays only for training it can check.

A requester uploads the blobs that its job names (`PUT /blobs`), posts the job's spec (`POST /jobs`),
and gets the transaction that escrows the price, unsigned. Everything else is read from the chain.

Amounts are decimal strings of an asset's base units (of ether: wei), bytes are 0x hex, times are
seconds. Failures are problem details (RFC 9457) whose `type` names the error and whose `retryable`
says whether waiting helps."""


def create_app(chain: Chain, store: BlobStore) -> FastAPI:
    """Return the application over ``chain`` and ``store``."""
    app = FastAPI(title="Touchstone", version="1", description=_DESCRIPTION)
    app.state.chain = chain
    app.state.store = store
    app.add_middleware(
        BodyLimit,
        document_bytes=MAX_DOCUMENT_BYTES,
        blob_bytes=store.max_blob_bytes,
        blob_path=blobs.router.prefix,
    )
    install_error_handlers(app)
    for router in (health.router, jobs.router, blobs.router):
        app.include_router(router)
    return app
