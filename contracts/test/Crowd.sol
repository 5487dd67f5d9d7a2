// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account, Role} from "../src/libraries/Accounts.sol";
import {Challenge, ChallengeStatus} from "../src/libraries/Challenges.sol";
import {Job, JobStatus} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Headers} from "./Headers.sol";
import {Market} from "./MarketTest.sol";
import {Strangers} from "./Strangers.sol";

/// @notice Who does what with leases at random, and what was seen of it.
abstract contract Crowd is Strangers {
    uint256 public constant JUROR = 5; // a third auditor, who votes by what is true if it votes
    uint256 internal constant LIVE_JOBS = 3; // the last ones; those before are done

    uint256 public jobs;
    uint256[] public openLeases;
    uint256[] public closedLeases;
    uint256[] public openChallenges;
    mapping(uint256 leaseId => bool) public lied; // its trace is false
    mapping(uint256 leaseId => bool) public withheld; // what it committed to cannot be fetched
    mapping(uint256 jobId => uint256) public spent; // of its escrow
    mapping(uint256 jobId => mapping(uint256 round => uint256)) public settledSlots;
    mapping(uint256 operator => uint256) public deposited; // less what was withdrawn
    mapping(uint256 operator => uint256) public excused; // what an honest one lost by the faults of others

    uint256 internal nextPause; // chain time

    function setUp() public virtual override {
        super.setUp();
        (rounds, slots, segments, samples, jobTime) = (3, 3, 2, 1, 30_000);
        _buyTickets(_register(), TICKETS);
        for (uint256 operator = PROVIDER; operator <= JUROR; ++operator) {
            deposited[operator] = DEPOSIT;
        }
    }

    function getMarket() external view returns (Market) {
        return market;
    }

    function requester() external pure returns (address) {
        return REQUESTER;
    }

    function challenger() external pure returns (address) {
        return CHALLENGER;
    }

    function firstLiveJob() external view returns (uint256) {
        return jobs > LIVE_JOBS ? jobs - LIVE_JOBS + 1 : 1;
    }

    function openLeaseCount() external view returns (uint256) {
        return openLeases.length;
    }

    function openChallengeCount() external view returns (uint256) {
        return openChallenges.length;
    }

    /// @notice A header of which nothing is right but what the draw reads: cheap, and as good.
    function _mine(uint256 number, bytes32 mixHash) internal override returns (bytes memory header) {
        header = Headers.encodeMixHash(mixHash);
        if (block.number <= number) vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
    }

    // Steps of a lease

    function _step(uint256 leaseId, uint256 choice) internal {
        if (leaseId == 0) return;
        LeaseStatus current = market.status(leaseId);
        bool rolls = current == LeaseStatus.Committed || current == LeaseStatus.Convened;
        if (rolls) _keepUp();
        current = market.status(leaseId);
        if (current == LeaseStatus.Leased) _commitAs(leaseId, choice);
        if (current == LeaseStatus.Committed && !_withdrawAs(leaseId, choice)) {
            _draw(leaseId, bytes32(choice));
        }
        if (current == LeaseStatus.Drawn || current == LeaseStatus.Reported) _audit(leaseId, choice);
        if (current == LeaseStatus.Withheld) market.convene(leaseId);
        if (current == LeaseStatus.Convened) _drawPanel(leaseId, bytes32(choice));
        if (current == LeaseStatus.Voting) _voteByChance(leaseId, choice);
        _sync(leaseId);
    }

    function _commitAs(uint256 leaseId, uint256 choice) private {
        if (market.getLease(leaseId).operator == PROVIDER) {
            lied[leaseId] = choice % 4 == 0;
            withheld[leaseId] = choice % 4 == 1;
        }
        _commit(leaseId);
    }

    function _withdrawAs(uint256 leaseId, uint256 choice) private returns (bool) {
        Lease memory lease = market.getLease(leaseId);
        bool possible = lease.operator == PROVIDER && lease.redraws == 0 && block.number + 4 <= lease.clock;
        if (!possible || choice % 4 != 0) return false;
        vm.prank(_worker(PROVIDER));
        market.withdrawCommitment(leaseId);
        return true;
    }

    /// @notice The drawn auditor acts: the honest one by what is true, the other by chance.
    function _audit(uint256 leaseId, uint256 choice) private {
        Lease memory lease = market.getLease(leaseId);
        uint256 action = choice % 5;
        if (lease.auditor == COLLEAGUE) action = lied[leaseId] ? 1 : withheld[leaseId] ? 2 : 0;
        bool isDrawn = lease.stored == LeaseStatus.Drawn;
        bool isEarly = isDrawn && market.time() + 80 <= lease.clock;
        if (action == 0) _attest(leaseId);
        if (action == 1) openChallenges.push(_accuse(leaseId, 0, choice % (segments + 1)));
        if (action == 2 && isDrawn) _report(leaseId);
        if (action == 3 && isEarly) _decline(leaseId);
    }

    /// @notice AUDITOR votes for its provider or against it, JUROR by what is true.
    function _voteByChance(uint256 leaseId, uint256 choice) private {
        bool free = choice % 2 == 0 && market.getLease(leaseId).operator == PROVIDER;
        bool available = free ? choice % 4 == 0 : !withheld[leaseId];
        if (free || choice % 3 == 0) _voteAs(leaseId, AUDITOR, available);
        else _voteAs(leaseId, JUROR, !withheld[leaseId]);
    }

    function _voteAs(uint256 leaseId, uint256 operator, bool available) private {
        (uint32[] memory members, uint256 voted,) = market.getPanel(leaseId);
        for (uint256 k = 0; k < members.length; ++k) {
            if (members[k] == operator && (voted >> k) & 1 == 0) return _vote(leaseId, operator, available);
        }
    }

    /// @notice The honest do what they must before time passes.
    function _keepUp() internal {
        for (uint256 i = 0; i < openLeases.length; ++i) {
            uint256 leaseId = openLeases[i];
            Lease memory lease = market.getLease(leaseId);
            bool commits = lease.operator == RIVAL && lease.stored == LeaseStatus.Leased;
            if (commits) _commit(leaseId);
            bool draws = lease.operator == RIVAL && lease.stored == LeaseStatus.Committed;
            if (commits || draws) {
                _draw(leaseId, keccak256(abi.encode(block.number)));
                lease = market.getLease(leaseId);
            }
            if (lease.stored == LeaseStatus.Drawn && lease.auditor == COLLEAGUE) _audit(leaseId, 0);
            if (lease.stored == LeaseStatus.Voting) _voteAs(leaseId, COLLEAGUE, !withheld[leaseId]);
        }
        for (uint256 i = openLeases.length; i > 0; --i) {
            _sync(openLeases[i - 1]); // a draw may have voided it
        }
        for (uint256 i = 0; i < openChallenges.length; ++i) {
            uint256 id = openChallenges[i];
            if (market.challengeStatus(id) != ChallengeStatus.Open) continue;
            if (market.getLease(market.getChallenge(id).leaseId).operator == RIVAL) _answer(id);
        }
    }

    function _dispute(uint256 id) internal {
        ChallengeStatus current = market.challengeStatus(id);
        if (_isDue(id)) market.resolve(id);
        else if (current == ChallengeStatus.Open) _answer(id);
        else _rule(id, lied[market.getChallenge(id).leaseId]);
        _syncChallenges();
    }

    // Exits

    function _exit(uint256 leaseId, bytes32 mixHash) internal {
        Lease memory lease = market.getLease(leaseId);
        uint256 silenceFee = _stakeOf(leaseId) * 350 / 10_000;
        uint256 believed = _account(lease.auditor == 0 ? AUDITOR : lease.auditor).staked;
        LeaseStatus current = market.status(leaseId);
        _takeExit(leaseId, mixHash);
        bool voids = current == LeaseStatus.AuditorSilent && lease.silences == 2;
        if (voids) excused[lease.operator] += _stakeOf(leaseId) * 500 / 10_000;
        // A reporter that is not believed, although it was right.
        bool pays = current == LeaseStatus.Voted && _account(lease.auditor).staked < believed;
        if (pays) excused[lease.auditor] += silenceFee;
        _sync(leaseId);
    }

    /// @notice Let the clock of a lease run out.
    function _outwait(uint256 leaseId) internal {
        _keepUp(); // which may move the lease itself
        Lease memory lease = market.getLease(leaseId);
        bool waitsForBlock = lease.stored == LeaseStatus.Committed || lease.stored == LeaseStatus.Convened;
        if (waitsForBlock && block.number <= uint256(lease.clock) + 256) _passDrawBlock(leaseId);
        else if (!waitsForBlock && lease.clock >= market.time()) _wait(lease.clock - market.time() + 1);
    }

    function _outwaitChallenge(uint256 id) internal {
        _keepUp(); // its provider may answer
        uint256 clock = market.getChallenge(id).clock;
        if (clock >= market.time()) _wait(clock - market.time() + 1);
    }

    /// @notice Let the market's time pass, once the honest are up to date.
    function _wait(uint256 duration) internal {
        _keepUp();
        uint256 until = market.pausedUntil();
        if (until != 0) vm.warp(until);
        _passTime(duration);
    }

    // What was seen

    /// @notice Write down what became of a lease.
    function _sync(uint256 leaseId) internal {
        if (!_isOver(leaseId)) return;
        for (uint256 i = 0; i < openLeases.length; ++i) {
            if (openLeases[i] != leaseId) continue;
            openLeases[i] = openLeases[openLeases.length - 1];
            openLeases.pop();
            closedLeases.push(leaseId);
            Lease memory lease = market.getLease(leaseId);
            bool paid = lease.stored == LeaseStatus.Settled;
            uint256 count = uint256(lease.extra) + 1;
            if (paid) settledSlots[leaseId / 1_000_000][lease.round] |= ((1 << count) - 1) << lease.first;
            if (paid) spent[leaseId / 1_000_000] += count * price + FEE;
            return;
        }
    }

    function _syncChallenges() internal {
        for (uint256 i = openChallenges.length; i > 0; --i) {
            uint256 id = openChallenges[i - 1];
            Challenge memory challenge = market.getChallenge(id);
            bool pending =
                challenge.stored == ChallengeStatus.Open || challenge.stored == ChallengeStatus.Answered;
            if (pending) continue;
            openChallenges[i - 1] = openChallenges[openChallenges.length - 1];
            openChallenges.pop();
            _sync(challenge.leaseId);
        }
    }

    function _refund(uint256 jobId) internal {
        uint256 before = market.creditOf(REQUESTER, asset);
        market.refund(jobId);
        spent[jobId] += market.creditOf(REQUESTER, asset) - before;
    }

    function _addStake(uint256 operator, uint256 amount) internal {
        vm.deal(_owner(operator), amount);
        _stake(operator, amount);
        deposited[operator] += amount;
    }

    function _withdrawStake(uint256 operator) internal {
        Account memory account = _account(operator);
        vm.prank(_owner(operator));
        market.withdrawStake(operator, operator < AUDITOR ? Role.Provider : Role.Auditor, asset);
        deposited[operator] -= account.thawing;
    }

    function _payOut(uint256 operator) internal {
        market.payOut(operator, operator < AUDITOR ? Role.Provider : Role.Auditor, asset);
    }

    /// @notice An operator takes everything out.
    function _leave(uint256 operator) internal {
        for (uint256 ticketId = 0; ticketId < market.ticketCount(asset); ++ticketId) {
            (uint256 owner, bool leaving) = market.getTicket(asset, ticketId);
            if (owner != operator || leaving) continue;
            vm.prank(_owner(operator));
            market.retireTicket(operator, asset, ticketId);
        }
        Account memory account = _account(operator);
        if (operator < AUDITOR && account.staked > account.thawing) {
            vm.prank(_owner(operator));
            market.thaw(operator, asset, account.staked - account.thawing);
        }
        _passTime(5_000);
        if (_account(operator).leaving) _withdrawStake(operator);
        if (account.earned > 0) _payOut(operator);
    }

    function _pickJob(uint256 any) internal view returns (uint256) {
        return jobs - any % (jobs < LIVE_JOBS ? jobs : LIVE_JOBS);
    }

    /// @return jobId A live job whose shards can be claimed; zero if there is none.
    function _pickOpenJob(uint256 any) internal view returns (uint256 jobId) {
        for (uint256 i = 0; i < LIVE_JOBS; ++i) {
            jobId = _pickJob(any % LIVE_JOBS + i);
            if (market.jobStatus(jobId) == JobStatus.Open) return jobId;
        }
        return 0;
    }

    /// @return leaseId An open lease; zero if there is none.
    function _pickLease(uint256 any) internal view returns (uint256 leaseId) {
        return openLeases.length == 0 ? 0 : openLeases[any % openLeases.length];
    }

    function _isJobOver(uint256 jobId) internal view returns (bool) {
        JobStatus current = market.jobStatus(jobId);
        return current == JobStatus.SeedLost || current >= JobStatus.Ended || current == JobStatus.None;
    }

    /// @notice Whether nothing of a job can change any more.
    function _isDone(uint256 jobId) internal view returns (bool) {
        Job memory job = market.getJob(jobId);
        return _isJobOver(jobId) && job.active == 0 && job.escrow == 0;
    }

    /// @notice What an operator lacks to lock `amount`.
    function _missingStake(uint256 operator, uint256 amount) internal view returns (uint256) {
        Account memory account = _account(operator);
        uint256 needed = uint256(account.locked) + account.thawing + amount;
        return needed > account.staked ? needed - account.staked : 0;
    }

    function _countBits(uint256 word) internal pure returns (uint256 count) {
        for (; word > 0; word >>= 1) {
            count += word & 1;
        }
    }
}
