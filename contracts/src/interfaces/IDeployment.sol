// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The constants of one deployment. Blocks and seconds suit the chain; fees and shares are in bps.
struct Config {
    uint32 drawDistance; // blocks from a commitment or a job to the block that draws for it
    uint32 auditTime; // seconds for the auditor to commit, from the draw
    uint32 openTime; // seconds for the provider to open the drawn records
    uint32 revealTime; // seconds for the auditor to reveal
    uint32 responseTime; // seconds for the provider to answer a mismatch
    uint32 challengeWindow; // seconds from attested to final, at least twice `maxLeaseTime`
    uint32 maxLeaseTime; // seconds
    uint96 ticketStake; // wei for one ticket
    uint16 expiryFeeBps; // of the lease's stake, for abandoning it
    uint16 withdrawFeeBps; // of the lease's stake, for taking a commitment back
    uint16 voidFeeBps; // of the lease's stake, when no auditor speaks
    uint16 silenceFeeBps; // of the lease's stake, from an auditor that does not commit
    uint16 slashShareBps; // of a slashed stake, to the auditor; the rest is burned
}

/// @notice What was fixed at deployment. Nothing else can be set, by anyone.
interface IDeployment {
    error DeploymentWindowTooShort(uint256 challengeWindow, uint256 required);
    error DeploymentShareTooHigh(uint256 bps, uint256 limit);
    error DeploymentNeedsDistance();

    function config() external view returns (Config memory);
}
