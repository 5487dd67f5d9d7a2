// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Ledger} from "./Ledger.sol";
import {IAudits, IChallenges, RecordOpening, StateOpening} from "./interfaces/IAudits.sol";
import {IClosing} from "./interfaces/IMarket.sol";
import {Challenge, ChallengeStatus} from "./libraries/Challenges.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Draw} from "./libraries/Draw.sol";
import {Job} from "./libraries/Jobs.sol";
import {Lease, LeaseStatus} from "./libraries/Leases.sol";

/// @notice Takes accusations of single records, and carries out what becomes of them.
/// @dev What is right is for `JUDGE`, which rules on what the provider opened here.
abstract contract Disputes is IChallenges, Ledger {
    using SafeCast for uint256;

    mapping(uint256 challengeId => Challenge) private _challenges;
    uint256 private _challengeCount; // numbers begin at 1

    /// @inheritdoc IChallenges
    function accuse(uint256 leaseId, uint256 shard, uint256 index) external returns (uint256) {
        Lease storage lease = _requireAudited(leaseId);
        lease.stored = LeaseStatus.Accused; // until its challenge is closed, which has a clock of its own
        return _open(leaseId, lease, shard, index, 0);
    }

    /// @inheritdoc IChallenges
    function challenge(uint256 leaseId, uint256 shard, uint256 index)
        external
        payable
        returns (uint256 challengeId)
    {
        Lease storage lease = _leases[leaseId];
        if (lease.stored != LeaseStatus.Attested) {
            revert ChallengeNotChallengeable(leaseId, lease.status(_now()));
        }
        if (_now() > lease.clock) revert ChallengeWindowOver(leaseId, _now(), lease.clock);
        if (JUDGE == address(0)) revert ChallengeNeedsJudge();
        bool owns = _operators[lease.operator].owner == msg.sender;
        if (owns || _isWorker(lease.operator, msg.sender)) revert ChallengeByProvider(leaseId, msg.sender);

        Job storage job = _jobOf(leaseId);
        uint256 bond = _share(_stakeOf(lease, job), BOND_BPS);
        ++lease.challenges;
        challengeId = _open(leaseId, lease, shard, index, bond);
        _receive(job.asset, bond);
    }

    /// @inheritdoc IChallenges
    function answer(uint256 challengeId, StateOpening calldata before, RecordOpening calldata opened)
        external
    {
        Challenge storage self = _requireChallenge(challengeId, ChallengeStatus.Open);
        if (JUDGE == address(0)) revert ChallengeNeedsJudge();
        uint256 leaseId = self.leaseId;
        Lease storage lease = _leases[leaseId];
        _requireWorker(lease.operator);
        _requireOpenings(leaseId, lease, self.position, before, opened);

        uint256 deadline = _now() + RULING_TIME;
        self.stored = ChallengeStatus.Answered;
        self.clock = deadline.toUint40();
        self.opened = keccak256(abi.encode(before, opened));
        emit ChallengeAnswered(challengeId, before, opened, deadline);
    }

    /// @inheritdoc IChallenges
    function rule(uint256 challengeId, bool upheld) external {
        if (msg.sender != JUDGE) revert ChallengeNotJudge(msg.sender, JUDGE);
        Challenge storage self = _requireChallenge(challengeId, ChallengeStatus.Answered);
        Lease storage lease = _leases[self.leaseId];
        if (!_isPending(lease)) return _drop(challengeId, self, lease);
        if (upheld) _uphold(challengeId, self, lease);
        else _dismiss(challengeId, self, lease);
    }

    /// @inheritdoc IChallenges
    function resolve(uint256 challengeId) external {
        Challenge storage self = _challenges[challengeId];
        ChallengeStatus current = self.status(_now());
        Lease storage lease = _leases[self.leaseId];
        bool moot = self.isPending() && !_isPending(lease);
        if (moot || current == ChallengeStatus.Unruled) return _drop(challengeId, self, lease);
        if (current != ChallengeStatus.Unanswered) revert ChallengeNotDue(challengeId, current);
        _uphold(challengeId, self, lease);
    }

    /// @inheritdoc IChallenges
    function getChallenge(uint256 challengeId) external view returns (Challenge memory) {
        return _challenges[challengeId];
    }

    /// @inheritdoc IChallenges
    function challengeStatus(uint256 challengeId) external view returns (ChallengeStatus) {
        return _challenges[challengeId].status(_now());
    }

    /// @inheritdoc IChallenges
    function challengeCount() external view returns (uint256) {
        return _challengeCount;
    }

    function _open(uint256 leaseId, Lease storage lease, uint256 shard, uint256 index, uint256 bond)
        private
        returns (uint256 challengeId)
    {
        uint256 segments = _jobOf(leaseId).segments;
        if (shard >= lease.count() || index > segments) {
            revert ChallengeNoSuchRecord(leaseId, shard, index);
        }
        uint256 position = Commitments.positionOf(shard, index, segments);
        uint256 deadline = _now() + RESPONSE_TIME;
        bool byAuditor = lease.stored == LeaseStatus.Accused;
        challengeId = ++_challengeCount;
        _challenges[challengeId] = Challenge({
            challenger: msg.sender,
            leaseId: leaseId.toUint64(),
            byAuditor: byAuditor,
            stored: ChallengeStatus.Open,
            position: position.toUint24(),
            clock: deadline.toUint40(),
            bond: bond.toUint80(),
            opened: 0
        });
        emit RecordChallenged(challengeId, leaseId, msg.sender, byAuditor, position, bond, deadline);
    }

    /// @notice The provider was wrong: its stake is lost, and that of the auditor who attested it.
    function _uphold(uint256 challengeId, Challenge storage self, Lease storage lease) private {
        uint256 leaseId = self.leaseId;
        Job storage job = _jobOf(leaseId);
        uint256 amount = _stakeOf(lease, job);
        uint256 reward = _share(amount, SLASH_SHARE_BPS);
        LeaseStatus reason = lease.stored;
        if (self.byAuditor) {
            _auditor(lease, job).unlock(amount, 0);
            _auditor(lease, job).earn(reward);
        } else {
            // Whoever vouched for what is proven false is slashed with it; a provider's silence proves nothing
            // about its auditor, who could not answer for it.
            bool proven = self.stored == ChallengeStatus.Answered;
            uint256 guilt = proven && _isAttested(lease, job, self.position) ? amount : 0;
            _auditor(lease, job).unlock(amount, guilt);
            _uncountAttested(leaseId, lease, job);
            reward += _share(guilt, SLASH_SHARE_BPS);
            amount += guilt;
            _owe(job.asset, self.challenger, reward + self.bond);
        }
        _reopen(leaseId, lease, LeaseStatus.Slashed, _stakeOf(lease, job));
        _forfeit(job.asset, amount - reward);
        emit IAudits.LeaseSlashed(leaseId, reason, amount, reward);
        _close(challengeId, self, ChallengeStatus.Upheld);
    }

    /// @notice The challenger was wrong: it loses its bond or its locked stake, a share of it to the provider.
    function _dismiss(uint256 challengeId, Challenge storage self, Lease storage lease) private {
        uint256 leaseId = self.leaseId;
        Job storage job = _jobOf(leaseId);
        uint256 loss = self.byAuditor ? _stakeOf(lease, job) : self.bond;
        uint256 reward = _share(loss, SLASH_SHARE_BPS);
        _provider(lease, job).earn(reward);
        _forfeit(job.asset, loss - reward);
        _close(challengeId, self, ChallengeStatus.Rejected);
        if (!self.byAuditor) {
            --lease.challenges;
            return;
        }
        uint256 auditor = _dismissAuditor(leaseId, lease, loss);
        (lease.seed, lease.silences) = (0, 0); // what was opened can be copied
        emit IClosing.AuditorReplaced(leaseId, auditor, loss, _redraw(leaseId, lease));
    }

    /// @notice Nobody ruled in time, or the lease ended before: bonds go back.
    function _drop(uint256 challengeId, Challenge storage self, Lease storage lease) private {
        _close(challengeId, self, ChallengeStatus.Dropped);
        if (self.byAuditor) {
            _dismissAuditor(self.leaseId, lease, 0);
            return _void(self.leaseId, lease, 0);
        }
        if (_isPending(lease)) --lease.challenges;
        _owe(_jobOf(self.leaseId).asset, self.challenger, self.bond);
    }

    function _close(uint256 challengeId, Challenge storage self, ChallengeStatus outcome) private {
        self.stored = outcome;
        emit ChallengeClosed(challengeId, self.leaseId, outcome);
    }

    /// @notice Whether the auditor vouched for the record at `position`: it ends a drawn segment, or begins a shard.
    function _isAttested(Lease storage lease, Job storage job, uint256 position) private view returns (bool) {
        (uint256 shard, uint256 index) = Commitments.recordAt(position, job.segments);
        if (index == 0) return true;
        uint256[] memory segments = _segmentsOf(lease, job);
        return Draw.contains(segments, segments.length, shard * job.segments + index - 1);
    }

    /// @notice Whether challenges still matter to a lease.
    function _isPending(Lease storage lease) private view returns (bool) {
        return lease.stored == LeaseStatus.Accused || lease.stored == LeaseStatus.Attested;
    }

    function _requireChallenge(uint256 challengeId, ChallengeStatus required)
        private
        view
        returns (Challenge storage self)
    {
        self = _challenges[challengeId];
        ChallengeStatus current = self.status(_now());
        if (current != required) revert ChallengeInUnexpectedStatus(challengeId, current, required);
    }

    /// @notice Require the accused record and the one before it, as the lease's root has them.
    function _requireOpenings(
        uint256 leaseId,
        Lease storage lease,
        uint256 position,
        StateOpening calldata before,
        RecordOpening calldata opened
    ) private view {
        uint256 segments = _jobOf(leaseId).segments;
        (uint256 shard, uint256 index) = Commitments.recordAt(position, segments);
        uint256 first = index == 0 ? 0 : index - 1;
        bytes32 record = Commitments.hashRecord(first, before.stateRoot, before.outcome);
        uint256 place = Commitments.positionOf(shard, first, segments);
        uint256 depth = Commitments.leaseDepth(lease.count(), segments);
        if (!Commitments.isValidBranch(record, before.branch, place, depth, lease.root)) {
            revert IAudits.AuditInvalidOpening(leaseId, place);
        }
        if (index > 0) _requireRecord(leaseId, lease, segments, shard, index, opened);
    }
}
