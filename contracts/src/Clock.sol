// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deployment} from "./Deployment.sol";
import {IClock} from "./interfaces/IClock.sol";

/// @notice Keeps the market's time.
abstract contract Clock is Deployment {
    // Written by the half of the code that a detector does not look at: see Market.
    // slither-disable-start uninitialized-state,constable-states,unused-state
    uint40 internal _pausedAt; // chain time; of the last pause
    uint40 internal _pausedUntil; // chain time; of the last pause, earlier where it was ended
    uint40 internal _pausedBefore; // seconds of all pauses before the last

    // slither-disable-end uninitialized-state,constable-states,unused-state

    /// @notice The market's time.
    function _now() internal view returns (uint256) {
        if (_isPaused()) return _pausedAt - _pausedBefore;
        return block.timestamp - _pausedBefore - (_pausedUntil - _pausedAt);
    }

    function _requireRunning() internal view {
        if (_isPaused()) revert IClock.ClockPaused(_pausedUntil);
    }

    function _isPaused() internal view returns (bool) {
        return block.timestamp < _pausedUntil;
    }
}
