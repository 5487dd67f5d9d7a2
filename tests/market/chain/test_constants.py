"""Limits and the stake rule stand in Python and in Solidity: they are the same numbers in both."""

import re
from pathlib import Path

import pytest

from market.protocol import constants
from market.protocol.errors import TransactionReverted
from market.protocol.spec import compute_minimum_stake
from tests.market.chain.synthetic import REQUESTER, make_spec

CONTRACTS = Path(__file__).parents[3] / "contracts/src"
NAMES = {
    "MAX_SHARDS": "MAX_SHARDS",
    "MAX_ROUNDS": "MAX_ROUNDS",
    "MAX_SLOTS": "MAX_SLOTS",
    "MIN_SEGMENTS": "MIN_SEGMENTS",
    "MAX_SEGMENTS": "MAX_SEGMENTS",
    "MIN_STEPS": "MIN_STEPS_PER_SEGMENT",
    "MAX_STEPS": "MAX_STEPS_PER_SEGMENT",
    "MAX_SAMPLES": "MAX_SAMPLES",
    "MAX_TICKET_TRIES": "MAX_TICKET_TRIES",
    "MAX_SILENCES": "MAX_SILENCES",
    "PANEL_TRIES": "PANEL_TRIES",
    "COLLUSION_NUMERATOR": "COLLUSION_NUMERATOR",
    "COLLUSION_DENOMINATOR": "COLLUSION_DENOMINATOR",
    "PUNISHED_NUMERATOR": "PUNISHED_NUMERATOR",
    "PUNISHED_DENOMINATOR": "PUNISHED_DENOMINATOR",
    "LEASES_PER_JOB": "LEASES_PER_JOB",
}


@pytest.mark.parametrize(("solidity", "python"), NAMES.items())
def test_a_limit_is_the_same_in_both_languages(solidity, python):
    source = "".join(path.read_text() for path in sorted(CONTRACTS.rglob("*.sol")))

    (found,) = re.findall(rf"constant {solidity} = ([\d<_ ]+);", source)

    base, _, shift = found.replace("_", "").partition("<<")
    assert int(base) << int(shift or 0) == getattr(constants, python)


@pytest.mark.parametrize(
    ("price", "poison", "samples"),
    [(10**18, 0, 1), (10**18, 10**17, 2), (7, 5, 3), (1, 0, 2), (10**20, 10**21, 4)],
)
def test_the_contract_asks_for_the_stake_that_the_spec_asks_for(
    chain, requester, price, poison, samples
):
    spec = make_spec(chain.get_time() + 1000)
    change = {"price_per_shard": price, "poison_value": poison, "samples": samples}
    terms = spec.terms.model_copy(update=change)
    least = compute_minimum_stake(terms, spec.segments)
    enough = spec.model_copy(update={"terms": terms.model_copy(update={"stake_per_shard": least})})
    one_less = spec.model_copy(
        update={"terms": terms.model_copy(update={"stake_per_shard": least - 1})}
    )

    chain.simulate(requester.account.address, chain.calls.create_job(enough, REQUESTER.address))
    with pytest.raises(TransactionReverted) as refused:
        chain.simulate(
            requester.account.address, chain.calls.create_job(one_less, REQUESTER.address)
        )

    assert (refused.value.name, refused.value.arguments) == ("JobStakeTooLow", (least - 1, least))
