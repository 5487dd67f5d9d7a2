"""Offers: jobs that a requester signs (EIP-712) and anybody posts.

What is signed has one schema, the contract's ABI: the typed data are derived from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

from market.chain.abi import encode_call, load_contract, name_fields
from market.chain.calls import build_terms
from market.chain.structs import Address, PostedTerms
from market.chain.transactions import Call
from market.protocol.spec import U64, HexHash, JobSpec

_PRIMARY_TYPE: Final = "JobOffer"


@dataclass(frozen=True, slots=True)
class JobOffer:
    """What a requester signs: all that a job costs and demands, and by the spec hash all that it is."""

    requester: Address
    spec_hash: HexHash
    terms: PostedTerms
    nonce: U64  # any that the requester has not used
    expiry: int  # the last second to post it, of the chain's time


def build_offer(spec: JobSpec, requester: Address, nonce: int, expiry: int) -> JobOffer:
    """Return the offer of ``requester`` to pay for ``spec``."""
    return JobOffer(requester, spec.spec_hash, build_terms(spec), nonce, expiry)


def build_typed_data(offer: JobOffer, chain_id: int, offers: Address) -> dict[str, Any]:
    """Return what a wallet shows and signs, for the contract at ``offers`` of one chain alone."""
    (function,) = (e for e in load_contract("Offers").abi if e.get("name") == "postOffer")
    schema = function["inputs"][0]  # type: ignore[typeddict-item]  # a function's entry has inputs
    domain = {
        "name": "Touchstone Offers",
        "version": "1",
        "chainId": chain_id,
        "verifyingContract": offers,
    }
    names = ("name", "version", "chainId", "verifyingContract")
    kinds = ("string", "string", "uint256", "address")
    fields = [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=True)]
    return {
        "types": {"EIP712Domain": fields, **_list_types(schema)},
        "primaryType": _PRIMARY_TYPE,
        "domain": domain,
        "message": name_fields(offer),
    }


def sign_offer(account: LocalAccount, typed_data: Mapping[str, Any]) -> bytes:
    """Return the signature of ``account``, 65 bytes."""
    message = encode_typed_data(full_message=dict(typed_data))
    return bytes(account.sign_message(message).signature)


def _list_types(schema: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Return the types of an ABI's struct and of those in it, as EIP-712 writes them."""
    name = _get_struct_name(schema)
    own = [{"name": part["name"], "type": _get_type(part)} for part in schema["components"]]
    inner = (part for part in schema["components"] if part["type"] == "tuple")
    return {name: own, **{k: v for part in inner for k, v in _list_types(part).items()}}


def _get_type(part: Mapping[str, Any]) -> str:
    return _get_struct_name(part) if part["type"] == "tuple" else str(part["type"])


def _get_struct_name(part: Mapping[str, Any]) -> str:
    return str(part["internalType"]).removeprefix("struct ")


@dataclass(frozen=True, slots=True)
class OfferCalls:
    """The calls of the contract at ``offers``. Amounts are wei."""

    offers: Address

    def post(self, offer: JobOffer, spec: JobSpec, signature: bytes, value: int = 0) -> Call:
        """Post a signed offer; ``value`` is added to the requester's deposit before."""
        return self._call("postOffer", offer, spec.leaf_values, signature, value=value)

    def deposit(self, requester: Address, amount: int) -> Call:
        """Add to the ether that pays for a requester's offers."""
        return self._call("deposit", requester, value=amount)

    def withdraw(self, amount: int, to: Address) -> Call:
        """Take ether of the sender's deposit back."""
        return self._call("withdraw", amount, to)

    def cancel(self, nonce: int) -> Call:
        """Spend a nonce of the sender's, so that no offer with it can be posted."""
        return self._call("cancelOffer", nonce)

    def _call(self, function: str, *arguments: object, value: int = 0) -> Call:
        data = encode_call(function, *arguments, contract="Offers")
        return Call(self.offers, function, data, value)
