// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Terms} from "../libraries/Jobs.sol";

/// @notice What a requester signs (EIP-712): all that a job costs and demands, and, by the spec hash, all that it is.
struct JobOffer {
    address requester;
    bytes32 specHash;
    Terms terms;
    uint256 nonce; // any number that the requester has not used
    uint256 expiry; // seconds since the epoch: the last moment to post it
}

/// @notice Jobs by signature; see `Offers`. The domain is that of ERC-5267's `eip712Domain`.
interface IOffers {
    event OfferPosted(uint256 indexed jobId, address indexed requester, uint256 nonce);
    event OfferCancelled(address indexed requester, uint256 nonce);
    event Deposited(address indexed requester, uint256 amount);
    event DepositWithdrawn(address indexed requester, uint256 amount);

    error OfferExpired(uint256 expiry, uint256 time);
    error OfferWrongSpec(bytes32 given, bytes32 required);
    error OfferUsed(address requester, uint256 nonce);
    error OfferInvalidSignature(address requester);
    error OfferUnderfunded(address requester, uint256 held, uint256 required);
    error OfferPaymentFailed(address account, uint256 amount);

    /// @notice Post the job that `offer` describes. Ether comes from the requester's deposit, to which what is sent
    /// is added first; a token from the requester, which allowed this contract to take it.
    /// @param signature Of the requester: a key's (65 bytes, low s), a wallet's (ERC-1271), or an ERC-6492 wrapping.
    function postOffer(JobOffer calldata offer, bytes32[8] calldata specLeaves, bytes calldata signature)
        external
        payable
        returns (uint256 jobId);

    /// @notice Spend a nonce of the caller's, so that no offer with it can be posted.
    function cancelOffer(uint256 nonce) external;

    /// @notice Add what is sent to the ether that pays for `requester`'s offers.
    function deposit(address requester) external payable;

    /// @notice Send `amount` of the caller's deposit to `to`.
    function withdraw(uint256 amount, address to) external;

    /// @notice Use an ERC-2612 signature if it is still good, before `postOffer` in a `multicall`.
    function permit(
        uint256 asset,
        address owner,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @return The digest that the requester signs.
    function hashOffer(JobOffer calldata offer) external view returns (bytes32);

    function depositOf(address requester) external view returns (uint256);

    function isUsed(address requester, uint256 nonce) external view returns (bool);

    function market() external view returns (address);
}
