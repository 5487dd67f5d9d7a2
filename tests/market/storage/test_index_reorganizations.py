from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from market.chain.client import Chain
from market.storage.index.indexer import WINDOW, Indexer
from tests.market.storage.activity import Activity
from tests.market.storage.comparison import read_tables


class Killed(BaseException):
    """What ends a process at a statement."""


@contextmanager
def kill_at(engine: Engine, statement: int) -> Iterator[None]:
    """Raise `Killed` in place of so many-th statement or commit from now on."""
    left = statement

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    hooks = ("before_cursor_execute", "commit")
    for hook in hooks:
        event.listen(engine, hook, count)
    yield
    for hook in hooks:
        event.remove(engine, hook, count)


def sync_with_kills(chain: Chain, engine: Engine) -> int:
    """Sync by processes each of which lives for one statement more; return how many there were."""
    lives = 0
    while True:
        lives += 1
        try:
            with kill_at(engine, lives):
                Indexer(chain, engine, confirmations=12).sync()
        except Killed:
            continue
        return lives


@pytest.mark.parametrize("seed", range(4))
def test_after_any_reorganization_an_index_is_what_a_fresh_one_would_be(
    seed, market, market_devnet, new_database
):
    activity = Activity(market_devnet, market, seed)
    activity.prepare()
    activity.act(100)
    indexer = Indexer(market, engine := new_database(), confirmations=12)
    indexer.sync()

    for _ in range(4):
        activity.fork(activity.random.randint(1, 64))
        indexer.sync()
        Indexer(market, fresh := new_database(), confirmations=12).sync()
        assert read_tables(engine) == read_tables(fresh)
        activity.act(60)
        indexer.sync()


def test_a_reorganization_below_the_window_rebuilds_the_index(market, market_devnet, new_database):
    activity = Activity(market_devnet, market, 1)
    activity.prepare()
    snapshot = market.rpc.call("evm_snapshot", [])  # Anvil forgets the states that a rollback needs
    activity.act(10)
    market_devnet.mine(WINDOW + 10)
    indexer = Indexer(market, engine := new_database(), confirmations=12)
    indexer.sync()

    market.rpc.call("evm_revert", [snapshot])
    activity.act(10)
    market_devnet.mine(WINDOW + 20)
    indexer.sync()

    Indexer(market, fresh := new_database(), confirmations=12).sync()
    assert read_tables(engine) == read_tables(fresh)


def test_a_process_killed_at_any_statement_leaves_an_index_that_goes_on(
    market, market_devnet, new_database
):
    activity = Activity(market_devnet, market, 2)
    activity.prepare()
    activity.act(40)
    lives = [sync_with_kills(market, engine := new_database())]

    activity.fork(30)
    lives.append(sync_with_kills(market, engine))

    Indexer(market, fresh := new_database(), confirmations=12).sync()
    assert read_tables(engine) == read_tables(fresh)
    assert min(lives) > 10
