// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Config, IDeployment} from "./interfaces/IDeployment.sol";

/// @notice Holds the constants of a deployment and refuses those that break a rule.
abstract contract Deployment {
    uint256 internal constant BPS = 10_000;
    uint256 private constant MAX_SLASH_SHARE_BPS = 3_000; // more would make it cheap to slash oneself
    uint256 private constant MIN_RUN_SHARE = 4; // between pauses the market runs this many times the longest

    uint32 internal immutable DRAW_DISTANCE;
    uint32 internal immutable AUDIT_TIME;
    uint32 internal immutable DECLINE_TIME;
    uint32 internal immutable GRACE_TIME;
    uint32 internal immutable VOTE_TIME;
    uint32 internal immutable RESPONSE_TIME;
    uint32 internal immutable RULING_TIME;
    uint32 internal immutable CHALLENGE_WINDOW;
    uint32 internal immutable MAX_LEASE_TIME;
    uint32 internal immutable THAW_TIME;
    uint32 internal immutable PAUSE_LIMIT;
    uint32 internal immutable PAUSE_INTERVAL;
    uint16 internal immutable EXPIRY_FEE_BPS;
    uint16 internal immutable WITHDRAW_FEE_BPS;
    uint16 internal immutable VOID_FEE_BPS;
    uint16 internal immutable SILENCE_FEE_BPS;
    uint16 internal immutable SLASH_SHARE_BPS;
    uint16 internal immutable BOND_BPS;
    address internal immutable GUARDIAN;
    address internal immutable JUDGE;

    constructor(Config memory constants) {
        _requireWindows(constants);
        if (constants.drawDistance == 0) revert IDeployment.DeploymentNeedsDistance();
        _requireShare(constants.expiryFeeBps, BPS);
        _requireShare(constants.withdrawFeeBps, BPS);
        _requireShare(constants.voidFeeBps, BPS);
        _requireShare(constants.silenceFeeBps, BPS);
        _requireShare(constants.bondBps, BPS);
        _requireShare(constants.slashShareBps, MAX_SLASH_SHARE_BPS);

        DRAW_DISTANCE = constants.drawDistance;
        AUDIT_TIME = constants.auditTime;
        DECLINE_TIME = constants.declineTime;
        GRACE_TIME = constants.graceTime;
        VOTE_TIME = constants.voteTime;
        RESPONSE_TIME = constants.responseTime;
        RULING_TIME = constants.rulingTime;
        CHALLENGE_WINDOW = constants.challengeWindow;
        MAX_LEASE_TIME = constants.maxLeaseTime;
        THAW_TIME = constants.thawTime;
        PAUSE_LIMIT = constants.pauseLimit;
        PAUSE_INTERVAL = constants.pauseInterval;
        EXPIRY_FEE_BPS = constants.expiryFeeBps;
        WITHDRAW_FEE_BPS = constants.withdrawFeeBps;
        VOID_FEE_BPS = constants.voidFeeBps;
        SILENCE_FEE_BPS = constants.silenceFeeBps;
        SLASH_SHARE_BPS = constants.slashShareBps;
        BOND_BPS = constants.bondBps;
        GUARDIAN = constants.guardian;
        JUDGE = constants.judge;
    }

    function _share(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }

    function _requireWindows(Config memory constants) private pure {
        _requireWindow(constants.challengeWindow, 2 * uint256(constants.maxLeaseTime));
        uint256 slashable = uint256(constants.challengeWindow) + constants.responseTime + constants.rulingTime;
        _requireWindow(constants.thawTime, slashable);
        _requireWindow(constants.auditTime, constants.declineTime);
        _requireWindow(constants.pauseInterval, MIN_RUN_SHARE * constants.pauseLimit);
    }

    function _requireWindow(uint256 window, uint256 required) private pure {
        if (window < required) revert IDeployment.DeploymentWindowTooShort(window, required);
    }

    function _requireShare(uint256 bps, uint256 limit) private pure {
        if (bps > limit) revert IDeployment.DeploymentShareTooHigh(bps, limit);
    }
}
