import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from market.protocol.errors import MarketError
from market.storage.index.bench import SyntheticNode, measure_rebuild
from market.storage.index.database import open_database, show_url
from market.storage.index.indexer import Indexer
from market.storage.index.tables import Table
from tests.market.storage.activity import Activity
from tests.market.storage.comparison import read_tables


def wait_for(url: str) -> None:
    """Return once the server at ``url`` answers."""
    engine, deadline = create_engine(url), time.monotonic() + 60
    while True:
        try:
            with engine.connect():
                break
        except OperationalError:
            assert time.monotonic() < deadline
    engine.dispose()


def find_differences(engine):
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Table.metadata)


def test_migrations_make_the_tables_that_are_declared(new_database):
    assert find_differences(new_database()) == []


def test_a_database_is_opened_again_as_it_was(tmp_path):
    url = f"sqlite:///{tmp_path}/index.sqlite"
    for _ in range(2):
        engine = open_database(url)
        with engine.connect() as connection:
            modes = [connection.execute(text(f"PRAGMA {p}")).scalar_one()
                     for p in ("journal_mode", "foreign_keys")]  # fmt: skip
        engine.dispose()

    assert modes == ["wal", 1]


@pytest.mark.parametrize("url", ["", "nothing://", "sqlite:////no/such/folder/index.sqlite"])
def test_a_database_that_cannot_be_used_is_one_error(url):
    with pytest.raises(MarketError, match="database"):
        open_database(url)


def test_a_password_is_not_shown():
    assert "secret" not in show_url("postgresql+psycopg://me:secret@host/db")


def test_postgresql_keeps_the_same_index_through_reorganizations(
    market, market_devnet, new_database, postgres_url
):
    wait_for(postgres_url)
    activity = Activity(market_devnet, market, 5)
    activity.prepare()
    activity.act(60)
    indexer = Indexer(market, engine := open_database(postgres_url), confirmations=12)
    indexer.sync()

    for _ in range(2):
        activity.fork(40)
        indexer.sync()
        Indexer(market, fresh := new_database(), confirmations=12).sync()
        assert read_tables(engine) == read_tables(fresh)
    indexer.clear()
    indexer.sync()

    assert read_tables(engine) == read_tables(fresh)
    assert find_differences(engine) == []
    engine.dispose()


def test_a_rebuild_keeps_nothing_of_before(new_database):
    with SyntheticNode(3_000).serve() as long, SyntheticNode(2_000).serve() as short:
        indexer = Indexer(long, engine := new_database(), confirmations=12)
        indexer.sync()
        again = Indexer(short, engine, confirmations=12)
        again.clear()
        again.sync()
        Indexer(short, fresh := new_database(), confirmations=12).sync()

    assert read_tables(engine) == read_tables(fresh)


def test_a_rebuild_can_be_measured():
    assert measure_rebuild(events=500) > 0
