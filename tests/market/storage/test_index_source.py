import json

import pytest
import requests
from sqlalchemy.orm import Session

from market.chain.client import Chain
from market.protocol.errors import ChainError, MarketError, NodeUnavailable, NotFound
from market.storage.index.bench import SyntheticNode
from market.storage.index.indexer import WINDOW, Indexer
from market.storage.index.statuses import ChainStatus, get_chain_status
from tests.market.chain.nodes import FakeAdapter, make_response, reach
from tests.market.storage.activity import Activity
from tests.market.storage.comparison import read_tables


@pytest.fixture
def busy_market(market, market_devnet):
    activity = Activity(market_devnet, market, 3)
    activity.prepare()
    activity.act(30)
    return market


def see_through(chain: Chain, answer) -> Chain:
    """Return ``chain`` through a node that answers as ``answer`` wants."""
    return Chain(reach(chain.rpc.web3.provider._nodes[0].endpoint_uri, FakeAdapter(answer)),
                 chain.deployment, patience_s=0)  # fmt: skip


def read_question(request: requests.PreparedRequest) -> tuple[str, list]:
    question = json.loads(request.body)
    return question["method"], question["params"]


def test_a_node_that_refuses_long_answers_is_asked_for_less(new_database):
    refusing, patient = SyntheticNode(4_000, most_results=150), SyntheticNode(4_000)

    for node, engine in ((refusing, new_database()), (patient, other := new_database())):
        with node.serve() as chain:
            Indexer(chain, engine, confirmations=12).sync()

    assert patient.height > WINDOW
    assert read_tables(engine) == read_tables(other)


def test_a_node_that_has_too_much_in_one_block_is_an_error(new_database):
    with SyntheticNode(4_000, most_results=3).serve() as chain:
        indexer = Indexer(chain, new_database(), confirmations=12)

        with pytest.raises(ChainError, match="too many results"):
            indexer.sync()


def test_a_tip_waits_for_a_node_that_is_behind(busy_market, new_database):
    def lag(request: requests.PreparedRequest) -> requests.Response | None:
        if read_question(request) == ("eth_getBlockByNumber", ["latest", False]):
            block = busy_market.rpc.call("eth_getBlockByNumber", [hex(tip - 5), False])
            return make_response(200, json.dumps({"jsonrpc": "2.0", "id": 0, "result": block}))
        return None

    tip = Indexer(busy_market, engine := new_database(), confirmations=12).sync()
    before = read_tables(engine)
    behind = see_through(busy_market, lag)

    assert Indexer(behind, engine, confirmations=12).sync() == tip
    assert read_tables(engine) == before


def test_a_fork_between_a_header_and_its_logs_is_noticed(busy_market, market_devnet, new_database):
    forks = iter([1])

    def fork(request: requests.PreparedRequest) -> None:
        if read_question(request)[0] == "eth_getLogs":
            for depth in forks:
                busy_market.rpc.call("anvil_reorg", [depth, []])

    Indexer(busy_market, engine := new_database(), confirmations=12).sync()
    market_devnet.mine(1)
    indexer = Indexer(see_through(busy_market, fork), engine, confirmations=12)

    with pytest.raises(NodeUnavailable, match="was replaced"):
        indexer.sync()
    indexer.sync()

    Indexer(busy_market, fresh := new_database(), confirmations=12).sync()
    assert read_tables(engine) == read_tables(fresh)


def test_a_node_whose_logs_have_no_time_is_asked_for_it(busy_market, new_database):
    def forget(request: requests.PreparedRequest) -> requests.Response | None:
        method, params = read_question(request)
        if method != "eth_getLogs":
            return None
        logs = busy_market.rpc.call(method, params)
        plain = [{k: v for k, v in log.items() if k != "blockTimestamp"} for log in logs]
        return make_response(200, json.dumps({"jsonrpc": "2.0", "id": 0, "result": plain}))

    forgetful = see_through(busy_market, forget)
    Indexer(forgetful, engine := new_database(), confirmations=12).sync()

    Indexer(busy_market, other := new_database(), confirmations=12).sync()
    assert read_tables(engine) == read_tables(other)


def test_the_index_of_another_market_is_refused(busy_market, chain, new_database):
    Indexer(busy_market, engine := new_database(), confirmations=12).sync()

    with pytest.raises(MarketError, match="the database indexes market 0x"):
        Indexer(chain, engine, confirmations=12)


def test_a_block_is_final_once_it_is_deep(busy_market, new_database):
    tip = Indexer(busy_market, engine := new_database(), confirmations=3).sync()

    with Session(engine) as session:
        statuses = [get_chain_status(session, tip - depth) for depth in (0, 1, 2, 3)]
        with pytest.raises(NotFound, match="not indexed yet"):
            get_chain_status(session, tip + 1)

    assert statuses == [ChainStatus.INCLUDED] * 2 + [ChainStatus.FINAL] * 2
