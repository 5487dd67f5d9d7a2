// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account} from "../src/libraries/Accounts.sol";
import {Bits} from "../src/libraries/Bits.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";

/// @notice What Halmos proves of the arithmetic libraries, for every input: `make prove`.
contract ArithmeticProofs {
    Account private account;
    Lease private lease;

    function _any(uint80 staked, uint80 locked, uint80 earned, uint80 thawing, bool leaving) private {
        account.staked = staked;
        account.locked = locked;
        account.earned = earned;
        account.thawing = leaving ? thawing : 0;
        account.leaving = leaving;
    }

    /// @notice No lock leaves more locked than is staked, and none succeeds beyond what is free.
    function check_a_lock_is_always_covered(
        uint80 staked,
        uint80 locked,
        uint80 thawing,
        bool leaving,
        uint80 amount
    ) external {
        if (locked > staked || thawing > staked) return;
        _any(staked, locked, 0, thawing, leaving);
        uint256 free = account.free();
        try this.lock(amount) {
            assert(amount <= free);
            assert(account.locked == uint256(locked) + amount);
            assert(account.locked <= account.staked);
        } catch {
            assert(amount > free);
        }
    }

    function lock(uint256 amount) external {
        account.lock(amount);
    }

    /// @notice A slash of what is locked never fails, takes exactly that, and cuts what is thawing.
    function check_a_slash_never_fails(
        uint80 staked,
        uint80 locked,
        uint80 thawing,
        bool leaving,
        uint80 amount,
        uint80 loss
    ) external {
        if (locked > staked || thawing > staked || amount > locked || loss > amount) return;
        _any(staked, locked, 0, thawing, leaving);
        account.unlock(amount, loss);
        assert(account.staked == staked - loss);
        assert(account.locked == locked - amount);
        assert(account.locked <= account.staked);
        assert(account.thawing <= account.staked);
    }

    /// @notice What thaws is staked, and taking it out leaves what is locked covered.
    function check_stake_leaves_only_when_it_answers_for_nothing(uint80 staked, uint80 locked, uint80 thawing)
        external
    {
        if (locked > staked || thawing > staked) return;
        _any(staked, locked, 0, thawing, true);
        try this.takeThawed() returns (uint256 amount) {
            assert(amount == thawing);
            assert(account.staked == uint256(staked) - thawing);
            assert(account.locked <= account.staked);
        } catch {
            assert(thawing > staked - locked);
        }
    }

    function takeThawed() external returns (uint256) {
        return account.takeThawed();
    }

    /// @notice A byte counts its bits; wider words are fuzzed.
    function check_a_byte_counts_its_bits(uint8 word) external pure {
        uint256 bits = 0;
        for (uint256 i = 0; i < 8; ++i) {
            bits += (word >> i) & 1;
        }
        assert(Bits.count(word) == bits);
    }

    /// @notice A record stands at one place, and that place names it.
    function check_a_place_names_one_record(uint8 shard, uint16 index, uint16 segments) external pure {
        if (segments < 2 || segments > 256 || index > segments) return;
        uint256 place = Commitments.positionOf(shard, index, segments);
        (uint256 j, uint256 i) = Commitments.recordAt(place, segments);
        assert(j == shard && i == index);
    }

    /// @notice A status that a clock makes is the one after what is stored, and only after the clock.
    function check_a_status_is_what_is_stored_or_the_next(uint8 stored, uint40 clock, uint40 time) external {
        if (stored > uint8(type(LeaseStatus).max)) return;
        (lease.stored, lease.clock) = (LeaseStatus(stored), clock);
        uint8 current = uint8(lease.status(time));
        assert(current == stored || current == stored + 1);
    }
}
