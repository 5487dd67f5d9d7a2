"""Whether the service can do its work."""

from fastapi import APIRouter
from pydantic import BaseModel

from market.api.dependencies import ChainDep
from market.api.errors import PROBLEM
from market.chain.structs import Address

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The chain that this service sees, and where the market is on it.

    ``time`` is the market's, in which deadlines are: it stands still during a pause."""

    chain_id: int
    block: int
    block_time: int
    time: int
    market: Address
    first_block: int


@router.get("/health", responses={502: PROBLEM, 503: PROBLEM})
def get_health(chain: ChainDep) -> Health:
    """Return the chain's latest block, after checking that the market is there."""
    chain.require_deployed()
    return Health(
        chain_id=chain.deployment.chain_id,
        block=chain.get_height(),
        block_time=chain.get_block_time(),
        time=chain.get_time(),
        market=chain.deployment.market,
        first_block=chain.deployment.block,
    )
