// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RLP} from "@openzeppelin/contracts/utils/RLP.sol";
import {IAudits, RecordOpening} from "../src/interfaces/IAudits.sol";
import {Config, IDeployment} from "../src/interfaces/IDeployment.sol";
import {ILedger} from "../src/interfaces/ILedger.sol";
import {IMarket, StateOpening} from "../src/interfaces/IMarket.sol";
import {IStakes} from "../src/interfaces/IStakes.sol";
import {Outcome, Trace} from "../src/libraries/Commitments.sol";
import {Terms} from "../src/libraries/Jobs.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {Made, Traces} from "./Traces.sol";
import {Test} from "./Vm.sol";

/// @notice All that `Market` shows. Tests know it by this, and deploy its optimized code.
interface Market is IDeployment, IStakes, ILedger, IAudits, IMarket {}

/// @notice A deployed market, its people, and every step of a shard's life.
abstract contract MarketTest is Test {
    using RLP for RLP.Encoder;

    address internal constant REQUESTER = address(0x1001);
    address internal constant PROVIDER = address(0x1002);
    address internal constant RIVAL = address(0x1003); // another provider
    address internal constant AUDITOR = address(0x1004);
    address internal constant COLLEAGUE = address(0x1005); // another auditor
    address internal constant STRANGER = address(0x1006);

    uint64 internal constant ROUNDS = 2;
    uint64 internal constant SLOTS = 2;
    uint64 internal constant STEPS = 4;
    uint96 internal constant FEE = 0.1 ether;
    uint96 internal constant STAKE = 5 ether;
    bytes32 internal constant SALT = "salt";
    bytes32 internal constant AUDIT_DOMAIN = hex"5453544e0a";
    bytes32 internal constant MIX_HASH = "mix hash";

    uint64 internal segments = 8;
    uint16 internal samples = 2;
    uint96 internal price = 1 ether; // the most that STAKE allows: S >= 3 n R / 2 m - R
    Market internal market;
    mapping(uint256 leaseId => Made) internal made; // what the provider commits to

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        market = _deploy(_config());
        address[6] memory people = [REQUESTER, PROVIDER, RIVAL, AUDITOR, COLLEAGUE, STRANGER];
        for (uint256 i = 0; i < people.length; ++i) {
            vm.deal(people[i], 1_000 ether);
        }
        _stake(PROVIDER, 20 ether);
        _stake(RIVAL, 20 ether);
        _buyTickets(AUDITOR, 4);
        _buyTickets(COLLEAGUE, 4);
    }

    function _deploy(Config memory constants) internal returns (Market) {
        return Market(vm.deployCode("src/Market.sol:Market", abi.encode(constants)));
    }

    function _config() internal pure returns (Config memory) {
        return Config({
            drawDistance: 8,
            auditTime: 100,
            openTime: 200,
            revealTime: 300,
            responseTime: 400,
            challengeWindow: 2_000,
            maxLeaseTime: 1_000,
            ticketStake: 4 ether,
            expiryFeeBps: 100,
            withdrawFeeBps: 200,
            voidFeeBps: 500,
            silenceFeeBps: 300,
            slashShareBps: 3_000
        });
    }

    function _terms() internal view returns (Terms memory) {
        return Terms(price, FEE, STAKE, 0, 600, samples, uint64(block.timestamp + 10_000));
    }

    function _schedule() internal view returns (bytes32) {
        return bytes32(abi.encodePacked(ROUNDS, SLOTS, segments, STEPS));
    }

    function _spec() internal view returns (bytes32[8] memory leaves) {
        for (uint256 i = 0; i < 8; ++i) {
            leaves[i] = keccak256(abi.encode("spec", i));
        }
        leaves[5] = _schedule();
    }

    function _escrow() internal view returns (uint256) {
        return uint256(ROUNDS) * SLOTS * (price + FEE);
    }

    // Steps before a lease

    function _stake(address provider, uint256 amount) internal {
        vm.prank(provider);
        market.stake{value: amount}();
    }

    function _buyTickets(address auditor, uint256 count) internal {
        vm.prank(auditor);
        market.buyTickets{value: count * 4 ether}(count);
    }

    function _createJob() internal returns (uint256) {
        vm.prank(REQUESTER);
        return market.createJob{value: _escrow()}(_spec(), _terms());
    }

    /// @notice Mine past block `number`, whose header has `mixHash`.
    function _mine(uint256 number, bytes32 mixHash) internal returns (bytes memory header) {
        header = _header(number, mixHash);
        if (block.number <= number) vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
    }

    function _header(uint256 number, bytes32 mixHash) internal pure returns (bytes memory) {
        return _headerWith(number, 30e6, mixHash, "extra");
    }

    function _headerWith(uint256 number, uint256 gasLimit, bytes32 mixHash, bytes memory extra)
        internal
        pure
        returns (bytes memory)
    {
        RLP.Encoder memory list = RLP.encoder();
        list.push(keccak256("parent")).push(keccak256("ommers")).push(address(0xc0ffee));
        list.push(keccak256("state")).push(keccak256("transactions")).push(keccak256("receipts"));
        list.push(new bytes(256)).push(uint256(0)).push(number).push(gasLimit).push(uint256(21_000));
        list.push(uint256(1_800_000_000)).push(extra).push(mixHash).push(new bytes(8));
        list.push(uint256(7)).push(keccak256("withdrawals")).push(uint256(0)).push(uint256(0));
        return list.push(keccak256("beacon")).push(keccak256("requests")).encode();
    }

    function _seed(uint256 jobId) internal {
        bytes memory header = _mine(market.getJob(jobId).seedBlock, MIX_HASH);
        market.drawSeed(jobId, header);
    }

    function _openJob() internal returns (uint256 jobId) {
        jobId = _createJob();
        _seed(jobId);
    }

    // Steps of a lease

    function _claim(address provider, uint256 jobId, uint256 round, uint256 slot)
        internal
        returns (uint256 leaseId)
    {
        bytes32 base = round == 0 ? market.getJob(jobId).baseRoot : keccak256(abi.encode("round", round));
        bytes32 slotRoot = market.slotState(jobId, slot);
        vm.prank(provider);
        leaseId = market.claim(jobId, round, slot);
        made[leaseId] = Traces.make(leaseId, segments, base, slotRoot);
    }

    function _claimFirst() internal returns (uint256) {
        return _claim(PROVIDER, _openJob(), 0, 0);
    }

    function _commit(uint256 leaseId) internal {
        Made memory mine = made[leaseId];
        (StateOpening memory first, StateOpening memory last) =
            (mine.stateOpening(0), mine.stateOpening(segments));
        bytes32 root = mine.root();
        vm.prank(market.getLease(leaseId).provider);
        market.commit(leaseId, root, first, last, "manifest");
    }

    function _draw(uint256 leaseId) internal {
        _draw(leaseId, MIX_HASH);
    }

    function _draw(uint256 leaseId, bytes32 mixHash) internal {
        bytes memory header = _mine(market.getLease(leaseId).drawBlock, mixHash);
        vm.prank(STRANGER);
        market.draw(leaseId, header);
    }

    /// @notice What `auditor` commits to when it recomputed `mine`.
    function _audit(uint256 leaseId, address auditor, Made memory mine) internal view returns (bytes32) {
        uint16[] memory drawn = market.drawnSegments(leaseId);
        bytes memory preimage =
            abi.encode(AUDIT_DOMAIN, block.chainid, market, leaseId, auditor, SALT, mine.bases[0]);
        Outcome[] memory outcomes = mine.outcomes(drawn);
        for (uint256 j = 0; j < drawn.length; ++j) {
            preimage = bytes.concat(preimage, abi.encode(drawn[j], outcomes[j]));
        }
        return sha256(preimage);
    }

    function _commitAudit(uint256 leaseId, Made memory mine) internal {
        address auditor = market.getLease(leaseId).auditor;
        bytes32 audit = _audit(leaseId, auditor, mine);
        vm.prank(auditor);
        market.commitAudit(leaseId, audit);
    }

    function _open(uint256 leaseId) internal {
        Made memory mine = made[leaseId];
        RecordOpening[] memory openings = mine.openings(market.drawnSegments(leaseId));
        Trace memory trace = mine.trace();
        vm.prank(market.getLease(leaseId).provider);
        market.open(leaseId, trace, openings);
    }

    function _reveal(uint256 leaseId, Made memory audited) internal {
        _revealAs(market.getLease(leaseId).auditor, leaseId, audited);
    }

    function _revealAs(address auditor, uint256 leaseId, Made memory audited) internal {
        uint16[] memory drawn = market.drawnSegments(leaseId);
        Trace memory trace = made[leaseId].trace();
        bytes32[] memory claimed = made[leaseId].claims(drawn);
        Outcome[] memory outcomes = audited.outcomes(drawn);
        vm.prank(auditor);
        market.reveal(leaseId, trace, claimed, audited.bases[0], outcomes, SALT);
    }

    /// @notice Bring a committed lease to an honest audit's end.
    function _attest(uint256 leaseId) internal {
        _draw(leaseId);
        _commitAudit(leaseId, made[leaseId]);
        _open(leaseId);
        _reveal(leaseId, made[leaseId]);
    }

    /// @notice What an honest recomputation gives where the provider's gradient of every segment is false.
    function _truth(uint256 leaseId) internal view returns (Made memory honest) {
        honest = made[leaseId];
        for (uint256 i = 0; i < segments; ++i) {
            honest.gradients[i] = keccak256(abi.encode("true gradient", i));
        }
    }

    function _passDeadline(uint256 leaseId) internal {
        vm.warp(uint256(market.getLease(leaseId).deadline) + 1);
    }

    /// @notice A new lease of the provider, brought to `target`.
    function _leaseIn(LeaseStatus target) internal returns (uint256 leaseId) {
        if (target == LeaseStatus.None) return 77;
        leaseId = _claimFirst();
        if (target == LeaseStatus.Leased) return leaseId;
        if (target == LeaseStatus.Expired || target == LeaseStatus.Lapsed) {
            _passDeadline(leaseId);
            if (target == LeaseStatus.Lapsed) market.expire(leaseId);
            return leaseId;
        }
        _commit(leaseId);
        if (target == LeaseStatus.Committed) return leaseId;
        if (target == LeaseStatus.Withdrawn) {
            vm.prank(PROVIDER);
            market.withdrawCommitment(leaseId);
            return leaseId;
        }
        if (target == LeaseStatus.Undrawn || target == LeaseStatus.Slashed) {
            vm.roll(uint256(market.getLease(leaseId).drawBlock) + 257);
            if (target == LeaseStatus.Slashed) market.slash(leaseId);
            return leaseId;
        }
        _draw(leaseId);
        if (target == LeaseStatus.Voided) _silenceAuditors(leaseId);
        else _auditUpTo(leaseId, target);
    }

    function _silenceAuditors(uint256 leaseId) internal {
        for (uint256 i = 0; i < 3; ++i) {
            if (i > 0) _draw(leaseId);
            _passDeadline(leaseId);
            market.replaceAuditor(leaseId);
        }
    }

    function _auditUpTo(uint256 leaseId, LeaseStatus target) private {
        bool lies = target == LeaseStatus.Mismatched || target == LeaseStatus.Forfeited;
        Made memory audited = lies ? _truth(leaseId) : made[leaseId];
        if (target > LeaseStatus.AuditorSilent) _commitAudit(leaseId, audited);
        if (target > LeaseStatus.ProviderSilent) _open(leaseId);
        if (target > LeaseStatus.RevealMissed) _reveal(leaseId, audited);
        if (market.status(leaseId) == target) return;
        _passDeadline(leaseId);
        if (target == LeaseStatus.Settled) market.settle(leaseId);
    }

    // Views

    function _locked(address provider) internal view returns (uint256 locked) {
        (, locked) = market.providerStake(provider);
    }

    function _staked(address provider) internal view returns (uint256 staked) {
        (staked,) = market.providerStake(provider);
    }

    function _auditorLocked(address auditor) internal view returns (uint256 locked) {
        (, locked) = market.auditorStake(auditor);
    }

    function _auditorStaked(address auditor) internal view returns (uint256 staked) {
        (staked,) = market.auditorStake(auditor);
    }

    function _auditorOf(uint256 leaseId) internal view returns (address) {
        return market.getLease(leaseId).auditor;
    }

    function assertStatus(uint256 leaseId, LeaseStatus expected) internal view {
        assertEq(uint256(market.status(leaseId)), uint256(expected));
    }
}
