// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

using Challenges for Challenge global;

/// @notice Where a challenge is. Those that a clock decides are derived and never stored.
enum ChallengeStatus {
    None,
    Open, // the provider is to open the record
    Unanswered, // derived: Open, and it did not in time
    Answered, // the judge is to rule
    Unruled, // derived: Answered, and it did not in time
    Upheld, // the provider was wrong
    Rejected, // the challenger was
    Dropped // undecided, or the lease was over before
}

/// @notice An accusation of one record of a lease: by its auditor with its locked stake, or by anyone with a bond.
struct Challenge {
    address challenger;
    uint64 leaseId;
    bool byAuditor;
    ChallengeStatus stored;
    //
    uint24 position; // of the record in the lease's tree
    uint40 clock; // the end of `stored`, in the market's time
    uint80 bond; // base units; zero for an auditor
    //
    bytes32 opened; // keccak256 of what the provider opened, for the judge
}

/// @notice Rules of a challenge.
library Challenges {
    function status(Challenge storage self, uint256 time) internal view returns (ChallengeStatus) {
        ChallengeStatus stored = self.stored;
        bool timed = stored == ChallengeStatus.Open || stored == ChallengeStatus.Answered;
        return timed && time > self.clock ? ChallengeStatus(uint8(stored) + 1) : stored;
    }

    /// @notice Whether it still awaits a decision.
    function isPending(Challenge storage self) internal view returns (bool) {
        return self.stored == ChallengeStatus.Open || self.stored == ChallengeStatus.Answered;
    }
}
