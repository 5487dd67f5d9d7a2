// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Draw} from "./Draw.sol";

using Leases for Lease global;

/// @notice Where a lease is in its life. Those that a clock decides are derived and never stored.
enum LeaseStatus {
    None, // never claimed
    Leased, // to be committed
    Expired, // derived: Leased, and the lease time is over
    Committed, // waiting for the draw
    Undrawn, // derived: Committed, and the chain has forgotten the draw block's hash
    Drawn, // the auditor is to attest, accuse, decline or report
    AuditorSilent, // derived: Drawn, and it did not in time
    Reported, // the auditor cannot fetch what it needs; the provider is to publish again
    Withheld, // derived: Reported, and the grace period is over
    Convened, // a panel is to be drawn
    Unconvened, // derived: Convened, and the chain has forgotten the panel's block
    Voting, // the panel votes on whether everything can be fetched
    Voted, // derived: Voting, and its time is over
    Accused, // the auditor differs: its challenge is to be decided
    Attested, // the audit was equal; the challenge window runs
    Final, // derived: Attested, the window is over and no challenge is open
    Settled, // paid
    Slashed, // the provider's stake is gone
    Voided, // no audit could be had: no pay
    Withdrawn, // the provider took its commitment back
    Lapsed // an expired lease that was closed
}

/// @notice An exclusive, staked, expiring right to do some shards of a round: one slot of storage, and a root.
struct Lease {
    uint32 operator; // the provider
    uint32 auditor; // zero until drawn
    uint24 tickets; // listed when the root was committed
    uint16 round;
    uint8 first; // slot
    uint8 extra; // shards less one
    uint16 priceBps; // of the job's price per shard
    LeaseStatus stored;
    uint40 clock; // the end of `stored`, in the market's time; Committed and Convened: the block that draws
    uint8 silences; // auditors in a row that did not speak
    uint8 redraws; // draws after the first
    uint8 challenges; // open ones
    uint48 seed; // of the drawn segments; zero until drawn
    //
    bytes32 root; // over the traces of all its shards
}

/// @notice Rules of a lease.
library Leases {
    using SafeCast for uint256;

    /// @param time The market's.
    function status(Lease storage self, uint256 time) internal view returns (LeaseStatus) {
        LeaseStatus stored = self.stored;
        if (stored == LeaseStatus.Committed || stored == LeaseStatus.Convened) {
            bool forgotten = block.number > self.clock + Draw.HASH_WINDOW;
            return forgotten ? LeaseStatus(uint8(stored) + 1) : stored;
        }
        // INVARIANT: what a clock makes of a status stands after it in the enumeration.
        bool timed = stored == LeaseStatus.Leased || stored == LeaseStatus.Drawn
            || stored == LeaseStatus.Reported || stored == LeaseStatus.Voting
            || (stored == LeaseStatus.Attested && self.challenges == 0);
        return timed && time > self.clock ? LeaseStatus(uint8(stored) + 1) : stored;
    }

    /// @notice How many shards it is for.
    function count(Lease storage self) internal view returns (uint256) {
        return uint256(self.extra) + 1;
    }

    /// @notice The bits of its slots.
    function mask(Lease storage self) internal view returns (uint256) {
        return (type(uint256).max >> (255 - self.extra)) << self.first;
    }

    /// @notice Go to `next`, which its clock ends after `duration` seconds.
    function enter(Lease storage self, LeaseStatus next, uint256 time, uint256 duration)
        internal
        returns (uint256 deadline)
    {
        deadline = time + duration;
        self.stored = next;
        self.clock = deadline.toUint40();
    }

    /// @notice Go to `next`, Committed or Convened, in which block `number` will draw.
    function await(Lease storage self, LeaseStatus next, uint256 number) internal {
        self.stored = next;
        self.clock = number.toUint40();
    }
}
