"""What commands print: a table for people, JSON with ``--json``; results on stdout, nothing else."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_WEI_PER_ETHER: Final = 10**18


def emit(value: BaseModel, *tables: Table, as_json: bool) -> None:
    """Print ``value``: as JSON, or as the ``tables`` that show it."""
    if as_json:
        typer.echo(value.model_dump_json(indent=2))
        return
    for table in tables:
        Console().print(table)


def build_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table of ``rows``."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # what is cut off cannot be copied
    for row in rows:
        table.add_row(*map(str, row))
    return table


def build_facts(title: str, facts: dict[str, object]) -> Table:
    """Return a table of names and values."""
    return build_table(title, ("what", "value"), facts.items())


def format_amount(amount: int, asset: int, ether: int | None) -> str:
    """Return ``amount`` of an asset for people to read; asset number ``ether`` is ether."""
    return format_wei(amount) if asset == ether else f"{amount} of asset {asset}"


def format_wei(amount: int) -> str:
    """Return ``amount`` for people to read, in ether."""
    whole, rest = divmod(amount, _WEI_PER_ETHER)
    decimals = f"{rest:018}".rstrip("0")
    return f"{whole}.{decimals} ether" if decimals else f"{whole} ether"


def build_progress() -> Progress:
    """Return a bar for long work, on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def find_group(app: typer.Typer, name: str) -> typer.Typer:
    """Return the group of commands called ``name``, to which another package adds its own."""
    return next(
        group.typer_instance
        for group in app.registered_groups
        if group.name == name and group.typer_instance is not None
    )
