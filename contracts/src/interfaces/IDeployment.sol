// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The constants of one deployment. Blocks and seconds suit the chain; fees and shares are in bps.
struct Config {
    uint32 drawDistance; // blocks from a commitment, a job or a report to the block that draws for it
    uint32 auditTime; // seconds for the auditor to attest or accuse, from the draw
    uint32 declineTime; // seconds in which the auditor may decline at no cost, from the draw
    uint32 graceTime; // seconds for a reported provider to publish again
    uint32 voteTime; // seconds for the panel to vote
    uint32 responseTime; // seconds for the provider to answer a challenge
    uint32 rulingTime; // seconds for the judge to rule on an answered challenge
    uint32 challengeWindow; // seconds from attested to final, at least twice `maxLeaseTime`
    uint32 maxLeaseTime; // seconds
    uint32 thawTime; // seconds until unstaked stake can leave, at least every window that can still slash it
    uint32 pauseLimit; // seconds: the longest pause
    uint32 pauseInterval; // seconds between two pauses, at least four times `pauseLimit`
    uint16 expiryFeeBps; // of the lease's stake, for abandoning it
    uint16 withdrawFeeBps; // of the lease's stake, for taking a commitment back
    uint16 voidFeeBps; // of the lease's stake, when no auditor speaks
    uint16 silenceFeeBps; // of the locked stake, from an auditor or panelist that is silent, or a vain report
    uint16 slashShareBps; // of a slashed stake, to whoever proved the fault; the rest is burned
    uint16 bondBps; // of the lease's stake: a challenger's bond
    address guardian; // may pause new work; zero: nobody
    address judge; // rules on answered challenges; zero: nobody, and an accusation stands
}

/// @notice What jobs are paid in. Asset 0 of a deployment need not be ether.
struct Asset {
    address token; // zero: ether
    uint96 ticketStake; // base units for one ticket
}

/// @notice What was fixed at deployment. Nothing else can be set, by anyone.
interface IDeployment {
    error DeploymentWindowTooShort(uint256 window, uint256 required);
    error DeploymentShareTooHigh(uint256 bps, uint256 limit);
    error DeploymentNeedsDistance();
    error DeploymentNeedsAsset();
    error DeploymentDuplicateAsset(address token);

    function config() external view returns (Config memory);
}
