"""The market through its client: a whole honest life, typed events, decoded refusals."""

import re
from pathlib import Path

import pytest
import rlp
from eth_utils.abi import filter_abi_by_name, filter_abi_by_type

from market.chain.abi import load_contract, to_snake_case
from market.chain.client import connect
from market.chain.costs import collect_gas
from market.chain.deployment import DEVNET, ETHER_ONLY, Config, read_deployment
from market.chain.events import (
    EVENTS,
    ChallengeEvent,
    JobCreated,
    JobEvent,
    JobSeeded,
    LeaseEvent,
    OperatorEvent,
    RoundClosed,
    SegmentsDrawn,
    ShardsAttested,
    ShardsClaimed,
    TraceCommitted,
)
from market.chain.ledger import find_contributions
from market.chain.structs import (
    Account,
    Asset,
    Challenge,
    ChallengeStatus,
    Job,
    JobStatus,
    Lease,
    PostedTerms,
    RecordOpening,
    Role,
    Round,
    StateOpening,
    list_slots,
)
from market.protocol.errors import (
    ChainError,
    InvalidTransition,
    MarketError,
    NotFound,
    ProtocolError,
    TransactionReverted,
)
from market.protocol.lifecycle import LeaseStatus
from market.protocol.sampling import choose_segments, compute_job_seed, draw_segments
from tests.market.chain.synthetic import (
    ETHER,
    PROVIDER,
    REQUESTER,
    SEGMENTS,
    attest_lease,
    commit_lease,
    make_claims,
    make_root,
    make_spec,
)

CONTRACTS = Path(__file__).parents[3] / "contracts/src"


@pytest.fixture
def spec(chain):
    return make_spec(chain.get_time() + 1000)


def test_an_honest_lease_of_three_shards_is_drawn_attested_and_paid(
    chain, devnet, post_job, claim_shards, provider, auditor
):
    spec = make_spec(chain.get_time() + 1000, samples=4, slots=3)
    job_id = post_job(spec)
    lease_id = claim_shards(job_id, 3)
    traces = [make_claims()] * 3

    header = commit_lease(devnet, provider, lease_id, traces)
    attest_lease(auditor, lease_id, traces)
    devnet.advance_time(DEVNET.challenge_window + 1)
    provider.send(chain.calls.settle(lease_id))

    assert chain.get_status(lease_id) is LeaseStatus.SETTLED
    stake = 3 * spec.terms.stake_per_shard
    paid = _make_account(stake, 3 * spec.terms.price_per_shard)
    assert chain.get_account(provider.operator, Role.PROVIDER, 0) == paid
    earned = _make_account(stake, spec.terms.audit_fee)
    assert chain.get_account(auditor.operator, Role.AUDITOR, 0) == earned
    assert chain.get_job_status(job_id) is JobStatus.COMPLETE
    drawn = list(chain.get_drawn_segments(lease_id))
    assert drawn == draw_segments(lease_id, _read_mix_hash(header), 3 * SEGMENTS, 4)
    assert drawn == choose_segments(chain.get_lease(lease_id).seed, 3 * SEGMENTS, 4)


def _make_account(staked: int, earned: int) -> Account:
    return Account(staked, locked=0, earned=earned, leaving=False, thawing=0, thawed_at=0)


def _read_mix_hash(header: bytes) -> bytes:
    return rlp.decode(header)[13]


def test_a_leases_life_is_told_by_typed_events_in_order(
    chain, devnet, spec, post_job, claim_shards, provider, auditor
):
    job_id = post_job(spec)
    lease_id = claim_shards(job_id)
    traces = [make_claims()]
    commit_lease(devnet, provider, lease_id, traces)
    attest_lease(auditor, lease_id, traces)

    events = chain.get_job_events(job_id)

    kinds = [JobCreated, JobSeeded, ShardsClaimed, TraceCommitted, SegmentsDrawn]
    assert list(map(type, events)) == [*kinds, RoundClosed, ShardsAttested]
    created, _, claimed, committed, drawn, closed, attested = events
    assert created.spec_leaves == tuple(spec.leaf_values)
    assert (created.terms.lease_time, created.terms.quorum) == (spec.terms.lease_time_s, 1)
    assert (claimed.round, claimed.first, claimed.count) == (0, 0, 1)
    assert (claimed.operator, claimed.price_bps) == (provider.operator, 10_000)
    assert committed.manifest == make_root("manifest")
    assert drawn.auditor == attested.auditor == auditor.operator
    assert (closed.round, list_slots(closed.attested)) == (0, [0])
    assert find_contributions(events, job_id, 0, closed.attested) == {0: lease_id}
    assert chain.list_jobs() == [created]
    assert chain.get_job_creation(job_id) == created


