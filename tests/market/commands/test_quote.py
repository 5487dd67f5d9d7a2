"""Quotes from a real chain: what is claimed there is what they say, and how much of it."""

import json
import os

import pytest
from typer.testing import CliRunner

from market.chain.deployment import write_deployment
from market.chain.events import JobCreated
from market.chain.logs import decode_events
from market.cli import build_app
from market.protocol.errors import NotFound
from market.storage.quotes import POST_GAS, Quote, ask_job, ask_spec, compute_quote
from tests.market.chain.synthetic import ETHER, make_root, make_spec

STAKE = 4 * ETHER


@pytest.fixture
def post_ramp(chain, post_job):
    """Post a job whose price rises from a tenth to ``price`` over 1,000 s; return its spec and id."""

    def post(price=ETHER, slots=1, root=None):
        spec = make_spec(chain.get_time() + 10**6, slots=slots)
        terms = spec.terms.model_copy(
            update={
                "price_per_shard": price,
                "stake_per_shard": 4 * price,
                "floor_bps": 1_000,
                "ramp_time_s": 1_000,
            }
        )
        program = spec.program.model_copy(update={"root": root or spec.program.root})
        changed = spec.model_copy(update={"terms": terms, "program": program})
        return changed, post_job(changed)

    return post


@pytest.fixture
def claim_at(chain, provider):
    """Claim a slot of a job ``seconds`` after its round opened; return what the shard pays."""

    def claim(job_id, slot, seconds):
        stake = chain.get_job(job_id).stake_per_shard
        provider.send(chain.calls.stake(provider.operator, 0, stake))
        moment = chain.get_job(job_id).opened_at + seconds
        chain.rpc.call("evm_setNextBlockTimestamp", [moment])
        receipt = provider.send(chain.calls.claim(job_id, provider.operator, 0, slot, 1))
        (event,) = decode_events(receipt.logs)
        return chain.get_job(job_id).price_per_shard * event.price_bps // 10_000

    return claim


def test_where_nothing_was_claimed_a_quote_says_that_there_is_no_data(chain, post_ramp):
    spec, _ = post_ramp(slots=3)

    quote = compute_quote(chain, ask_spec(spec))

    assert [row.leases for row in quote.prices] == [0, 0, 0]
    assert {row.per_shard for row in quote.prices} == {None}
    guessed = (quote.basis, quote.median_price, quote.covers_median, quote.start_s)
    assert {*guessed, quote.expected_cost} == {None}
    assert quote.most_cost == spec.escrow


def test_prices_are_those_at_which_leases_were_claimed(chain, post_ramp, claim_at):
    spec, job_id = post_ramp(slots=3)
    paid = [claim_at(job_id, slot, seconds) for slot, seconds in enumerate((100, 300, 900))]

    quote = compute_quote(chain, ask_spec(spec))

    row = quote.prices[0]
    assert (row.of, row.leases) == ("same program", 3)
    assert [row.per_shard.p10, row.per_shard.p50, row.per_shard.p90] == paid
    assert row.per_step.p50 == paid[1] // spec.steps


def test_a_job_is_expected_to_start_when_its_ramp_reaches_the_median(chain, post_ramp, claim_at):
    _, posted = post_ramp(slots=3)
    for slot, seconds in enumerate((100, 300, 900)):
        claim_at(posted, slot, seconds)
    dearer, _ = post_ramp(price=2 * ETHER, slots=2)

    quote = compute_quote(chain, ask_spec(dearer))

    # After 300 s of 1,000 a shard paid 0.37 ether: 18.5% of twice the price, where the ramp begins at 10%.
    assert quote.median_price == 37 * ETHER // 100
    assert quote.start_s == 95
    assert quote.covers_median
    fees = 2 * dearer.terms.audit_fee
    assert quote.expected_cost == 2 * 37 * ETHER // 100 + fees


