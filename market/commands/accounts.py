"""Commands about keys, stakes and pay."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Annotated, Final

import typer
from eth_account.signers.local import LocalAccount
from eth_utils.address import is_address, to_checksum_address
from pydantic import BaseModel
from rich.table import Table

from market.chain import devnet
from market.chain.client import Chain
from market.chain.keys import create_key, write_key
from market.chain.operators import find_operator
from market.chain.structs import Account, Address, Role
from market.chain.transactions import Call, Receipt
from market.commands.output import Json, build_facts, build_table, emit, format_amount, format_wei
from market.protocol.errors import InvalidSignature
from market.protocol.spec import Wei
from market.settings import Settings, read_settings

_UNITS: Final = {"ether": 10**18, "gwei": 10**9, "wei": 1}

keys = typer.Typer(no_args_is_help=True, help="Keys: who signs for you.")


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


class OperatorBalances(BaseModel):
    """What an operator has at stake, and has earned."""

    operator: int
    provider: Account
    auditor: Account


class Balances(BaseModel):
    """What an address has in its wallet, in wei, and on the market, in base units of ``asset``."""

    address: Address
    wallet: Wei
    asset: int
    credit: Wei
    operators: tuple[OperatorBalances, ...]


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
Asset = Annotated[int, typer.Option("--asset", min=0, max=255, help="The asset's number.")]
ChosenOperator = Annotated[
    int | None,
    typer.Option(
        "--operator",
        min=1,
        envvar="TOUCHSTONE_OPERATOR",
        help="The operator's number. Default: the only one that your key may act for.",
    ),
]


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
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Show what an address has in its wallet and as credit, and what its operators have at stake."""
    settings = read_settings()
    owner = settings.read_account().address if address is None else address
    with settings.connect() as chain:
        operators = chain.list_operators(owner)
        balances = Balances(
            address=owner,
            wallet=chain.get_balance(owner),
            asset=asset,
            credit=chain.get_credit(owner, asset),
            operators=tuple(read_balances(chain, operator, asset) for operator in operators),
        )
        ether = chain.deployment.ether
    facts: dict[str, object] = {
        "wallet": format_wei(balances.wallet),
        "credit": format_amount(balances.credit, asset, ether),
    }
    tables = [build_stakes(entry, asset, ether) for entry in balances.operators]
    emit(balances, build_facts(owner, facts), *tables, as_json=as_json)


def read_balances(chain: Chain, operator: int, asset: int) -> OperatorBalances:
    """Return what an operator has in both roles."""
    provider, auditor = (chain.get_account(operator, role, asset) for role in Role)
    return OperatorBalances(operator=operator, provider=provider, auditor=auditor)


def build_stakes(balances: OperatorBalances, asset: int, ether: int | None) -> Table:
    """Return a table of what an operator has, by role."""
    provider, auditor = balances.provider, balances.auditor
    amounts = {
        "staked": (provider.staked, auditor.staked),
        "locked for leases": (provider.locked, auditor.locked),
        "thawing": (provider.thawing, auditor.thawing),
        "earned": (provider.earned, auditor.earned),
    }
    rows = [
        (what, *(format_amount(amount, asset, ether) for amount in pair))
        for what, pair in amounts.items()
    ]
    rows.append(("thawed after", *(_format_time(account) for account in (provider, auditor))))
    columns = ("what", "as provider", "as auditor")
    return build_table(f"operator {balances.operator}", columns, rows)


def _format_time(account: Account) -> str:
    if not account.leaving:
        return ""
    return datetime.fromtimestamp(account.thawed_at, UTC).isoformat(" ")


def stake(
    amount: Amount,
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Add AMOUNT (5000, 3gwei, 1.5ether) to an operator's stake as a provider."""
    with open_operator(chosen) as acting:
        acting.send(acting.chain.calls.stake(acting.operator, asset, amount), as_json=as_json)


def unstake(
    amount: Amount,
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Let AMOUNT of an operator's stake as a provider thaw; `withdraw` pays it out after that.

    From then on it answers for no new lease; the output of `account` says when it has thawed."""
    with open_operator(chosen) as acting:
        acting.send(acting.chain.calls.thaw(acting.operator, asset, amount), as_json=as_json)


def withdraw(
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Pay your credit, and your operators' stake that has thawed, into your wallet."""
    settings = read_settings()
    account = settings.read_account()
    with settings.connect() as chain:
        operators = chain.list_operators(account.address) if chosen is None else [chosen]
        due = _list_withdrawals(chain, operators, asset)
        if chain.get_credit(account.address, asset) > 0 or not due:
            due.append(chain.calls.withdraw(asset, account.address))
        receipt = chain.send(account, due[0] if len(due) == 1 else chain.calls.multicall(due))
    emit_receipt(receipt, as_json=as_json)


def _list_withdrawals(chain: Chain, operators: Sequence[int], asset: int) -> list[Call]:
    """Return the calls that withdraw what has thawed and answers for no lease any more."""
    now = chain.get_time()
    calls = []
    for operator, role in product(operators, Role):
        held = chain.get_account(operator, role, asset)
        if held.leaving and now > held.thawed_at and held.thawing <= held.staked - held.locked:
            calls.append(chain.calls.withdraw_stake(operator, role, asset))
    return calls


def pay_out(
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Send what an operator has earned, in both roles, to its payout address; anyone may."""
    with open_operator(chosen) as acting:
        chain, operator = acting.chain, acting.operator
        roles = [role for role in Role if chain.get_account(operator, role, asset).earned]
        # With nothing earned, the contract says so.
        due = [chain.calls.pay_out(operator, role, asset) for role in roles or [Role.PROVIDER]]
        acting.send(due[0] if len(due) == 1 else chain.calls.multicall(due), as_json=as_json)


@dataclass(frozen=True, slots=True)
class Acting:
    """A key that acts for an operator."""

    chain: Chain
    account: LocalAccount
    operator: int

    def send(self, call: Call, *, as_json: bool) -> None:
        """Send ``call`` and print its receipt."""
        emit_receipt(self.chain.send(self.account, call), as_json=as_json)


@contextmanager
def open_operator(chosen: int | None) -> Iterator[Acting]:
    """Connect, as the operator ``chosen`` or the only one that the user's key may act for."""
    settings = read_settings()
    account = settings.read_account()
    with settings.connect() as chain:
        yield Acting(chain, account, find_operator(chain, account.address, chosen))


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(keys, name="key")
    app.command("account")(show_account)
    for command in (stake, unstake, withdraw):
        app.command()(command)
    app.command("payout")(pay_out)


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
