// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LeaseStatus} from "../src/libraries/Leases.sol";
import {MarketTest} from "./MarketTest.sol";

/// @notice What an honest shard costs, each call in its own transaction (21,000 gas and calldata included; the
/// floor of EIP-7623 is below each of them).
contract GasTest is MarketTest {
    uint256 private constant LIMIT = 600_000;

    uint256 private spent;

    /// forge-config: default.isolate = true
    function test_gas_honest_lifecycle() public {
        segments = 20;
        price = 0.35 ether;
        assertTrue(_measureLifecycle() <= LIMIT, "an honest shard of 20 segments costs 600k gas at most");
    }

    /// forge-config: default.isolate = true
    function test_gas_honest_lifecycle_of_8_segments() public {
        assertTrue(_measureLifecycle() <= LIMIT, "an honest shard of 8 segments costs 600k gas at most");
    }

    function _measureLifecycle() private returns (uint256) {
        uint256 jobId = _openJob();
        uint256 leaseId = _claim(PROVIDER, jobId, 0, 0);
        _count();
        _commit(leaseId);
        _count();
        _draw(leaseId);
        _count();
        _commitAudit(leaseId, made[leaseId]);
        _count();
        _open(leaseId);
        _count();
        _reveal(leaseId, made[leaseId]);
        _count();
        _passDeadline(leaseId);
        market.settle(leaseId);
        _count();
        assertStatus(leaseId, LeaseStatus.Settled);
        return spent;
    }

    function _count() private {
        spent += vm.lastCallGas().gasTotalUsed;
    }
}
