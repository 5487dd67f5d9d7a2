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
    Drawn, // the auditor is to commit
    AuditorSilent, // derived: Drawn, and it did not in time
    AuditCommitted, // the provider is to open the drawn records
    ProviderSilent, // derived: AuditCommitted, and it did not in time
    Opened, // the auditor is to reveal
    RevealMissed, // derived: Opened, and it did not in time
    Mismatched, // the audit differs; the provider is to respond
    Forfeited, // derived: Mismatched, and it did not in time
    Attested, // the audit is equal; the challenge window runs
    Final, // derived: Attested, and the window is over
    Settled, // paid
    Slashed, // the provider's stake is gone
    Voided, // no audit could be had: no pay
    Withdrawn, // the provider took its commitment back
    Lapsed // an expired lease that was closed
}

/// @notice An exclusive, staked, expiring right to do a shard.
struct Lease {
    address provider;
    uint32 jobId;
    uint16 shard; // round times slots plus slot
    LeaseStatus stored;
    uint40 deadline; // seconds since the epoch: the end of `stored`, where a clock ends it
    //
    address auditor; // zero until drawn
    uint40 drawBlock;
    uint32 tickets; // listed when the trace was committed
    uint8 silences; // auditors in a row that did not commit
    bool redrawn; // the draw that is due or done is not the first
    //
    bytes32 trace; // keccak256 of the committed `Trace`
    // What the audit has come to. AuditCommitted: the auditor's commitment. Opened: keccak256 of it and the
    // opened records. Attested: the slot's own state in the last record, which its next shard begins with.
    bytes32 audit;
    uint256 segments; // drawn: bit i is segment i
}

/// @notice Rules of a lease.
library Leases {
    using SafeCast for uint256;

    function status(Lease storage self) internal view returns (LeaseStatus) {
        LeaseStatus stored = self.stored;
        if (stored == LeaseStatus.Committed) {
            return block.number > self.drawBlock + Draw.HASH_WINDOW ? LeaseStatus.Undrawn : stored;
        }
        if (block.timestamp <= self.deadline) return stored;
        if (stored == LeaseStatus.Leased) return LeaseStatus.Expired;
        if (stored == LeaseStatus.Drawn) return LeaseStatus.AuditorSilent;
        if (stored == LeaseStatus.AuditCommitted) return LeaseStatus.ProviderSilent;
        if (stored == LeaseStatus.Opened) return LeaseStatus.RevealMissed;
        if (stored == LeaseStatus.Mismatched) return LeaseStatus.Forfeited;
        if (stored == LeaseStatus.Attested) return LeaseStatus.Final;
        return stored;
    }

    /// @notice Whether the shard's result stands: its audit was equal and nothing has undone it.
    function isAttested(Lease storage self) internal view returns (bool) {
        LeaseStatus stored = self.stored;
        return stored == LeaseStatus.Attested || stored == LeaseStatus.Settled;
    }

    /// @notice Go to `next`, which its clock ends after `duration` seconds.
    function enter(Lease storage self, LeaseStatus next, uint256 duration)
        internal
        returns (uint256 deadline)
    {
        deadline = block.timestamp + duration;
        self.stored = next;
        self.deadline = deadline.toUint40();
    }
}
