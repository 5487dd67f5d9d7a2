"""The manifest that a provider publishes with its commitment (docs/protocol.md section 7).

It shows every record but the gradients, so anyone can recompute the trace root and none can copy an audit."""

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from market.protocol.constants import MAX_DOCUMENT_BYTES, MAX_SEGMENTS
from market.protocol.errors import InvalidOpening
from market.protocol.hashing import Hash32
from market.protocol.records import StateClaim, compute_trace_root
from market.protocol.spec import Cid, HexHash


class RecordEntry(BaseModel):
    """One record as shown, and where the bytes of its state are (once they are published)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    base_root: HexHash
    slot_root: HexHash
    outcome: HexHash
    state: Cid

    @property
    def claim(self) -> StateClaim:
        """The record's contents."""
        return StateClaim(self.base_root, self.slot_root, self.outcome)


class Manifest(BaseModel):
    """The records 0..n of a shard, and the metrics of every step.

    ``metrics`` is a matrix of `f32`, a row a step; only the last row of a segment is in its record."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    records: Annotated[tuple[RecordEntry, ...], Field(min_length=3, max_length=MAX_SEGMENTS + 1)]
    metrics: Cid

    @property
    def document(self) -> bytes:
        """The canonical JSON whose digest is named on chain."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def claims(self) -> list[StateClaim]:
        """The contents of all records."""
        return [entry.claim for entry in self.records]

    @property
    def trace_root(self) -> Hash32:
        """The root that the commitment must show."""
        return compute_trace_root(self.claims)


def decode_manifest(data: bytes, segments: int, trace_root: Hash32) -> Manifest:
    """Return the manifest in ``data``; raise InvalidOpening unless it leads to ``trace_root``."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidOpening(f"a manifest of {len(data)} bytes: at most {MAX_DOCUMENT_BYTES}")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidOpening(f"the manifest is malformed: {error.error_count()} faults") from error
    if len(manifest.records) != segments + 1:
        raise InvalidOpening(f"{len(manifest.records)} records for {segments} segments")
    if manifest.trace_root != trace_root:
        raise InvalidOpening(
            f"the manifest leads to {manifest.trace_root.hex()}, not to {trace_root.hex()}"
        )
    return manifest
