"""What cannot be fetched: reports, panels, and auditors that give an audit up."""

from market.chain.events import (
    AuditDeclined,
    LeaseSlashed,
    PanelVoted,
    ReportRejected,
    SegmentsDrawn,
    ShardsAttested,
    WithholdingReported,
)
from market.protocol.lifecycle import LeaseStatus
from market.storage.cid import Cid
from tests.e2e.conftest import ETHER, TERMS

AUDIT_S, DECLINE_S, GRACE_S, VOTE_S = 120, 60, 30, 60  # of the devnet
STAKED = 3 * ETHER  # of an auditor


def add_auditors(world):
    return [world.add_auditor(number) for number in (4, 5, 6)]


def get_drawn(world, lease):
    return world.ledger().get(SegmentsDrawn, lease).auditor


def test_a_provider_that_withholds_what_was_drawn_is_reported_and_its_whole_stake_burns(open_world):
    world = open_world()
    provider = world.add_provider(2)
    auditors = add_auditors(world)
    lease = world.run_until_status(LeaseStatus.DRAWN)
    world.parties.remove(world.actors[provider])

    world.devnet.advance_time(AUDIT_S // 2)
    world.run_until_status(LeaseStatus.REPORTED)
    world.devnet.advance_time(GRACE_S + 1)
    world.run_until_status(LeaseStatus.VOTING)
    members = set(world.chain.get_panel(lease).members)
    world.devnet.advance_time(VOTE_S // 2)
    world.run_until(lambda: len(list(world.ledger().iterate(PanelVoted))) == len(members))
    world.devnet.advance_time(VOTE_S)
    world.run_until_status(LeaseStatus.SLASHED)

    (slashed,) = world.ledger().iterate(LeaseSlashed)
    assert (slashed.reason, slashed.rewarded) == (LeaseStatus.VOTED, 0)
    assert world.provider_stake(provider).staked == 0
    assert world.chain.get_burnable(0) >= TERMS.stake_per_shard
    assert {world.auditor_stake(auditor).staked for auditor in auditors} == {STAKED}
    assert {world.auditor_stake(auditor).locked for auditor in auditors} == {0}


def test_a_provider_that_publishes_within_the_grace_period_has_the_report_taken_back(open_world):
    world = open_world()
    provider = world.add_provider(2)
    add_auditors(world)
    world.run_until_status(LeaseStatus.DRAWN)
    absent = world.actors[provider]
    world.parties.remove(absent)
    world.devnet.advance_time(AUDIT_S // 2)
    world.run_until_status(LeaseStatus.REPORTED)

    world.parties.append(absent)
    world.run_until_status(LeaseStatus.ATTESTED)

    assert world.provider_stake(provider).staked == TERMS.stake_per_shard
    assert not list(world.ledger().iterate(PanelVoted))


def test_a_provider_that_is_falsely_reported_loses_nothing_and_the_reporter_pays(open_world):
    world = open_world()
    provider = world.add_provider(2)
    auditors = add_auditors(world)
    lease = world.run_until_status(LeaseStatus.DRAWN)
    reporter = get_drawn(world, lease)
    liar = world.actors[reporter]
    world.parties.remove(liar)
    world.chain.send(world.accounts[reporter], world.chain.calls.report(lease))

    world.devnet.advance_time(GRACE_S + 1)
    world.run_until_status(LeaseStatus.VOTING)
    members = set(world.chain.get_panel(lease).members)
    world.run_until(lambda: len(list(world.ledger().iterate(PanelVoted))) == len(members))
    world.devnet.advance_time(VOTE_S + 1)
    world.run_until(lambda: any(world.ledger().iterate(ReportRejected)))
    world.parties.append(liar)
    world.run_until_status(LeaseStatus.ATTESTED)

    (rejected,) = world.ledger().iterate(ReportRejected)
    assert rejected.auditor == reporter
    assert rejected.loss == TERMS.stake_per_shard // 20
    assert world.auditor_stake(reporter).staked == STAKED - rejected.loss
    others = [world.auditor_stake(auditor) for auditor in auditors if auditor != reporter]
    assert sum(stake.earned for stake in others) > 0
    assert world.provider_stake(provider).staked == TERMS.stake_per_shard


def test_an_auditor_that_is_too_slow_declines_and_another_gets_the_same_segments(open_world):
    world = open_world()
    provider = world.add_provider(2)
    auditors = add_auditors(world)
    lease = world.run_until_status(LeaseStatus.DRAWN)
    slow = get_drawn(world, lease)
    world.actors[slow]._segment_s[world.job_id] = 1e6  # as it would be after a slow audit

    world.run_until_status(LeaseStatus.ATTESTED)

    ledger = world.ledger()
    assert {event.auditor for event in ledger.iterate(AuditDeclined)} == {slow}
    assert len({event.segments for event in ledger.iterate(SegmentsDrawn)}) == 1
    assert ledger.get(ShardsAttested, lease).auditor != slow
    assert {world.auditor_stake(auditor).staked for auditor in auditors} == {STAKED}
    assert world.provider_stake(provider).staked == TERMS.stake_per_shard


def test_an_auditor_without_the_jobs_files_declines_and_reports_nobody(open_world):
    world = open_world()
    world.add_provider(2)
    auditor = world.add_auditor(4)
    world.run_until_status(LeaseStatus.LEASED)
    cid = Cid(world.spec.dataset.cid)
    dataset = world.store.get(cid, 10**8)
    world.store.delete(cid)  # by its requester, who answers for it
    world.run_until_status(LeaseStatus.DRAWN)

    world.devnet.advance_time(DECLINE_S // 2)
    world.run_until(lambda: any(world.ledger().iterate(AuditDeclined)))
    world.store.put(dataset)
    world.run_until_status(LeaseStatus.ATTESTED)

    assert not list(world.ledger().iterate(WithholdingReported))
    assert world.auditor_stake(auditor).staked == STAKED
