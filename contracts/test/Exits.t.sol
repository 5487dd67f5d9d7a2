// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice Whoever leaves at whatever moment, a stranger can bring the lease to an end and the money home.
contract ExitsTest is MarketTest {
    function test_every_status_is_left_by_a_stranger_when_its_people_abandon_it() public {
        for (uint256 i = uint256(LeaseStatus.Leased); i <= uint256(LeaseStatus.Lapsed); ++i) {
            setUp();
            uint256 leaseId = _leaseIn(LeaseStatus(i));
            assertStatus(leaseId, LeaseStatus(i));

            _finish(leaseId);

            assertEq(_locked(PROVIDER), 0);
            assertEq(_auditorLocked(AUDITOR), 0);
            assertEq(_auditorLocked(COLLEAGUE), 0);
            assertEq(market.getJob(1).active, 0);
            vm.warp(block.timestamp + 20_000);
            vm.prank(STRANGER);
            market.closeJob(1);
            assertEq(market.getJob(1).escrow, 0);
        }
    }

    /// @notice What a stranger (this contract) does about a lease, with nothing but time.
    function _finish(uint256 leaseId) private {
        while (market.getJob(1).active > 0) {
            vm.warp(block.timestamp + 5_000);
            LeaseStatus current = market.status(leaseId);
            if (current == LeaseStatus.Expired) {
                market.expire(leaseId);
            } else if (current == LeaseStatus.Committed) {
                _draw(leaseId);
            } else if (current == LeaseStatus.AuditorSilent || current == LeaseStatus.RevealMissed) {
                market.replaceAuditor(leaseId);
            } else if (current == LeaseStatus.Final) {
                market.settle(leaseId);
            } else {
                market.slash(leaseId);
            }
        }
    }
}
