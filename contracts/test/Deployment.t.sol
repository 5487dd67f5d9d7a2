// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Asset, Config, IDeployment} from "../src/interfaces/IDeployment.sol";
import {MarketTest} from "./MarketTest.sol";

contract DeploymentTest is MarketTest {
    function test_a_deployment_shows_what_it_was_given() public {
        assertEq(keccak256(abi.encode(market.config())), keccak256(abi.encode(_config())));
        assertEq(market.assetCount(), 1);
        assertEq(keccak256(abi.encode(market.getAsset(0))), keccak256(abi.encode(_assets()[0])));
    }

    function test_a_window_that_is_too_short_is_refused() public {
        uint256[2][4] memory pairs =
            [[uint256(1_999), 2_000], [uint256(2_699), 2_700], [uint256(19), 20], [uint256(1_999), 2_000]];
        for (uint256 i = 0; i < pairs.length; ++i) {
            Config memory constants = _config();
            uint32 window = uint32(pairs[i][0]);
            if (i == 0) constants.challengeWindow = window; // two lease times
            if (i == 1) constants.thawTime = window; // a window, an answer and a ruling
            if (i == 2) constants.auditTime = window; // the time to decline
            if (i == 3) constants.pauseInterval = window; // four pauses
            _expectRefused(
                constants,
                abi.encodeWithSelector(
                    IDeployment.DeploymentWindowTooShort.selector, pairs[i][0], pairs[i][1]
                )
            );
        }
    }

    function test_a_share_that_pays_for_slashing_oneself_is_refused() public {
        Config memory constants = _config();
        constants.slashShareBps = 3_001;

        _expectRefused(
            constants, abi.encodeWithSelector(IDeployment.DeploymentShareTooHigh.selector, 3_001, 3_000)
        );
    }

    function test_a_fee_above_the_stake_is_refused() public {
        for (uint256 i = 0; i < 5; ++i) {
            Config memory constants = _config();
            if (i == 0) constants.expiryFeeBps = 10_001;
            if (i == 1) constants.withdrawFeeBps = 10_001;
            if (i == 2) constants.voidFeeBps = 10_001;
            if (i == 3) constants.silenceFeeBps = 10_001;
            if (i == 4) constants.bondBps = 10_001;
            _expectRefused(
                constants, abi.encodeWithSelector(IDeployment.DeploymentShareTooHigh.selector, 10_001, 10_000)
            );
        }
    }

    function test_a_draw_from_the_commitments_own_block_is_refused() public {
        Config memory constants = _config();
        constants.drawDistance = 0;

        _expectRefused(constants, abi.encodeWithSelector(IDeployment.DeploymentNeedsDistance.selector));
    }

    function test_a_deployment_without_assets_or_with_one_twice_is_refused() public {
        Config memory constants = _config();
        Asset[] memory twice = new Asset[](2);

        vm.expectRevert(IDeployment.DeploymentNeedsAsset.selector);
        _deploy(constants, new Asset[](0));
        vm.expectRevert(abi.encodeWithSelector(IDeployment.DeploymentDuplicateAsset.selector, address(0)));
        _deploy(constants, twice);
    }

    function _expectRefused(Config memory constants, bytes memory refusal) private {
        Asset[] memory assets = _assets();
        vm.expectRevert(refusal);
        _deploy(constants, assets);
    }
}
