// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {JobStatus, Job} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Made} from "./Traces.sol";
import {Market, MarketTest} from "./MarketTest.sol";

/// @notice Honest and dishonest people who do, in any order, whatever the market lets them do.
contract Handler is MarketTest {
    uint256 private constant MAX_JOBS = 4;

    uint256 public jobCount;
    uint256 public leaseCount;
    mapping(uint256 leaseId => bool) private lied;

    function getMarket() external view returns (Market) {
        return market;
    }

    function createJob() external {
        if (jobCount == MAX_JOBS) return;
        vm.deal(REQUESTER, 1_000 ether);
        jobCount = _createJob();
    }

    function seedJob(uint256 any) external {
        uint256 jobId = _pickJob(any);
        if (market.jobStatus(jobId) == JobStatus.Funded) _seed(jobId);
    }

    function claim(uint256 any, uint256 slot, bool rival) external {
        uint256 jobId = _pickJob(any);
        Job memory job = market.getJob(jobId);
        address provider = rival ? RIVAL : PROVIDER;
        slot = clamp(slot, 0, SLOTS - 1);
        if (market.jobStatus(jobId) != JobStatus.Open || job.round == ROUNDS) return;
        if (market.shard(jobId, job.round, slot) != 0) return;
        if (_staked(provider) - _locked(provider) < STAKE) return;
        leaseCount = _claim(provider, jobId, job.round, slot);
    }

    /// @notice The next step of a lease by whoever is to take it; a liar's audit differs from the trace.
    function advance(uint256 any, bytes32 mixHash, bool lies) external {
        uint256 leaseId = _pickLease(any);
        LeaseStatus current = market.status(leaseId);
        if (current == LeaseStatus.Leased) _commit(leaseId);
        if (current == LeaseStatus.Committed) _draw(leaseId, mixHash);
        if (current == LeaseStatus.Drawn) {
            lied[leaseId] = lies;
            _commitAudit(leaseId, _audited(leaseId));
        }
        if (current == LeaseStatus.AuditCommitted) _open(leaseId);
        if (current == LeaseStatus.Opened) _reveal(leaseId, _audited(leaseId));
    }

    /// @notice What anyone may do once a clock has run out; first, perhaps, it does.
    function exit(uint256 any, bool waits) external {
        uint256 leaseId = _pickLease(any);
        if (market.status(leaseId) == LeaseStatus.None) return;
        if (waits) _wait(leaseId);
        LeaseStatus current = market.status(leaseId);
        if (current == LeaseStatus.Expired) market.expire(leaseId);
        if (current == LeaseStatus.Final) market.settle(leaseId);
        bool silent = current == LeaseStatus.AuditorSilent || current == LeaseStatus.RevealMissed;
        if (silent) market.replaceAuditor(leaseId);
        bool slashable = current == LeaseStatus.Undrawn || current == LeaseStatus.ProviderSilent
            || current == LeaseStatus.Forfeited;
        if (slashable) market.slash(leaseId);
    }

    function withdrawCommitment(uint256 any) external {
        uint256 leaseId = _pickLease(any);
        Lease memory lease = market.getLease(leaseId);
        if (market.status(leaseId) != LeaseStatus.Committed || lease.redrawn) return;
        if (block.number + 4 > lease.drawBlock) return;
        vm.prank(lease.provider);
        market.withdrawCommitment(leaseId);
    }

    function closeJob(uint256 any) external {
        uint256 jobId = _pickJob(any);
        JobStatus current = market.jobStatus(jobId);
        if (current != JobStatus.SeedLost && current != JobStatus.Ended) return;
        if (market.getJob(jobId).active == 0) market.closeJob(jobId);
    }

    function stake(uint256 amount, bool rival) external {
        amount = clamp(amount, 0, 20 ether);
        vm.deal(rival ? RIVAL : PROVIDER, amount);
        _stake(rival ? RIVAL : PROVIDER, amount);
    }

    function unstake(uint256 amount, bool rival) external {
        address provider = rival ? RIVAL : PROVIDER;
        amount = clamp(amount, 0, _staked(provider) - _locked(provider));
        vm.prank(provider);
        market.unstake(amount);
    }

    function buyTickets(uint256 count, bool colleague) external {
        count = clamp(count, 0, 3);
        vm.deal(colleague ? COLLEAGUE : AUDITOR, count * 4 ether);
        _buyTickets(colleague ? COLLEAGUE : AUDITOR, count);
    }

    function retireTicket(uint256 any) external {
        uint256 ticketId = any % market.ticketCount();
        (address owner, bool leaving) = market.getTicket(ticketId);
        if (leaving || _auditorStaked(owner) - _auditorLocked(owner) < 4 ether) return;
        vm.prank(owner);
        market.retireTicket(ticketId);
    }

    function withdraw(uint256 any) external {
        address account = [REQUESTER, PROVIDER, RIVAL, AUDITOR, COLLEAGUE][any % 5];
        if (market.creditOf(account) == 0) return;
        vm.prank(account);
        market.withdraw();
    }

    function wait(uint256 time, uint256 blocks) external {
        vm.warp(block.timestamp + clamp(time, 0, 500));
        vm.roll(block.number + clamp(blocks, 0, 40));
    }

    function _pickJob(uint256 any) private view returns (uint256) {
        return jobCount == 0 ? 0 : 1 + any % jobCount;
    }

    function _pickLease(uint256 any) private view returns (uint256) {
        return leaseCount == 0 ? 0 : 1 + any % leaseCount;
    }

    function _audited(uint256 leaseId) private view returns (Made memory) {
        return lied[leaseId] ? _truth(leaseId) : made[leaseId];
    }

    function _wait(uint256 leaseId) private {
        Lease memory lease = market.getLease(leaseId);
        if (lease.stored == LeaseStatus.Committed) vm.roll(uint256(lease.drawBlock) + 257);
        else if (lease.deadline >= block.timestamp) _passDeadline(leaseId);
    }
}
