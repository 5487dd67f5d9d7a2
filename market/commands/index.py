"""Commands about the index: the chain's events in tables of a database."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import BaseModel

from market.commands.output import Json, build_facts, emit
from market.protocol.errors import MarketError, NodeUnavailable
from market.settings import Settings, read_settings

if TYPE_CHECKING:
    from market.storage.index.indexer import Indexer

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0  # between two questions to a node that is mute

index = typer.Typer(no_args_is_help=True, help="The index: the chain's events as tables.")


@index.callback()
def require_extra() -> None:
    """The index: the chain's events as tables."""
    for package in ("sqlalchemy", "alembic"):
        if find_spec(package) is None:  # neither is for providers
            raise MarketError(f"the index needs {package}: install touchstone-market[api]")


class IndexStatus(BaseModel):
    """How far an index is."""

    database: str
    market: str
    tip: int
    final: int | None
    events: int
    jobs: int
    leases: int


@index.command("run")
def run_index(
    poll_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="End at the tip.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Follow the chain until it is interrupted, and through its reorganizations.

    It may be killed at any moment. Where nodes are mute it waits for them."""
    settings = read_settings()
    with _open(settings) as indexer:
        _sync(indexer)
        while not once:
            time.sleep(poll_s)
            _sync(indexer)
    _emit_status(settings, as_json=as_json)


@index.command("rebuild")
def rebuild_index(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Drop every row of the index and replay the chain."""
    settings = read_settings()
    with _open(settings) as indexer:
        indexer.clear()
        _sync(indexer)
    _emit_status(settings, as_json=as_json)


@index.command("status")
def show_index(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Show how far the index is."""
    _emit_status(read_settings(), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(index, name="index")


def _sync(indexer: "Indexer") -> None:
    """Bring the index to the tip, once nodes let us."""
    while True:
        try:
            indexer.sync()
            break
        except NodeUnavailable as error:
            logger.warning("node unavailable", extra={"reason": str(error)})
            time.sleep(_PATIENCE_S)


@contextmanager
def _open(settings: Settings) -> Iterator["Indexer"]:
    from market.storage.index.database import explain_database, open_database
    from market.storage.index.indexer import Indexer

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url)
    with settings.connect() as chain, explain_database(settings.database_url):
        yield Indexer(chain, engine, settings.confirmations)
    engine.dispose()


def _emit_status(settings: Settings, *, as_json: bool) -> None:
    from sqlalchemy.orm import Session

    from market.storage.index.database import explain_database, open_database, show_url
    from market.storage.index.statuses import get_progress

    engine = open_database(settings.database_url)
    with explain_database(settings.database_url), Session(engine) as session:
        progress = get_progress(session)
    engine.dispose()
    status = IndexStatus(database=show_url(settings.database_url), **asdict(progress))
    emit(status, build_facts("index", status.model_dump()), as_json=as_json)
