// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Ledger} from "./Ledger.sol";
import {IAudits, RecordOpening} from "./interfaces/IAudits.sol";
import {Commitments, Outcome, Trace} from "./libraries/Commitments.sol";
import {Draw, Purpose} from "./libraries/Draw.sol";
import {Job} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Draws auditors, takes their audits, and slashes whoever is silent or contradicted.
abstract contract Audits is IAudits, Ledger {
    using SafeCast for uint256;

    uint256 private constant MAX_TICKET_TRIES = 32;
    uint256 private constant MAX_SILENCES = 3; // in a row

    /// @inheritdoc IAudits
    function draw(uint256 leaseId, bytes calldata header) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Committed);
        Job storage job = _jobs[lease.jobId];
        bytes32 mixHash = Draw.readMixHash(header, lease.drawBlock);

        uint256 stakeNeeded = job.stakePerLease;
        address auditor = _findAuditor(lease, stakeNeeded, Draw.entropy(Purpose.Ticket, leaseId, mixHash));
        if (auditor == address(0)) {
            _void(leaseId, lease, 0);
            return;
        }
        uint256 segments = lease.segments;
        if (segments == 0) {
            bytes32 seed = Draw.entropy(Purpose.Segments, leaseId, mixHash);
            segments = Draw.segments(seed, job.segments, job.samples);
            lease.segments = segments;
        }
        _auditors[auditor].lock(stakeNeeded);
        lease.auditor = auditor;
        uint256 deadline = lease.enter(LeaseStatus.Drawn, AUDIT_TIME);
        emit SegmentsDrawn(leaseId, auditor, Draw.toList(segments), deadline);
    }

    /// @inheritdoc IAudits
    function commitAudit(uint256 leaseId, bytes32 commitment) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Drawn);
        _requireAuditor(leaseId, lease);

        lease.audit = commitment;
        uint256 deadline = lease.enter(LeaseStatus.AuditCommitted, OPEN_TIME);
        emit AuditCommitted(leaseId, msg.sender, commitment, deadline);
    }

    /// @inheritdoc IAudits
    function open(uint256 leaseId, Trace calldata trace, RecordOpening[] calldata openings) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.AuditCommitted);
        _requireProvider(leaseId, lease);
        _requireTrace(leaseId, lease, trace);
        (Outcome[] memory outcomes, bytes32[] memory records) =
            _readOpenings(leaseId, lease, trace.root, openings);

        lease.audit = keccak256(abi.encode(lease.audit, records));
        uint256 deadline = lease.enter(LeaseStatus.Opened, REVEAL_TIME);
        emit RecordsOpened(leaseId, outcomes, deadline);
    }

    /// @inheritdoc IAudits
    function reveal(
        uint256 leaseId,
        Trace calldata trace,
        bytes32[] calldata claimed,
        bytes32 baseRoot,
        Outcome[] calldata outcomes,
        bytes32 salt
    ) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Opened);
        _requireAuditor(leaseId, lease);
        _requireTrace(leaseId, lease, trace);
        uint256 segments = lease.segments;
        _requireCount(leaseId, lease, outcomes.length);
        bytes32 audit = Commitments.hashAudit(leaseId, msg.sender, salt, baseRoot, segments, outcomes);
        audit = keccak256(abi.encode(audit, claimed));
        if (audit != lease.audit) revert AuditNotAsCommitted(leaseId, audit, lease.audit);

        if (baseRoot != trace.firstBaseRoot) {
            return _accuse(leaseId, lease, 0, trace.firstBaseRoot, baseRoot);
        }
        for (uint256 j = 0; j < outcomes.length; ++j) {
            uint256 segment = Draw.first(segments);
            segments &= segments - 1;
            bytes32 audited = Commitments.hashRecordAfter(segment, outcomes[j]);
            if (audited != claimed[j]) return _accuse(leaseId, lease, segment + 1, claimed[j], audited);
        }
        _attest(leaseId, lease, trace);
    }

    /// @inheritdoc IAudits
    function slash(uint256 leaseId) external {
        Lease storage lease = _leases[leaseId];
        LeaseStatus current = lease.status();
        bool slashable = current == LeaseStatus.Undrawn || current == LeaseStatus.ProviderSilent
            || current == LeaseStatus.Forfeited;
        if (!slashable) revert LeaseNotSlashable(leaseId, current);

        uint256 amount = _jobs[lease.jobId].stakePerLease;
        address auditor = lease.auditor;
        uint256 toAuditor = 0;
        if (auditor != address(0)) {
            toAuditor = _share(amount, SLASH_SHARE_BPS);
            _auditors[auditor].unlock(amount, 0);
            creditOf[auditor] += toAuditor;
        }
        _reopen(lease, LeaseStatus.Slashed, amount);
        emit LeaseSlashed(leaseId, lease.provider, current, amount, toAuditor);
        _burn(amount - toAuditor);
    }

    /// @inheritdoc IAudits
    function replaceAuditor(uint256 leaseId) external {
        Lease storage lease = _leases[leaseId];
        LeaseStatus current = lease.status();
        bool isOpen = current == LeaseStatus.RevealMissed;
        if (!isOpen && current != LeaseStatus.AuditorSilent) revert LeaseAuditorNotSilent(leaseId, current);

        uint256 locked = _jobs[lease.jobId].stakePerLease;
        uint256 loss = isOpen ? locked : _share(locked, SILENCE_FEE_BPS);
        address auditor = lease.auditor;
        uint256 drawBlock = block.number + DRAW_DISTANCE;
        if (isOpen) lease.segments = 0;
        lease.silences = isOpen ? 0 : lease.silences + 1;
        lease.auditor = address(0);
        lease.drawBlock = drawBlock.toUint40();
        lease.redrawn = true;
        lease.stored = LeaseStatus.Committed;
        _auditors[auditor].unlock(locked, loss);
        emit AuditorReplaced(leaseId, auditor, loss, drawBlock);
        if (lease.silences == MAX_SILENCES) _void(leaseId, lease, _share(locked, VOID_FEE_BPS));
        _burn(loss);
    }

    function _attest(uint256 leaseId, Lease storage lease, Trace calldata trace) private {
        Job storage job = _jobs[lease.jobId];
        uint96 fee = job.auditFee;
        job.escrow -= fee;
        job.countAttested();
        creditOf[msg.sender] += fee;
        lease.audit = trace.lastSlotRoot;
        lease.enter(LeaseStatus.Attested, CHALLENGE_WINDOW);
        emit ShardAttested(leaseId, msg.sender, trace.lastBaseRoot);
    }

    function _accuse(
        uint256 leaseId,
        Lease storage lease,
        uint256 recordIndex,
        bytes32 claimed,
        bytes32 audited
    ) private {
        lease.enter(LeaseStatus.Mismatched, RESPONSE_TIME);
        emit AuditMismatched(leaseId, msg.sender, recordIndex, claimed, audited);
    }

    /// @notice Give the shard up without a result, for a fee from its provider.
    function _void(uint256 leaseId, Lease storage lease, uint256 fee) private {
        _reopen(lease, LeaseStatus.Voided, fee);
        emit LeaseVoided(leaseId, lease.provider, fee);
        _burn(fee);
    }

    /// @notice The first eligible owner among the candidates of `seed`, or zero.
    function _findAuditor(Lease storage lease, uint256 stakeNeeded, bytes32 seed)
        private
        view
        returns (address)
    {
        uint256 tickets = lease.tickets;
        if (tickets == 0) return address(0);
        for (uint256 k = 0; k < MAX_TICKET_TRIES; ++k) {
            Ticket storage ticket = _tickets[Draw.number(seed, k) % tickets];
            address owner = ticket.owner;
            bool eligible =
                !ticket.leaving && owner != lease.provider && _auditors[owner].free() >= stakeNeeded;
            if (eligible) return owner;
        }
        return address(0);
    }

    /// @notice Check each opening against the trace; return what they show, and the records' hashes.
    function _readOpenings(
        uint256 leaseId,
        Lease storage lease,
        bytes32 traceRoot,
        RecordOpening[] calldata openings
    ) private view returns (Outcome[] memory outcomes, bytes32[] memory records) {
        _requireCount(leaseId, lease, openings.length);
        uint256 count = uint256(_jobs[lease.jobId].segments) + 1;
        uint256 segments = lease.segments;
        outcomes = new Outcome[](openings.length);
        records = new bytes32[](openings.length);
        for (uint256 j = 0; j < openings.length; ++j) {
            RecordOpening calldata opening = openings[j];
            uint256 segment = Draw.first(segments);
            segments &= segments - 1;
            outcomes[j] = Outcome(opening.stateRoot, opening.gradientRoot, opening.metricsRoot);
            records[j] = Commitments.hashRecordAfter(segment, outcomes[j]);
            if (!Commitments.isValidBranch(records[j], opening.branch, segment + 1, count, traceRoot)) {
                revert AuditInvalidOpening(leaseId, segment + 1);
            }
        }
    }

    function _requireTrace(uint256 leaseId, Lease storage lease, Trace calldata trace) private view {
        bytes32 given = keccak256(abi.encode(trace));
        if (given != lease.trace) revert AuditWrongTrace(leaseId, given, lease.trace);
    }

    /// @notice Require one item for each drawn segment.
    function _requireCount(uint256 leaseId, Lease storage lease, uint256 given) private view {
        uint256 required = _jobs[lease.jobId].samples;
        if (given != required) revert AuditWrongCount(leaseId, given, required);
    }
}
