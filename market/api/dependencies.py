"""What routes are given: the chain and the store that the application was created with."""

from typing import Annotated, cast

from fastapi import Depends, Request

from market.chain.client import Chain
from market.storage.blobs import BlobStore


def _get_chain(request: Request) -> Chain:
    return cast(Chain, request.app.state.chain)


def _get_store(request: Request) -> BlobStore:
    return cast(BlobStore, request.app.state.store)


ChainDep = Annotated[Chain, Depends(_get_chain)]
StoreDep = Annotated[BlobStore, Depends(_get_store)]
