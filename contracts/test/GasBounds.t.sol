// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RecordOpening, StateOpening} from "../src/interfaces/IAudits.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";
import {Work} from "./Traces.sol";

/// @notice No call costs more than a constant, whatever the job, the lease and the market are like: the largest lease
/// (256 shards of 256 segments, 16 of them drawn) and the longest searches for tickets stay below these bounds.
contract GasBoundsTest is LeaseStates {
    event log_named_uint(string name, uint256 gas); // which forge prints

    uint256 private constant PLAIN = 120_000; // a call that moves money or changes a status
    uint256 private constant MOST = 1_000_000; // a call that opens, searches or seats

    /// forge-config: default.isolate = true
    function test_gas_of_the_largest_lease_is_bounded() public {
        (slots, quorum, segments, samples, price) = (256, 256, 256, 16, 0.1 ether);
        vm.deal(_owner(PROVIDER), 2_000 ether);
        vm.deal(_owner(AUDITOR), 2_000 ether);
        _stake(PROVIDER, 256 * uint256(STAKE));
        _buyTickets(AUDITOR, 256);
        uint256 jobId = _createJob();
        _bound("createJob", 400_000);
        _seed(jobId);
        _bound("drawSeed", PLAIN);
        vm.prank(_worker(PROVIDER));
        uint256 leaseId = market.claim(jobId, PROVIDER, 0, 0, 256);
        _bound("claim of 256 shards", PLAIN);
        works[leaseId] = Work(leaseId, 1, 256); // the trace of every one of its shards
        bytes32[] memory nodes = _upperNodes(leaseId);
        vm.prank(_worker(PROVIDER));
        market.commit(leaseId, nodes[8], "manifest");
        _bound("commit of 256 shards", PLAIN);

        _draw(leaseId, _mixHashFor(leaseId));
        _bound("draw of 16 segments", MOST);
        _attestLargest(leaseId);
        _bound("attest with 16 records of 65,792", MOST);
        uint256 challengeId = _challenge(leaseId, 255, 256);
        _bound("challenge", 250_000);
        StateOpening memory before = works[leaseId].stateOpening(0, 255);
        RecordOpening memory opened = works[leaseId].opening(0, 256);
        before.branch = _extend(before.branch, nodes);
        opened.branch = _extend(opened.branch, nodes);
        vm.prank(_worker(PROVIDER));
        market.answer(challengeId, before, opened);
        _bound("answer", 250_000);
        _rule(challengeId, true);
        _bound("rule, upheld", 250_000);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_searching_for_tickets_is_bounded() public {
        uint256 operator = _register();
        _buyTickets(operator, 100);
        for (uint256 i = 0; i < 108; ++i) {
            uint256 owner = i < TICKETS ? AUDITOR : i < 2 * TICKETS ? COLLEAGUE : operator;
            if (i % 54 != 0) _retire(owner, i); // few are left
        }
        uint256 leaseId = _claimFirst();
        _commit(leaseId);

        _draw(leaseId); // the stored facts of 32 candidates are read
        _bound("draw among retired tickets", MOST);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_a_panel_is_bounded() public {
        for (uint256 i = 0; i < 12; ++i) {
            _buyTickets(_register(), 1);
        }
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        _report(leaseId);
        _bound("report", PLAIN);
        _passDeadline(leaseId);
        market.convene(leaseId);
        _bound("convene", PLAIN);
        bytes memory header = _mine(market.getLease(leaseId).clock, MIX_HASH);
        market.drawPanel(leaseId, header);
        _bound("drawPanel of 7", MOST);
        (uint32[] memory members,,) = market.getPanel(leaseId);
        for (uint256 k = 0; k < members.length; ++k) {
            (, uint256 voted,) = market.getPanel(leaseId);
            if ((voted >> k) & 1 == 1) continue;
            _vote(leaseId, members[k], false);
            _bound("vote", PLAIN);
        }
        _passDeadline(leaseId);
        market.closeVote(leaseId);
        _bound("closeVote of 7", 500_000);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_every_other_way_is_bounded() public {
        uint256 leaseId = _leaseIn(LeaseStatus.AuditorSilent);
        market.replaceAuditor(leaseId);
        _bound("replaceAuditor", PLAIN);
        _draw(leaseId);
        _decline(leaseId);
        _bound("decline", PLAIN);
        _draw(leaseId);
        uint256 challengeId = _accuse(leaseId, 0, 1);
        _bound("accuse", 200_000);
        _passTime(401);
        market.resolve(challengeId);
        _bound("resolve, upheld", 200_000);
        leaseId = _leaseIn(LeaseStatus.Committed);
        vm.prank(_worker(PROVIDER));
        market.withdrawCommitment(leaseId);
        _bound("withdrawCommitment", PLAIN);
        market.expire(_leaseIn(LeaseStatus.Expired));
        _bound("expire", PLAIN);
        market.slash(_leaseIn(LeaseStatus.Undrawn));
        _bound("slash", PLAIN);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_jobs_and_rounds_that_end_is_bounded() public {
        (roundTime, quorum) = (700, 1);
        uint256 jobId = _openJob();
        _finishAudit(_claim(PROVIDER, jobId, 0, 0, 1));
        _passTime(701);
        market.closeRound(jobId);
        _bound("closeRound", PLAIN);
        vm.prank(REQUESTER);
        market.cancelJob(jobId);
        _bound("cancelJob", PLAIN);
        market.refund(jobId);
        _bound("refund", PLAIN);
        vm.prank(REQUESTER);
        market.withdraw(asset, REQUESTER);
        _bound("withdraw", PLAIN);
        market.expire(_leaseIn(LeaseStatus.Expired));
        market.burn(asset);
        _bound("burn", PLAIN);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_being_an_operator_is_bounded() public {
        vm.prank(STRANGER);
        market.register(STRANGER);
        _bound("register", PLAIN);
        vm.prank(_owner(PROVIDER));
        market.setWorker(PROVIDER, STRANGER, true);
        _bound("setWorker", PLAIN);
        vm.prank(_owner(PROVIDER));
        market.stake{value: 1}(PROVIDER, asset, 1);
        _bound("stake", PLAIN);
        vm.prank(_owner(AUDITOR));
        market.buyTickets{value: TICKET_STAKE}(AUDITOR, asset, 1);
        _bound("buyTickets, one", PLAIN);
        _retire(AUDITOR, 0);
        _bound("retireTicket", PLAIN);
        vm.prank(_owner(PROVIDER));
        market.thaw(PROVIDER, asset, 1);
        _bound("thaw", PLAIN);
        _passTime(2_701);
        vm.prank(_owner(PROVIDER));
        market.withdrawStake(PROVIDER, Role.Provider, asset);
        _bound("withdrawStake", PLAIN);
        vm.prank(GUARDIAN);
        market.pause();
        _bound("pause", PLAIN);
        vm.prank(GUARDIAN);
        market.unpause();
        _bound("unpause", PLAIN);
    }

    function _attestLargest(uint256 leaseId) private {
        uint256[] memory drawn = market.drawnSegments(leaseId);
        bytes32[] memory nodes = _upperNodes(leaseId);
        RecordOpening[] memory openings = new RecordOpening[](drawn.length);
        for (uint256 j = 0; j < drawn.length; ++j) {
            openings[j] = works[leaseId].opening(0, drawn[j] % 256 + 1);
            openings[j].branch = _extend(openings[j].branch, nodes);
        }
        vm.prank(_auditorKey(leaseId));
        market.attest(leaseId, openings);
    }

    /// @notice Nodes above the trace roots of 256 equal shards, the lease's root last: each is also its sibling.
    function _upperNodes(uint256 leaseId) private view returns (bytes32[] memory nodes) {
        nodes = new bytes32[](9);
        nodes[0] = works[leaseId].root();
        for (uint256 level = 0; level < 8; ++level) {
            nodes[level + 1] = Commitments.hashNode(nodes[level], nodes[level]);
        }
    }

    function _extend(bytes32[] memory branch, bytes32[] memory nodes)
        private
        pure
        returns (bytes32[] memory longer)
    {
        longer = new bytes32[](branch.length + 8);
        for (uint256 level = 0; level < longer.length; ++level) {
            longer[level] = level < branch.length ? branch[level] : nodes[level - branch.length];
        }
    }

    function _mixHashFor(uint256 leaseId) private view returns (bytes32 mixHash) {
        while (_expectedAuditor(leaseId, mixHash) != AUDITOR) mixHash = keccak256(abi.encode(mixHash));
    }

    function _retire(uint256 operator, uint256 ticketId) private {
        vm.prank(_owner(operator));
        market.retireTicket(operator, asset, ticketId);
    }

    /// @notice Require that the last call cost at most `limit`, as a transaction.
    function _bound(string memory name, uint256 limit) private {
        uint256 gas = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(name, gas);
        assertTrue(gas <= limit, name);
    }
}
