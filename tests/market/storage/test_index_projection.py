import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from market.chain.abi import load_contract
from market.chain.deployment import DEVNET
from market.chain.events import EVENTS
from market.storage.index.indexer import Indexer
from market.storage.index.projection.fold import APPLY
from market.storage.index.tables import EventRow, LeaseRow, SettlementRow
from tests.market.chain.synthetic import ETHER, attest_lease, commit_lease, make_claims, make_spec
from tests.market.storage.activity import Activity
from tests.market.storage.comparison import compare_statuses, compare_with_contract


def test_every_kind_of_event_is_projected():
    names = {entry["name"] for entry in load_contract().abi if entry["type"] == "event"}

    assert {kind.__name__ for kind in APPLY} == names == EVENTS.keys()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_rows_say_what_the_contract_does(
    seed, market, market_devnet, new_database
):
    activity = Activity(market_devnet, market, seed)
    indexer = Indexer(market, engine := new_database(), confirmations=12)
    activity.prepare()
    activity.act(600)

    indexer.sync()

    with Session(engine) as session:
        compare_with_contract(session, market)
        compare_statuses(session, market)


def test_an_honest_lease_leaves_its_price_and_its_events(
    chain, devnet, post_job, claim_shards, provider, auditor, new_database
):
    lease_id = claim_shards(post_job(make_spec(chain.get_time() + 1000)))
    commit_lease(devnet, provider, lease_id, traces := [make_claims()])
    attest_lease(auditor, lease_id, traces)
    devnet.advance_time(DEVNET.challenge_window + 1)
    provider.send(chain.calls.settle(lease_id))

    Indexer(chain, engine := new_database(), confirmations=12).sync()

    with Session(engine) as session:
        compare_with_contract(session, chain)
        paid = session.get_one(SettlementRow, lease_id)
        lease = session.get_one(LeaseRow, lease_id)
        names = session.scalars(select(EventRow.name).where(EventRow.lease_id == lease_id))
        assert (paid.pay, paid.fee, paid.provider) == (ETHER, ETHER // 10, lease.operator)
        assert set(names) >= {"ShardsClaimed", "TraceCommitted", "SegmentsDrawn", "LeaseSettled"}
