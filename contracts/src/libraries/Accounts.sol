// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

using Accounts for Account global;

/// @notice In what an operator's stake answers: for the leases that it holds, or for those that it audits.
enum Role {
    Provider,
    Auditor
}

/// @notice What an operator has at stake in one role and asset. Amounts are base units below 2^80.
struct Account {
    uint80 staked; // everything that can be slashed
    uint80 locked; // answers for leases, at most `staked`
    uint80 earned; // to be paid out
    bool leaving; // something is thawing
    //
    uint80 thawing; // part of `staked`, at most all of it; answers for no new lease
    uint40 thawedAt; // seconds of the market's time: from then on it can be withdrawn
}

/// @notice Rules of a stake account.
/// @dev Stake may thaw while it answers for leases, and leaves when it no longer does: an exit need not wait for the
/// last settlement to begin, and slashing takes thawing stake as any other.
library Accounts {
    using SafeCast for uint256;

    error AccountLacksFreeStake(uint256 free, uint256 required);

    /// @notice What can answer for another lease.
    function free(Account storage self) internal view returns (uint256) {
        uint256 used = self.locked;
        if (self.leaving) used += self.thawing;
        uint256 staked = self.staked;
        return staked > used ? staked - used : 0;
    }

    /// @notice Add `amount`, which the market has received.
    function deposit(Account storage self, uint256 amount) internal {
        self.staked = SafeCast.toUint80(self.staked + amount);
    }

    /// @notice Owe the operator `amount` more.
    function earn(Account storage self, uint256 amount) internal {
        self.earned = SafeCast.toUint80(self.earned + amount);
    }

    /// @notice Make `amount` of free stake answer for a lease.
    function lock(Account storage self, uint256 amount) internal {
        _require(self.free(), amount);
        self.locked += amount.toUint80();
    }

    /// @notice Unlock the `amount` that answered for a lease, and take `loss` (at most `amount`) of it away.
    /// @dev INVARIANT: locked <= staked, so neither subtraction can fail, and no slash can be blocked.
    function unlock(Account storage self, uint256 amount, uint256 loss) internal {
        self.locked -= amount.toUint80();
        if (loss == 0) return;
        uint80 staked = self.staked - loss.toUint80();
        self.staked = staked;
        if (self.leaving && self.thawing > staked) self.thawing = staked;
    }

    /// @notice Let `amount` of what is not thawing yet thaw until `time`, and all else that is thawing.
    function thaw(Account storage self, uint256 amount, uint256 time) internal {
        _require(self.staked - self.thawing, amount);
        self.leaving = true;
        self.thawing += amount.toUint80();
        self.thawedAt = time.toUint40();
    }

    /// @notice Take out all that has thawed, once it answers for no lease.
    /// @return amount What left.
    function takeThawed(Account storage self) internal returns (uint256 amount) {
        amount = self.thawing;
        _require(self.staked - self.locked, amount);
        self.staked -= uint80(amount);
        self.thawing = 0;
        self.leaving = false;
    }

    function _require(uint256 available, uint256 amount) private pure {
        if (available < amount) revert AccountLacksFreeStake(available, amount);
    }
}
