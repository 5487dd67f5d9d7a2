// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakes} from "../src/interfaces/IStakes.sol";
import {Accounts} from "../src/libraries/Accounts.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice An account that takes no ether.
contract Wall {
    function withdrawFrom(IStakes stakes) external {
        stakes.withdraw();
    }
}

contract StakesTest is MarketTest {
    function testFuzz_free_stake_comes_back_in_full(uint96 amount) public {
        amount = uint96(clamp(amount, 1, 900 ether));
        uint256 before = STRANGER.balance;
        _stake(STRANGER, amount);

        vm.prank(STRANGER);
        market.unstake(amount);
        vm.prank(STRANGER);
        market.withdraw();

        assertEq(STRANGER.balance, before);
        assertEq(_staked(STRANGER), 0);
        assertEq(market.creditOf(STRANGER), 0);
    }

    function test_more_than_the_free_stake_cannot_be_unstaked() public {
        _claimFirst(); // locks 5 of 20 ether

        vm.expectRevert(
            abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 15 ether, 15 ether + 1)
        );
        vm.prank(PROVIDER);
        market.unstake(15 ether + 1);

        vm.prank(PROVIDER);
        market.unstake(15 ether);
        assertEq(_staked(PROVIDER), 5 ether);
    }

    function test_tickets_are_listed_in_order_under_their_buyer() public view {
        assertEq(market.ticketCount(), 8);
        (address owner, bool leaving) = market.getTicket(4);
        assertEq(owner, COLLEAGUE);
        assertTrue(!leaving, "a new ticket is not leaving");
        assertEq(_auditorStaked(COLLEAGUE), 16 ether);
    }

    function test_tickets_cost_exactly_their_stake() public {
        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesWrongPayment.selector, 9 ether, 8 ether));
        vm.prank(AUDITOR);
        market.buyTickets{value: 9 ether}(2);
    }

    function test_a_retired_ticket_gives_its_stake_back_and_keeps_its_place() public {
        vm.prank(COLLEAGUE);
        market.retireTicket(4);

        (, bool leaving) = market.getTicket(4);
        assertTrue(leaving, "it is leaving");
        assertEq(market.creditOf(COLLEAGUE), 4 ether);
        assertEq(_auditorStaked(COLLEAGUE), 12 ether);
        assertEq(market.ticketCount(), 8);
    }

    function test_a_ticket_is_retired_once_and_by_its_owner() public {
        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesNotTicketOwner.selector, 4, COLLEAGUE, AUDITOR));
        vm.prank(AUDITOR);
        market.retireTicket(4);

        vm.prank(COLLEAGUE);
        market.retireTicket(4);
        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesTicketLeaving.selector, 4));
        vm.prank(COLLEAGUE);
        market.retireTicket(4);
    }

    function test_a_ticket_whose_stake_answers_for_a_lease_cannot_be_retired() public {
        address auditor = _auditorOf(_leaseIn(LeaseStatus.Drawn)); // locks 5 of 16 ether
        uint256 firstTicket = auditor == AUDITOR ? 0 : 4;
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(auditor);
            market.retireTicket(firstTicket + i);
        }

        vm.expectRevert(abi.encodeWithSelector(Accounts.AccountLacksFreeStake.selector, 3 ether, 4 ether));
        vm.prank(auditor);
        market.retireTicket(firstTicket + 2);
    }

    function test_an_account_without_credit_cannot_withdraw() public {
        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesNoCredit.selector, STRANGER));
        vm.prank(STRANGER);
        market.withdraw();
    }

    function test_a_refused_payment_keeps_the_credit() public {
        Wall wall = new Wall();
        vm.deal(address(wall), 1 ether);
        _stake(address(wall), 1 ether);
        vm.prank(address(wall));
        market.unstake(1 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakes.StakesPaymentFailed.selector, address(wall), 1 ether));
        wall.withdrawFrom(market);

        assertEq(market.creditOf(address(wall)), 1 ether);
    }
}
