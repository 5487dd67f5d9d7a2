// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Job} from "../src/libraries/Jobs.sol";
import {Handler} from "./Handler.sol";
import {Market, MarketTest} from "./MarketTest.sol";

contract InvariantsTest is MarketTest {
    struct FuzzSelector {
        address target;
        bytes4[] selectors;
    }

    Handler private handler;
    address[] private accounts;

    function setUp() public override {
        handler = new Handler();
        handler.setUp();
        handler.createJob();
        handler.seedJob(0);
        market = handler.getMarket();
        accounts = [REQUESTER, PROVIDER, RIVAL, AUDITOR, COLLEAGUE, STRANGER, address(handler)];
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev A lease takes seven steps, so steps come more often than the rest.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[13] memory actions = [
            Handler.advance.selector,
            Handler.exit.selector,
            Handler.claim.selector,
            Handler.createJob.selector,
            Handler.seedJob.selector,
            Handler.withdrawCommitment.selector,
            Handler.closeJob.selector,
            Handler.stake.selector,
            Handler.unstake.selector,
            Handler.buyTickets.selector,
            Handler.retireTicket.selector,
            Handler.withdraw.selector,
            Handler.wait.selector
        ];
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), new bytes4[](28));
        for (uint256 i = 0; i < 28; ++i) {
            targets[0].selectors[i] = i < 13 ? actions[i] : actions[i % 3 == 0 ? i % 2 + 1 : 0];
        }
    }

    /// @notice Money is never made or lost. (Bonds join the sum with the disputes.)
    function invariant_the_balance_is_all_escrows_stakes_and_credits() public view {
        uint256 owed = 0;
        for (uint256 jobId = 1; jobId <= handler.jobCount(); ++jobId) {
            owed += market.getJob(jobId).escrow;
        }
        for (uint256 i = 0; i < accounts.length; ++i) {
            owed += _staked(accounts[i]) + _auditorStaked(accounts[i]) + market.creditOf(accounts[i]);
        }
        assertEq(address(market).balance, owed);
    }

    /// @notice What is locked is what the active leases can cost, and it is there to be taken.
    function invariant_every_active_lease_is_covered_by_locked_stake() public view {
        for (uint256 i = 0; i < accounts.length; ++i) {
            (uint256 provided, uint256 audited) = _activeLeasesOf(accounts[i]);
            assertEq(_locked(accounts[i]), provided * STAKE);
            assertEq(_auditorLocked(accounts[i]), audited * STAKE);
            assertTrue(_locked(accounts[i]) <= _staked(accounts[i]), "a provider's locked stake exists");
            assertTrue(
                _auditorLocked(accounts[i]) <= _auditorStaked(accounts[i]), "an auditor's locked stake exists"
            );
        }
    }

    /// @notice The escrow covers, whatever happens, every shard that is not paid for yet.
    function invariant_an_open_job_can_pay_for_all_that_is_left() public view {
        for (uint256 jobId = 1; jobId <= handler.jobCount(); ++jobId) {
            Job memory job = market.getJob(jobId);
            uint256 unpaid = uint256(ROUNDS) * SLOTS * (price + FEE);
            uint256 active = 0;
            for (uint256 leaseId = 1; leaseId <= handler.leaseCount(); ++leaseId) {
                Lease memory lease = market.getLease(leaseId);
                if (lease.jobId != jobId) continue;
                if (_isActive(lease)) ++active;
                if (lease.stored == LeaseStatus.Settled) unpaid -= price + FEE;
                if (lease.stored == LeaseStatus.Attested) unpaid -= FEE;
            }
            assertEq(job.active, active);
            assertEq(job.escrow, job.closed ? 0 : unpaid);
        }
    }

    function _activeLeasesOf(address account) private view returns (uint256 provided, uint256 audited) {
        for (uint256 leaseId = 1; leaseId <= handler.leaseCount(); ++leaseId) {
            Lease memory lease = market.getLease(leaseId);
            if (!_isActive(lease)) continue;
            if (lease.provider == account) ++provided;
            if (lease.auditor == account) ++audited;
        }
    }

    function _isActive(Lease memory lease) private pure returns (bool) {
        return lease.stored != LeaseStatus.None && lease.stored <= LeaseStatus.Attested;
    }
}
