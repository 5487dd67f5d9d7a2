"""Operators by command: who they are, what they stake, and how they are paid."""

import pytest

from market.chain.deployment import DEVNET, ETHER_ONLY
from market.chain.devnet import get_account
from market.chain.structs import Role
from market.protocol.errors import (
    MarketError,
    NotFound,
    TransactionReverted,
)
from tests.market.commands.conftest import run, run_json


@pytest.fixture
def operator(key) -> int:
    """The number of the requester as an operator."""
    registered = run_json("operator", "register")
    assert registered["owner"] == registered["payout"] == key
    return registered["operator"]


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "command",
    [
        ("stake", "1ether"),
        ("unstake", "1ether"),
        ("payout",),
        ("tickets", "buy", "1"),
        ("tickets", "retire", "0"),
        ("operator", "show"),
    ],
)
def test_a_key_that_acts_for_no_operator_is_told_how_to_register(command):
    with pytest.raises(NotFound, match="`touchstone operator register`"):
        run(*command)


@pytest.mark.usefixtures("operator")
def test_stake_tickets_and_account_agree(key):
    sent = run_json("stake", "1.5ether")
    run("tickets", "buy", "2")
    run("unstake", "1ether")
    account = run_json("account")

    assert (sent["function"], sent["gas_used"] > 21_000) == ("stake", True)
    (held,) = account["operators"]
    assert (held["provider"]["staked"], held["provider"]["thawing"]) == (
        str(15 * 10**17),
        str(10**18),
    )
    assert held["auditor"]["staked"] == str(2 * ETHER_ONLY[0].ticket_stake)
    assert account["credit"] == "0"
    shown = run("account", key)
    assert "1.5 ether" in shown
    assert "thawed after" in shown


@pytest.mark.usefixtures("operator")
def test_what_has_thawed_is_withdrawn_in_one_transaction(key, chain, devnet):
    run("stake", "3ether")
    run("tickets", "buy", "2")
    run("tickets", "retire", "1")
    run("unstake", "1ether")
    with pytest.raises(TransactionReverted, match="AssetNoCredit"):
        run("withdraw")
    devnet.advance_time(DEVNET.thaw_time + 1)
    before = chain.get_balance(key)

    sent = run_json("withdraw")

    assert sent["function"] == "multicall"
    assert chain.get_balance(key) > before + 19 * 10**17
    (held,) = run_json("account")["operators"]
    assert held["provider"]["staked"] == str(2 * 10**18)
    assert chain.get_ticket(0, 1).leaving


def test_an_operator_is_chosen_where_a_key_acts_for_several(operator, chain, monkeypatch):
    other = run_json("operator", "register")["operator"]

    with pytest.raises(MarketError, match=f"operators {operator}, {other}: choose by --operator"):
        run("stake", "5")
    run("stake", "5", "--operator", str(operator))
    monkeypatch.setenv("TOUCHSTONE_OPERATOR", str(other))
    run("stake", "7")

    assert chain.get_account(operator, Role.PROVIDER, 0).staked == 5
    assert chain.get_account(other, Role.PROVIDER, 0).staked == 7
    assert run_json("operator", "show")["operator"] == other


@pytest.mark.usefixtures("operator")
def test_an_operators_workers_and_payout_are_changed_and_shown(key):
    hot, cold = get_account(8).address, get_account(9).address

    run("operator", "worker", "add", hot)
    run("operator", "payout", cold)
    shown = run_json("operator", "show")
    run("operator", "worker", "remove", hot)

    assert shown["facts"] == {"owner": key, "payout": cold}
    assert shown["workers"] == [key, hot]
    assert run_json("operator", "show")["workers"] == [key]
    assert cold in run("operator", "show")


@pytest.mark.usefixtures("finished_job")
def test_what_an_operator_earned_goes_to_its_payout_address(chain, provider, auditor):
    before = chain.get_balance(provider.account.address)

    sent = run_json("payout", "--operator", str(provider.operator))

    assert sent["function"] == "payOut"
    assert chain.get_balance(provider.account.address) == before + 10**18
    with pytest.raises(TransactionReverted, match="OperatorNothingEarned"):
        run("payout", "--operator", str(provider.operator))
    assert run_json("payout", "--operator", str(auditor.operator))["function"] == "payOut"


def test_an_asset_that_is_not_there_is_refused(operator, chain):
    with pytest.raises(TransactionReverted, match="AssetUnknown"):
        run("stake", "5", "--asset", "1")

    assert chain.get_account(operator, Role.PROVIDER, 0).staked == 0
