// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ledger} from "./Ledger.sol";
import {ILedger} from "./interfaces/ILedger.sol";
import {Job, JobStatus} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice What is known of jobs, rounds and leases.
abstract contract Views is ILedger, Ledger {
    /// @inheritdoc ILedger
    function getJob(uint256 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc ILedger
    function getLease(uint256 leaseId) external view returns (Lease memory) {
        return _leases[leaseId];
    }

    /// @inheritdoc ILedger
    function jobStatus(uint256 jobId) external view returns (JobStatus) {
        return _jobs[jobId].status(_now());
    }

    /// @inheritdoc ILedger
    function status(uint256 leaseId) external view returns (LeaseStatus) {
        return _leases[leaseId].status(_now());
    }

    /// @inheritdoc ILedger
    function priceNow(uint256 jobId) external view returns (uint256) {
        Job storage job = _requireJob(jobId, JobStatus.Open);
        return _share(job.pricePerShard, job.priceBpsAt(_now()));
    }

    /// @inheritdoc ILedger
    function getRound(uint256 jobId, uint256 round)
        external
        view
        returns (uint256 taken, uint256 attested, uint256 abandoned)
    {
        Round storage self = _rounds[jobId][round];
        return (self.taken, self.attested, self.abandoned);
    }

    /// @inheritdoc ILedger
    function lastAttested(uint256 jobId, uint256 slot, uint256 round)
        external
        view
        returns (bool found, uint256 lastRound)
    {
        for (uint256 r = round; r > 0; --r) {
            if ((_rounds[jobId][r - 1].attested >> slot) & 1 == 1) return (true, r - 1);
        }
    }

    /// @inheritdoc ILedger
    function drawnSegments(uint256 leaseId) external view returns (uint256[] memory) {
        Lease storage lease = _leases[leaseId];
        return lease.seed == 0 ? new uint256[](0) : _segmentsOf(lease, _jobOf(leaseId));
    }
}
