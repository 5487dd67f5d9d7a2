// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Challenge, ChallengeStatus} from "../src/libraries/Challenges.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice What anyone may do about what its people abandoned, with nothing but time and headers.
abstract contract Strangers is MarketTest {
    uint256 private constant LONG = 5_000; // more than every clock

    /// @notice Bring a lease and its challenges to an end.
    function _finish(uint256 leaseId) internal {
        for (uint256 steps = 0; !_isOver(leaseId); ++steps) {
            assertTrue(steps < 64, "an end is reached");
            _passTime(LONG);
            if (!_takeExit(leaseId, bytes32(steps))) _closeChallenges(leaseId);
        }
        _closeChallenges(leaseId);
    }

    /// @notice Do what a lease's status lets anyone do.
    /// @return taken Whether that was something.
    function _takeExit(uint256 leaseId, bytes32 mixHash) internal returns (bool taken) {
        LeaseStatus current = market.status(leaseId);
        taken = true;
        if (current == LeaseStatus.Expired) market.expire(leaseId);
        else if (current == LeaseStatus.Committed) _draw(leaseId, mixHash);
        else if (current == LeaseStatus.Undrawn) market.slash(leaseId);
        else if (current == LeaseStatus.AuditorSilent) market.replaceAuditor(leaseId);
        else if (current == LeaseStatus.Withheld) market.convene(leaseId);
        else if (current == LeaseStatus.Convened) _drawPanel(leaseId, mixHash);
        else if (current == LeaseStatus.Unconvened) market.convene(leaseId);
        else if (current == LeaseStatus.Voted) market.closeVote(leaseId);
        else if (current == LeaseStatus.Final) market.settle(leaseId);
        else taken = false;
    }

    /// @notice Close the lease's challenges that are due.
    function _closeChallenges(uint256 leaseId) internal {
        for (uint256 id = 1; id <= market.challengeCount(); ++id) {
            if (market.getChallenge(id).leaseId == leaseId && _isDue(id)) market.resolve(id);
        }
    }

    function _isDue(uint256 challengeId) internal view returns (bool) {
        ChallengeStatus current = market.challengeStatus(challengeId);
        bool late = current == ChallengeStatus.Unanswered || current == ChallengeStatus.Unruled;
        bool open = current == ChallengeStatus.Open || current == ChallengeStatus.Answered;
        Challenge memory challenge = market.getChallenge(challengeId);
        return late || (open && _isOver(challenge.leaseId));
    }

    function _isOver(uint256 leaseId) internal view returns (bool) {
        LeaseStatus stored = market.getLease(leaseId).stored;
        return stored == LeaseStatus.None || stored >= LeaseStatus.Settled;
    }
}
