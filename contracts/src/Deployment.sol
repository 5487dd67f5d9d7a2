// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Config, IDeployment} from "./interfaces/IDeployment.sol";

/// @notice Holds the constants of a deployment and refuses those that break a rule.
abstract contract Deployment is IDeployment {
    uint256 internal constant BPS = 10_000;
    uint256 private constant MAX_SLASH_SHARE_BPS = 3_000; // more would make it cheap to slash oneself

    uint32 internal immutable DRAW_DISTANCE;
    uint32 internal immutable AUDIT_TIME;
    uint32 internal immutable OPEN_TIME;
    uint32 internal immutable REVEAL_TIME;
    uint32 internal immutable RESPONSE_TIME;
    uint32 internal immutable CHALLENGE_WINDOW;
    uint32 internal immutable MAX_LEASE_TIME;
    uint96 internal immutable TICKET_STAKE;
    uint16 internal immutable EXPIRY_FEE_BPS;
    uint16 internal immutable WITHDRAW_FEE_BPS;
    uint16 internal immutable VOID_FEE_BPS;
    uint16 internal immutable SILENCE_FEE_BPS;
    uint16 internal immutable SLASH_SHARE_BPS;

    constructor(Config memory constants) {
        uint256 window = 2 * uint256(constants.maxLeaseTime);
        if (constants.challengeWindow < window) {
            revert DeploymentWindowTooShort(constants.challengeWindow, window);
        }
        if (constants.drawDistance == 0) revert DeploymentNeedsDistance();
        _requireShare(constants.expiryFeeBps, BPS);
        _requireShare(constants.withdrawFeeBps, BPS);
        _requireShare(constants.voidFeeBps, BPS);
        _requireShare(constants.silenceFeeBps, BPS);
        _requireShare(constants.slashShareBps, MAX_SLASH_SHARE_BPS);

        DRAW_DISTANCE = constants.drawDistance;
        AUDIT_TIME = constants.auditTime;
        OPEN_TIME = constants.openTime;
        REVEAL_TIME = constants.revealTime;
        RESPONSE_TIME = constants.responseTime;
        CHALLENGE_WINDOW = constants.challengeWindow;
        MAX_LEASE_TIME = constants.maxLeaseTime;
        TICKET_STAKE = constants.ticketStake;
        EXPIRY_FEE_BPS = constants.expiryFeeBps;
        WITHDRAW_FEE_BPS = constants.withdrawFeeBps;
        VOID_FEE_BPS = constants.voidFeeBps;
        SILENCE_FEE_BPS = constants.silenceFeeBps;
        SLASH_SHARE_BPS = constants.slashShareBps;
    }

    /// @inheritdoc IDeployment
    function config() external view returns (Config memory) {
        return Config({
            drawDistance: DRAW_DISTANCE,
            auditTime: AUDIT_TIME,
            openTime: OPEN_TIME,
            revealTime: REVEAL_TIME,
            responseTime: RESPONSE_TIME,
            challengeWindow: CHALLENGE_WINDOW,
            maxLeaseTime: MAX_LEASE_TIME,
            ticketStake: TICKET_STAKE,
            expiryFeeBps: EXPIRY_FEE_BPS,
            withdrawFeeBps: WITHDRAW_FEE_BPS,
            voidFeeBps: VOID_FEE_BPS,
            silenceFeeBps: SILENCE_FEE_BPS,
            slashShareBps: SLASH_SHARE_BPS
        });
    }

    function _share(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }

    function _requireShare(uint256 bps, uint256 limit) private pure {
        if (bps > limit) revert DeploymentShareTooHigh(bps, limit);
    }
}
