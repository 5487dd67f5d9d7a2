// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Config, IDeployment} from "../src/interfaces/IDeployment.sol";
import {MarketTest} from "./MarketTest.sol";

contract DeploymentTest is MarketTest {
    function test_a_deployment_shows_the_constants_it_was_given() public view {
        assertEq(keccak256(abi.encode(market.config())), keccak256(abi.encode(_config())));
    }

    function test_a_window_shorter_than_two_lease_times_is_refused() public {
        Config memory constants = _config();
        constants.challengeWindow = 1_999;

        vm.expectRevert(abi.encodeWithSelector(IDeployment.DeploymentWindowTooShort.selector, 1_999, 2_000));
        _deploy(constants);
    }

    function test_a_share_that_pays_for_slashing_oneself_is_refused() public {
        Config memory constants = _config();
        constants.slashShareBps = 3_001;

        vm.expectRevert(abi.encodeWithSelector(IDeployment.DeploymentShareTooHigh.selector, 3_001, 3_000));
        _deploy(constants);
    }

    function test_a_fee_above_the_stake_is_refused() public {
        for (uint256 i = 0; i < 4; ++i) {
            Config memory constants = _config();
            if (i == 0) constants.expiryFeeBps = 10_001;
            if (i == 1) constants.withdrawFeeBps = 10_001;
            if (i == 2) constants.voidFeeBps = 10_001;
            if (i == 3) constants.silenceFeeBps = 10_001;

            vm.expectRevert(
                abi.encodeWithSelector(IDeployment.DeploymentShareTooHigh.selector, 10_001, 10_000)
            );
            _deploy(constants);
        }
    }

    function test_a_draw_from_the_commitments_own_block_is_refused() public {
        Config memory constants = _config();
        constants.drawDistance = 0;

        vm.expectRevert(IDeployment.DeploymentNeedsDistance.selector);
        _deploy(constants);
    }
}
