// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ChallengeStatus} from "../src/libraries/Challenges.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";
import {Strangers} from "./Strangers.sol";

/// @notice Whoever leaves at whatever moment, a stranger can bring the lease to an end and the money home.
contract ExitsTest is LeaseStates, Strangers {
    function test_every_status_is_left_by_a_stranger_when_its_people_abandon_it() public {
        for (uint256 i = uint256(LeaseStatus.Leased); i <= uint256(type(LeaseStatus).max); ++i) {
            setUp();
            uint256 leaseId = _leaseIn(LeaseStatus(i));

            _finish(leaseId);

            _assertOver();
        }
    }

    function test_every_status_of_a_challenge_is_left_by_a_stranger() public {
        for (uint256 i = 0; i < 4; ++i) {
            setUp();
            uint256 leaseId = _leaseIn(i < 2 ? LeaseStatus.Accused : LeaseStatus.Attested);
            uint256 challengeId = i < 2 ? 1 : _challenge(leaseId, 0, 1);
            if (i % 2 == 1) _answer(challengeId);

            _finish(leaseId);

            assertChallenge(challengeId, i % 2 == 1 ? ChallengeStatus.Dropped : ChallengeStatus.Upheld);
            _assertOver();
        }
    }

    function test_challenges_left_open_by_a_slashed_lease_are_closed_by_a_stranger() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 open = _challenge(leaseId, 0, 1);
        uint256 upheld = _challenge(leaseId, 0, 2);
        _answer(upheld);
        _rule(upheld, true);

        _finish(leaseId);

        assertChallenge(open, ChallengeStatus.Dropped);
        _assertOver();
    }

    /// @notice Nothing is locked, and the job pays all it has left to its requester.
    function _assertOver() private {
        for (uint256 operator = PROVIDER; operator <= COLLEAGUE; ++operator) {
            assertEq(_account(operator).locked, 0);
        }
        assertEq(market.getJob(1).active, 0);
        _passTime(20_000);
        vm.prank(STRANGER);
        market.refund(1);
        assertEq(market.getJob(1).escrow, 0);
    }
}
