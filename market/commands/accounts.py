"""Commands about keys, stakes, tickets and pay."""

import sys
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import typer
from eth_utils.address import is_address, to_checksum_address
from pydantic import BaseModel

from market.chain import devnet
from market.chain.client import Chain
from market.chain.keys import create_key, write_key
from market.chain.structs import Address, Stake
from market.chain.transactions import Call, Receipt
from market.commands.output import Json, build_facts, emit, format_wei
from market.protocol.errors import InvalidSignature
from market.protocol.spec import Wei
from market.settings import Settings, read_settings

_UNITS: Final = {"ether": 10**18, "gwei": 10**9, "wei": 1}

keys = typer.Typer(no_args_is_help=True, help="Keys: who signs for you.")
tickets = typer.Typer(no_args_is_help=True, help="Tickets: what a draw picks its auditor by.")


class Key(BaseModel):
    """A key file and whose it is."""

    path: str
    address: Address


class Sent(BaseModel):
    """A mined transaction."""

    function: str
    tx_hash: str
    block: int
    gas_used: int


class Balances(BaseModel):
    """What an address has on the market and in its wallet."""

    address: Address
    wallet: Wei
    credit: Wei
    provider: Stake
    auditor: Stake


def parse_amount(text: str) -> int:
    """Return the wei in ``text``: digits, or a decimal number and ``ether``, ``gwei`` or ``wei``."""
    unit = next((name for name in _UNITS if text.endswith(name)), "")
    try:
        amount = Decimal(text.removesuffix(unit).strip()) * _UNITS.get(unit, 1)
    except InvalidOperation:
        raise typer.BadParameter(
            f"{text!r} is not an amount: try 5000, 3gwei or 1.5ether"
        ) from None
    if not amount.is_finite() or amount != amount.to_integral_value() or amount < 0:
        raise typer.BadParameter(f"{text!r} is not a whole number of wei")
    return int(amount)


def parse_address(text: str) -> str:
    """Return the address in ``text`` with its checksum."""
    if not is_address(text):
        raise typer.BadParameter(f"{text!r} is not an address")
    return to_checksum_address(text)


Amount = Annotated[int, typer.Argument(parser=parse_amount, metavar="AMOUNT")]


@keys.command("new")
def create_new_key(
    devnet_account: Annotated[
        int | None,
        typer.Option("--devnet", min=0, max=devnet.ACCOUNTS - 1, help="A devnet's funded account."),
    ] = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Create a key and keep it encrypted in the key file, which must not exist."""
    settings = read_settings()
    passphrase = _read_new_passphrase(settings)
    if devnet_account is None:
        account = create_key(settings.key_file, passphrase)
    else:
        account = devnet.get_account(devnet_account)
        write_key(settings.key_file, account, passphrase)
    _emit_key(settings, account.address, as_json=as_json)


@keys.command("show")
def show_key(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Show whose key is in the key file."""
    settings = read_settings()
    _emit_key(settings, settings.read_account().address, as_json=as_json)


def show_account(
    address: Annotated[
        str | None,
        typer.Argument(parser=parse_address, metavar="ADDRESS", help="Default: your key's."),
    ] = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Show what an address has in its wallet, as credit and at stake."""
    settings = read_settings()
    owner = settings.read_account().address if address is None else address
    with settings.connect() as chain:
        balances = Balances(
            address=owner,
            wallet=chain.get_balance(owner),
            credit=chain.get_credit(owner),
            provider=chain.get_provider_stake(owner),
            auditor=chain.get_auditor_stake(owner),
        )
    facts: dict[str, object] = {
        "wallet": format_wei(balances.wallet),
        "credit": format_wei(balances.credit),
        "staked as provider": format_wei(balances.provider.staked),
        "of which locked": format_wei(balances.provider.locked),
        "staked as auditor": format_wei(balances.auditor.staked),
        "of which locked ": format_wei(balances.auditor.locked),
    }
    emit(balances, build_facts(owner, facts), as_json=as_json)


def stake(amount: Amount, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Add AMOUNT (5000, 3gwei, 1.5ether) to your stake as a provider."""
    with (settings := read_settings()).connect() as chain:
        _send(settings, chain, chain.calls.stake(amount), as_json=as_json)


def unstake(amount: Amount, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Move AMOUNT of your free stake as a provider to your credit."""
    with (settings := read_settings()).connect() as chain:
        _send(settings, chain, chain.calls.unstake(amount), as_json=as_json)


def withdraw(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Pay your credit into your wallet."""
    with (settings := read_settings()).connect() as chain:
        _send(settings, chain, chain.calls.withdraw(), as_json=as_json)


@tickets.command("buy")
def buy_tickets(
    count: Annotated[int, typer.Argument(min=1, max=1000)],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Stake as an auditor: list COUNT tickets."""
    with (settings := read_settings()).connect() as chain:
        call = chain.calls.buy_tickets(count, chain.get_config().ticket_stake)
        _send(settings, chain, call, as_json=as_json)


@tickets.command("retire")
def retire_ticket(
    ticket_id: Annotated[int, typer.Argument(min=0, metavar="ID")],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Take a ticket of yours off the list, and its stake to your credit."""
    with (settings := read_settings()).connect() as chain:
        _send(settings, chain, chain.calls.retire_ticket(ticket_id), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(keys, name="key")
    app.add_typer(tickets, name="tickets")
    app.command("account")(show_account)
    for command in (stake, unstake, withdraw):
        app.command()(command)


def emit_receipt(receipt: Receipt, *, as_json: bool) -> None:
    """Print a mined transaction."""
    sent = Sent(
        function=receipt.function,
        tx_hash=receipt.tx_hash,
        block=receipt.block_number,
        gas_used=receipt.gas_used,
    )
    facts: dict[str, object] = {"transaction": sent.tx_hash, "gas": sent.gas_used}
    emit(sent, build_facts(sent.function, facts), as_json=as_json)


def _send(settings: Settings, chain: Chain, call: Call, *, as_json: bool) -> None:
    emit_receipt(chain.send(settings.read_account(), call), as_json=as_json)


def _emit_key(settings: Settings, address: Address, *, as_json: bool) -> None:
    key = Key(path=str(settings.key_file), address=address)
    emit(key, build_facts("key", key.model_dump()), as_json=as_json)


def _read_new_passphrase(settings: Settings) -> str:
    try:
        return settings.read_passphrase()
    except InvalidSignature:
        if not sys.stdin.isatty():
            raise
        return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True))
