from dataclasses import asdict, replace

import pytest

from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import InvalidOpening
from market.protocol.hashing import ZERO_HASH, compute_digest
from market.protocol.manifest import (
    Manifest,
    RecordEntry,
    ShardRecords,
    compute_most_shards,
    decode_manifest,
)
from market.protocol.merkle import compute_depth, is_valid_branch
from market.protocol.records import (
    Outcome,
    Reproduction,
    StateClaim,
    compute_lease_branch,
    compute_lease_root,
    compute_position,
    compute_record_branch,
    compute_trace_root,
    split_position,
)

CID = "b" + "a" * 58
CLAIMS = [StateClaim(compute_digest(bytes([i])), ZERO_HASH, ZERO_HASH) for i in range(5)]
REPRODUCTION = Reproduction(0, 2, ZERO_HASH, Outcome(ZERO_HASH, ZERO_HASH))


def _make_traces(shards, segments):
    return [
        [
            StateClaim(compute_digest(bytes([shard, i % 256])), ZERO_HASH, ZERO_HASH)
            for i in range(segments + 1)
        ]
        for shard in range(shards)
    ]


def _manifest(*traces):
    shards = []
    for claims in traces:
        roots = [asdict(claim) for claim in claims]
        records = tuple(RecordEntry(**fields, state=CID) for fields in roots)
        shards.append(ShardRecords(records=records, metrics=CID))
    return Manifest(shards=tuple(shards))


def test_a_record_is_opened_at_its_index_only():
    root = compute_trace_root(CLAIMS)
    branch = compute_record_branch(CLAIMS, 3)

    assert is_valid_branch(CLAIMS[3].compute_record(3), branch, 3, 5, root)
    assert not is_valid_branch(CLAIMS[3].compute_record(2), branch, 3, 5, root)


@pytest.mark.parametrize("field", ["base_root", "slot_root", "outcome"])
def test_a_record_binds_each_of_its_fields(field):
    changed = replace(CLAIMS[1], **{field: compute_digest(b"other")})

    assert compute_trace_root([CLAIMS[0], changed, *CLAIMS[2:]]) != compute_trace_root(CLAIMS)


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
@pytest.mark.parametrize("segments", [2, 3, 4, 8])
def test_every_record_of_a_lease_is_opened_at_its_position_only(shards, segments):
    traces = _make_traces(shards, segments)
    root, count = compute_lease_root(traces), shards << compute_depth(segments + 1)

    for shard, claims in enumerate(traces):
        for index, claim in enumerate(claims):
            position = compute_position(shard, index, segments)
            branch = compute_lease_branch(traces, shard, index)
            record = claim.compute_record(index)
            assert is_valid_branch(record, branch, position, count, root)
            assert not is_valid_branch(record, branch, position ^ 1, count, root)
            assert split_position(position, segments) == (shard, index)


def test_a_lease_of_one_shard_has_its_trace_root():
    assert compute_lease_root([CLAIMS]) == compute_trace_root(CLAIMS)
    assert compute_lease_branch([CLAIMS], 0, 3) == compute_record_branch(CLAIMS, 3)


def test_what_an_auditor_reproduces_is_the_record_after_the_segment():
    claim = StateClaim(CLAIMS[3].base_root, ZERO_HASH, REPRODUCTION.outcome.compute_leaf())

    reproduction = replace(REPRODUCTION, state_root=claim.state_root)

    assert reproduction.compute_record() == claim.compute_record(3)


def test_a_manifest_survives_the_wire():
    traces = _make_traces(3, 4)
    manifest = _manifest(*traces)

    decoded = decode_manifest(manifest.document, 3, 4, compute_lease_root(traces))

    assert decoded == manifest
    assert decoded.traces == traces


@pytest.mark.parametrize("segments", [2, 5, 20, 100, 256])
def test_the_manifest_of_the_most_shards_that_a_lease_can_have_is_one_document(segments):
    most = compute_most_shards(segments)
    traces = _make_traces(most, segments)

    document = _manifest(*traces).document
    one_more = _manifest(*traces, traces[0]).document if most < 256 else None

    assert len(document) <= MAX_DOCUMENT_BYTES
    assert one_more is None or len(one_more) > MAX_DOCUMENT_BYTES
    decode_manifest(document, most, segments, compute_lease_root(traces))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "malformed"),
        (b"\xff", "malformed"),
        (b'{"shards": []}', "malformed"),
        (_manifest(CLAIMS).document, "1 shards in the manifest of 2"),
        (_manifest(CLAIMS, CLAIMS, CLAIMS).document, "3 shards in the manifest of 2"),
        (_manifest(CLAIMS, CLAIMS[:4]).document, "4 records"),
        (_manifest(CLAIMS, CLAIMS[::-1]).document, "leads to"),
        (_manifest(CLAIMS[::-1], CLAIMS).document, "leads to"),
        (b" " * 262_145, "262145 bytes"),
    ],
)
def test_a_manifest_that_does_not_lead_to_the_leases_root_is_refused(data, message):
    with pytest.raises(InvalidOpening, match=message):
        decode_manifest(data, 2, 4, compute_lease_root([CLAIMS, CLAIMS]))
