"""The draw: what a proven header's randomness selects (docs/protocol.md section 5)."""

from enum import IntEnum

from market.protocol.constants import MAX_TICKET_TRIES, PANEL_TRIES
from market.protocol.hashing import Hash32, Role, compute_digest, encode_u256, hash_leaf


class Purpose(IntEnum):
    """What entropy is drawn for."""

    JOB_SEED = 1
    SEGMENTS = 2
    TICKET = 3
    PANEL = 4


def compute_entropy(purpose: Purpose, identifier: int, mix_hash: bytes) -> Hash32:
    """Return the seed that a header's ``mix_hash`` gives for one purpose."""
    return hash_leaf(Role.DRAW, encode_u256(purpose) + encode_u256(identifier) + mix_hash)


def compute_number(seed: Hash32, counter: int) -> int:
    """Return the 256-bit number at ``counter`` of the stream of ``seed``."""
    return int.from_bytes(compute_digest(seed + encode_u256(counter)), "big")


def compute_job_seed(job_id: int, mix_hash: bytes) -> int:
    """Return a job's 64-bit seed."""
    return int.from_bytes(compute_entropy(Purpose.JOB_SEED, job_id, mix_hash)[:8], "big")


def compute_segment_seed(lease_id: int, mix_hash: bytes) -> int:
    """Return the 48-bit seed of a lease's segments, as the contract keeps it; it is never zero."""
    entropy = compute_entropy(Purpose.SEGMENTS, lease_id, mix_hash)
    return int.from_bytes(entropy[-6:], "big") or 1


def choose_segments(seed: int, count: int, samples: int) -> list[int]:
    """Return ``samples`` different segments of ``count`` in the order of the draw (R. Floyd's method).

    Each subset is as likely as any other. Segment ``i`` of a lease's ``j``-th shard of n is ``j * n + i``."""
    chosen: list[int] = []
    for j in range(samples):
        last = count - samples + j
        pick = compute_number(Hash32(encode_u256(seed)), j) % (last + 1)
        chosen.append(last if pick in chosen else pick)
    return chosen


def draw_segments(lease_id: int, mix_hash: bytes, count: int, samples: int) -> list[int]:
    """Return the segments that a header draws for a lease of ``count`` segments in all."""
    return choose_segments(compute_segment_seed(lease_id, mix_hash), count, samples)


def draw_tickets(lease_id: int, mix_hash: bytes, tickets: int) -> list[int]:
    """Return the candidates for the audit in the order in which they are tried."""
    seed = compute_entropy(Purpose.TICKET, lease_id, mix_hash)
    return [compute_number(seed, k) % tickets for k in range(MAX_TICKET_TRIES)]


def draw_panel(lease_id: int, mix_hash: bytes, tickets: int) -> list[int]:
    """Return the candidates for a panel in the order in which they are tried."""
    seed = compute_entropy(Purpose.PANEL, lease_id, mix_hash)
    return [compute_number(seed, k) % tickets for k in range(PANEL_TRIES)]
