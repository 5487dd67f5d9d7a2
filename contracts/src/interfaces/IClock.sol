// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The market's time, which stands still during a pause. A pause stops new work and never an exit.
interface IClock {
    event Paused(uint256 until);
    event Resumed(uint256 pausedSeconds);

    error ClockNotGuardian(address caller, address guardian);
    error ClockPaused(uint256 until);
    error ClockNotPaused();
    error ClockPauseTooSoon(uint256 time, uint256 earliest);

    /// @notice Stop new jobs and claims, and every clock, for at most `Config.pauseLimit` seconds.
    function pause() external;

    /// @notice End a pause early.
    function unpause() external;

    /// @return The market's time: seconds since the epoch less all that was paused.
    function time() external view returns (uint256);

    /// @return until When the current pause ends at the latest, in chain time; zero while there is none.
    function pausedUntil() external view returns (uint256 until);
}
