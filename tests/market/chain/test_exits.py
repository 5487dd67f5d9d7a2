"""The calls that anyone may send lead a lease, a job and a round out of every status that waits."""

import pytest

from market.chain.deployment import DEVNET
from market.chain.devnet import get_account
from market.chain.events import ChallengeClosed, RecordChallenged
from market.chain.exits import (
    build_exit,
    send_exit,
    send_if_due,
    send_resolution,
    send_round_close,
    send_seed,
)
from market.chain.structs import ChallengeStatus, Role, Round
from market.protocol.errors import TransactionReverted
from market.protocol.lifecycle import CLOSED, EXITS, LeaseStatus
from market.protocol.records import compute_lease_root, split_position
from tests.conftest import register
from tests.market.chain.synthetic import (
    ETHER,
    MANIFEST,
    SEGMENTS,
    attest_lease,
    commit_lease,
    make_claims,
    make_spec,
    open_record,
)

STRANGER = get_account(7)
TRACES = [make_claims()]
STAKE = 4 * ETHER


@pytest.fixture
def lease(chain, post_job, claim_shards) -> int:
    """A lease of a job's only shard."""
    return claim_shards(post_job(make_spec(chain.get_time() + 10_000)))


@pytest.fixture
def drawn(lease, devnet, provider) -> int:
    """The lease, committed, with its auditor drawn."""
    commit_lease(devnet, provider, lease, TRACES)
    return lease


@pytest.fixture
def leave(chain):
    """Send what leads a lease out of a status in which it is; check where it goes."""

    def send(lease: int, status: LeaseStatus, following: LeaseStatus) -> None:
        assert chain.get_status(lease) is status
        call = build_exit(chain, lease, status)
        assert call is not None
        assert call.function == EXITS[status]
        assert send_exit(chain, STRANGER, lease, status)
        assert chain.get_status(lease) is following

    return send


def test_a_lease_that_is_not_committed_expires_and_its_slot_opens_again(
    chain, devnet, lease, provider, leave
):
    devnet.advance_time(301)

    leave(lease, LeaseStatus.EXPIRED, LeaseStatus.LAPSED)

    assert chain.get_account(provider.operator, Role.PROVIDER, 0).staked == STAKE * 95 // 100
    assert chain.get_round(1, 0) == Round(taken=0, attested=0, abandoned=1)
    provider.send(chain.calls.stake(provider.operator, 0, ETHER))
    provider.send(chain.calls.claim(1, provider.operator, 0, 0, 1))
    assert chain.get_account(provider.operator, Role.PROVIDER, 0).earned == STAKE // 40


def test_a_commitment_is_drawn_once_its_block_is_there(chain, devnet, lease, provider, leave):
    provider.send(chain.calls.commit(lease, compute_lease_root(TRACES), MANIFEST))

    assert not send_exit(chain, STRANGER, lease, LeaseStatus.COMMITTED)
    devnet.mine(DEVNET.draw_distance)

    leave(lease, LeaseStatus.COMMITTED, LeaseStatus.DRAWN)


def test_a_provider_that_lets_its_draw_lapse_is_slashed(chain, devnet, lease, provider, leave):
    provider.send(chain.calls.commit(lease, compute_lease_root(TRACES), MANIFEST))
    devnet.mine(300)

    leave(lease, LeaseStatus.UNDRAWN, LeaseStatus.SLASHED)

    assert chain.get_account(provider.operator, Role.PROVIDER, 0).staked == 0
    assert chain.get_burnable(0) == STAKE


def test_a_silent_auditor_is_replaced(chain, devnet, drawn, auditor, leave):
    devnet.advance_time(DEVNET.audit_time + 1)

    leave(drawn, LeaseStatus.AUDITOR_SILENT, LeaseStatus.COMMITTED)

    assert chain.get_account(auditor.operator, Role.AUDITOR, 0).staked == STAKE * 95 // 100


