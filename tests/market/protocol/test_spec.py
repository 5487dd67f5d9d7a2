import json
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.errors import InvalidSpec
from market.protocol.hashing import Role, encode_u256, hash_leaf
from market.protocol.merkle import compute_branch, is_valid_branch
from market.protocol.spec import (
    JobSpec,
    compute_minimum_stake,
    compute_spec_hash,
    decode_spec,
    parse_spec,
)

CID = "b" + "a" * 58
ROOT = "0x" + "11" * 32
ETHER = 10**18


def make_document(**changes):
    """A valid job's document as a dictionary, with ``changes`` (dotted names reach inside)."""
    document = {
        "name": "demo",
        "model": "llama",
        "program": {"cid": CID, "root": ROOT},
        "outer": {"cid": CID, "root": ROOT},
        "dataset": {"cid": CID, "root": ROOT},
        "initial_state": {"cid": CID, "base_root": ROOT, "slot_root": ROOT},
        "rounds": 2,
        "slots": 3,
        "segments": 8,
        "steps_per_segment": 16,
        "conformance": ROOT,
        "terms": {
            "asset": 0,
            "price_per_shard": str(ETHER),
            "floor_bps": 10_000,
            "ramp_time_s": 0,
            "audit_fee": "5",
            "stake_per_shard": str(8 * ETHER),
            "poison_value": "0",
            "lease_time_s": 60,
            "round_time_s": 0,
            "quorum": None,
            "samples": 2,
            "deadline": 2_000_000_000,
        },
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        target = document
        for key in path:
            target = target[key]
        target[last] = value
    return document


def parse(**changes) -> JobSpec:
    return parse_spec(json.dumps(make_document(**changes)))


def test_a_document_is_canonical_and_comes_back_the_same():
    spec = parse()

    assert decode_spec(spec.document) == spec
    assert json.loads(spec.document) == make_document()
    assert b" " not in spec.document


def test_a_document_in_another_form_is_another_document():
    with pytest.raises(InvalidSpec, match="canonical"):
        decode_spec(json.dumps(make_document()).encode())


def test_any_leaf_of_the_spec_hash_can_be_opened():
    spec = parse()
    leaves = [hash_leaf(Role.SPEC, encode_u256(i) + v) for i, v in enumerate(spec.leaf_values)]

    for index, leaf in enumerate(leaves):
        branch = compute_branch(leaves, index)
        assert is_valid_branch(leaf, branch, index, 8, spec.spec_hash)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("program__root", "0x" + "22" * 32),
        ("dataset__cid", "b" + "b" * 58),
        ("terms__audit_fee", "6"),
        ("steps_per_segment", 17),
    ],
)
def test_every_field_changes_the_spec_hash(field, value):
    assert parse(**{field: value}).spec_hash != parse().spec_hash


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("segments", 1, "segments"),
        ("steps_per_segment", 1, "steps_per_segment"),
        ("slots", 0, "slots"),
        ("rounds", True, "rounds"),
        ("program__root", "0x12", "program.root"),
        ("program__root", "0x" + "AA" * 32, "program.root"),
        ("dataset__cid", "Qm" + "a" * 44, "dataset.cid"),
        ("terms__price_per_shard", "1e18", "price_per_shard"),
        ("terms__price_per_shard", 1.5, "price_per_shard"),
        ("terms__price_per_shard", "-1", "price_per_shard"),
        ("terms__price_per_shard", "01", "price_per_shard"),
        ("terms__price_per_shard", "0", "price_per_shard"),
        ("terms__price_per_shard", str(2**80), "price_per_shard"),
        ("terms__audit_fee", str(2**80), "audit_fee"),
        ("terms__stake_per_shard", str(2**80), "stake_per_shard"),
        ("terms__poison_value", str(2**80), "poison_value"),
        ("terms__samples", 9, "samples"),
        ("terms__asset", 256, "asset"),
        ("terms__floor_bps", 10_001, "floor_bps"),
        ("terms__ramp_time_s", 2**32, "ramp_time_s"),
        ("terms__quorum", 0, "quorum"),
        ("terms__quorum", 2, "needs round_time_s"),
        ("terms__quorum", 4, "quorum of 4 in rounds of 3"),
        ("terms__round_time_s", 59, "less than its 60 s"),
        ("terms__deadline", 2**40, "deadline"),
        ("unknown", 1, "unknown"),
    ],
)
def test_a_malformed_spec_is_refused_with_the_field_at_fault(field, value, names):
    with pytest.raises(InvalidSpec, match=names):
        parse(**{field: value})


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"{", b"null", b"9" * 300_000])
def test_what_is_no_document_at_all_is_refused(data):
    with pytest.raises(InvalidSpec):
        parse_spec(data)


def test_terms_under_which_cheating_pays_are_refused():
    least = compute_minimum_stake(parse().terms, 8)

    with pytest.raises(InvalidSpec, match=str(least)):
        parse(terms__stake_per_shard=str(least - 1))
    assert parse(terms__stake_per_shard=str(least)).terms.stake_per_shard == least


def test_a_quorum_is_all_slots_unless_the_terms_name_one():
    some = parse(terms__quorum=2, terms__round_time_s=60)

    assert (parse().quorum, some.quorum) == (3, 2)
    assert parse(terms__quorum=3).quorum == 3


@pytest.mark.parametrize(
    ("segments", "samples", "multiple"),
    [(20, 1, 36.975), (20, 2, 18.474), (20, 5, 7.393), (8, 2, 7.1013), (2, 2, 1.5316)],
)
def test_the_minimum_stake_is_this_multiple_of_the_price(segments, samples, multiple):
    terms = parse().terms.model_copy(update={"samples": samples})

    least = compute_minimum_stake(terms, segments)

    assert least == pytest.approx(multiple * ETHER, rel=1e-4)


@given(
    price=st.integers(1, 2**80 - 1),
    poison=st.integers(0, 2**80 - 1),
    segments=st.integers(2, 256),
    shards=st.integers(1, 8),
    data=st.data(),
)
def test_at_the_minimum_stake_no_number_of_lies_gains_anything(
    price, poison, segments, shards, data
):
    samples = data.draw(st.integers(1, min(16, segments)))
    update = {"price_per_shard": price, "poison_value": poison, "samples": samples}
    terms = parse().terms.model_copy(update=update)

    stake = compute_minimum_stake(terms, segments)

    draws = comb(shards * segments, samples)
    for lies in range(1, shards + 1):  # one false segment in each of so many shards
        found = Fraction(2, 3) * (1 - Fraction(comb(shards * segments - lies, samples), draws))
        punished = found * Fraction(79, 100)  # the rest withholds, and a panel lets it
        assert punished * shards * (stake + price) >= lies * (price + poison)


def test_the_spec_hash_is_over_exactly_these_leaves():
    spec = parse()
    schedule = b"".join(n.to_bytes(8, "big") for n in (2, 3, 8, 16))

    assert spec.leaf_values[5] == schedule
    assert compute_spec_hash(spec.leaf_values) == spec.spec_hash
