// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RLP} from "@openzeppelin/contracts/utils/RLP.sol";

/// @notice Block headers in RLP, of which the draw reads the mixHash.
library Headers {
    using RLP for RLP.Encoder;

    function encode(uint256 number, bytes32 mixHash) internal pure returns (bytes memory) {
        return encode(number, 30e6, mixHash, "extra");
    }

    function encode(uint256 number, uint256 gasLimit, bytes32 mixHash, bytes memory extra)
        internal
        pure
        returns (bytes memory)
    {
        RLP.Encoder memory list = RLP.encoder();
        list.push(keccak256("parent")).push(keccak256("ommers")).push(address(0xc0ffee));
        list.push(keccak256("state")).push(keccak256("transactions")).push(keccak256("receipts"));
        list.push(new bytes(256)).push(uint256(0)).push(number).push(gasLimit).push(uint256(21_000));
        list.push(uint256(1_800_000_000)).push(extra).push(mixHash).push(new bytes(8));
        list.push(uint256(7)).push(keccak256("withdrawals")).push(uint256(0)).push(uint256(0));
        return list.push(keccak256("beacon")).push(keccak256("requests")).encode();
    }

    /// @notice No header of any block, but read as one: the items before the mixHash are empty.
    function encodeMixHash(bytes32 mixHash) internal pure returns (bytes memory) {
        uint256 fixedItems = 5 * 33 + 21 + 259; // five hashes, an address and the logs' bloom filter
        return bytes.concat(hex"f90200", new bytes(fixedItems), hex"808080808080a0", mixHash);
    }
}
