import json

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
            "price_per_shard": str(ETHER),
            "audit_fee": "5",
            "stake_per_lease": str(6 * ETHER),
            "poison_value": "0",
            "lease_time_s": 60,
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
        ("terms__samples", 9, "samples"),
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
        parse(terms__stake_per_lease=str(least - 1))
    assert parse(terms__stake_per_lease=str(least)).terms.stake_per_lease == least


@pytest.mark.parametrize(
    ("segments", "samples", "multiple"), [(20, 2, 14), (20, 5, 5), (8, 2, 5), (2, 2, 1)]
)
def test_the_minimum_stake_is_the_designs(segments, samples, multiple):
    terms = parse(segments=20, terms__samples=2, terms__stake_per_lease=str(99 * ETHER)).terms

    least = compute_minimum_stake(terms.model_copy(update={"samples": samples}), segments)

    assert least == pytest.approx(multiple * ETHER) or least == multiple * ETHER // 2


@given(
    price=st.integers(0, 10**21),
    poison=st.integers(0, 10**21),
    segments=st.integers(2, 256),
    data=st.data(),
)
def test_at_the_minimum_stake_one_lie_never_gains_anything(price, poison, segments, data):
    samples = data.draw(st.integers(1, min(16, segments)))
    update = {"price_per_shard": price, "poison_value": poison, "samples": samples}
    terms = parse().terms.model_copy(update=update)

    stake = compute_minimum_stake(terms, segments)

    # caught with q = 2m / 3n: expected gain (1 - q)(R + V) - q S <= 0, scaled by 3n
    caught = 2 * samples
    assert (3 * segments - caught) * (price + poison) - caught * (stake + poison) <= 0


def test_the_spec_hash_is_over_exactly_these_leaves():
    spec = parse()
    schedule = b"".join(n.to_bytes(8, "big") for n in (2, 3, 8, 16))

    assert spec.leaf_values[5] == schedule
    assert compute_spec_hash(spec.leaf_values) == spec.spec_hash
