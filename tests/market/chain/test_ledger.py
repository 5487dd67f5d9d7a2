import pytest

from market.chain.events import ShardClaimed, StakeAdded, TraceCommitted
from market.chain.ledger import Ledger
from market.protocol.errors import NotFound
from tests.market.chain.synthetic import make_spec


def test_a_ledger_knows_what_happened_up_to_its_last_refresh(chain, post_job, claim_shard):
    ledger = Ledger(chain)
    ledger.refresh()
    lease = claim_shard(post_job(make_spec(chain.get_time() + 1000)))

    before = ledger.find(ShardClaimed, lease)
    ledger.refresh()
    ledger.refresh()  # nothing is read twice

    assert before is None
    assert ledger.get(ShardClaimed, lease).lease_id == lease
    assert [event.lease_id for event in ledger.iterate(ShardClaimed)] == [lease]
    assert len(list(ledger.iterate(StakeAdded))) == 1


def test_what_did_not_happen_is_not_found(chain):
    ledger = Ledger(chain)
    ledger.refresh()

    with pytest.raises(NotFound, match="no TraceCommitted of 7"):
        ledger.get(TraceCommitted, 7)
