"""Records, the traces of shards and the tree over those of a lease (docs/protocol.md section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

from market.protocol.hashing import ZERO_HASH, Hash32, Role, encode_u256, hash_leaf
from market.protocol.merkle import compute_branch, compute_depth, compute_root
from market.protocol.tensors import compute_state_root


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a segment ended: the gradients and metrics of its last step."""

    gradient_root: Hash32
    metrics_root: Hash32

    def compute_leaf(self) -> Hash32:
        """Return the hash that a record carries in place of the two roots."""
        return hash_leaf(Role.OUTCOME, self.gradient_root + self.metrics_root)


@dataclass(frozen=True, slots=True)
class StateClaim:
    """The two halves of a record's state and its outcome's hash: what can be shown of it."""

    base_root: Hash32
    slot_root: Hash32
    outcome: Hash32 = ZERO_HASH

    @property
    def state_root(self) -> Hash32:
        """The root over both halves."""
        return compute_state_root(self.base_root, self.slot_root)

    def compute_record(self, index: int) -> Hash32:
        """Return record ``index``, a leaf of the trace."""
        return hash_record(index, self.state_root, self.outcome)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How a segment of one of a lease's shards ends: the record after it, which an auditor opens."""

    shard: int  # of the lease, from 0
    segment: int  # of the shard
    state_root: Hash32
    outcome: Outcome

    def compute_record(self) -> Hash32:
        """Return the record that this segment leads to."""
        return hash_record(self.segment + 1, self.state_root, self.outcome.compute_leaf())


def hash_record(index: int, state_root: Hash32, outcome: Hash32) -> Hash32:
    """Return record ``index``: the state after that many segments and how the last one ended."""
    return hash_leaf(Role.RECORD, encode_u256(index) + state_root + outcome)


def compute_records(claims: Sequence[StateClaim]) -> list[Hash32]:
    """Return the leaves of a trace."""
    return [claim.compute_record(index) for index, claim in enumerate(claims)]


def compute_trace_root(claims: Sequence[StateClaim]) -> Hash32:
    """Return the root of all of a shard's records, in order."""
    return compute_root(compute_records(claims))


def compute_record_branch(claims: Sequence[StateClaim], index: int) -> list[Hash32]:
    """Return the branch that opens record ``index``."""
    return compute_branch(compute_records(claims), index)


def compute_position(shard: int, index: int, segments: int) -> int:
    """Return where record ``index`` of the lease's ``shard``-th shard stands in the lease's tree."""
    return (shard << compute_depth(segments + 1)) + index


def split_position(position: int, segments: int) -> tuple[int, int]:
    """Return the shard and the record's index that stand at ``position`` of a lease's tree."""
    height = compute_depth(segments + 1)
    return position >> height, position & ((1 << height) - 1)


def compute_lease_root(traces: Sequence[Sequence[StateClaim]]) -> Hash32:
    """Return the root over the traces of all shards of a lease; of one shard it is the trace root."""
    return compute_root([compute_trace_root(claims) for claims in traces])


def compute_lease_branch(
    traces: Sequence[Sequence[StateClaim]], shard: int, index: int
) -> list[Hash32]:
    """Return the branch that opens record ``index`` of the lease's ``shard``-th shard."""
    roots = [compute_trace_root(claims) for claims in traces]
    return compute_record_branch(traces[shard], index) + compute_branch(roots, shard)