def test_an_auditor_declines_at_no_cost_while_there_is_time(chain, drawn, auditor):
    auditor.send(chain.calls.decline(drawn))

    account = chain.get_account(auditor.operator, Role.AUDITOR, 0)
    assert (account.staked, account.locked) == (STAKE, 0)
    assert chain.get_status(drawn) is LeaseStatus.COMMITTED


def test_a_final_lease_is_settled(devnet, drawn, auditor, leave):
    attest_lease(auditor, drawn, TRACES)
    devnet.advance_time(DEVNET.challenge_window + 1)

    leave(drawn, LeaseStatus.FINAL, LeaseStatus.SETTLED)


def test_records_in_another_order_than_the_draws_are_no_attestation(chain, drawn, auditor):
    segments = chain.get_drawn_segments(drawn)
    openings = [open_record(TRACES, 0, segment + 1) for segment in segments]

    with pytest.raises(TransactionReverted, match="AuditInvalidOpening"):
        auditor.send(chain.calls.attest(drawn, openings[::-1]))
    with pytest.raises(TransactionReverted, match=rf"AuditWrongCount\({drawn}, 1, 2\)"):
        auditor.send(chain.calls.attest(drawn, openings[1:]))


@pytest.fixture
def panelists(chain):
    """Three operators with tickets, who are listed before anything is committed."""
    parties = [register(chain, get_account(index)) for index in (4, 5, 6)]
    for party in parties:
        party.send(chain.calls.buy_tickets(party.operator, 0, 4, ETHER))
    return parties


@pytest.fixture
def voting(chain, devnet, panelists, lease, provider, auditor, leave) -> int:
    """A lease whose auditor reported it, with a panel drawn."""
    commit_lease(devnet, provider, lease, TRACES)
    drawn_auditor = chain.get_lease(lease).auditor
    reporter = next(p for p in (*panelists, auditor) if p.operator == drawn_auditor)
    reporter.send(chain.calls.report(lease))
    devnet.advance_time(DEVNET.grace_time + 1)
    leave(lease, LeaseStatus.WITHHELD, LeaseStatus.CONVENED)
    assert not send_exit(chain, STRANGER, lease, LeaseStatus.CONVENED)
    devnet.mine(DEVNET.draw_distance)
    leave(lease, LeaseStatus.CONVENED, LeaseStatus.VOTING)
    return lease


@pytest.mark.parametrize(
    ("available", "following"), [(False, LeaseStatus.SLASHED), (True, LeaseStatus.COMMITTED)]
)
def test_a_panel_decides_on_a_report(
    chain, devnet, panelists, auditor, voting, leave, available, following
):
    members = set(chain.get_panel(voting).members)
    for party in (p for p in (*panelists, auditor) if p.operator in members):
        party.send(chain.calls.vote(voting, party.operator, available=available))
    devnet.advance_time(DEVNET.vote_time + 1)

    leave(voting, LeaseStatus.VOTED, following)

    panel = chain.get_panel(voting)
    assert panel.voted == 2 ** len(panel.members) - 1
    assert panel.missing == (0 if available else panel.voted)


def test_a_panel_that_nobody_drew_is_convened_again(
    chain, devnet, panelists, lease, provider, auditor, leave
):
    commit_lease(devnet, provider, lease, TRACES)
    drawn_auditor = chain.get_lease(lease).auditor
    reporter = next(p for p in (*panelists, auditor) if p.operator == drawn_auditor)
    reporter.send(chain.calls.report(lease))
    devnet.advance_time(DEVNET.grace_time + 1)
    leave(lease, LeaseStatus.WITHHELD, LeaseStatus.CONVENED)
    devnet.mine(300)

    leave(lease, LeaseStatus.UNCONVENED, LeaseStatus.CONVENED)


