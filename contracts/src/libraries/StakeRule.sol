// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @notice The stake under which cheating does not pay.
///
/// @dev **Derivation.** A lease is of k shards, each of n segments, price R and stake S; m of its k n segments are
/// drawn; a share r of the tickets may collude. A lie in one segment makes every later segment of its shard free:
/// it jumps to a state, zeros for instance, on which they are true. So a provider that lies in c of its k shards,
/// once in each, saves the work of c shards, worth c R to it at most, and c V if a false result is worth V to
/// somebody. No drawn segment is false, or the auditor colludes, with probability 1 - q(c), where
///
///     q(c) = (1 - r) (1 - C(k n - c, m) / C(k n, m)).
///
/// If it is caught, it loses the stake k S, and the pay k R that it would have had. Cheating gains nothing iff
///
///     q(c) (k S + k R) >= c (R + V)        for every c from 1 to k.
///
/// q is concave with q(0) = 0, so c / q(c) is largest at c = k. Drawing without replacement misses k false segments
/// of k n no more often than m independent draws do, each of which misses with probability 1 - 1/n. Hence
///
///     S >= (R + V) / q - R        with   q = (1 - r) (1 - (1 - 1/n)^m)
///
/// suffices for every k, as long as being drawn costs all of S. For k = 1 the exact q is (1 - r) m / n, and the rule asks for at most (m - 1)/(2n - m + 1) more
/// of (R + V)/q than that would.
///
/// **Withholding.** Every exit after the draw costs S, but one: who is drawn by an honest auditor can withhold what the
/// audit reads, and hope that the panel does not burn its stake. If a share r of the tickets collude, five of seven do
/// not vote against it with probability p = 1 - sum_{i=0}^{2} C(7, i) r^i (1 - r)^(7 - i); then another auditor is
/// drawn for the same segments, who colludes with probability r, or reports again. It escapes with probability
///
///     x = p y,   y = r + (1 - r) p y,   so for r = 1/3: p = 0.4295, y = 0.4671, x = 0.2006.
///
/// So of those that are drawn, a share w = 1 - x is punished; we take w = 0.79, and ask for
///
///     S >= (R + V) / (w q) - R.
library StakeRule {
    error JobInvalidSamples(uint256 samples, uint256 segments);
    error JobStakeTooLow(uint256 stake, uint256 required);

    uint256 internal constant MAX_SAMPLES = 16;
    uint256 internal constant COLLUSION_NUMERATOR = 1; // r = 1/3
    uint256 internal constant COLLUSION_DENOMINATOR = 3;
    uint256 internal constant PUNISHED_NUMERATOR = 79; // w = 0.79
    uint256 internal constant PUNISHED_DENOMINATOR = 100;

    /// @notice The least stake per shard.
    /// @param price R in base units, below 2^80.
    /// @param poison V in base units, below 2^80.
    /// @param segments n, at most 256.
    /// @param samples m, at most `MAX_SAMPLES`, so that every product is below 2^256.
    function minimumStake(uint256 price, uint256 poison, uint256 segments, uint256 samples)
        internal
        pure
        returns (uint256)
    {
        uint256 all = segments ** samples; // of these draws, ...
        uint256 missing = (segments - 1) ** samples; // ... so many miss
        uint256 numerator = (price + poison) * COLLUSION_DENOMINATOR * PUNISHED_DENOMINATOR;
        uint256 caught = (COLLUSION_DENOMINATOR - COLLUSION_NUMERATOR) * PUNISHED_NUMERATOR;
        uint256 loss = Math.mulDiv(numerator, all, caught * (all - missing), Math.Rounding.Ceil);
        return loss > price ? loss - price : 0;
    }

    /// @notice Refuse terms under which cheating pays.
    function requireDeterrent(uint256 stake, uint256 price, uint256 poison, uint256 segments, uint256 samples)
        internal
        pure
    {
        if (samples == 0 || samples > MAX_SAMPLES || samples > segments) {
            revert JobInvalidSamples(samples, segments);
        }
        uint256 required = minimumStake(price, poison, segments, samples);
        if (stake < required) revert JobStakeTooLow(stake, required);
    }
}
