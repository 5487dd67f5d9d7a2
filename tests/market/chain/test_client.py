"""The market through its client: a whole honest life, typed events, decoded refusals."""

import re
from pathlib import Path

import pytest
import rlp
from eth_utils.abi import filter_abi_by_type

from market.chain.abi import load_contract, to_snake_case
from market.chain.client import connect
from market.chain.costs import collect_gas
from market.chain.deployment import DEVNET, Config, read_deployment
from market.chain.events import (
    EVENTS,
    AuditCommitted,
    JobCreated,
    JobSeeded,
    RecordsOpened,
    SegmentsDrawn,
    ShardAttested,
    ShardClaimed,
    TraceCommitted,
)
from market.chain.structs import (
    Job,
    JobStatus,
    Lease,
    PostedTerms,
    RecordOpening,
    SegmentOutcome,
    Stake,
    StateOpening,
    Trace,
)
from market.protocol.errors import (
    ChainError,
    MarketError,
    NotFound,
    ProtocolError,
    TransactionReverted,
)
from market.protocol.lifecycle import LeaseStatus
from market.protocol.sampling import compute_job_seed, draw_segments
from tests.market.chain.synthetic import (
    AUDITOR,
    ETHER,
    PROVIDER,
    REQUESTER,
    SEGMENTS,
    audit_shard,
    commit_shard,
    make_claims,
    make_root,
    make_spec,
)

CONTRACTS = Path(__file__).parents[3] / "contracts/src"


@pytest.fixture
def spec(chain):
    return make_spec(chain.get_time() + 1000)


def test_an_honest_shard_is_drawn_audited_and_paid(
    chain, devnet, spec, post_job, claim_shard, provider, auditor
):
    job_id = post_job(spec)
    lease_id = claim_shard(job_id)
    claims = make_claims()

    root, header = commit_shard(devnet, provider, lease_id, claims)
    audit_shard(provider, auditor, lease_id, claims, root)
    devnet.advance_time(DEVNET.challenge_window + 1)
    provider.send(chain.calls.settle(lease_id))

    assert chain.get_status(lease_id) is LeaseStatus.SETTLED
    assert chain.get_credit(PROVIDER.address) == spec.terms.price_per_shard
    assert chain.get_credit(AUDITOR.address) == spec.terms.audit_fee
    assert chain.get_provider_stake(PROVIDER.address) == Stake(4 * ETHER, 0)
    assert chain.find_contribution(job_id, 0, 0) == lease_id
    drawn = draw_segments(lease_id, _read_mix_hash(header), SEGMENTS, spec.terms.samples)
    assert list(chain.get_drawn_segments(lease_id)) == drawn


def _read_mix_hash(header: bytes) -> bytes:
    return rlp.decode(header)[13]


def test_a_shards_life_is_told_by_typed_events_in_order(
    chain, devnet, spec, post_job, claim_shard, provider, auditor
):
    job_id = post_job(spec)
    lease_id = claim_shard(job_id)
    claims = make_claims()
    root, _ = commit_shard(devnet, provider, lease_id, claims)
    audit_shard(provider, auditor, lease_id, claims, root)

    events = chain.get_job_events(job_id)

    kinds = [JobCreated, JobSeeded, ShardClaimed, TraceCommitted, SegmentsDrawn]
    assert list(map(type, events)) == [*kinds, AuditCommitted, RecordsOpened, ShardAttested]
    created, _, claimed, committed, drawn, _, opened, attested = events
    assert created.spec_leaves == tuple(spec.leaf_values)
    assert created.terms.lease_time == spec.terms.lease_time_s
    assert (claimed.round, claimed.slot, claimed.provider) == (0, 0, PROVIDER.address)
    assert committed.manifest == make_root("manifest")
    assert drawn.auditor == attested.auditor == AUDITOR.address
    assert opened.outcomes[0].state_root == claims[drawn.segments[0] + 1].state_root
    assert attested.contribution == claims[-1].base_root
    assert chain.list_jobs() == [created]
    assert chain.get_job_creation(job_id) == created


def test_a_job_and_its_lease_are_read_as_they_were_posted(chain, spec, post_job, claim_shard):
    job_id = post_job(spec)
    lease_id = claim_shard(job_id)

    job, lease = chain.get_job(job_id), chain.get_lease(lease_id)

    assert (job.requester, job.spec_hash) == (REQUESTER.address, spec.spec_hash)
    assert (job.escrow, job.segments, job.stake_per_lease) == (spec.escrow, SEGMENTS, 4 * ETHER)
    assert chain.get_job_status(job_id) is JobStatus.OPEN
    assert (lease.provider, lease.stored, lease.shard) == (PROVIDER.address, LeaseStatus.LEASED, 0)
    assert chain.find_lease(job_id, 0, 0) == lease_id
    assert chain.find_contribution(job_id, 0, 0) is None
    assert chain.get_slot_root(job_id, 0) == spec.initial_state.slot_root
    mix_hash = _read_mix_hash(chain.get_header_rlp(job.seed_block))
    assert chain.get_seed(job_id) == compute_job_seed(job_id, mix_hash)


