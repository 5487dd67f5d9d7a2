// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Leasing} from "./Leasing.sol";
import {IAudits, RecordOpening} from "./interfaces/IAudits.sol";
import {Role} from "./libraries/Accounts.sol";
import {Commitments, Outcome} from "./libraries/Commitments.sol";
import {Draw, Purpose} from "./libraries/Draw.sol";
import {Job} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Draws auditors, takes their attestations, and replaces those that are silent.
abstract contract Audits is IAudits, Leasing {
    using SafeCast for uint256;

    uint256 private constant MAX_TICKET_TRIES = 32;

    /// @inheritdoc IAudits
    function draw(uint256 leaseId, bytes calldata header) external {
        Lease storage lease = _requireLease(leaseId, LeaseStatus.Committed);
        Job storage job = _jobOf(leaseId);
        bytes32 mixHash = Draw.readMixHash(header, lease.clock);

        uint256 locked = _stakeOf(lease, job);
        uint256 auditor =
            _findAuditor(lease, job.asset, locked, Draw.entropy(Purpose.Ticket, leaseId, mixHash));
        if (auditor == 0) return _void(leaseId, lease, 0);
        if (lease.seed == 0) {
            uint256 seed = uint48(uint256(Draw.entropy(Purpose.Segments, leaseId, mixHash)));
            lease.seed = uint48(seed == 0 ? 1 : seed); // zero says that nothing is drawn
        }
        lease.auditor = uint32(auditor);
        uint256 deadline = lease.enter(LeaseStatus.Drawn, _now(), AUDIT_TIME);
        _auditor(lease, job).lock(locked);
        emit SegmentsDrawn(leaseId, auditor, _segmentsOf(lease, job), deadline);
    }

    /// @inheritdoc IAudits
    function attest(uint256 leaseId, RecordOpening[] calldata openings) external {
        Lease storage lease = _requireAudited(leaseId);
        Job storage job = _jobOf(leaseId);
        uint256[] memory segments = _segmentsOf(lease, job);
        if (openings.length != segments.length) {
            revert AuditWrongCount(leaseId, openings.length, segments.length);
        }
        for (uint256 j = 0; j < segments.length; ++j) {
            (uint256 shard, uint256 i) = (segments[j] / job.segments, segments[j] % job.segments);
            _requireRecord(leaseId, lease, job.segments, shard, i + 1, openings[j]);
        }

        uint256 auditor = lease.auditor;
        uint256 deadline = lease.enter(LeaseStatus.Attested, _now(), CHALLENGE_WINDOW);
        _countAttested(leaseId, lease, job);
        emit ShardsAttested(leaseId, auditor, deadline);
    }

    /// @notice The operator of the first eligible ticket among the candidates of `seed`; zero if there is none.
    function _findAuditor(Lease storage lease, uint256 asset, uint256 stakeNeeded, bytes32 seed)
        private
        view
        returns (uint256)
    {
        uint256 tickets = lease.tickets;
        if (tickets == 0) return 0;
        for (uint256 k = 0; k < MAX_TICKET_TRIES; ++k) {
            uint256 operator = _eligible(lease, asset, stakeNeeded, Draw.number(seed, k) % tickets);
            if (operator != 0) return operator;
        }
        return 0;
    }
}