def test_a_job_and_its_lease_are_read_as_they_were_posted(chain, spec, post_job, claim_shards):
    job_id = post_job(spec)
    lease_id = claim_shards(job_id)

    job, lease = chain.get_job(job_id), chain.get_lease(lease_id)

    assert (job.requester, job.spec_hash) == (REQUESTER.address, spec.spec_hash)
    assert (job.escrow, job.segments, job.stake_per_shard) == (spec.escrow, SEGMENTS, 4 * ETHER)
    assert chain.get_job_status(job_id) is JobStatus.OPEN
    assert lease_id == job_id * 1_000_000 + 1
    assert (lease.stored, lease.count, list(lease.slots)) == (LeaseStatus.LEASED, 1, [0])
    assert chain.get_round(job_id, 0) == Round(taken=1, attested=0, abandoned=0)
    assert chain.find_last_attested(job_id, 0, 0) is None
    assert chain.get_price_now(job_id) == spec.terms.price_per_shard
    mix_hash = _read_mix_hash(chain.get_header_rlp(job.seed_block))
    assert chain.get_seed(job_id) == compute_job_seed(job_id, mix_hash)


def test_a_refusal_names_the_custom_error_and_its_values(chain, spec, provider, post_job):
    job_id = post_job(spec)

    with pytest.raises(TransactionReverted) as caught:
        provider.send(chain.calls.claim(job_id, provider.operator, 0, 0, 1))

    assert caught.value.name == "AccountLacksFreeStake"
    assert caught.value.arguments == (0, spec.terms.stake_per_shard)


def test_a_seed_that_is_not_drawn_is_not_told(chain, spec, requester):
    requester.send(chain.calls.create_job(spec, REQUESTER.address))

    with pytest.raises(InvalidTransition, match="the seed of job 1 is not drawn"):
        chain.get_seed(1)
    with pytest.raises(TransactionReverted, match=r"JobInUnexpectedStatus\(1, 1, 3\)"):
        chain.get_price_now(1)


def test_what_does_not_exist_is_not_found(chain):
    with pytest.raises(NotFound, match="no job 7"):
        chain.get_job(7)
    with pytest.raises(NotFound, match="no job 7"):
        chain.get_job_creation(7)
    with pytest.raises(NotFound, match="no lease 7"):
        chain.get_lease(7)
    with pytest.raises(NotFound, match="no challenge 7"):
        chain.get_challenge(7)
    with pytest.raises(NotFound, match="no operator 7"):
        chain.get_operator(7)


def test_a_market_that_is_not_there_is_told_from_one_that_is(chain, devnet):
    chain.require_deployed()
    elsewhere = chain.deployment.model_copy(update={"market": PROVIDER.address})
    other_chain = chain.deployment.model_copy(update={"chain_id": 1})

    with connect(devnet.url, elsewhere) as absent, pytest.raises(ChainError, match="no market at"):
        absent.require_deployed()
    with connect(devnet.url, other_chain) as wrong, pytest.raises(ChainError, match="chain 31337"):
        wrong.require_deployed()


def test_the_gas_of_every_transaction_is_told_by_function(chain, spec, post_job, claim_shards):
    claim_shards(post_job(spec))

    gas = collect_gas(chain)

    functions = {"register", "createJob", "drawSeed", "stake", "buyTickets", "claim"}
    assert set(gas) == functions
    assert all(amount > 21_000 for amounts in gas.values() for amount in amounts)
    assert len(gas["register"]) == 2