def test_a_price_below_the_median_is_said_to_be_that(chain, post_ramp, claim_at):
    _, posted = post_ramp()
    claim_at(posted, 0, 900)
    cheap, _ = post_ramp(price=ETHER // 2)

    quote = compute_quote(chain, ask_spec(cheap))

    assert quote.covers_median is False
    assert quote.start_s is quote.expected_cost is None


def test_leases_of_other_programs_count_only_where_there_are_none_of_its_own(
    chain, post_ramp, claim_at
):
    _, other = post_ramp(root=make_root("another program"))
    claim_at(other, 0, 500)
    spec, mine = post_ramp()

    before = compute_quote(chain, ask_spec(spec))
    claim_at(mine, 0, 100)
    after = compute_quote(chain, ask_spec(spec))

    assert [row.leases for row in before.prices] == [0, 1, 1]
    assert before.basis == f"{spec.steps} steps, any program"
    assert [row.leases for row in after.prices] == [1, 2, 2]
    assert after.basis == "same program"


def test_only_providers_with_enough_free_stake_could_take_a_shard(
    chain, provider, auditor, post_ramp, claim_at
):
    spec, job_id = post_ramp(slots=3)
    provider.send(chain.calls.stake(provider.operator, 0, 2 * STAKE))
    auditor.send(chain.calls.stake(auditor.operator, 0, STAKE - 1))

    before = compute_quote(chain, ask_spec(spec))
    claim_at(job_id, 0, 500)  # with a stake of its own
    after = compute_quote(chain, ask_spec(spec))

    counts = (before.operators, before.able_operators, before.able_shards)
    assert counts == (after.operators, after.able_operators, after.able_shards) == (2, 1, 2)


def test_a_posted_job_is_quoted_as_its_spec(chain, post_ramp):
    spec, job_id = post_ramp(slots=2)

    posted = chain.get_job_creation(job_id)

    assert ask_job(posted) == ask_spec(spec)


def test_posting_costs_the_gas_that_a_quote_says(chain, requester):
    spec = make_spec(chain.get_time() + 10**6)

    receipt = requester.send(chain.calls.create_job(spec, requester.account.address))

    assert isinstance(decode_events(receipt.logs)[0], JobCreated)
    assert receipt.gas_used <= POST_GAS <= receipt.gas_used * 1.1


# -- the command


@pytest.fixture
def run(tmp_path, monkeypatch, devnet, chain):
    """Run a command on the market of ``chain``; return what it printed."""
    for name in [name for name in os.environ if name.startswith("TOUCHSTONE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TOUCHSTONE_RPC_URL", devnet.url)
    write_deployment(tmp_path / "deployment.json", chain.deployment)

    def invoke(*arguments):
        result = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def test_the_command_quotes_a_spec_and_a_posted_job_alike(run, tmp_path, post_ramp, claim_at):
    spec, job_id = post_ramp(slots=2)
    claim_at(job_id, 0, 300)
    file = tmp_path / "job.json"
    file.write_bytes(spec.document)

    by_file, by_number = (
        Quote.model_validate(json.loads(run("job", "quote", name, "--json")))
        for name in (str(file), str(job_id))
    )

    assert by_file.model_copy(update={"post_cost": 0}) == by_number.model_copy(
        update={"post_cost": 0}
    )
    assert by_file.expected_cost == 2 * (37 * ETHER // 100 + ETHER // 10)


def test_the_command_says_from_how_many_leases_its_prices_come(run, post_ramp, claim_at):
    _, job_id = post_ramp(slots=2)
    assert "no data" in run("job", "quote", str(job_id))

    claim_at(job_id, 0, 300)
    shown = " ".join(run("job", "quote", str(job_id)).split())

    assert "from 1 leases" in shown
    assert "300 s" in shown


def test_what_is_neither_a_file_nor_a_number_is_not_found(run):
    with pytest.raises(NotFound, match=r"no-such\.json"):
        run("job", "quote", "no-such.json")
