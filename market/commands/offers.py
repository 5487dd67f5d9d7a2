"""Commands about signed offers: a requester signs, anybody posts."""

import secrets
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, StringConstraints

from market.chain.client import Chain
from market.chain.offers import JobOffer, OfferCalls, build_offer, build_typed_data, sign_offer
from market.chain.structs import Address
from market.commands.accounts import Amount, emit_receipt
from market.commands.output import Json, build_facts, emit, format_wei
from market.protocol.errors import InvalidSpec, NotFound
from market.protocol.spec import JobSpec, parse_spec, report_faults
from market.settings import read_settings

offers = typer.Typer(no_args_is_help=True, help="Offers: jobs that you sign and anybody posts.")


class SignedOffer(BaseModel):
    """The file that a requester hands out: everything that is needed to post its job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offer: JobOffer
    spec: JobSpec
    signature: Annotated[str, StringConstraints(pattern=r"^0x([0-9a-f]{2})+$")]


@offers.command("sign")
def sign(
    spec_file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="SPEC")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the signed offer goes.")],
    hours: Annotated[int, typer.Option(min=1, help="How long it can be posted.")] = 24,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Sign an offer for the job that SPEC describes; nothing is sent."""
    settings = read_settings()
    spec = parse_spec(spec_file.read_bytes())
    account = settings.read_account()
    with settings.connect() as chain:
        expiry = chain.get_block_time() + hours * 3600
        offer = build_offer(spec, account.address, secrets.randbits(64), expiry)
        address = _get_offers(chain)
        typed_data = build_typed_data(offer, chain.deployment.chain_id, address)
    signature = "0x" + sign_offer(account, typed_data).hex()
    signed = SignedOffer(offer=offer, spec=spec, signature=signature)
    out.write_text(signed.model_dump_json(indent=2) + "\n")
    facts: dict[str, object] = {
        "requester": offer.requester,
        "escrow": format_wei(spec.escrow),
        "nonce": offer.nonce,
        "expires": f"{hours} h",
        "file": out,
    }
    emit(signed, build_facts("offer", facts), as_json=as_json)


@offers.command("post")
def post(
    offer_file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="OFFER")],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Post a signed OFFER; its requester's deposit or allowance pays."""
    with report_faults():
        signed = SignedOffer.model_validate_json(offer_file.read_bytes())
    if signed.offer.spec_hash != signed.spec.spec_hash:
        raise InvalidSpec(f"{offer_file} names another spec than it carries")
    settings = read_settings()
    with settings.connect() as chain:
        signature = bytes.fromhex(signed.signature[2:])
        call = OfferCalls(_get_offers(chain)).post(signed.offer, signed.spec, signature)
        emit_receipt(chain.send(settings.read_account(), call), as_json=as_json)


@offers.command("cancel")
def cancel(
    nonce: Annotated[int, typer.Argument(min=0)],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Spend NONCE, so that no offer with it can be posted."""
    settings = read_settings()
    with settings.connect() as chain:
        call = OfferCalls(_get_offers(chain)).cancel(nonce)
        emit_receipt(chain.send(settings.read_account(), call), as_json=as_json)


@offers.command("deposit")
def deposit(amount: Amount, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Put AMOUNT of ether aside to pay for your offers."""
    settings = read_settings()
    account = settings.read_account()
    with settings.connect() as chain:
        call = OfferCalls(_get_offers(chain)).deposit(account.address, amount)
        emit_receipt(chain.send(account, call), as_json=as_json)


@offers.command("withdraw")
def withdraw(amount: Amount, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Take AMOUNT of what you put aside back."""
    settings = read_settings()
    account = settings.read_account()
    with settings.connect() as chain:
        call = OfferCalls(_get_offers(chain)).withdraw(amount, account.address)
        emit_receipt(chain.send(account, call), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(offers, name="offer")


def _get_offers(chain: Chain) -> Address:
    address = chain.deployment.offers
    if address is None:
        raise NotFound("the deployment file names no contract for offers")
    return address