def test_an_address_without_its_checksum_is_as_good_in_a_deployment_file(chain, devnet, provider):
    market = chain.deployment.market.lower()
    plain = chain.deployment.model_copy(update={"market": market})

    with connect(devnet.url, plain) as same:
        same.require_deployed()
        same.send(PROVIDER, same.calls.stake(provider.operator, 0, 7))

    assert chain.get_account(provider.operator, Role.PROVIDER, 0).staked == 7


def test_an_argument_that_does_not_fit_is_refused(chain):
    with pytest.raises(ProtocolError, match="getJob"):
        chain.get_job(-1)
    with pytest.raises(ProtocolError, match="claim"):
        chain.calls.claim(1, 2, 3, 4, 2**256)


def test_the_constants_are_those_of_the_deployment(chain):
    assert chain.get_config() == DEVNET
    assert [chain.get_asset(i) for i in range(chain.count_assets())] == list(ETHER_ONLY)
    assert chain.find_pause() is None


def test_every_event_of_the_contract_has_a_type_with_its_fields():
    events = filter_abi_by_type("event", load_contract().abi)
    for entry in events:
        place = {"block_number", "log_index", "tx_hash"}
        assert _name_parts(entry["inputs"]) | place == set(
            EVENTS[entry["name"]].__dataclass_fields__
        )
    assert {entry["name"] for entry in events} == set(EVENTS)


@pytest.mark.parametrize(
    ("base", "subject"),
    [
        (JobEvent, "jobId"),
        (LeaseEvent, "leaseId"),
        (ChallengeEvent, "challengeId"),
        (OperatorEvent, "operator"),
    ],
)
def test_events_are_found_by_what_they_are_of(base, subject):
    for kind in EVENTS.values():
        (entry,) = filter_abi_by_name(kind.__name__, load_contract().abi)
        first = entry["inputs"][0]
        assert issubclass(kind, base) == (first["name"] == subject and first["indexed"])


def _name_parts(parameters) -> set[str]:
    return {to_snake_case(parameter["name"]) for parameter in parameters}


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        ("getJob", Job),
        ("getLease", Lease),
        ("config", Config),
        ("getAsset", Asset),
        ("getAccount", Account),
        ("getChallenge", Challenge),
    ],
)
def test_every_struct_of_a_view_has_a_type_with_its_fields(view, kind):
    (struct,) = load_contract().functions[view].abi["outputs"]

    assert _name_parts(struct["components"]) == set(kind.__dataclass_fields__)


@pytest.mark.parametrize(
    ("function", "position", "kind"),
    [
        ("createJob", 2, PostedTerms),
        ("attest", 1, RecordOpening),
        ("answer", 1, StateOpening),
        ("answer", 2, RecordOpening),
    ],
)
def test_every_struct_of_a_call_has_a_type_with_its_fields(function, position, kind):
    struct = load_contract().functions[function].abi["inputs"][position]

    assert _name_parts(struct["components"]) == set(kind.__dataclass_fields__)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (LeaseStatus, "Leases"),
        (JobStatus, "Jobs"),
        (ChallengeStatus, "Challenges"),
        (Role, "Accounts"),
    ],
)
def test_statuses_are_numbered_as_in_solidity(kind, source):
    text = (CONTRACTS / f"libraries/{source}.sol").read_text()
    body = re.search(rf"enum {kind.__name__} {{(.*?)}}", text, re.DOTALL).group(1)
    names = re.findall(r"^\s*(\w+),?\s*(?://.*)?$", body, re.MULTILINE)

    snake = [re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).upper() for name in names]

    assert snake == [member.name for member in kind]


def test_a_deployment_file_comes_back(tmp_path, chain):
    path = tmp_path / "deployment.json"
    path.write_text(chain.deployment.model_dump_json())

    assert read_deployment(path) == chain.deployment


def test_a_missing_or_malformed_deployment_file_is_named(tmp_path):
    with pytest.raises(NotFound, match="no deployment file"):
        read_deployment(tmp_path / "absent")
    (tmp_path / "file").write_text('{"chain_id": 1, "market": "0x", "block": 0}')
    with pytest.raises(MarketError, match=r"file is not a deployment file"):
        read_deployment(tmp_path / "file")
