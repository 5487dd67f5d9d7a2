// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {RelayedCall} from "@openzeppelin/contracts/utils/RelayedCall.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IAssets} from "./interfaces/IAssets.sol";
import {IMarket} from "./interfaces/IMarket.sol";
import {IOffers, JobOffer} from "./interfaces/IOffers.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Jobs} from "./libraries/Jobs.sol";

/// @notice Posts jobs that their requesters signed and anybody submits. The market does not know of it.
/// @dev Signatures, and the allowances and deposits that pay for offers, are here and not in the market, so that no
/// fault of theirs reaches a stake.
contract Offers is IOffers, EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    bytes32 private constant TERMS_TYPE = keccak256(
        "Terms(uint8 asset,uint80 pricePerShard,uint16 floorBps,uint32 rampTime,uint80 auditFee,"
        "uint80 stakePerShard,uint80 poisonValue,uint32 leaseTime,uint32 roundTime,uint16 quorum,"
        "uint16 samples,uint40 deadline)"
    );
    bytes32 private constant OFFER_TYPE = keccak256(
        "JobOffer(address requester,bytes32 specHash,Terms terms,uint256 nonce,uint256 expiry)"
        "Terms(uint8 asset,uint80 pricePerShard,uint16 floorBps,uint32 rampTime,uint80 auditFee,"
        "uint80 stakePerShard,uint80 poisonValue,uint32 leaseTime,uint32 roundTime,uint16 quorum,"
        "uint16 samples,uint40 deadline)"
    );
    bytes32 private constant UNDEPLOYED = // ERC-6492: the end of a signature by a wallet that may not exist yet
        0x6492649264926492649264926492649264926492649264926492649264926492;

    address private immutable MARKET;

    mapping(address requester => mapping(uint256 nonce => bool)) private _used;
    /// @inheritdoc IOffers
    mapping(address requester => uint256) public depositOf;

    constructor(address market_) EIP712("Touchstone Offers", "1") {
        MARKET = market_;
    }

    /// @inheritdoc IOffers
    function deposit(address requester) external payable {
        _deposit(requester, msg.value);
    }

    /// @inheritdoc IOffers
    function withdraw(uint256 amount, address to) external nonReentrant {
        uint256 held = depositOf[msg.sender];
        if (held < amount) revert OfferUnderfunded(msg.sender, held, amount);
        depositOf[msg.sender] = held - amount;
        emit DepositWithdrawn(msg.sender, amount);
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert OfferPaymentFailed(to, amount);
    }

    /// @inheritdoc IOffers
    function permit(
        uint256 asset,
        address owner,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        address token = IAssets(MARKET).getAsset(asset).token;
        try IERC20Permit(token).permit(owner, address(this), amount, deadline, v, r, s) {} catch {}
    }

    /// @inheritdoc IOffers
    function cancelOffer(uint256 nonce) external {
        _use(msg.sender, nonce);
        emit OfferCancelled(msg.sender, nonce);
    }

    /// @inheritdoc IOffers
    function postOffer(JobOffer calldata offer, bytes32[8] calldata specLeaves, bytes calldata signature)
        external
        payable
        nonReentrant
        returns (uint256 jobId)
    {
        if (block.timestamp > offer.expiry) revert OfferExpired(offer.expiry, block.timestamp);
        bytes32 specHash = Commitments.hashSpec(specLeaves);
        if (specHash != offer.specHash) revert OfferWrongSpec(specHash, offer.specHash);
        _use(offer.requester, offer.nonce);
        if (!_isSigned(offer.requester, hashOffer(offer), signature)) {
            revert OfferInvalidSignature(offer.requester);
        }
        if (msg.value > 0) _deposit(offer.requester, msg.value);

        uint256 escrow = offer.terms.escrowOf(Jobs.decodeSchedule(specLeaves[5]));
        uint256 value = _collect(offer.requester, offer.terms.asset, escrow);
        jobId = IMarket(MARKET).createJob{value: value}(offer.requester, specLeaves, offer.terms);
        emit OfferPosted(jobId, offer.requester, offer.nonce);
    }

    /// @inheritdoc IOffers
    function market() external view returns (address) {
        return MARKET;
    }

    /// @inheritdoc IOffers
    function isUsed(address requester, uint256 nonce) external view returns (bool) {
        return _used[requester][nonce];
    }

    /// @inheritdoc IOffers
    function hashOffer(JobOffer calldata offer) public view returns (bytes32) {
        bytes32 terms = keccak256(abi.encode(TERMS_TYPE, offer.terms));
        bytes memory fields =
            abi.encode(OFFER_TYPE, offer.requester, offer.specHash, terms, offer.nonce, offer.expiry);
        return _hashTypedDataV4(keccak256(fields));
    }

    function _deposit(address requester, uint256 amount) private {
        depositOf[requester] += amount;
        emit Deposited(requester, amount);
    }

    function _use(address requester, uint256 nonce) private {
        if (_used[requester][nonce]) revert OfferUsed(requester, nonce);
        _used[requester][nonce] = true;
    }

    /// @notice Take the escrow from the requester's deposit or allowance.
    /// @return value What is to be sent to the market as ether.
    function _collect(address requester, uint256 asset, uint256 escrow) private returns (uint256 value) {
        address token = IAssets(MARKET).getAsset(asset).token;
        if (token == address(0)) {
            uint256 held = depositOf[requester];
            if (held < escrow) revert OfferUnderfunded(requester, held, escrow);
            depositOf[requester] = held - escrow;
            return escrow;
        }
        // The signature that names `requester` was checked. The market refuses what did not arrive whole.
        // slither-disable-next-line arbitrary-send-erc20
        IERC20(token).safeTransferFrom(requester, address(this), escrow);
        IERC20(token).forceApprove(MARKET, escrow);
    }

    /// @notice Whether `signer` signed: a key, a contract wallet (ERC-1271), or one yet to be deployed (ERC-6492).
    function _isSigned(address signer, bytes32 digest, bytes calldata signature) private returns (bool) {
        uint256 length = signature.length;
        if (length < 32 || bytes32(signature[length - 32:]) != UNDEPLOYED) {
            return SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature);
        }
        (address factory, bytes memory call, bytes memory inner) =
            abi.decode(signature[:length - 32], (address, bytes, bytes));
        // Relayed, so that nothing is called in the name of this contract, which has allowances.
        // Whether it did anything shows in the wallet being there.
        // slither-disable-next-line unused-return
        if (signer.code.length == 0) RelayedCall.relayCall(factory, call);
        return SignatureChecker.isValidERC1271SignatureNow(signer, digest, inner);
    }
}
