// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A wallet that accepts what its key signed (ERC-1271).
contract Wallet {
    address private immutable KEY;

    constructor(address key) {
        KEY = key;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return signer == KEY ? this.isValidSignature.selector : bytes4(0xffffffff);
    }

    function approve(address token, address spender, uint256 amount) external {
        Approvable(token).approve(spender, amount);
    }
}

interface Approvable {
    function approve(address spender, uint256 amount) external;
}

/// @notice Deploys wallets where their key says that they will be.
contract WalletFactory {
    function deploy(address key) external returns (address) {
        return address(new Wallet{salt: 0}(key));
    }

    function predict(address key) external view returns (address) {
        bytes32 code = keccak256(abi.encodePacked(type(Wallet).creationCode, abi.encode(key)));
        bytes32 hash = keccak256(abi.encodePacked(hex"ff", address(this), bytes32(0), code));
        return address(uint160(uint256(hash)));
    }
}
