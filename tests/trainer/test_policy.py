"""The facts of a provider's claims, on a real chain with a tiny real job."""

import shutil

import pytest

from market.chain.deployment import DEVNET, ETHER_ONLY
from market.chain.devnet import get_account
from market.chain.events import ShardsClaimed
from market.chain.ledger import Ledger
from market.chain.logs import decode_events
from market.protocol.constants import LEASES_PER_JOB
from market.protocol.economics import (
    LEASE_GAS,
    AssetPolicy,
    Claim,
    Decline,
    History,
    Policy,
    Reason,
    Wait,
    compute_bounty,
)
from market.protocol.errors import (
    InsufficientMemory,
    InvalidProgram,
    MarketError,
    NondeterministicEnvironment,
    NotFound,
)
from market.protocol.hashing import compute_digest
from market.protocol.records import compute_lease_root
from market.protocol.spec import Terms
from market.storage.blobs import BlobStore
from tests.market.chain.synthetic import (
    ETHER,
    MANIFEST,
    attest_lease,
    commit_lease,
    make_claims,
    make_spec,
)
from tests.trainer.tiny_job import SCHEDULE, build_tiny_job
from trainer.declines import DECLINES_FILE, DeclineLog
from trainer.execution import Executor
from trainer.jobs import OpenJobs, publish_job
from trainer.policy import (
    POLICY_FILE,
    STEPS_FILE,
    Appraiser,
    StepTimes,
    count_history,
    explain_failure,
    read_policy,
)

ROOT = compute_digest(b"a program")


def pass_time(devnet, chain, seconds):
    chain.rpc.call("evm_increaseTime", [seconds])
    devnet.mine(1)


# -- the file


def test_without_a_file_a_provider_takes_ether_for_what_pays_its_costs(tmp_path):
    policy = read_policy(tmp_path / POLICY_FILE, ether=2)

    assert policy == Policy(assets={2: AssetPolicy()})
    assert read_policy(tmp_path / POLICY_FILE, ether=None).assets == {}


