"""`touchstone offer`: signing, posting and cancelling at the command line."""

import json

import pytest

from market.chain.deployment import deploy_periphery, write_deployment
from market.chain.devnet import get_account
from market.protocol.errors import InvalidSpec, NotFound, TransactionReverted
from tests.market.commands.conftest import run, run_json


@pytest.fixture
def signed(home, key, chain, spec_file, tmp_path):
    """A signed offer's file, at a market with a contract for offers."""
    deployment = deploy_periphery(chain, get_account(0), chain.deployment)
    write_deployment(home / "deployment.json", deployment)
    assert deployment.offers not in (None, key)
    path = tmp_path / "offer.json"
    run("offer", "sign", str(spec_file), "--out", str(path))
    return path


def test_a_signed_offer_is_posted_from_its_requesters_deposit(signed, key, chain):
    run("offer", "deposit", "5ether")

    posted = run_json("offer", "post", str(signed))

    assert posted["function"] == "postOffer"
    assert chain.get_job(1).requester == key


def test_an_offer_without_a_deposit_says_what_is_missing(signed):
    with pytest.raises(TransactionReverted, match="OfferUnderfunded"):
        run("offer", "post", str(signed))


def test_a_cancelled_offer_is_not_posted(signed):
    run("offer", "deposit", "5ether")
    run("offer", "cancel", json.loads(signed.read_text())["offer"]["nonce"])

    with pytest.raises(TransactionReverted, match="OfferUsed"):
        run("offer", "post", str(signed))


@pytest.mark.usefixtures("signed")
def test_a_deposit_is_taken_back():
    run("offer", "deposit", "5ether")
    run("offer", "withdraw", "5ether")

    with pytest.raises(TransactionReverted, match="OfferUnderfunded"):
        run("offer", "withdraw", "1wei")


def test_an_offer_that_names_another_spec_is_refused_before_it_is_sent(signed):
    document = json.loads(signed.read_text())
    document["spec"]["name"] = "another"
    signed.write_text(json.dumps(document))

    with pytest.raises(InvalidSpec, match="names another spec"):
        run("offer", "post", str(signed))


@pytest.mark.usefixtures("key")
def test_a_deployment_without_offers_says_so(spec_file, tmp_path):
    with pytest.raises(NotFound, match="no contract for offers"):
        run("offer", "sign", str(spec_file), "--out", str(tmp_path / "offer.json"))
