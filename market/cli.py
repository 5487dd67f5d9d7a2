"""The command line, ``touchstone``: the market's commands, and those that other packages register."""

import sys
from importlib.metadata import entry_points
from typing import Final

import typer

from market.commands import accounts, bench, index, jobs, offers, operators, quote, service
from market.protocol.errors import MarketError

_GROUP: Final = "touchstone.commands"  # each entry point is a `register(app)`


def build_app() -> typer.Typer:
    """Return the application with every installed package's commands."""
    app = typer.Typer(
        name="touchstone",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="A compute market that pays only for training it can check.",
    )
    for module in (service, accounts, operators, jobs, offers, quote, index, bench):
        module.register(app)
    for entry_point in sorted(entry_points(group=_GROUP), key=lambda found: found.name):
        entry_point.load()(app)
    return app


def main() -> None:
    """Run the command; any error the project raises on purpose is one line and exit code 2."""
    app = build_app()
    try:
        app()
    except MarketError as error:
        typer.echo(f"touchstone: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
