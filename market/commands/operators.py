"""Commands about operators: who provides and audits, by which keys, and with which tickets."""

from typing import Annotated

import typer
from pydantic import BaseModel

from market.chain.events import OperatorRegistered
from market.chain.logs import decode_events
from market.chain.structs import Address, Operator
from market.commands.accounts import (
    Asset,
    ChosenOperator,
    OperatorBalances,
    build_stakes,
    open_operator,
    parse_address,
    read_balances,
)
from market.commands.output import Json, build_facts, emit
from market.settings import read_settings

operators = typer.Typer(no_args_is_help=True, help="Operators: who provides and audits.")
workers = typer.Typer(no_args_is_help=True, help="Hot keys that may act for an operator.")
tickets = typer.Typer(no_args_is_help=True, help="Tickets: what a draw picks its auditor by.")

Key = Annotated[str, typer.Argument(parser=parse_address, metavar="ADDRESS")]


class RegisteredOperator(BaseModel):
    """An operator that the chain has."""

    operator: int
    owner: Address
    payout: Address
    tx_hash: str


class OperatorDetails(BaseModel):
    """Whose an operator is, which keys may act for it, and what it has."""

    operator: int
    facts: Operator
    workers: tuple[Address, ...]
    asset: int
    balances: OperatorBalances


@operators.command("register")
def register_operator(
    payout: Annotated[
        str | None,
        typer.Option(parser=parse_address, metavar="ADDRESS", help="Default: your key's."),
    ] = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Become an operator: your key owns it and may act for it, pay goes to the payout address."""
    settings = read_settings()
    account = settings.read_account()
    with settings.connect() as chain:
        receipt = chain.send(account, chain.calls.register(payout or account.address))
    events = decode_events(receipt.logs)
    event = next(event for event in events if isinstance(event, OperatorRegistered))
    registered = RegisteredOperator(
        operator=event.operator, owner=event.owner, payout=event.payout, tx_hash=receipt.tx_hash
    )
    facts = registered.model_dump(exclude={"operator"})
    emit(registered, build_facts(f"operator {event.operator}", facts), as_json=as_json)


@operators.command("show")
def show_operator(
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Show whose an operator is, which keys may act for it, and what it has."""
    with open_operator(chosen) as acting:
        details = OperatorDetails(
            operator=acting.operator,
            facts=acting.chain.get_operator(acting.operator),
            workers=tuple(acting.chain.list_workers(acting.operator)),
            asset=asset,
            balances=read_balances(acting.chain, acting.operator, asset),
        )
        ether = acting.chain.deployment.ether
    facts: dict[str, object] = {
        "owner": details.facts.owner,
        "payout": details.facts.payout,
        "workers": ", ".join(details.workers),
    }
    tables = build_facts("keys", facts), build_stakes(details.balances, asset, ether)
    emit(details, *tables, as_json=as_json)


@operators.command("payout")
def set_payout(
    payout: Key,
    chosen: ChosenOperator = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Have an operator's pay go to ADDRESS; as its owner."""
    with open_operator(chosen) as acting:
        acting.send(acting.chain.calls.set_payout(acting.operator, payout), as_json=as_json)


@workers.command("add")
def add_worker(
    worker: Key,
    chosen: ChosenOperator = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Let the key of ADDRESS act for an operator; as its owner."""
    with open_operator(chosen) as acting:
        call = acting.chain.calls.set_worker(acting.operator, worker, authorized=True)
        acting.send(call, as_json=as_json)


@workers.command("remove")
def remove_worker(
    worker: Key,
    chosen: ChosenOperator = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Let the key of ADDRESS act for an operator no longer, at once; as its owner."""
    with open_operator(chosen) as acting:
        call = acting.chain.calls.set_worker(acting.operator, worker, authorized=False)
        acting.send(call, as_json=as_json)


@tickets.command("buy")
def buy_tickets(
    count: Annotated[int, typer.Argument(min=1, max=1000)],
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Stake as an auditor: list COUNT tickets."""
    with open_operator(chosen) as acting:
        worth = acting.chain.get_asset(asset).ticket_stake
        call = acting.chain.calls.buy_tickets(acting.operator, asset, count, worth)
        acting.send(call, as_json=as_json)


@tickets.command("retire")
def retire_ticket(
    ticket_id: Annotated[int, typer.Argument(min=0, metavar="ID")],
    chosen: ChosenOperator = None,
    asset: Asset = 0,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Take a ticket off the list and let its stake thaw; `withdraw` pays it out after that."""
    with open_operator(chosen) as acting:
        call = acting.chain.calls.retire_ticket(acting.operator, asset, ticket_id)
        acting.send(call, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    operators.add_typer(workers, name="worker")
    app.add_typer(operators, name="operator")
    app.add_typer(tickets, name="tickets")
