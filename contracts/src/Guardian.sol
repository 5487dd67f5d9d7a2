// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Clock} from "./Clock.sol";
import {IClock} from "./interfaces/IClock.sol";
import {Config, IDeployment} from "./interfaces/IDeployment.sol";

/// @notice The bounded pause, and what was fixed at deployment.
abstract contract Guardian is IDeployment, IClock, Clock {
    using SafeCast for uint256;

    /// @inheritdoc IClock
    function pause() external {
        _requireGuardian();
        // INVARIANT: pauses are apart by at least four times their length, so no clock is stopped for ever.
        uint256 earliest = _pausedUntil == 0 ? 0 : uint256(_pausedUntil) + PAUSE_INTERVAL;
        if (block.timestamp < earliest) revert ClockPauseTooSoon(block.timestamp, earliest);

        _pausedBefore += _pausedUntil - _pausedAt;
        _pausedAt = block.timestamp.toUint40();
        uint256 until = block.timestamp + PAUSE_LIMIT;
        _pausedUntil = until.toUint40();
        emit Paused(until);
    }

    /// @inheritdoc IClock
    function unpause() external {
        _requireGuardian();
        if (!_isPaused()) revert ClockNotPaused();

        _pausedUntil = block.timestamp.toUint40();
        emit Resumed(_pausedUntil - _pausedAt);
    }

    /// @inheritdoc IClock
    function time() external view returns (uint256) {
        return _now();
    }

    /// @inheritdoc IClock
    function pausedUntil() external view returns (uint256 until) {
        return _isPaused() ? _pausedUntil : 0;
    }

    /// @inheritdoc IDeployment
    function config() external view returns (Config memory) {
        return Config({
            drawDistance: DRAW_DISTANCE,
            auditTime: AUDIT_TIME,
            declineTime: DECLINE_TIME,
            graceTime: GRACE_TIME,
            voteTime: VOTE_TIME,
            responseTime: RESPONSE_TIME,
            rulingTime: RULING_TIME,
            challengeWindow: CHALLENGE_WINDOW,
            maxLeaseTime: MAX_LEASE_TIME,
            thawTime: THAW_TIME,
            pauseLimit: PAUSE_LIMIT,
            pauseInterval: PAUSE_INTERVAL,
            expiryFeeBps: EXPIRY_FEE_BPS,
            withdrawFeeBps: WITHDRAW_FEE_BPS,
            voidFeeBps: VOID_FEE_BPS,
            silenceFeeBps: SILENCE_FEE_BPS,
            slashShareBps: SLASH_SHARE_BPS,
            bondBps: BOND_BPS,
            guardian: GUARDIAN,
            judge: JUDGE
        });
    }

    function _requireGuardian() private view {
        if (msg.sender != GUARDIAN) revert ClockNotGuardian(msg.sender, GUARDIAN);
    }
}
