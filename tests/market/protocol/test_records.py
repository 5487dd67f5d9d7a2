from dataclasses import replace

import pytest

from market.protocol.errors import InvalidOpening
from market.protocol.hashing import ZERO_HASH, compute_digest
from market.protocol.manifest import Manifest, RecordEntry, decode_manifest
from market.protocol.merkle import is_valid_branch
from market.protocol.records import (
    Outcome,
    Reproduction,
    StateClaim,
    compute_record_branch,
    compute_trace_root,
    hash_audit,
)

CID = "b" + "a" * 58
CLAIMS = [StateClaim(compute_digest(bytes([i])), ZERO_HASH, ZERO_HASH) for i in range(5)]
AUDIT = (31337, bytes(20), 1, bytes(range(20)), bytes(32), ZERO_HASH)
REPRODUCTION = Reproduction(2, ZERO_HASH, Outcome(ZERO_HASH, ZERO_HASH))


def _manifest(claims):
    return Manifest(
        records=tuple(
            RecordEntry(base_root=c.base_root, slot_root=c.slot_root, outcome=c.outcome, state=CID)
            for c in claims
        ),
        metrics=CID,
    )


def test_a_record_is_opened_at_its_index_only():
    root = compute_trace_root(CLAIMS)
    branch = compute_record_branch(CLAIMS, 3)

    assert is_valid_branch(CLAIMS[3].compute_record(3), branch, 3, 5, root)
    assert not is_valid_branch(CLAIMS[3].compute_record(2), branch, 3, 5, root)


@pytest.mark.parametrize("field", ["base_root", "slot_root", "outcome"])
def test_a_record_binds_each_of_its_fields(field):
    changed = replace(CLAIMS[1], **{field: compute_digest(b"other")})

    assert compute_trace_root([CLAIMS[0], changed, *CLAIMS[2:]]) != compute_trace_root(CLAIMS)


@pytest.mark.parametrize("position", range(6))
def test_an_audit_is_bound_to_chain_contract_lease_auditor_salt_and_base(position):
    changed = list(AUDIT)
    value = changed[position]
    changed[position] = value + 1 if isinstance(value, int) else value[:-1] + b"\x77"

    assert hash_audit(*changed, [REPRODUCTION]) != hash_audit(*AUDIT, [REPRODUCTION])


def test_an_audit_is_bound_to_the_gradient_root():
    other = replace(REPRODUCTION, outcome=Outcome(compute_digest(b"g"), ZERO_HASH))

    assert hash_audit(*AUDIT, [other]) != hash_audit(*AUDIT, [REPRODUCTION])


def test_what_an_auditor_reproduces_is_the_record_after_the_segment():
    claim = StateClaim(CLAIMS[3].base_root, ZERO_HASH, REPRODUCTION.outcome.compute_leaf())

    reproduction = replace(REPRODUCTION, state_root=claim.state_root)

    assert reproduction.compute_record() == claim.compute_record(3)


def test_a_manifest_survives_the_wire():
    manifest = _manifest(CLAIMS)

    decoded = decode_manifest(manifest.document, 4, compute_trace_root(CLAIMS))

    assert decoded == manifest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "malformed"),
        (b"\xff", "malformed"),
        (_manifest(CLAIMS[:4]).document, "4 records"),
        (_manifest(CLAIMS[::-1]).document, "leads to"),
        (b" " * 262_145, "262145 bytes"),
    ],
)
def test_a_manifest_that_does_not_lead_to_the_trace_root_is_refused(data, message):
    with pytest.raises(InvalidOpening, match=message):
        decode_manifest(data, 4, compute_trace_root(CLAIMS))
