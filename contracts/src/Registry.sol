// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// @notice Says which deployed market is current, and how old a client may be. It touches no money: versions are
/// deployed side by side, and a market that is not current any more is worked off by whoever is in it.
contract Registry is Ownable2Step {
    /// @notice A deployed version.
    struct Release {
        address market;
        address offers;
        uint64 minimumClient; // major * 10^6 + minor * 10^3 + patch: older clients finish what they have and stop
    }

    event Released(uint256 indexed index, address indexed market, address offers);
    event MinimumClientChanged(uint256 indexed index, uint64 minimumClient);

    error RegistryNoRelease(uint256 index, uint256 count);
    error RegistryNotAContract(address market);

    Release[] private _releases; // append-only

    constructor(address owner) Ownable(owner) {}

    /// @notice Name a deployed market as the current one.
    function release(address market, address offers, uint64 minimumClient) external onlyOwner {
        if (market.code.length == 0) revert RegistryNotAContract(market);
        uint256 index = _releases.length;
        _releases.push(Release(market, offers, minimumClient));
        emit Released(index, market, offers);
        emit MinimumClientChanged(index, minimumClient);
    }

    /// @notice Ask the clients of a market to be at least that new.
    function setMinimumClient(uint256 index, uint64 minimumClient) external onlyOwner {
        _requireRelease(index);
        _releases[index].minimumClient = minimumClient;
        emit MinimumClientChanged(index, minimumClient);
    }

    /// @return The release that is current.
    function current() external view returns (Release memory) {
        uint256 count = _releases.length;
        if (count == 0) revert RegistryNoRelease(0, 0);
        return _releases[count - 1];
    }

    function getRelease(uint256 index) external view returns (Release memory) {
        _requireRelease(index);
        return _releases[index];
    }

    function releaseCount() external view returns (uint256) {
        return _releases.length;
    }

    function _requireRelease(uint256 index) private view {
        if (index >= _releases.length) revert RegistryNoRelease(index, _releases.length);
    }
}
