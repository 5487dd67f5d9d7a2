// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Asset} from "../src/interfaces/IDeployment.sol";
import {IOffers, JobOffer} from "../src/interfaces/IOffers.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {JobStatus} from "../src/libraries/Jobs.sol";
import {MarketTest} from "./MarketTest.sol";
import {GoodToken, TaxedToken} from "./Tokens.sol";
import {Wallet, WalletFactory} from "./Wallets.sol";

/// @notice Jobs that their requesters signed: by a key, by a wallet, by a wallet that is not there yet.
contract OffersTest is MarketTest {
    uint256 private constant KEY = 0x51613;
    uint256 private constant CURVE = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    bytes32 private constant UNDEPLOYED = 0x6492649264926492649264926492649264926492649264926492649264926492;

    IOffers private offers;
    address private signer;

    function setUp() public override {
        super.setUp();
        offers = IOffers(vm.deployCode("src/Offers.sol:Offers", abi.encode(address(market))));
        signer = vm.addr(KEY);
        vm.deal(signer, WEALTH);
        vm.prank(signer);
        offers.deposit{value: 100 ether}(signer);
    }

    function _assets() internal override returns (Asset[] memory assets) {
        assets = new Asset[](3);
        assets[0] = Asset(address(0), TICKET_STAKE);
        assets[1] = Asset(address(new GoodToken()), TICKET_STAKE);
        assets[2] = Asset(address(new TaxedToken()), TICKET_STAKE);
    }

    function _hashSpec(bytes32[8] calldata leaves) external view returns (bytes32) {
        return Commitments.hashSpec(leaves);
    }

    function _offer(address requester) private view returns (JobOffer memory) {
        return JobOffer(requester, this._hashSpec(_spec()), _terms(), 7, block.timestamp + 100);
    }

    function _sign(uint256 key, JobOffer memory offer) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, offers.hashOffer(offer));
        return abi.encodePacked(r, s, v);
    }

    function _post(JobOffer memory offer, bytes memory signature) private returns (uint256) {
        vm.prank(STRANGER);
        return offers.postOffer(offer, _spec(), signature);
    }

    function test_anyone_posts_what_a_requester_signed_and_the_requester_owns_the_job() public {
        JobOffer memory offer = _offer(signer);

        uint256 jobId = _post(offer, _sign(KEY, offer));

        assertEq(market.getJob(jobId).requester, signer);
        assertEq(market.getJob(jobId).specHash, offer.specHash);
        assertEq(offers.depositOf(signer), 100 ether - _escrow());
        vm.prank(signer);
        market.cancelJob(jobId);
        assertJobStatus(jobId, JobStatus.Cancelled);
    }

    function test_what_a_sponsor_sends_pays_for_the_offer() public {
        uint256 key = KEY + 1;
        JobOffer memory offer = _offer(vm.addr(key));
        bytes memory signature = _sign(key, offer);
        uint256 escrow = _escrow();
        bytes32[8] memory spec = _spec();

        vm.prank(STRANGER);
        uint256 jobId = offers.postOffer{value: escrow}(offer, spec, signature);

        assertEq(market.getJob(jobId).requester, vm.addr(key));
    }

    function test_an_offer_without_the_money_is_refused_and_can_be_posted_later() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);
        vm.prank(signer);
        offers.withdraw(100 ether, signer);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferUnderfunded.selector, signer, 0, _escrow()));
        _post(offer, signature);
        vm.prank(signer);
        offers.deposit{value: 50 ether}(signer);

        assertEq(_post(offer, signature), 1);
    }

    function test_an_offer_in_a_token_is_paid_by_its_requester_through_an_allowance() public {
        asset = 1;
        GoodToken token = GoodToken(market.getAsset(1).token);
        token.mint(signer, WEALTH);
        vm.prank(signer);
        token.approve(address(offers), _escrow());
        JobOffer memory offer = _offer(signer);

        uint256 jobId = _post(offer, _sign(KEY, offer));

        assertEq(token.balanceOf(address(market)), _escrow());
        assertEq(token.allowance(address(offers), address(market)), 0);
        assertEq(market.getJob(jobId).escrow, _escrow());
    }

    function test_attack_a_token_that_takes_a_fee_pays_for_no_offer() public {
        asset = 2;
        TaxedToken token = TaxedToken(market.getAsset(2).token);
        token.mint(signer, WEALTH);
        vm.prank(signer);
        token.approve(address(offers), WEALTH);
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);

        vm.expectPartialRevert(bytes4(keccak256("ERC20InsufficientBalance(address,uint256,uint256)")));
        _post(offer, signature);
    }

    // Wallets

    function test_a_contract_wallet_signs() public {
        Wallet wallet = new Wallet(signer);
        vm.prank(signer);
        offers.deposit{value: 50 ether}(address(wallet));
        JobOffer memory offer = _offer(address(wallet));

        uint256 jobId = _post(offer, _sign(KEY, offer));

        assertEq(market.getJob(jobId).requester, address(wallet));
    }

    function test_a_wallet_that_is_not_deployed_yet_signs() public {
        WalletFactory factory = new WalletFactory();
        JobOffer memory offer = _offer(factory.predict(signer));
        vm.prank(signer);
        offers.deposit{value: 50 ether}(offer.requester);
        bytes memory inner = _sign(KEY, offer);
        bytes memory call = abi.encodeCall(WalletFactory.deploy, (signer));
        bytes memory signature = abi.encodePacked(abi.encode(address(factory), call, inner), UNDEPLOYED);

        uint256 jobId = _post(offer, signature);

        assertEq(market.getJob(jobId).requester, offer.requester);
        assertTrue(offer.requester.code.length > 0, "it is deployed now");
    }

    function test_attack_a_wallets_deployment_cannot_spend_anothers_allowance() public {
        GoodToken token = GoodToken(market.getAsset(1).token);
        token.mint(signer, 1 ether);
        vm.prank(signer);
        token.approve(address(offers), 1 ether);
        JobOffer memory offer = _offer(address(0x5001)); // no wallet: the "deployment" is the theft
        bytes memory theft = abi.encodeCall(IERC20.transferFrom, (signer, STRANGER, 1 ether));
        bytes memory signature = abi.encodePacked(abi.encode(address(token), theft, bytes("")), UNDEPLOYED);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferInvalidSignature.selector, offer.requester));
        _post(offer, signature);

        assertEq(token.balanceOf(signer), 1 ether);
    }

    // What is refused

    function test_attack_an_offer_is_posted_once() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);
        _post(offer, signature);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferUsed.selector, signer, 7));
        _post(offer, signature);
    }

    function test_a_cancelled_offer_is_refused() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);

        vm.prank(signer);
        offers.cancelOffer(7);

        assertTrue(offers.isUsed(signer, 7), "its nonce is spent");
        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferUsed.selector, signer, 7));
        _post(offer, signature);
    }

    function test_an_offer_is_good_until_its_last_second() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);
        vm.warp(offer.expiry + 1);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferExpired.selector, offer.expiry, offer.expiry + 1));
        _post(offer, signature);
        vm.warp(offer.expiry);

        assertEq(_post(offer, signature), 1);
    }

    function test_attack_no_term_of_an_offer_can_be_changed() public {
        JobOffer memory signed = _offer(signer);
        bytes memory signature = _sign(KEY, signed);
        JobOffer[5] memory changed = [signed, signed, signed, signed, signed];
        for (uint256 i = 0; i < 5; ++i) {
            changed[i] = _offer(signer);
        }
        changed[0].terms.pricePerShard -= 1;
        changed[1].terms.stakePerShard += 1;
        changed[2].terms.deadline += 1;
        changed[3].nonce += 1;
        changed[4].expiry += 1;

        for (uint256 i = 0; i < 5; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IOffers.OfferInvalidSignature.selector, signer));
            _post(changed[i], signature);
        }
    }

    function test_attack_an_offer_for_one_spec_posts_no_other() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);
        bytes32[8] memory other = _spec();
        other[7] = "another document";
        bytes32 given = this._hashSpec(other);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferWrongSpec.selector, given, offer.specHash));
        vm.prank(STRANGER);
        offers.postOffer(offer, other, signature);
    }

    function test_attack_a_malleable_signature_is_refused() public {
        JobOffer memory offer = _offer(signer);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, offers.hashOffer(offer));
        bytes memory twin = abi.encodePacked(r, bytes32(CURVE - uint256(s)), v == 27 ? 28 : 27);

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferInvalidSignature.selector, signer));
        _post(offer, twin);
    }

    function test_attack_a_signature_for_another_chain_or_contract_is_refused() public {
        JobOffer memory offer = _offer(signer);
        bytes memory signature = _sign(KEY, offer);
        bytes memory refused = abi.encodeWithSelector(IOffers.OfferInvalidSignature.selector, signer);
        IOffers other = IOffers(vm.deployCode("src/Offers.sol:Offers", abi.encode(address(market))));
        bytes32[8] memory spec = _spec();

        vm.expectRevert(refused);
        other.postOffer(offer, spec, signature);
        vm.chainId(block.chainid + 1);
        vm.expectRevert(refused);
        _post(offer, signature);
    }

    function test_attack_nobody_signs_for_the_zero_address() public {
        JobOffer memory offer = _offer(address(0));

        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferInvalidSignature.selector, address(0)));
        _post(offer, new bytes(65));
    }

    function test_the_signing_domain_can_be_asked_for() public view {
        (, string memory name, string memory version, uint256 chainId, address verifier,,) =
            IERC5267(address(offers)).eip712Domain();

        assertEq(keccak256(bytes(name)), keccak256("Touchstone Offers"));
        assertEq(keccak256(bytes(version)), keccak256("1"));
        assertEq(chainId, block.chainid);
        assertEq(verifier, address(offers));
    }

    function test_a_deposit_is_its_requesters_alone() public {
        vm.expectRevert(abi.encodeWithSelector(IOffers.OfferUnderfunded.selector, STRANGER, 0, 1));
        vm.prank(STRANGER);
        offers.withdraw(1, STRANGER);
    }
}
