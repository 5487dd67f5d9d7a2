// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Account, Accounts} from "../src/libraries/Accounts.sol";
import {Test} from "./Vm.sol";

/// @notice An account in storage, as the library needs it.
contract AccountHarness {
    Account private account;

    function get() external view returns (Account memory) {
        return account;
    }

    function deposit(uint256 amount) external {
        account.deposit(amount);
    }

    function lock(uint256 amount) external {
        account.lock(amount);
    }

    function takeThawed() external returns (uint256) {
        return account.takeThawed();
    }

    function unlock(uint256 amount, uint256 loss) external {
        account.unlock(amount, loss);
    }

    function thaw(uint256 amount, uint256 time) external {
        account.thaw(amount, time);
    }
}

contract AccountsTest is Test {
    AccountHarness private harness;

    function setUp() public {
        harness = new AccountHarness();
        harness.deposit(10);
    }

    function testFuzz_locked_and_thawing_stake_exist_whatever_is_locked_thawed_lost_and_taken(
        uint8[4] memory amounts,
        bool takes
    ) public {
        harness.deposit(1_000);
        harness.lock(amounts[0]);
        harness.lock(amounts[1]);
        harness.thaw(1_010 - uint256(amounts[2]), 1_000);
        uint256 lost = clamp(amounts[3], 0, amounts[0]);

        harness.unlock(amounts[0], lost);
        uint256 left = 1_010 - lost;
        if (takes && left - amounts[1] >= harness.get().thawing) left -= harness.takeThawed();

        Account memory account = harness.get();
        assertEq(account.staked, left);
        assertEq(account.locked, amounts[1]);
        assertTrue(account.locked <= account.staked, "locked stake can be slashed");
        assertTrue(account.thawing <= account.staked, "what thaws can leave");
    }

    function test_what_is_locked_or_thaws_answers_for_nothing_new() public {
        harness.lock(3);
        harness.thaw(5, 1_000);

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 2, 3));
        harness.lock(3);
        harness.lock(2);
        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 0, 1));
        harness.lock(1);
    }

    function test_stake_thaws_while_it_is_locked_and_leaves_when_it_is_not() public {
        harness.lock(6);
        harness.thaw(10, 1_000);
        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 0, 1));
        harness.thaw(1, 1_000);
        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 4, 10));
        harness.takeThawed();

        harness.unlock(6, 0);

        assertEq(harness.takeThawed(), 10);
        assertEq(harness.get().staked, 0);
        assertTrue(!harness.get().leaving, "nothing thaws any more");
    }

    function test_slashing_takes_what_thaws_as_any_other_stake() public {
        harness.lock(6);
        harness.thaw(10, 1_000);

        harness.unlock(6, 6);

        assertEq(harness.get().staked, 4);
        assertEq(harness.takeThawed(), 4);
    }

    function test_an_amount_that_an_account_cannot_hold_is_refused() public {
        vm.expectRevert(
            abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 80, uint256(1) << 80)
        );
        harness.deposit((1 << 80) - 10);
    }
}
