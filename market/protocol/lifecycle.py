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
    REPORTED = 7
    WITHHELD = 8
    CONVENED = 9
    UNCONVENED = 10
    VOTING = 11
    VOTED = 12
    ACCUSED = 13
    ATTESTED = 14
    FINAL = 15
    SETTLED = 16
    SLASHED = 17
    VOIDED = 18
    WITHDRAWN = 19
    LAPSED = 20


# The call that anyone may send in a status whose clock has run out, or that waits for nobody. An accused
# lease's is of its challenge, once that has run out of time.
EXITS: Final[dict[LeaseStatus, str]] = {
    LeaseStatus.EXPIRED: "expire",
    LeaseStatus.COMMITTED: "draw",
    LeaseStatus.UNDRAWN: "slash",
    LeaseStatus.AUDITOR_SILENT: "replaceAuditor",
    LeaseStatus.WITHHELD: "convene",
    LeaseStatus.CONVENED: "drawPanel",
    LeaseStatus.UNCONVENED: "convene",
    LeaseStatus.VOTED: "closeVote",
    LeaseStatus.ACCUSED: "resolve",
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
