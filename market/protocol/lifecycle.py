"""The life of a lease (DESIGN section 5): its statuses, and the call that leads out of each."""

from enum import IntEnum
from typing import Final


class LeaseStatus(IntEnum):
    """Where a lease is; numbered as in Solidity. A status that a clock decides is derived there."""

    NONE = 0
    LEASED = 1
    EXPIRED = 2
    COMMITTED = 3
    UNDRAWN = 4
    DRAWN = 5
    AUDITOR_SILENT = 6
    AUDIT_COMMITTED = 7
    PROVIDER_SILENT = 8
    OPENED = 9
    REVEAL_MISSED = 10
    MISMATCHED = 11
    FORFEITED = 12
    ATTESTED = 13
    FINAL = 14
    SETTLED = 15
    SLASHED = 16
    VOIDED = 17
    WITHDRAWN = 18
    LAPSED = 19


# The call that anyone may send in a status whose clock has run out, or that waits for nobody.
EXITS: Final[dict[LeaseStatus, str]] = {
    LeaseStatus.EXPIRED: "expire",
    LeaseStatus.COMMITTED: "draw",
    LeaseStatus.UNDRAWN: "slash",
    LeaseStatus.AUDITOR_SILENT: "replaceAuditor",
    LeaseStatus.PROVIDER_SILENT: "slash",
    LeaseStatus.REVEAL_MISSED: "replaceAuditor",
    LeaseStatus.FORFEITED: "slash",
    LeaseStatus.FINAL: "settle",
}

# A lease in one of these is over: nothing can be sent for it any more.
CLOSED: Final = frozenset(
    {
        LeaseStatus.SETTLED,
        LeaseStatus.SLASHED,
        LeaseStatus.VOIDED,
        LeaseStatus.WITHDRAWN,
        LeaseStatus.LAPSED,
    }
)