def test_stakes_tickets_and_credit_are_told_by_events(chain, auditor, provider):
    first = auditor.send(chain.calls.buy_tickets(2, DEVNET.ticket_stake)).block_number
    auditor.send(chain.calls.retire_ticket(0))
    provider.send(chain.calls.stake(ETHER))
    provider.send(chain.calls.unstake(ETHER))
    last = provider.send(chain.calls.withdraw()).block_number

    events = chain.get_events(first, last)

    names = ["TicketsBought", "TicketRetired", "StakeAdded", "StakeRemoved", "CreditWithdrawn"]
    assert [type(event).__name__ for event in events] == names
    assert chain.count_tickets() == 2
    assert chain.get_ticket(0).leaving
    assert chain.get_ticket(1).owner == AUDITOR.address


def test_a_refusal_names_the_custom_error_and_its_values(chain, spec, requester, post_job):
    job_id = post_job(spec)

    with pytest.raises(TransactionReverted) as caught:
        requester.send(chain.calls.claim(job_id, 0, 0))

    assert caught.value.name == "AccountLacksFreeStake"
    assert caught.value.arguments == (0, spec.terms.stake_per_lease)


def test_a_refused_view_names_its_error(chain, spec, requester):
    requester.send(chain.calls.create_job(spec))

    with pytest.raises(TransactionReverted, match=r"JobInUnexpectedStatus\(1, 1, 3\)"):
        chain.get_seed(1)


def test_what_does_not_exist_is_not_found(chain):
    with pytest.raises(NotFound, match="no job 7"):
        chain.get_job(7)
    with pytest.raises(NotFound, match="no job 7"):
        chain.get_job_creation(7)
    with pytest.raises(NotFound, match="no lease 7"):
        chain.get_lease(7)


def test_a_market_that_is_not_there_is_told_from_one_that_is(chain, devnet):
    chain.require_deployed()
    elsewhere = chain.deployment.model_copy(update={"market": PROVIDER.address})
    other_chain = chain.deployment.model_copy(update={"chain_id": 1})

    with connect(devnet.url, elsewhere) as absent, pytest.raises(ChainError, match="no market at"):
        absent.require_deployed()
    with connect(devnet.url, other_chain) as wrong, pytest.raises(ChainError, match="chain 31337"):
        wrong.require_deployed()


def test_the_gas_of_every_transaction_is_told_by_function(chain, spec, post_job, claim_shard):
    claim_shard(post_job(spec))

    gas = collect_gas(chain)

    assert set(gas) == {"createJob", "drawSeed", "stake", "buyTickets", "claim"}
    assert all(len(amounts) == 1 and amounts[0] > 21_000 for amounts in gas.values())


def test_an_address_without_its_checksum_is_as_good_in_a_deployment_file(chain, devnet):
    market = chain.deployment.market.lower()
    plain = chain.deployment.model_copy(update={"market": market})

    with connect(devnet.url, plain) as same:
        same.require_deployed()
        same.send(PROVIDER, same.calls.stake(7))

    assert chain.get_provider_stake(PROVIDER.address).staked == 7


def test_an_argument_that_does_not_fit_is_refused(chain):
    with pytest.raises(ProtocolError, match="getJob"):
        chain.get_job(-1)
    with pytest.raises(ProtocolError, match="claim"):
        chain.calls.claim(1, 2, 2**256)


def test_the_constants_are_those_of_the_deployment(chain):
    assert chain.get_config() == DEVNET


def test_every_event_of_the_contract_has_a_type_with_its_fields():
    events = filter_abi_by_type("event", load_contract().abi)
    for entry in events:
        place = {"block_number", "log_index", "tx_hash"}
        assert _name_parts(entry["inputs"]) | place == set(
            EVENTS[entry["name"]].__dataclass_fields__
        )
    assert {entry["name"] for entry in events} == set(EVENTS)


def _name_parts(parameters) -> set[str]:
    return {to_snake_case(parameter["name"]) for parameter in parameters}


@pytest.mark.parametrize(
    ("view", "kind"), [("getJob", Job), ("getLease", Lease), ("config", Config)]
)
def test_every_struct_of_a_view_has_a_type_with_its_fields(view, kind):
    (struct,) = load_contract().functions[view].abi["outputs"]

    assert _name_parts(struct["components"]) == set(kind.__dataclass_fields__)


@pytest.mark.parametrize(
    ("function", "position", "kind"),
    [
        ("createJob", 1, PostedTerms),
        ("commit", 2, StateOpening),
        ("commit", 3, StateOpening),
        ("open", 1, Trace),
        ("open", 2, RecordOpening),
        ("reveal", 1, Trace),
        ("reveal", 4, SegmentOutcome),
    ],
)
def test_every_struct_of_a_call_has_a_type_with_its_fields(function, position, kind):
    struct = load_contract().functions[function].abi["inputs"][position]

    assert _name_parts(struct["components"]) == set(kind.__dataclass_fields__)


@pytest.mark.parametrize(("kind", "source"), [(LeaseStatus, "Leases"), (JobStatus, "Jobs")])
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
