// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {StakeRule} from "../src/libraries/StakeRule.sol";
import {Test} from "./Vm.sol";

/// @notice A lease of k shards of n segments, of which m are drawn; the provider lies in c of its shards.
struct Plan {
    uint256 shards; // k
    uint256 segments; // n
    uint256 samples; // m
    uint256 lies; // c
}

/// @notice The rule against the exact chances: draws without replacement, a third of the tickets colluding, and 79 of
/// 100 of those that are drawn punished. Every number is an integer, so nothing is rounded.
contract StakeRuleTest is Test {
    function testFuzz_the_rule_leaves_no_profit_in_any_number_of_lies(
        Plan memory plan,
        uint80 price,
        uint80 poison
    ) public pure {
        plan = _bound(plan);
        uint256 stake = StakeRule.minimumStake(price, poison, plan.segments, plan.samples);

        assertTrue(!_isProfitable(plan, stake, price, poison), "no number of lies pays");
    }

    function test_the_rule_leaves_no_profit_in_the_smallest_and_largest_leases() public pure {
        uint256[4] memory shards = [uint256(1), 2, 255, 256];
        uint256[4] memory segments = [uint256(2), 3, 255, 256];
        for (uint256 i = 0; i < 64; ++i) {
            (uint256 k, uint256 n) = (shards[i % 4], segments[i / 4 % 4]);
            uint256 m = i / 16 % 2 == 0 ? 1 : (n < 16 ? n : 16);
            Plan memory plan = Plan(k, n, m, i / 32 == 0 ? 1 : k);
            uint256 stake = StakeRule.minimumStake(1 ether, 0, n, m);

            assertTrue(!_isProfitable(plan, stake, 1 ether, 0), "no number of lies pays");
        }
    }

    function testFuzz_for_one_shard_the_rule_asks_little_more_than_is_needed(
        uint256 n,
        uint256 m,
        uint80 price
    ) public pure {
        Plan memory plan = _bound(Plan(1, n, m, 1));
        (n, m) = (plan.segments, plan.samples);
        vm.assume(price > 0);

        uint256 loss = StakeRule.minimumStake(price, 0, n, m) + price;

        // Exactly R n / ((1 - r) w m), times 1 + (m - 1) / (2 n - m + 1), and one for the rounding.
        uint256 needed = uint256(price) * n * 300;
        assertTrue((loss - 1) * 158 * m * (2 * n - m + 1) <= needed * 2 * n, "at most that much more");
    }

    function test_less_stake_than_the_rule_asks_for_one_draw_pays() public pure {
        // With one draw, the rule is exact.
        Plan memory plan = Plan(1, 8, 1, 1);
        uint256 stake = StakeRule.minimumStake(1 ether, 0.5 ether, 8, 1);

        assertTrue(!_isProfitable(plan, stake, 1 ether, 0.5 ether), "at the minimum it does not");
        assertTrue(_isProfitable(plan, stake - 1, 1 ether, 0.5 ether), "below it does");
    }

    function testFuzz_what_a_false_result_is_worth_raises_the_stake(uint80 price, uint80 poison) public pure {
        uint256 stake = StakeRule.minimumStake(price, poison, 8, 2);

        assertTrue(stake >= StakeRule.minimumStake(price, 0, 8, 2), "poison only raises it");
    }

    /// @notice A provider that withholds what is drawn from honest auditors escapes less often than the rule allows.
    function test_withholding_escapes_in_less_than_21_of_100_draws() public pure {
        // A third colludes: with fewer than three colluders of seven, five vote against the provider.
        uint256 all = 3 ** 7;
        uint256 burning = 2 ** 7 + 7 * 2 ** 6 + 21 * 2 ** 5;
        uint256 spared = all - burning; // p = spared / all
        // y = r + (1 - r) p y = all / (3 all - 2 spared); x = p y.

        assertTrue(spared * 100 < 21 * (3 * all - 2 * spared), "x < 0.21");
    }

    /// @notice Whether c (R + V) > w q(c) (k S + k R), with q(c) = 2/3 (1 - C(k n - c, m) / C(k n, m)).
    function _isProfitable(Plan memory plan, uint256 stake, uint256 price, uint256 poison)
        private
        pure
        returns (bool)
    {
        uint256 all = 1; // the draws, in order: below 2^256, as there are at most 16 of fewer than 2^16 + 1
        uint256 missing = 1; // those without a false segment
        for (uint256 i = 0; i < plan.samples; ++i) {
            uint256 left = plan.shards * plan.segments - i;
            all *= left;
            missing *= left > plan.lies ? left - plan.lies : 0;
        }
        uint256 gain = plan.lies * (price + poison) * 300;
        uint256 loss = Math.mulDiv(plan.shards * (stake + price) * 158, all - missing, all);
        return gain > loss; // as `gain` is whole, rounding the loss down changes nothing
    }

    function _bound(Plan memory plan) private pure returns (Plan memory) {
        plan.shards = clamp(plan.shards, 1, 256);
        plan.segments = clamp(plan.segments, 2, 256);
        plan.samples = clamp(plan.samples, 1, plan.segments < 16 ? plan.segments : 16);
        plan.lies = clamp(plan.lies, 1, plan.shards);
        return plan;
    }
}
