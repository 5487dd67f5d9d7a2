"""Deploying the market: its constants, in two presets, and where a deployed one is."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from market.chain.abi import encode_creation
from market.chain.structs import Address
from market.chain.transactions import Call, Receipt, Sender
from market.protocol.errors import MarketError, NotFound
from market.protocol.spec import Wei

_HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Config:
    """The constants of one deployment, named as in Solidity. Times are seconds, shares are bps."""

    draw_distance: int  # blocks from a commitment or a job to the block that draws for it
    audit_time: int
    open_time: int
    reveal_time: int
    response_time: int
    challenge_window: int
    max_lease_time: int
    ticket_stake: Wei
    expiry_fee_bps: int
    withdraw_fee_bps: int
    void_fee_bps: int
    silence_fee_bps: int
    slash_share_bps: int


MAINNET: Final = Config(
    draw_distance=64,
    audit_time=6 * _HOUR_S,
    open_time=2 * _HOUR_S,
    reveal_time=2 * _HOUR_S,
    response_time=24 * _HOUR_S,
    challenge_window=72 * _HOUR_S,
    max_lease_time=24 * _HOUR_S,
    ticket_stake=10**18,
    expiry_fee_bps=500,
    withdraw_fee_bps=500,
    void_fee_bps=500,
    silence_fee_bps=500,
    slash_share_bps=3_000,
)
DEVNET: Final = replace(
    MAINNET,
    draw_distance=2,
    audit_time=120,
    open_time=60,
    reveal_time=60,
    response_time=5,
    challenge_window=600,
    max_lease_time=300,
)


class Deployment(BaseModel):
    """Where a market is: the file that a command line or a service is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain_id: Annotated[int, Field(ge=1)]
    market: Annotated[Address, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
    block: Annotated[int, Field(ge=0)]  # no event is older


def deploy(sender: Sender, account: LocalAccount, config: Config) -> tuple[Deployment, Receipt]:
    """Create a market with the constants in ``config``; return where it is."""
    receipt = sender.send(account, Call(None, "constructor", encode_creation(config)))
    assert receipt.created is not None
    deployment = Deployment(
        chain_id=sender.get_chain_id(), market=receipt.created, block=receipt.block_number
    )
    return deployment, receipt


def write_deployment(path: Path, deployment: Deployment) -> None:
    """Keep ``deployment`` at ``path``, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.incoming")
    incoming.write_text(deployment.model_dump_json(indent=2) + "\n")
    incoming.rename(path)


def read_deployment(path: Path) -> Deployment:
    """Return the deployment kept at ``path``."""
    try:
        return Deployment.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"no deployment file at {path}: `touchstone devnet` writes one") from None
    except ValidationError as error:
        raise MarketError(f"{path} is not a deployment file: {error}") from error
