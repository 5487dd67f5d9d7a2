"""Records, traces and the manifest that lets an auditor check a trace root (docs/protocol.md 3 and 7)."""

from collections.abc import Sequence
from dataclasses import dataclass

from market.protocol.hashing import ZERO_HASH, Hash32, Role, encode_u256, hash_leaf
from market.protocol.merkle import compute_branch, compute_root
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
    """What an auditor names of one drawn segment: the record after it, opened."""

    segment: int
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


def hash_audit(  # noqa: PLR0913 - what an audit is bound to
    chain_id: int,
    contract: bytes,
    lease_id: int,
    auditor: bytes,
    salt: bytes,
    base_root: Hash32,
    reproductions: Sequence[Reproduction],
) -> Hash32:
    """Return an auditor's commitment (docs/protocol.md section 6); addresses are 20 bytes."""
    head = encode_u256(chain_id) + contract.rjust(32, b"\0") + encode_u256(lease_id)
    body = b"".join(
        encode_u256(r.segment) + r.state_root + r.outcome.gradient_root + r.outcome.metrics_root
        for r in reproductions
    )
    return hash_leaf(Role.AUDIT, head + auditor.rjust(32, b"\0") + salt + base_root + body)
