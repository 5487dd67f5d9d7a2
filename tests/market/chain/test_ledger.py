import pytest

from market.chain.events import ShardsAttested, ShardsClaimed, StakeAdded, TraceCommitted
from market.chain.ledger import Ledger, find_contributions
from market.protocol.errors import NotFound
from tests.market.chain.synthetic import make_spec


def test_a_ledger_knows_what_happened_up_to_its_last_refresh(chain, post_job, claim_shards):
    ledger = Ledger(chain)
    ledger.refresh()
    lease = claim_shards(post_job(make_spec(chain.get_time() + 1000)))

    before = ledger.find(ShardsClaimed, lease)
    ledger.refresh()
    ledger.refresh()  # nothing is read twice

    assert before is None
    assert ledger.get(ShardsClaimed, lease).lease_id == lease
    assert [event.lease_id for event in ledger.iterate(ShardsClaimed)] == [lease]
    assert len(list(ledger.iterate(StakeAdded))) == 1


def test_what_did_not_happen_is_not_found(chain):
    ledger = Ledger(chain)
    ledger.refresh()

    with pytest.raises(NotFound, match="no TraceCommitted of 7"):
        ledger.get(TraceCommitted, 7)


def _claim(lease, round_, first, count):
    return ShardsClaimed(1, 0, "0x", lease, 1, 1, round_, first, count, 10_000, 0, 0)


def _attest(lease):
    return ShardsAttested(2, 0, "0x", lease, 2, 0)


@pytest.mark.parametrize(
    ("events", "attested", "found"),
    [
        ([_claim(7, 0, 1, 2), _attest(7)], 0b110, {1: 7, 2: 7}),
        ([_claim(7, 1, 1, 2), _attest(7)], 0b110, {}),  # of another round
        ([_claim(7, 0, 0, 1), _attest(7)], 0b0, {}),  # after the round was closed
        ([_claim(7, 0, 0, 2), _attest(7), _claim(8, 0, 1, 1), _attest(8)], 0b11, {0: 7, 1: 8}),
        ([_claim(7, 0, 0, 1), _claim(8, 0, 1, 1), _attest(8)], 0b10, {1: 8}),
    ],
)
def test_the_lease_of_each_slot_in_a_set_is_the_last_that_was_attested(events, attested, found):
    assert find_contributions(events, 1, 0, attested) == found
