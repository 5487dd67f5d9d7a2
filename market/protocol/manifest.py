"""The manifest that a provider publishes with its commitment (docs/protocol.md section 7).

It shows every record but the gradients: anyone can recompute the root, and nobody can copy an audit."""

import json
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from market.protocol.constants import MAX_DOCUMENT_BYTES, MAX_SEGMENTS, MAX_SLOTS
from market.protocol.errors import InvalidOpening
from market.protocol.hashing import Hash32
from market.protocol.records import StateClaim, compute_lease_root
from market.protocol.spec import Cid, HexHash

_RECORD_BYTES: Final = 313  # three roots, a CID and their names, with the comma
_SHARD_BYTES: Final = (
    86  # the metrics' CID and the names, with a comma for the one that the last record lacks
)
_FRAME_BYTES: Final = 12


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RecordEntry(_Part):
    """One record as shown, and where the bytes of its state are (once they are published)."""

    base_root: HexHash
    slot_root: HexHash
    outcome: HexHash
    state: Cid

    @property
    def claim(self) -> StateClaim:
        """The record's contents."""
        return StateClaim(self.base_root, self.slot_root, self.outcome)


class ShardRecords(_Part):
    """The records 0..n of a shard, and the metrics of every step.

    ``metrics`` is a matrix of `f32`, a row a step; only the last row of a segment is in its record."""

    records: Annotated[tuple[RecordEntry, ...], Field(min_length=3, max_length=MAX_SEGMENTS + 1)]
    metrics: Cid

    @property
    def claims(self) -> list[StateClaim]:
        """The contents of all records."""
        return [entry.claim for entry in self.records]


class Manifest(_Part):
    """What all shards of a lease went through, in the order of their slots."""

    shards: Annotated[tuple[ShardRecords, ...], Field(min_length=1, max_length=MAX_SLOTS)]

    @property
    def document(self) -> bytes:
        """The canonical JSON whose digest is named on chain."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def traces(self) -> list[list[StateClaim]]:
        """The contents of all records of each shard."""
        return [shard.claims for shard in self.shards]

    @property
    def root(self) -> Hash32:
        """The root that the commitment must show."""
        return compute_lease_root(self.traces)


def compute_most_shards(segments: int) -> int:
    """Return how many shards a lease can have at most: its manifest is one document."""
    shard_bytes = (segments + 1) * _RECORD_BYTES + _SHARD_BYTES
    return min(MAX_SLOTS, (MAX_DOCUMENT_BYTES - _FRAME_BYTES) // shard_bytes)


def decode_manifest(data: bytes, shards: int, segments: int, root: Hash32) -> Manifest:
    """Return the manifest in ``data``; raise InvalidOpening unless it leads to the lease's ``root``."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidOpening(f"a manifest of {len(data)} bytes: at most {MAX_DOCUMENT_BYTES}")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidOpening(f"the manifest is malformed: {error.error_count()} faults") from error
    if len(manifest.shards) != shards:
        raise InvalidOpening(f"{len(manifest.shards)} shards in the manifest of {shards}")
    for shard in manifest.shards:
        if len(shard.records) != segments + 1:
            raise InvalidOpening(f"{len(shard.records)} records for {segments} segments")
    if manifest.root != root:
        raise InvalidOpening(f"the manifest leads to {manifest.root.hex()}, not to {root.hex()}")
    return manifest