def test_a_file_says_what_is_asked_for_in_each_asset(tmp_path):
    path = tmp_path / POLICY_FILE
    path.write_text(
        """
        watts = 350
        denied = ["0x70997970c51812dc3a010c7d01b50e0d17dc79c8"]
        [assets.0]
        energy_price = "0.0001ether"
        floor_per_shard = "3gwei"
        [assets.1]
        ether_price = 3_000_000_000
        """
    )

    assert read_policy(path, ether=0) == Policy(
        assets={
            0: AssetPolicy(energy_price=ETHER // 10_000, floor_per_shard=3 * 10**9),
            1: AssetPolicy(ether_price=3 * 10**9),
        },
        watts=350,
        denied=frozenset({"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"}),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("wats = 350", "wats"),
        ("watts = -1", "watts"),
        ("max_leases = 0", "max_leases"),
        ("denied = ['0x12']", "0x12"),
        ("watts = ", "Invalid value"),
        ("[assets.0]\nfloor = 1", "floor"),
        ("[assets.0]\nenergy_price = '1.5wei'", "1.5wei"),
        ("[assets.zero]\nether_price = 1", "zero"),
        ("[assets.1]\nenergy_price = 1", "ether_price"),
        ("assets = 5", "assets"),
        ("[assets]\n0 = 5", "0"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_fault(tmp_path, text, fault):
    path = tmp_path / POLICY_FILE
    path.write_text(text)

    with pytest.raises(MarketError, match=fault):
        read_policy(path, ether=0)


# -- measured steps


def test_the_slowest_of_the_last_measured_steps_counts(tmp_path):
    times = StepTimes(tmp_path / STEPS_FILE)
    assert times.find(ROOT) is None

    times.add(ROOT, steps=10, seconds=90.0)
    for seconds in (1.0, 3.0, 2.0):
        times.add(ROOT, steps=10, seconds=seconds)
    assert StepTimes(tmp_path / STEPS_FILE).find(ROOT) == 9_000_000
    for _ in range(7):
        times.add(ROOT, steps=10, seconds=2.0)

    assert StepTimes(tmp_path / STEPS_FILE).find(ROOT) == 200_000


# -- what the chain knows


@pytest.fixture
def ledger(chain):
    return Ledger(chain)


def test_a_history_counts_how_an_operators_own_leases_ended(
    devnet, chain, ledger, post_job, claim_shards, provider, auditor
):
    spec = make_spec(chain.get_time() + 10**6, slots=2)
    lease_id, traces = claim_shards(post_job(spec)), [make_claims()]
    job_id = lease_id // LEASES_PER_JOB
    commit_lease(devnet, provider, lease_id, traces)
    attest_lease(auditor, lease_id, traces)
    provider.send(chain.calls.stake(provider.operator, 0, 4 * ETHER))
    provider.send(chain.calls.claim(job_id, provider.operator, 0, 1, 1))
    chain.rpc.call("evm_increaseTime", [DEVNET.challenge_window + spec.terms.lease_time_s])
    devnet.mine(1)
    provider.send(chain.calls.settle(lease_id))
    provider.send(chain.calls.expire(lease_id + 1))

    ledger.refresh()

    assert count_history(ledger, provider.operator) == History(settled=1, lapsed=1)
    assert count_history(ledger, auditor.operator) == History()


def test_the_bounty_that_is_counted_is_the_one_that_the_contract_pays(
    devnet, chain, post_job, claim_shards, provider
):
    spec = make_spec(chain.get_time() + 10**6, slots=2)
    lease_id = claim_shards(post_job(spec), 2)
    pass_time(devnet, chain, spec.terms.lease_time_s + 1)
    provider.send(chain.calls.expire(lease_id))

    call = chain.calls.claim(lease_id // LEASES_PER_JOB, provider.operator, 0, 0, 1)
    (claimed,) = decode_events(provider.send(call).logs)

    fee_bps = chain.get_config().expiry_fee_bps
    assert claimed.bounty == compute_bounty(spec.terms.stake_per_shard, fee_bps, 1) > 0


def test_the_transactions_of_a_lease_cost_the_gas_that_estimates_count(
    devnet, chain, post_job, provider, auditor
):
    traces = [make_claims()]
    job_id = post_job(make_spec(chain.get_time() + 10**6, slots=2))
    provider.send(chain.calls.stake(provider.operator, 0, 4 * ETHER))
    worth = ETHER_ONLY[0].ticket_stake
    auditor.send(chain.calls.buy_tickets(auditor.operator, 0, 4, worth))
    claimed = provider.send(chain.calls.claim(job_id, provider.operator, 0, 0, 1))
    (event,) = decode_events(claimed.logs)
    assert isinstance(event, ShardsClaimed)
    lease_id = event.lease_id
    root = compute_lease_root(traces)
    committed = provider.send(chain.calls.commit(lease_id, root, MANIFEST))
    devnet.mine(DEVNET.draw_distance)
    header = chain.get_header_rlp(chain.get_lease(lease_id).clock)
    drawn = provider.send(chain.calls.draw(lease_id, header))
    attest_lease(auditor, lease_id, traces)
    chain.rpc.call("evm_increaseTime", [DEVNET.challenge_window + 1])
    devnet.mine(1)
    settled = provider.send(chain.calls.settle(lease_id))

    gas = sum(receipt.gas_used for receipt in (claimed, committed, drawn, settled))

    assert gas <= LEASE_GAS <= gas * 1.1


# -- judging


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotFound("x"), Reason.BLOBS_UNAVAILABLE),
        (InsufficientMemory("x"), Reason.MEMORY_LACKING),
        (NondeterministicEnvironment("x"), Reason.CONFORMANCE_DIFFERS),
        (InvalidProgram("x"), Reason.PROGRAM_REFUSED),
    ],
)
def test_a_failure_to_fetch_or_run_a_job_is_a_reason_to_decline(error, reason):
    assert explain_failure(error) == Decline(reason, detail="x")


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "store", 10**8)


@pytest.fixture
def tiny_job(chain, store, post_job):
    """Post the tiny job, whose price rises over 100 s; return its id."""
    terms = Terms(
        price_per_shard=ETHER // 100,
        floor_bps=1_000,
        ramp_time_s=100,
        audit_fee=ETHER // 1000,
        stake_per_shard=ETHER // 10,
        lease_time_s=300,
        samples=2,
        deadline=chain.get_time() + 10**6,
    )
    spec = publish_job(store, schedule=SCHEDULE, terms=terms, **build_tiny_job())
    return post_job(spec)


