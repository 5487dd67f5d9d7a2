// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

using Accounts for Account global;

/// @notice What somebody has at stake, and how much of it answers for open leases.
struct Account {
    uint128 staked; // wei
    uint128 locked; // wei, at most `staked`
}

/// @notice Rules of a stake account.
library Accounts {
    using SafeCast for uint256;

    error AccountLacksFreeStake(uint256 free, uint256 required);

    function free(Account storage self) internal view returns (uint256) {
        return self.staked - self.locked; // INVARIANT: locked <= staked, so what is locked can be slashed
    }

    /// @notice Add `amount`, which the caller has received.
    function deposit(Account storage self, uint256 amount) internal {
        self.staked += amount.toUint128();
    }

    /// @notice Take `amount` of free stake out.
    function take(Account storage self, uint256 amount) internal {
        _requireFree(self, amount);
        self.staked -= amount.toUint128();
    }

    /// @notice Make `amount` of free stake answer for a lease.
    function lock(Account storage self, uint256 amount) internal {
        _requireFree(self, amount);
        self.locked += amount.toUint128();
    }

    /// @notice Unlock the `amount` that answered for a lease, less a `fee` (at most `amount`) that is lost.
    function unlock(Account storage self, uint256 amount, uint256 fee) internal {
        self.locked -= amount.toUint128();
        self.staked -= fee.toUint128();
    }

    function _requireFree(Account storage self, uint256 amount) private view {
        uint256 available = self.free();
        if (available < amount) revert AccountLacksFreeStake(available, amount);
    }
}
