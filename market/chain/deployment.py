"""Deploying the market: its constants, in two presets, and where a deployed one is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from market.chain.abi import encode_call, encode_creation
from market.chain.structs import NO_ADDRESS, Address, Asset
from market.chain.transactions import Call, Receipt, Sender
from market.protocol.errors import MarketError, NotFound

_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Config:
    """The constants of one deployment, named as in Solidity. Times are seconds, shares are bps."""

    draw_distance: int  # blocks from a commitment, a job or a report to the block that draws for it
    audit_time: int
    decline_time: int
    grace_time: int
    vote_time: int
    response_time: int
    ruling_time: int
    challenge_window: int
    max_lease_time: int
    thaw_time: int
    pause_limit: int
    pause_interval: int
    expiry_fee_bps: int
    withdraw_fee_bps: int
    void_fee_bps: int
    silence_fee_bps: int
    slash_share_bps: int
    bond_bps: int
    guardian: Address  # NO_ADDRESS: nobody can pause
    judge: Address  # NO_ADDRESS: nobody rules, and an accusation stands


MAINNET: Final = Config(
    draw_distance=64,
    audit_time=6 * _HOUR_S,
    decline_time=_HOUR_S,
    grace_time=6 * _HOUR_S,
    vote_time=12 * _HOUR_S,
    response_time=24 * _HOUR_S,
    ruling_time=14 * _DAY_S,
    challenge_window=72 * _HOUR_S,
    max_lease_time=24 * _HOUR_S,
    thaw_time=21 * _DAY_S,
    pause_limit=3 * _DAY_S,
    pause_interval=14 * _DAY_S,
    expiry_fee_bps=500,
    withdraw_fee_bps=500,
    void_fee_bps=500,
    silence_fee_bps=500,
    slash_share_bps=3_000,
    bond_bps=1_000,
    guardian=NO_ADDRESS,
    judge=NO_ADDRESS,
)
DEVNET: Final = replace(
    MAINNET,
    draw_distance=2,
    audit_time=120,
    decline_time=60,
    grace_time=30,
    vote_time=60,
    response_time=5,
    ruling_time=60,
    challenge_window=600,
    max_lease_time=300,
    thaw_time=700,
    pause_limit=60,
    pause_interval=300,
)
ETHER_ONLY: Final = (Asset(token=NO_ADDRESS, ticket_stake=10**18),)


ContractAddress = Annotated[Address, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]


class Deployment(BaseModel):
    """Where a market is: the file that a command line or a service is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain_id: Annotated[int, Field(ge=1)]
    market: ContractAddress
    block: Annotated[int, Field(ge=0)]  # no event is older
    ether: Annotated[int, Field(ge=0)] | None = 0  # the number of the asset that is ether
    offers: ContractAddress | None = None  # where signed offers are posted
    registry: ContractAddress | None = None  # which names the current market and the oldest client


def deploy(
    sender: Sender,
    account: LocalAccount,
    config: Config,
    assets: Sequence[Asset] = ETHER_ONLY,
) -> tuple[Deployment, Receipt]:
    """Create a market with the constants in ``config`` and those ``assets``; return where it is."""
    receipt = _create(sender, account, "Market", config, assets)
    assert receipt.created is not None
    tokens = [asset.token for asset in assets]
    deployment = Deployment(
        chain_id=sender.get_chain_id(),
        market=receipt.created,
        block=receipt.block_number,
        ether=tokens.index(NO_ADDRESS) if NO_ADDRESS in tokens else None,
    )
    return deployment, receipt


def deploy_periphery(sender: Sender, account: LocalAccount, deployment: Deployment) -> Deployment:
    """Create what stands beside a market: where signed offers are posted, and a registry that names it.

    ``account`` owns the registry, and with it nobody's money."""
    offers = _create(sender, account, "Offers", deployment.market).created
    registry = _create(sender, account, "Registry", account.address).created
    assert registry is not None
    release = encode_call("release", deployment.market, offers, 0, contract="Registry")
    sender.send(account, Call(registry, "release", release))
    return deployment.model_copy(update={"offers": offers, "registry": registry})


def _create(sender: Sender, account: LocalAccount, contract: str, *arguments: object) -> Receipt:
    code = encode_creation(*arguments, contract=contract)
    return sender.send(account, Call(None, f"create {contract}", code))


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