@pytest.fixture
def appraise(chain, ledger, store, provider, tmp_path):
    """Judge a job with the policy ``text``."""
    provider.send(chain.calls.stake(provider.operator, 0, ETHER))

    def judge(job_id, text="jitter = 0", training=(), most=2):
        (tmp_path / POLICY_FILE).write_text(text)
        ledger.refresh()
        jobs = OpenJobs(ledger, store, lambda files: Executor(files.program, threads=1))
        appraiser = Appraiser(chain, ledger, jobs, tmp_path)
        return appraiser.appraise(job_id, [provider.operator], most, training)

    return judge


def read_declines(home):
    with DeclineLog(home / DECLINES_FILE) as log:
        return [(kept.job_id, kept.decline.reason) for kept in log.read()]


def test_a_job_that_pays_is_claimed_as_the_contract_takes_it(
    devnet, chain, appraise, tiny_job, provider
):
    pass_time(devnet, chain, 100)

    found = appraise(tiny_job)

    assert isinstance(found.decision, Claim)
    assert found.slots == range(2)
    call = chain.calls.claim(tiny_job, provider.operator, found.round, found.slots.start, 2)
    (event,) = decode_events(provider.send(call).logs)
    assert event.price_bps == found.decision.price_bps == 10_000


def test_a_job_is_waited_for_until_the_chain_says_that_it_pays_enough(
    devnet, chain, appraise, tiny_job
):
    asks = "jitter = 0\n[assets.0]\nfloor_per_shard = '0.0055ether'"

    waiting = appraise(tiny_job, asks).decision
    assert isinstance(waiting, Wait)
    assert chain.get_price_now(tiny_job) < 55 * ETHER // 10_000
    chain.rpc.call("evm_setNextBlockTimestamp", [waiting.until])
    devnet.mine(1)

    assert isinstance(appraise(tiny_job, asks).decision, Claim)
    assert chain.get_price_now(tiny_job) == 55 * ETHER // 10_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[assets.0]\nfloor_per_shard = '1ether'", Reason.PRICE_BELOW_FLOOR),
        ("watts = 4_000_000\n[assets.0]\nenergy_price = '1ether'", Reason.UNPROFITABLE),
        ("[assets.1]\nether_price = 1", Reason.ASSET_NOT_ACCEPTED),
        (f"denied = ['{get_account(1).address}']\n[assets.0]", Reason.REQUESTER_DENIED),
    ],
)
def test_a_job_that_the_policy_leaves_alone_is_written_down(
    appraise, tiny_job, tmp_path, text, reason
):
    assert appraise(tiny_job, text).decision.reason is reason

    assert read_declines(tmp_path) == [(tiny_job, reason)]


def test_a_busy_machine_takes_nothing_and_measures_nothing(
    appraise, tiny_job, tmp_path, post_job, claim_shards, ledger, chain
):
    claim_shards(post_job(make_spec(chain.get_time() + 10**6)))
    ledger.refresh()
    training = [*ledger.iterate(ShardsClaimed)]

    found = appraise(tiny_job, training=training)

    assert found.decision == Decline(Reason.TOO_MANY_LEASES, 1, 2)
    assert not (tmp_path / STEPS_FILE).exists()


def test_a_job_of_another_arithmetic_is_refused_before_its_blobs_are_sought(
    appraise, post_job, chain
):
    job_id = post_job(make_spec(chain.get_time() + 10**6))

    assert appraise(job_id).decision.reason is Reason.CONFORMANCE_DIFFERS


def test_a_job_whose_blobs_cannot_be_had_is_left_alone(appraise, tiny_job, tmp_path):
    shutil.rmtree(tmp_path / "store")

    assert appraise(tiny_job).decision.reason is Reason.BLOBS_UNAVAILABLE
    assert read_declines(tmp_path) == [(tiny_job, Reason.BLOBS_UNAVAILABLE)]
