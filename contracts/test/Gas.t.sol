// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits} from "../src/interfaces/IAudits.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {Role} from "../src/libraries/Accounts.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";
import {Work} from "./Traces.sol";

/// @notice What an honest lease costs, each call in its own transaction (21,000 gas and calldata included; the floor
/// of EIP-7623 is below each of them). `forge test --match-contract GasTest -vv` shows the figures.
contract GasTest is MarketTest {
    event log_named_uint(string name, uint256 gas); // which forge prints

    uint256 private constant LIFECYCLE = 350_000;
    uint256 private constant FURTHER_SHARD = 2_000;
    uint256 private constant PAY_OUT = 80_000;

    uint256 private spent; // by the steps that were counted since it was reset

    function setUp() public override {
        super.setUp();
        (slots, segments, samples, price, quorum) = (70, 20, 2, 0.3 ether, 70);
        address[3] memory payers = [_owner(PROVIDER), _owner(AUDITOR), _owner(COLLEAGUE)];
        for (uint256 i = 0; i < 3; ++i) {
            vm.deal(payers[i], 2_000 ether);
        }
        _stake(PROVIDER, 200 * uint256(STAKE));
        _buyTickets(AUDITOR, 200);
        _buyTickets(COLLEAGUE, 200);
    }

    /// forge-config: default.isolate = true
    function test_gas_of_the_first_lease_of_all() public {
        uint256 jobId = _openJob();

        assertTrue(_measure(jobId, 0, 1, "first, 1 shard: ") <= 2 * LIFECYCLE, "new accounts cost more, once");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_an_honest_lease() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);

        assertTrue(_measure(jobId, 1, 1, "1 shard: ") <= LIFECYCLE, "a lease costs 350k gas at most");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_a_further_shard_of_a_lease() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);
        uint256 one = _measure(jobId, 1, 1, "1 shard: ");
        uint256 many = _measure(jobId, 2, 64, "64 shards: ");

        _show("a further shard of a lease", (many - one) / 63);
        assertTrue(many - one <= 63 * FURTHER_SHARD, "a further shard costs 2k gas at most");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_a_draw_with_its_attestation() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);
        uint256 leaseId = _claimAndCommit(jobId, 1, 1, "one transaction: ");
        bytes32 mixHash = _mixHashFor(leaseId);
        bytes[] memory calls = new bytes[](2);
        uint256[] memory drawn = _expectedSegments(leaseId, mixHash);
        calls[0] = abi.encodeCall(IAudits.draw, (leaseId, _mine(market.getLease(leaseId).clock, mixHash)));
        calls[1] = abi.encodeCall(IAudits.attest, (leaseId, works[leaseId].openings(drawn)));
        vm.prank(_worker(AUDITOR));
        market.multicall(calls);
        _count("one transaction: draw + attest");
        _settle(leaseId);
        _count("one transaction: settle");

        _show("one transaction: lifecycle", spent);
        assertTrue(spent <= LIFECYCLE, "a lease costs 350k gas at most");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_settling_many_leases_at_once() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);
        bytes[] memory calls = new bytes[](16);
        for (uint256 i = 0; i < calls.length; ++i) {
            uint256 leaseId = _claim(PROVIDER, jobId, 0, i + 1, 1);
            _finishAudit(leaseId);
            calls[i] = abi.encodeCall(IMarket.settle, (leaseId));
        }
        _passTime(2_001);

        market.multicall(calls);

        _count("16 settlements");
        _show("one of 16 settlements", spent / 16);
        assertTrue(spent <= 16 * 40_000, "the accounts are read once");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_being_paid() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);
        market.payOut(PROVIDER, Role.Provider, asset);
        uint256 first = _count("payOut, to a new account");
        assertTrue(first <= PAY_OUT, "being paid costs 80k gas at most");
        _touchAccounts(jobId);

        market.payOut(PROVIDER, Role.Provider, asset);
        assertTrue(_count("payOut") <= PAY_OUT, "being paid costs 80k gas at most");
    }

    /// forge-config: default.isolate = true
    function test_gas_of_a_lease_does_not_grow_with_its_job_or_market() public {
        uint256 jobId = _openJob();
        _touchAccounts(jobId);
        uint256 early = _measure(jobId, 1, 1, "second lease: ");
        for (uint256 slot = 2; slot < 34; ++slot) {
            _finishAudit(_claim(PROVIDER, jobId, 0, slot, 1));
        }
        uint256 operator = _register();
        vm.deal(_owner(operator), 6_000 ether);
        _buyTickets(operator, 600);

        uint256 late = _measure(jobId, 34, 1, "35th lease: ");

        assertTrue(late < early + 3_000, "the 35th lease costs as much as the second");
    }

    /// @notice An honest lease before, so that the accounts and the round's words are not new.
    function _touchAccounts(uint256 jobId) private {
        (uint256 taken,,) = market.getRound(jobId, 0);
        uint256 leaseId = _claim(PROVIDER, jobId, 0, taken == 0 ? 0 : 69, 1);
        _commit(leaseId);
        _draw(leaseId, _mixHashFor(leaseId));
        _attest(leaseId);
        _settle(leaseId);
    }

    /// @notice The gas of a lease's five transactions.
    function _measure(uint256 jobId, uint256 first, uint256 count, string memory label)
        private
        returns (uint256)
    {
        uint256 leaseId = _claimAndCommit(jobId, first, count, label);
        _draw(leaseId, _mixHashFor(leaseId));
        _count(string.concat(label, "draw"));
        _attest(leaseId);
        _count(string.concat(label, "attest"));
        _settle(leaseId);
        _count(string.concat(label, "settle"));
        assertStatus(leaseId, LeaseStatus.Settled);
        _show(string.concat(label, "lifecycle"), spent);
        return spent;
    }

    function _claimAndCommit(uint256 jobId, uint256 first, uint256 count, string memory label)
        private
        returns (uint256 leaseId)
    {
        spent = 0;
        vm.prank(_worker(PROVIDER));
        leaseId = market.claim(jobId, PROVIDER, 0, first, count);
        _count(string.concat(label, "claim"));
        works[leaseId] = Work(leaseId, count, segments);
        _commit(leaseId);
        _count(string.concat(label, "commit"));
    }

    /// @notice A mixHash whose first candidate is the auditor whose accounts are not new.
    function _mixHashFor(uint256 leaseId) private view returns (bytes32 mixHash) {
        while (_expectedAuditor(leaseId, mixHash) != AUDITOR) mixHash = keccak256(abi.encode(mixHash));
    }

    function _count(string memory name) private returns (uint256 gas) {
        gas = vm.lastCallGas().gasTotalUsed;
        spent += gas;
        _show(name, gas);
    }

    function _show(string memory name, uint256 gas) private {
        emit log_named_uint(name, gas);
    }
}
