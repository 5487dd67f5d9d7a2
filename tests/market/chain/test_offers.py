"""Signed offers and the registry, on a real chain."""

from dataclasses import replace

import pytest

from market.chain.abi import encode_call, load_contract
from market.chain.client import Chain
from market.chain.deployment import DEVNET, deploy, deploy_periphery
from market.chain.devnet import get_account
from market.chain.events import JobCreated
from market.chain.logs import decode_events
from market.chain.offers import OfferCalls, build_offer, build_typed_data, sign_offer
from market.chain.registry import (
    compute_client_number,
    get_current_release,
    is_supported_client,
)
from market.chain.rpc import Rpc
from market.chain.transactions import Call, Sender
from market.protocol.errors import TransactionReverted
from tests.market.chain.synthetic import make_spec

OWNER, SIGNER, RELAYER = (get_account(index) for index in (0, 1, 2))


@pytest.fixture
def chain(devnet):
    with Sender(Rpc(devnet.url), patience_s=20) as sender:
        deployment, _ = deploy(sender, OWNER, DEVNET)
        deployment = deploy_periphery(sender, OWNER, deployment)
    with Chain(Rpc(devnet.url), deployment, 20) as connected:
        yield connected


@pytest.fixture
def offers(chain):
    return OfferCalls(chain.deployment.offers)


@pytest.fixture
def spec(chain):
    return make_spec(chain.get_time() + 1000)


@pytest.fixture
def offer(chain, spec):
    return build_offer(spec, SIGNER.address, nonce=2**63, expiry=chain.get_block_time() + 100)


def sign(chain, offer, chain_id=None):
    chain_id = chain_id or chain.deployment.chain_id
    return sign_offer(SIGNER, build_typed_data(offer, chain_id, chain.deployment.offers))


def test_what_is_signed_is_what_the_contract_hashes(chain, offer, devnet):
    contract = devnet.rpc.eth.contract(chain.deployment.offers, abi=load_contract("Offers").abi)
    typed_data = build_typed_data(offer, chain.deployment.chain_id, chain.deployment.offers)

    digest = contract.functions.hashOffer(typed_data["message"]).call()

    assert SIGNER.unsafe_sign_hash(digest).signature == sign(chain, offer)


def test_a_relayer_posts_the_job_that_a_requester_signed(chain, offers, offer, spec):
    chain.send(SIGNER, offers.deposit(SIGNER.address, spec.escrow))

    receipt = chain.send(RELAYER, offers.post(offer, spec, sign(chain, offer)))

    (created,) = (e for e in decode_market_events(chain, receipt) if isinstance(e, JobCreated))
    assert (created.requester, created.spec_hash) == (SIGNER.address, spec.spec_hash)
    chain.send(SIGNER, chain.calls.cancel_job(created.job_id))


def decode_market_events(chain, receipt):
    return decode_events(log for log in receipt.logs if log["address"] == chain.deployment.market)


def test_an_offer_signed_for_another_chain_is_refused(chain, offers, offer, spec):
    signature = sign(chain, offer, chain_id=1)

    with pytest.raises(TransactionReverted) as refused:
        chain.send(RELAYER, offers.post(offer, spec, signature, value=spec.escrow))

    assert (refused.value.name, *refused.value.arguments) == (
        "OfferInvalidSignature",
        SIGNER.address,
    )


def test_an_offer_is_not_posted_twice_and_not_after_it_was_cancelled(chain, offers, offer, spec):
    signature = sign(chain, offer)
    chain.send(RELAYER, offers.post(offer, spec, signature, value=spec.escrow))
    other = replace(offer, nonce=7)
    chain.send(SIGNER, offers.cancel(7))

    again = offers.post(offer, spec, signature, value=2 * spec.escrow)
    cancelled = offers.post(other, spec, sign(chain, other), value=spec.escrow)
    for call in (again, cancelled):
        with pytest.raises(TransactionReverted, match="OfferUsed"):
            chain.send(RELAYER, call)


def test_an_expired_offer_is_refused(chain, offers, offer, spec, devnet):
    devnet.advance_time(101)

    with pytest.raises(TransactionReverted, match="OfferExpired"):
        chain.send(RELAYER, offers.post(offer, spec, sign(chain, offer), value=spec.escrow))


def test_the_registry_names_the_market_and_the_oldest_client(chain, devnet):
    registry = chain.deployment.registry
    release = get_current_release(devnet.rpc, registry)

    supported = is_supported_client(devnet.rpc, registry)
    newest = encode_call("setMinimumClient", 0, 10**9, contract="Registry")
    chain.send(OWNER, Call(registry, "setMinimumClient", newest))

    assert (release.market, release.offers) == (chain.deployment.market, chain.deployment.offers)
    assert (supported, is_supported_client(devnet.rpc, registry)) == (True, False)
    assert is_supported_client(devnet.rpc, None)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.1.0", 1_000), ("1.2.3", 1_002_003), ("2.0", 2_000_000), ("1.4.2rc1", 1_004_021)],
)
def test_a_version_has_a_number(text, number):
    assert compute_client_number(text) == number
