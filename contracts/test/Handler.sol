// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account} from "../src/libraries/Accounts.sol";
import {Job, JobStatus} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Crowd} from "./Crowd.sol";

/// @notice Everything that anybody may do, in any order. PROVIDER and AUDITOR do what they like; RIVAL and COLLEAGUE
/// are honest and in time.
contract Handler is Crowd {
    // Jobs

    function createJob(bool closesByTime) external {
        if (market.pausedUntil() != 0 || (jobs >= LIVE_JOBS && !_isDone(jobs - LIVE_JOBS + 1))) return;
        (roundTime, quorum) = closesByTime ? (uint32(700), uint16(2)) : (0, uint16(slots));
        vm.deal(REQUESTER, WEALTH);
        jobs = _createJob();
    }

    function seedJob(uint256 any) external {
        uint256 jobId = _pickJob(any);
        if (market.jobStatus(jobId) == JobStatus.Funded) _seed(jobId);
    }

    function closeRound(uint256 any) external {
        uint256 jobId = _pickJob(any);
        Job memory job = market.getJob(jobId);
        if (job.round >= job.rounds || !job.seeded || job.roundTime == 0) return;
        (, uint256 attested,) = market.getRound(jobId, job.round);
        if (_countBits(attested) < job.quorum) return;
        uint256 earliest = uint256(job.openedAt) + job.roundTime;
        if (market.time() <= earliest) _wait(earliest - market.time() + 1);
        if (market.getJob(jobId).round == job.round && market.time() > earliest) market.closeRound(jobId);
    }

    function cancelJob(uint256 any) external {
        uint256 jobId = _pickJob(any);
        if (any % 8 != 0 || _isJobOver(jobId)) return; // rarely
        vm.prank(REQUESTER);
        market.cancelJob(jobId);
    }

    function refund(uint256 any) external {
        uint256 jobId = _pickJob(any);
        Job memory job = market.getJob(jobId);
        uint256 reserved = uint256(job.active) * (uint256(job.pricePerShard) + job.auditFee);
        if (_isJobOver(jobId) && job.escrow > reserved) _refund(jobId);
    }

    // Leases

    function claim(uint256 any, uint256 first, uint256 count, bool rival) external {
        uint256 jobId = _pickOpenJob(any);
        if (market.pausedUntil() != 0 || jobId == 0) return;
        uint256 operator = rival ? RIVAL : PROVIDER;
        uint256 round = market.getJob(jobId).round;
        (uint256 taken,,) = market.getRound(jobId, round);
        first = clamp(first, 0, slots - 1);
        while (first < slots && (taken >> first) & 1 == 1) ++first;
        if (first == slots) return;
        count = clamp(count, 1, slots - first);
        if ((taken >> first) & ((1 << count) - 1) != 0) count = 1;
        uint256 missing = _missingStake(operator, count * STAKE);
        if (missing > 0) _addStake(operator, missing);
        openLeases.push(_claim(operator, jobId, round, first, count));
    }

    /// @notice The next step of a lease, by whoever is to take it.
    function step(uint256 any, uint256 choice) external {
        _step(_pickLease(any), choice);
    }

    /// @notice What anyone may do once a clock has run out; first, perhaps, it does.
    function exit(uint256 any, bool waits, bytes32 mixHash) external {
        uint256 leaseId = _pickLease(any);
        if (leaseId == 0) return;
        if (waits) _outwait(leaseId);
        _exit(leaseId, mixHash);
    }

    function challenge(uint256 any, uint256 shard, uint256 index) external {
        uint256 leaseId = _pickLease(any);
        if (leaseId == 0 || market.status(leaseId) != LeaseStatus.Attested) return;
        Lease memory lease = market.getLease(leaseId);
        if (market.time() > lease.clock || lease.challenges > 2) return;
        vm.deal(CHALLENGER, WEALTH);
        openChallenges.push(
            _challenge(leaseId, shard % (uint256(lease.extra) + 1), clamp(index, 0, segments))
        );
    }

    /// @notice The next step of a challenge: by its provider, the judge, who knows the truth, or a clock.
    function dispute(uint256 any, bool waits) external {
        if (openChallenges.length == 0) return;
        uint256 id = openChallenges[any % openChallenges.length];
        if (waits) _outwaitChallenge(id);
        _dispute(id);
    }

    /// @notice Whatever is tried with a lease that is over, it changes nothing.
    function disturb(uint256 any, uint256 choice) external {
        if (closedLeases.length == 0) return;
        uint256 leaseId = closedLeases[any % closedLeases.length];
        bytes4[8] memory calls = [
            market.settle.selector,
            market.expire.selector,
            market.slash.selector,
            market.replaceAuditor.selector,
            market.closeVote.selector,
            market.convene.selector,
            market.withdrawCommitment.selector,
            market.report.selector
        ];
        (bool success,) = address(market).call(abi.encodeWithSelector(calls[choice % 8], leaseId));
        assertTrue(!success, "a lease that is over stays as it is");
    }

    // Money

    function stake(uint256 amount, bool rival) external {
        _addStake(rival ? RIVAL : PROVIDER, clamp(amount, 1, 20 ether));
    }

    function thaw(uint256 amount, bool rival) external {
        uint256 operator = rival ? RIVAL : PROVIDER;
        Account memory account = _account(operator);
        if (account.staked == account.thawing) return;
        amount = clamp(amount, 1, uint256(account.staked - account.thawing) / 4 + 1);
        vm.prank(_owner(operator));
        market.thaw(operator, asset, amount);
    }

    function buyTickets(uint256 count, bool colleague) external {
        if (market.ticketCount(asset) > 24 || market.pausedUntil() != 0) return;
        count = clamp(count, 1, 3);
        uint256 operator = colleague ? COLLEAGUE : AUDITOR;
        vm.deal(_owner(operator), count * TICKET_STAKE);
        _buyTickets(operator, count);
        deposited[operator] += count * TICKET_STAKE;
    }

    function retireTicket(uint256 any) external {
        uint256 ticketId = any % market.ticketCount(asset);
        (uint256 operator, bool leaving) = market.getTicket(asset, ticketId);
        if (leaving) return;
        vm.prank(_owner(operator));
        market.retireTicket(operator, asset, ticketId);
    }

    function withdrawStake(uint256 any) external {
        uint256 operator = 1 + any % JUROR;
        Account memory account = _account(operator);
        bool leaves = account.leaving && market.time() > account.thawedAt;
        if (leaves && account.staked - account.locked >= account.thawing) _withdrawStake(operator);
    }

    function payOut(uint256 any) external {
        uint256 operator = 1 + any % JUROR;
        if (_account(operator).earned > 0) _payOut(operator);
    }

    function withdraw(uint256 any) external {
        address account = any % 2 == 0 ? REQUESTER : CHALLENGER;
        if (market.creditOf(account, asset) == 0) return;
        vm.prank(account);
        market.withdraw(asset, account);
    }

    function burn() external {
        if (market.burnable(asset) > 0) market.burn(asset);
    }

    // Time

    function pause(uint256 any) external {
        bool paused = market.pausedUntil() != 0;
        if (paused) {
            vm.prank(GUARDIAN);
            market.unpause();
        } else if (any % 2 == 0 && block.timestamp >= nextPause) {
            nextPause = block.timestamp + 2_500; // the limit and the interval
            vm.prank(GUARDIAN);
            market.pause();
        }
    }

    function wait(uint256 time, uint256 blocks) external {
        _keepUp();
        _passTime(clamp(time, 0, 500));
        vm.roll(block.number + clamp(blocks, 0, 40));
    }

    /// @notice End every lease, challenge and job as a stranger, and give everybody what is theirs.
    function finishAll() external {
        while (openLeases.length > 0) {
            uint256 leaseId = openLeases[openLeases.length - 1];
            _finish(leaseId);
            _sync(leaseId);
        }
        for (uint256 i = 0; i < openChallenges.length; ++i) {
            if (_isDue(openChallenges[i])) market.resolve(openChallenges[i]); // of a lease that is over
        }
        _passTime(200_000);
        for (uint256 jobId = 1; jobId <= jobs; ++jobId) {
            if (market.jobStatus(jobId) == JobStatus.Funded) vm.roll(block.number + 300);
            if (market.getJob(jobId).escrow > 0) _refund(jobId);
        }
        for (uint256 operator = PROVIDER; operator <= JUROR; ++operator) {
            _leave(operator);
        }
    }
}
