"""The database of an index: opened, migrated, and known to be of one deployment."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Engine, create_engine, delete, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from market.chain.deployment import Deployment
from market.protocol.errors import MarketError
from market.storage.index.tables import DeploymentRow, Table

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S: Final = 30


def open_database(url: str) -> Engine:
    """Return the database at ``url`` with its tables brought up to date."""
    with explain_database(url):
        engine = _create_engine(url)
        with engine.begin() as connection:
            config = AlembicConfig()
            config.set_main_option(
                "script_location", str(files("market.storage.index").joinpath("migrations"))
            )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return engine


def bind_deployment(session: Session, deployment: Deployment) -> DeploymentRow:
    """Return the row of ``deployment``; raise MarketError if the database is of another one."""
    row = session.scalar(select(DeploymentRow))
    if row is None:
        row = DeploymentRow(
            chain_id=deployment.chain_id, market=deployment.market, first_block=deployment.block
        )
        session.add(row)
    ours = (deployment.chain_id, deployment.market.lower(), deployment.block)
    found = (row.chain_id, row.market.lower(), row.first_block)
    if found != ours:
        raise MarketError(
            f"the database indexes market {row.market} of chain {row.chain_id} from block "
            f"{row.first_block} on, not {deployment.market} of chain {deployment.chain_id} from "
            f"block {deployment.block} on: name another database, or drop this one"
        )
    return row


def clear_tables(session: Session) -> None:
    """Delete every row but the deployment's, which is final up to no block any more."""
    for table in reversed(Table.metadata.sorted_tables):
        if table.name != DeploymentRow.__tablename__:
            session.execute(delete(table))
    for row in session.scalars(select(DeploymentRow)):
        row.final_block = None


def show_url(url: str) -> str:
    """Return ``url`` without its password."""
    return make_url(url).render_as_string(hide_password=True)


@contextmanager
def explain_database(url: str) -> Iterator[None]:
    """Raise MarketError where the database at ``url`` is what failed."""
    try:
        yield
    except (ArgumentError, NoSuchModuleError) as error:
        raise MarketError(f"no database can be reached by that URL: {error}") from None
    except ModuleNotFoundError as error:
        raise MarketError(
            f"that database needs {error.name}: install touchstone-market[postgres]"
        ) from error
    except SQLAlchemyError as error:
        raise MarketError(f"the database {show_url(url)} cannot be used: {error}") from error


def _create_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:  # Any: of the driver
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
