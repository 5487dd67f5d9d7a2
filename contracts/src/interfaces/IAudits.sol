// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Outcome, Trace} from "../libraries/Commitments.sol";
import {LeaseStatus} from "../libraries/Leases.sol";

/// @notice A drawn record, with its branch to the trace root.
struct RecordOpening {
    bytes32 stateRoot;
    bytes32 gradientRoot;
    bytes32 metricsRoot;
    bytes32[] branch;
}

/// @notice From a committed trace to an attested shard, or to a stake that is lost.
interface IAudits {
    event SegmentsDrawn(
        uint256 indexed leaseId, address indexed auditor, uint16[] segments, uint256 auditDeadline
    );
    event AuditCommitted(
        uint256 indexed leaseId, address indexed auditor, bytes32 commitment, uint256 openDeadline
    );
    event RecordsOpened(uint256 indexed leaseId, Outcome[] outcomes, uint256 revealDeadline);
    event ShardAttested(uint256 indexed leaseId, address indexed auditor, bytes32 contribution);
    event AuditMismatched(
        uint256 indexed leaseId,
        address indexed auditor,
        uint256 recordIndex,
        bytes32 claimedRecord,
        bytes32 auditedRecord
    );
    event AuditorReplaced(uint256 indexed leaseId, address indexed auditor, uint256 loss, uint256 drawBlock);
    event LeaseVoided(uint256 indexed leaseId, address indexed provider, uint256 fee);
    event LeaseSlashed(
        uint256 indexed leaseId,
        address indexed provider,
        LeaseStatus reason,
        uint256 amount,
        uint256 toAuditor
    );

    error AuditWrongTrace(uint256 leaseId, bytes32 given, bytes32 required);
    error AuditWrongCount(uint256 leaseId, uint256 given, uint256 required);
    error AuditInvalidOpening(uint256 leaseId, uint256 recordIndex);
    error AuditNotAsCommitted(uint256 leaseId, bytes32 given, bytes32 required);
    error LeaseNotSlashable(uint256 leaseId, LeaseStatus current);
    error LeaseAuditorNotSilent(uint256 leaseId, LeaseStatus current);

    /// @notice Draw the segments and the auditor of a commitment from the `header` of its draw block.
    /// @dev Anyone may, with the same result. A redraw keeps the segments of which no record was opened. Without
    /// an eligible auditor in `MAX_TICKET_TRIES` candidates, the lease is voided at no cost.
    function draw(uint256 leaseId, bytes calldata header) external;

    /// @notice Fix the caller's audit without showing it; see docs/protocol.md section 6.
    function commitAudit(uint256 leaseId, bytes32 commitment) external;

    /// @notice Open the record after each drawn segment, ascending.
    function open(uint256 leaseId, Trace calldata trace, RecordOpening[] calldata openings) external;

    /// @notice Show the audit, and compare it with the opened records.
    /// @param claimed The records as opened, each hashed.
    /// @param baseRoot The base that the auditor computed.
    /// @param outcomes What the auditor computed for each drawn segment, ascending.
    function reveal(
        uint256 leaseId,
        Trace calldata trace,
        bytes32[] calldata claimed,
        bytes32 baseRoot,
        Outcome[] calldata outcomes,
        bytes32 salt
    ) external;

    /// @notice Take the stake of a provider that did not open, did not answer, or let its draw lapse.
    function slash(uint256 leaseId) external;

    /// @notice Send away an auditor that is silent and fix a block for the next draw.
    /// @dev Before the opening it loses a fee, and the third in a row voids the lease. After the opening it loses
    /// its locked stake, and segments are drawn anew, because what is open can be copied.
    function replaceAuditor(uint256 leaseId) external;
}
