// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Account, Role} from "../src/libraries/Accounts.sol";
import {Job} from "../src/libraries/Jobs.sol";
import {Lease, LeaseStatus} from "../src/libraries/Leases.sol";
import {Handler} from "./Handler.sol";
import {Market} from "./MarketTest.sol";
import {Test} from "./Vm.sol";

/// @notice What is true of the market whatever its people do.
contract InvariantsTest is Test {
    struct FuzzSelector {
        address target;
        bytes4[] selectors;
    }

    uint256 private constant OPERATORS = 5;
    uint256 private constant RIVAL = 2;
    uint256 private constant COLLEAGUE = 4;

    Handler private handler;
    Market private market;

    // What the open leases of the state that is checked add up to.
    mapping(uint256 operator => uint256) private lockedNow;
    mapping(uint256 jobId => uint256) private activeNow;
    mapping(uint256 jobId => mapping(uint256 round => uint256)) private takenNow;
    mapping(uint256 jobId => mapping(uint256 round => uint256)) private attestedNow;

    function setUp() public {
        handler = new Handler();
        handler.setUp();
        handler.createJob(true);
        handler.seedJob(0);
        market = handler.getMarket();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev A lease takes five steps, so steps come more often than the rest.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[21] memory actions = [
            Handler.step.selector,
            Handler.claim.selector,
            Handler.exit.selector,
            Handler.dispute.selector,
            Handler.challenge.selector,
            Handler.createJob.selector,
            Handler.seedJob.selector,
            Handler.closeRound.selector,
            Handler.cancelJob.selector,
            Handler.refund.selector,
            Handler.disturb.selector,
            Handler.stake.selector,
            Handler.thaw.selector,
            Handler.withdrawStake.selector,
            Handler.buyTickets.selector,
            Handler.retireTicket.selector,
            Handler.payOut.selector,
            Handler.withdraw.selector,
            Handler.burn.selector,
            Handler.pause.selector,
            Handler.wait.selector
        ];
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), new bytes4[](48));
        for (uint256 i = 0; i < 48; ++i) {
            targets[0].selectors[i] = i < 21 ? actions[i] : actions[i % 9 < 5 ? 0 : i % 9 - 4];
        }
    }

    /// @dev One function, as each would be a campaign of its own.
    function invariant_money_stakes_slots_and_honest_people_are_safe() public {
        _requireMoneyIsNeverMadeOrLost();
        _addUpOpenLeases();
        _requireLockedStakeCoversEveryLease();
        _requireJobsCanPay();
        _requireTheHonestLoseNothing();
    }

    /// @notice Every state has an exit: strangers end all there is, and everybody leaves with what is theirs.
    function afterInvariant() public {
        handler.finishAll();

        assertEq(handler.openLeaseCount(), 0);
        for (uint256 jobId = 1; jobId <= handler.jobs(); ++jobId) {
            assertEq(market.getJob(jobId).active, 0);
            assertEq(market.getJob(jobId).escrow, 0);
        }
        assertEq(address(market).balance, market.burnable(0) + _credits());
    }

    /// @notice The balance is all escrows, bounties, stakes, earnings, bonds, credits and what is to be burned.
    function _requireMoneyIsNeverMadeOrLost() private view {
        uint256 owed = market.burnable(0) + _credits();
        for (uint256 jobId = handler.firstLiveJob(); jobId <= handler.jobs(); ++jobId) {
            Job memory job = market.getJob(jobId);
            owed += job.escrow;
            (,, uint256 abandoned) = market.getRound(jobId, job.round);
            owed += _countBits(abandoned) * (uint256(job.stakePerShard) / 200); // half of one percent
        }
        for (uint256 operator = 1; operator <= OPERATORS; ++operator) {
            owed += uint256(_account(operator).staked) + _account(operator).earned;
        }
        for (uint256 i = 0; i < handler.openChallengeCount(); ++i) {
            owed += market.getChallenge(handler.openChallenges(i)).bond;
        }
        assertEq(address(market).balance, owed);
    }

    /// @notice What is locked is what the open leases can cost, and it is there to be taken.
    function _requireLockedStakeCoversEveryLease() private {
        for (uint256 operator = 1; operator <= OPERATORS; ++operator) {
            Account memory account = _account(operator);
            assertEq(account.locked, lockedNow[operator]);
            assertTrue(account.locked <= account.staked, "locked stake exists");
            assertTrue(account.thawing <= account.staked, "thawing stake exists");
            lockedNow[operator] = 0;
        }
    }

    /// @notice Escrows cover what is left, and a slot is taken by one lease at a time.
    function _requireJobsCanPay() private {
        for (uint256 jobId = handler.firstLiveJob(); jobId <= handler.jobs(); ++jobId) {
            Job memory job = market.getJob(jobId);
            uint256 each = uint256(job.pricePerShard) + job.auditFee;
            assertEq(job.escrow, uint256(job.rounds) * job.slots * each - handler.spent(jobId));
            assertEq(job.active, activeNow[jobId]);
            assertTrue(job.escrow >= job.active * each, "what is reserved is there");
            activeNow[jobId] = 0;
            for (uint256 round = 0; round < job.rounds && round <= job.round; ++round) {
                (uint256 taken, uint256 attested,) = market.getRound(jobId, round);
                uint256 settled = handler.settledSlots(jobId, round);
                assertEq(taken, takenNow[jobId][round] | settled);
                if (round == job.round) assertEq(attested, attestedNow[jobId][round] | settled);
                (takenNow[jobId][round], attestedNow[jobId][round]) = (0, 0);
            }
        }
    }

    /// @notice An honest provider or auditor, in time, loses nothing but by the faults of others.
    function _requireTheHonestLoseNothing() private view {
        uint256 left = uint256(_account(RIVAL).staked) + handler.excused(RIVAL);
        assertEq(left, handler.deposited(RIVAL));
        left = uint256(_account(COLLEAGUE).staked) + handler.excused(COLLEAGUE);
        assertEq(left, handler.deposited(COLLEAGUE));
    }

    function _addUpOpenLeases() private {
        uint256 count = handler.openLeaseCount();
        for (uint256 i = 0; i < count; ++i) {
            uint256 leaseId = handler.openLeases(i);
            Lease memory lease = market.getLease(leaseId);
            uint256 jobId = leaseId / 1_000_000;
            uint256 shards = uint256(lease.extra) + 1;
            uint256 mask = ((1 << shards) - 1) << lease.first;
            uint256 others = takenNow[jobId][lease.round] | handler.settledSlots(jobId, lease.round);
            assertEq(others & mask, 0);
            takenNow[jobId][lease.round] |= mask;
            if (lease.stored == LeaseStatus.Attested) attestedNow[jobId][lease.round] |= mask;
            activeNow[jobId] += shards;
            lockedNow[lease.operator] += shards * 6 ether;
            if (lease.auditor != 0) lockedNow[lease.auditor] += shards * 6 ether;
            if (lease.stored == LeaseStatus.Voting) _addUpSeats(leaseId, shards);
        }
    }

    function _addUpSeats(uint256 leaseId, uint256 shards) private {
        (uint32[] memory members,,) = market.getPanel(leaseId);
        for (uint256 k = 0; k < members.length; ++k) {
            lockedNow[members[k]] += shards * 0.03 ether;
        }
    }

    function _credits() private view returns (uint256) {
        return market.creditOf(handler.requester(), 0) + market.creditOf(handler.challenger(), 0);
    }

    function _account(uint256 operator) private view returns (Account memory) {
        return market.getAccount(operator, operator < 3 ? Role.Provider : Role.Auditor, 0);
    }

    function _countBits(uint256 word) private pure returns (uint256 count) {
        for (; word > 0; word >>= 1) {
            count += word & 1;
        }
    }
}