def test_an_accusation_that_nobody_answers_stands(chain, devnet, drawn, provider, auditor, leave):
    auditor.send(chain.calls.accuse(drawn, 0, 3))
    (challenged,) = chain.find_challenges(drawn)
    early = send_exit(chain, STRANGER, drawn, LeaseStatus.ACCUSED)
    devnet.advance_time(DEVNET.response_time + 1)

    leave(drawn, LeaseStatus.ACCUSED, LeaseStatus.SLASHED)

    assert not early
    assert split_position(challenged.position, SEGMENTS) == (0, 3)
    assert chain.get_challenge_status(challenged.challenge_id) is ChallengeStatus.UPHELD
    assert chain.get_challenge(challenged.challenge_id).by_auditor
    assert chain.get_account(provider.operator, Role.PROVIDER, 0).staked == 0
    assert chain.get_account(auditor.operator, Role.AUDITOR, 0).earned == STAKE * 3 // 10
    kinds = (RecordChallenged, ChallengeClosed)
    told = [event for event in chain.get_job_events(1) if isinstance(event, kinds)]
    assert [event.lease_id for event in told] == [drawn, drawn]


def test_a_challenge_is_resolved_once_it_ran_out_of_time(chain, devnet, drawn, auditor):
    auditor.send(chain.calls.accuse(drawn, 0, 0))
    (challenged,) = chain.find_challenges(drawn)

    early = send_resolution(chain, STRANGER, challenged.challenge_id)
    devnet.advance_time(DEVNET.response_time + 1)
    late = send_resolution(chain, STRANGER, challenged.challenge_id)

    assert (early, late) == (False, True)
    assert chain.get_status(drawn) is LeaseStatus.SLASHED


def test_an_exit_that_somebody_else_sent_first_is_no_error(chain, devnet, lease):
    devnet.advance_time(301)
    call = build_exit(chain, lease, LeaseStatus.EXPIRED)
    assert send_exit(chain, get_account(8), lease, LeaseStatus.EXPIRED)

    sent = send_if_due(
        chain, STRANGER, call, lambda: chain.get_status(lease) is LeaseStatus.EXPIRED
    )

    assert not sent
    with pytest.raises(TransactionReverted, match="LeaseInUnexpectedStatus"):
        send_if_due(chain, STRANGER, call, lambda: True)


def test_a_seed_is_drawn_once_its_block_is_there(chain, devnet, requester):
    spec = make_spec(chain.get_time() + 1000)
    requester.send(chain.calls.create_job(spec, requester.account.address))

    early = send_seed(chain, STRANGER, 1)
    devnet.mine(DEVNET.draw_distance)
    late = send_seed(chain, STRANGER, 1)

    assert (early, late) == (False, True)
    assert chain.get_job(1).seeded


def test_a_round_with_its_quorum_closes_by_time(
    chain, devnet, post_job, claim_shards, provider, auditor
):
    spec = make_spec(chain.get_time() + 10_000, slots=3)
    terms = spec.terms.model_copy(update={"quorum": 2, "round_time_s": 400})
    job_id = post_job(spec.model_copy(update={"terms": terms}))
    lease_id = claim_shards(job_id, 2)
    traces = TRACES * 2
    commit_lease(devnet, provider, lease_id, traces)
    devnet.advance_time(100)
    without_quorum = send_round_close(chain, STRANGER, job_id)
    attest_lease(auditor, lease_id, traces)
    early = send_round_close(chain, STRANGER, job_id)
    devnet.advance_time(400)

    assert send_round_close(chain, STRANGER, job_id)

    assert (without_quorum, early) == (False, False)
    assert chain.get_job(job_id).round == 1
    assert not send_round_close(chain, STRANGER, job_id)
    assert [chain.find_last_attested(job_id, slot, 1) for slot in range(3)] == [0, 0, None]


def test_every_status_is_over_or_has_an_exit_or_waits_for_somebody():
    waiting = {LeaseStatus.NONE, LeaseStatus.LEASED, LeaseStatus.DRAWN, LeaseStatus.REPORTED}
    waiting |= {LeaseStatus.VOTING, LeaseStatus.ATTESTED}

    assert waiting | set(EXITS) | CLOSED == set(LeaseStatus)
    assert not CLOSED & set(EXITS)
