// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice Brings a lease to any status, by the steps of people who follow the rules or fail to.
abstract contract LeaseStates is MarketTest {
    uint256 internal constant NO_LEASE = 77;

    /// @notice A new lease of the provider, of the first shard of a new job, brought to `target`.
    function _leaseIn(LeaseStatus target) internal returns (uint256 leaseId) {
        if (target == LeaseStatus.None) return NO_LEASE;
        leaseId = _claimFirst();
        _bringTo(leaseId, target);
        assertStatus(leaseId, target);
    }

    /// @notice Bring a lease that was just claimed to `target`.
    function _bringTo(uint256 leaseId, LeaseStatus target) internal {
        if (target == LeaseStatus.Leased) return;
        if (target == LeaseStatus.Expired || target == LeaseStatus.Lapsed) {
            _passDeadline(leaseId);
            if (target == LeaseStatus.Lapsed) market.expire(leaseId);
            return;
        }
        _commit(leaseId);
        if (target == LeaseStatus.Committed) return;
        if (target == LeaseStatus.Undrawn) return _passDrawBlock(leaseId);
        if (target == LeaseStatus.Withdrawn) {
            vm.prank(_worker(PROVIDER));
            return market.withdrawCommitment(leaseId);
        }
        _draw(leaseId);
        if (target == LeaseStatus.Drawn) return;
        if (target == LeaseStatus.AuditorSilent) return _passDeadline(leaseId);
        if (target == LeaseStatus.Voided) return _silenceAuditors(leaseId, 3);
        bool accused = target == LeaseStatus.Accused || target == LeaseStatus.Slashed;
        if (accused) return _accuseTo(leaseId, target);
        if (target >= LeaseStatus.Attested) return _attestTo(leaseId, target);
        _reportTo(leaseId, target);
    }

    /// @notice Let `count` drawn auditors be silent, one after the other.
    function _silenceAuditors(uint256 leaseId, uint256 count) internal {
        for (uint256 i = 0; i < count; ++i) {
            if (market.status(leaseId) == LeaseStatus.Committed) _draw(leaseId, bytes32(i));
            _passDeadline(leaseId);
            market.replaceAuditor(leaseId);
        }
    }

    function _accuseTo(uint256 leaseId, LeaseStatus target) private {
        uint256 challengeId = _accuse(leaseId, 0, 1);
        if (target == LeaseStatus.Accused) return;
        _passTime(market.config().responseTime + 1);
        market.resolve(challengeId);
    }

    function _attestTo(uint256 leaseId, LeaseStatus target) private {
        _attest(leaseId);
        if (target == LeaseStatus.Attested) return;
        _passDeadline(leaseId);
        if (target == LeaseStatus.Settled) market.settle(leaseId);
    }

    function _reportTo(uint256 leaseId, LeaseStatus target) private {
        _report(leaseId);
        if (target == LeaseStatus.Reported) return;
        _passDeadline(leaseId);
        if (target == LeaseStatus.Withheld) return;
        market.convene(leaseId);
        if (target == LeaseStatus.Convened) return;
        if (target == LeaseStatus.Unconvened) return _passDrawBlock(leaseId);
        _drawPanel(leaseId, MIX_HASH);
        if (target == LeaseStatus.Voted) _passDeadline(leaseId);
    }
}
