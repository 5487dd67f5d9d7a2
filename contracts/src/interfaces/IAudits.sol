// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ChallengeStatus, Challenge} from "../libraries/Challenges.sol";
import {LeaseStatus} from "../libraries/Leases.sol";

/// @notice A record after a segment, opened, with its branch to the lease's root.
struct RecordOpening {
    bytes32 stateRoot;
    bytes32 gradientRoot;
    bytes32 metricsRoot;
    bytes32[] branch;
}

/// @notice A record with its outcome hidden, and its branch to the lease's root.
struct StateOpening {
    bytes32 stateRoot;
    bytes32 outcome; // zero in record 0
    bytes32[] branch;
}

/// @notice From a committed lease to attested shards, or to a stake that is lost.
interface IAudits {
    event SegmentsDrawn(
        uint256 indexed leaseId, uint256 indexed auditor, uint256[] segments, uint256 deadline
    );
    event ShardsAttested(uint256 indexed leaseId, uint256 indexed auditor, uint256 deadline);
    event LeaseVoided(uint256 indexed leaseId, uint256 fee);
    event LeaseSlashed(uint256 indexed leaseId, LeaseStatus reason, uint256 amount, uint256 rewarded);

    error LeaseNotAuditor(uint256 leaseId, uint256 auditor, address caller);
    error AuditWrongCount(uint256 leaseId, uint256 given, uint256 required);
    error AuditInvalidOpening(uint256 leaseId, uint256 position);

    /// @notice Draw the segments and the auditor of a commitment from the `header` of its draw block.
    /// @dev Anyone may, with the same result. A redraw keeps the segments, unless a record was opened. Without an
    /// eligible auditor in `MAX_TICKET_TRIES` candidates, the lease is voided at no cost.
    function draw(uint256 leaseId, bytes calldata header) external;

    /// @notice Attest a lease: show, in the order of the draw, the record that each drawn segment leads to.
    /// @dev Nothing published reveals a gradient root, so only who recomputed a segment can open its record. An
    /// auditor also vouches that every shard begins as it must, and that all that was published can be fetched.
    function attest(uint256 leaseId, RecordOpening[] calldata openings) external;
}

/// @notice The vote of drawn tickets on what no contract can see.
interface IPanels {
    event WithholdingReported(uint256 indexed leaseId, uint256 indexed auditor, uint256 graceDeadline);
    event PanelConvened(uint256 indexed leaseId, uint256 drawBlock);
    event PanelDrawn(uint256 indexed leaseId, uint32[] members, uint256 deadline);
    event PanelVoted(uint256 indexed leaseId, uint256 indexed member, bool available, uint256 votes);
    event ReportRejected(uint256 indexed leaseId, uint256 indexed auditor, uint256 loss);

    error LeaseCannotConvene(uint256 leaseId, LeaseStatus current);
    error PanelNotMember(uint256 leaseId, uint256 operator);
    error PanelVotedAlready(uint256 leaseId, uint256 operator);

    /// @notice As the drawn auditor: say that what the audit reads cannot be fetched.
    /// @dev Until the grace period ends, the auditor may still attest or accuse, which takes the report back.
    function report(uint256 leaseId) external;

    /// @notice Fix the block that draws the panel, once the grace period is over.
    function convene(uint256 leaseId) external;

    /// @notice Draw the panel from the `header` of its block; without an eligible ticket the report is rejected.
    function drawPanel(uint256 leaseId, bytes calldata header) external;

    /// @notice As a panelist: say whether all that the audit reads can be fetched.
    function vote(uint256 leaseId, uint256 operator, bool available) external;

    /// @notice Count the votes: five of seven burn the provider's whole stake, else the reporter pays the voters.
    function closeVote(uint256 leaseId) external;

    /// @return members The panel of a lease, a member for each ticket drawn.
    /// @return voted Bit k: member k has voted.
    /// @return missing Bit k: member k voted that something cannot be fetched.
    function getPanel(uint256 leaseId)
        external
        view
        returns (uint32[] memory members, uint256 voted, uint256 missing);
}

/// @notice Accusations, with the hooks on which the dispute game stands.
interface IChallenges {
    event RecordChallenged(
        uint256 indexed challengeId,
        uint256 indexed leaseId,
        address indexed challenger,
        bool byAuditor,
        uint256 position,
        uint256 bond,
        uint256 deadline
    );
    event ChallengeAnswered(
        uint256 indexed challengeId, StateOpening before, RecordOpening opened, uint256 deadline
    );
    event ChallengeClosed(uint256 indexed challengeId, uint256 indexed leaseId, ChallengeStatus outcome);

    error ChallengeInUnexpectedStatus(uint256 challengeId, ChallengeStatus current, ChallengeStatus required);
    error ChallengeNotChallengeable(uint256 leaseId, LeaseStatus current);
    error ChallengeNoSuchRecord(uint256 leaseId, uint256 shard, uint256 index);
    error ChallengeByProvider(uint256 leaseId, address caller);
    error ChallengeNeedsJudge();
    error ChallengeNotJudge(address caller, address judge);
    error ChallengeWindowOver(uint256 leaseId, uint256 time, uint256 deadline);
    error ChallengeNotDue(uint256 challengeId, ChallengeStatus current);

    /// @notice As the drawn auditor: accuse record `index` of the lease's `shard`-th shard. Record 0 is where the
    /// shard began.
    function accuse(uint256 leaseId, uint256 shard, uint256 index) external returns (uint256 challengeId);

    /// @notice Accuse a record of an attested lease, within its window, with a bond.
    /// @dev Challenges run side by side; one that is lost proves nothing about another.
    function challenge(uint256 leaseId, uint256 shard, uint256 index)
        external
        payable
        returns (uint256 challengeId);

    /// @notice As the provider: open the accused record and the one before it, for the judge.
    /// @param before The record before the accused one; the accused one itself where it is a shard's first.
    /// @param opened The accused record; ignored where it is a shard's first.
    function answer(uint256 challengeId, StateOpening calldata before, RecordOpening calldata opened) external;

    /// @notice As the judge: decide an answered challenge.
    function rule(uint256 challengeId, bool upheld) external;

    /// @notice Close a challenge that ran out of time, or whose lease is over.
    /// @dev Unanswered, it is upheld. Unruled, it is dropped: bonds go back, and an accused lease is voided.
    function resolve(uint256 challengeId) external;

    function getChallenge(uint256 challengeId) external view returns (Challenge memory);

    function challengeStatus(uint256 challengeId) external view returns (ChallengeStatus);

    function challengeCount() external view returns (uint256);
}
