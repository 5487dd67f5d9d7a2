// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Registry} from "../src/Registry.sol";
import {Test} from "./Vm.sol";

/// @notice The list of deployed versions.
contract RegistryTest is Test {
    address private constant OWNER = address(0x2001);
    address private constant STRANGER = address(0x2002);

    Registry private registry;

    function setUp() public {
        registry = Registry(vm.deployCode("src/Registry.sol:Registry", abi.encode(OWNER)));
    }

    function _release(address market, uint64 minimumClient) private {
        vm.prank(OWNER);
        registry.release(market, address(0x3001), minimumClient);
    }

    function test_the_last_release_is_current_and_the_older_ones_are_kept() public {
        _release(address(registry), 1_000);
        _release(address(this), 2_000_000);

        assertEq(registry.current().market, address(this));
        assertEq(registry.current().minimumClient, 2_000_000);
        assertEq(registry.getRelease(0).market, address(registry));
        assertEq(registry.releaseCount(), 2);
    }

    function test_old_clients_are_told_to_stop() public {
        _release(address(this), 1_000);

        vm.prank(OWNER);
        registry.setMinimumClient(0, 1_001);

        assertEq(registry.current().minimumClient, 1_001);
    }

    function test_an_address_without_code_is_no_market() public {
        vm.expectRevert(abi.encodeWithSelector(Registry.RegistryNotAContract.selector, address(7)));
        _release(address(7), 0);
    }

    function test_only_the_owner_names_releases() public {
        bytes memory refused = abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, STRANGER);
        vm.expectRevert(refused);
        vm.prank(STRANGER);
        registry.release(address(this), address(0), 0);
        _release(address(this), 0);
        vm.expectRevert(refused);
        vm.prank(STRANGER);
        registry.setMinimumClient(0, 1);
    }

    function test_a_release_that_is_not_there_is_an_error() public {
        vm.expectRevert(abi.encodeWithSelector(Registry.RegistryNoRelease.selector, 0, 0));
        registry.current();
        vm.expectRevert(abi.encodeWithSelector(Registry.RegistryNoRelease.selector, 3, 0));
        registry.getRelease(3);
    }
}
