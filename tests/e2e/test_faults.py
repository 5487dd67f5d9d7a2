"""A provider whose own machine errs or forgets: it loses a fee at most, and says nothing false."""

from market.chain.devnet import get_account
from market.chain.events import CommitmentWithdrawn, TraceCommitted
from market.protocol.lifecycle import LeaseStatus
from market.storage.cid import Cid
from tests.e2e.conftest import TERMS
from tests.e2e.test_market import flip_one_bit


def test_a_machine_that_errs_finds_it_out_and_commits_to_nothing(open_world):
    world = open_world()
    world.add_provider(2)
    provider = world.build_provider(get_account(2), flip_one_bit, self_check=True)
    world.parties[:] = [provider]
    lease = world.run_until_status(LeaseStatus.LEASED)
    claimed = world.leases()[lease]

    while provider._training.train(claimed):
        pass
    _, segment = provider._training.find_fault(claimed)
    (left,) = provider._training.load(claimed)
    for _ in range(8):
        provider.take_turn()

    assert left.segments == segment  # and those are trained again
    assert len(left.metrics) == segment * world.spec.steps_per_segment
    assert world.ledger().find(TraceCommitted, lease) is None


def test_a_provider_that_lost_its_states_withdraws_in_time(open_world):
    world = open_world()
    operator = world.add_provider(2)
    lease = world.run_until_status(LeaseStatus.LEASED)
    (provider,) = world.parties
    while world.chain.get_status(lease) is LeaseStatus.LEASED:
        provider.take_turn()  # and no block more, so that the draw is not half-way yet
    shard = provider._training.load(world.leases()[lease])[0]
    provider._setup.private.delete(Cid(shard.records[1].state))

    provider.take_turn()

    (withdrawn,) = world.ledger().iterate(CommitmentWithdrawn)
    assert world.chain.get_status(lease) is LeaseStatus.WITHDRAWN
    assert withdrawn.fee == TERMS.stake_per_shard // 20
    assert world.provider_stake(operator).staked == TERMS.stake_per_shard - withdrawn.fee
