// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssets} from "../src/interfaces/IAssets.sol";
import {IAudits, IChallenges, RecordOpening, StateOpening} from "../src/interfaces/IAudits.sol";
import {IClosing} from "../src/interfaces/IMarket.sol";
import {Config} from "../src/interfaces/IDeployment.sol";
import {Challenge, ChallengeStatus} from "../src/libraries/Challenges.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";
import {Market} from "./MarketTest.sol";

/// @notice Accusations by the drawn auditor, and challenges by anyone with a bond.
contract DisputesTest is LeaseStates {
    uint256 private constant REWARD = 1.8 ether; // 30% of a shard's stake
    uint256 private constant BOND = 0.6 ether;

    // By the auditor

    function test_an_unanswered_accusation_slashes_the_provider_for_the_auditor() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        uint256 auditor = _auditorOf(leaseId);
        _passTime(401);
        assertChallenge(1, ChallengeStatus.Unanswered);

        vm.expectEmit(address(market));
        emit IAudits.LeaseSlashed(leaseId, LeaseStatus.Accused, STAKE, REWARD);
        vm.prank(STRANGER);
        market.resolve(1);

        (uint256 taken,,) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Slashed);
        assertChallenge(1, ChallengeStatus.Upheld);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(auditor, DEPOSIT, 0, REWARD);
        assertEq(market.burnable(asset), STAKE - REWARD);
        assertEq(taken, 0);
    }

    function test_an_accusation_that_the_judge_upholds_slashes_the_provider() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        uint256 auditor = _auditorOf(leaseId);
        _answer(1);

        _rule(1, true);

        assertStatus(leaseId, LeaseStatus.Slashed);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(auditor, DEPOSIT, 0, REWARD);
    }

    function test_a_false_accusation_costs_the_auditor_its_stake_and_the_provider_nothing() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        uint256 auditor = _auditorOf(leaseId);
        _answer(1);

        vm.expectEmit(address(market));
        emit IClosing.AuditorReplaced(leaseId, auditor, STAKE, block.number + 8);
        _rule(1, false);

        assertStatus(leaseId, LeaseStatus.Committed);
        assertChallenge(1, ChallengeStatus.Rejected);
        assertAccount(auditor, DEPOSIT - STAKE, 0, 0);
        assertAccount(PROVIDER, DEPOSIT, STAKE, REWARD);
        assertEq(market.burnable(asset), STAKE - REWARD);
    }

    function test_a_judge_that_is_silent_about_an_accusation_voids_the_lease_at_no_cost() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        uint256 auditor = _auditorOf(leaseId);
        _answer(1);
        _passTime(301);
        assertChallenge(1, ChallengeStatus.Unruled);

        market.resolve(1);

        assertStatus(leaseId, LeaseStatus.Voided);
        assertChallenge(1, ChallengeStatus.Dropped);
        assertAccount(PROVIDER, DEPOSIT, 0, 0);
        assertAccount(auditor, DEPOSIT, 0, 0);
    }

    function test_attack_slashing_oneself_loses_most_of_the_stake() public {
        // Both auditors are the provider's.
        uint256 leaseId = _leaseIn(LeaseStatus.Slashed);
        assertStatus(leaseId, LeaseStatus.Slashed);

        uint256 left = uint256(_account(PROVIDER).staked) + _account(AUDITOR).staked
            + _account(AUDITOR).earned + _account(COLLEAGUE).staked + _account(COLLEAGUE).earned;
        assertEq(3 * DEPOSIT - left, uint256(STAKE) * 7 / 10);
    }

    function test_a_record_that_a_lease_does_not_have_cannot_be_accused() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        address key = _auditorKey(leaseId);
        uint256[2][3] memory places = [[uint256(0), 9], [uint256(1), 0], [uint256(1) << 250, 1]];
        for (uint256 i = 0; i < places.length; ++i) {
            (uint256 shard, uint256 index) = (places[i][0], places[i][1]);
            vm.expectRevert(
                abi.encodeWithSelector(IChallenges.ChallengeNoSuchRecord.selector, leaseId, shard, index)
            );
            vm.prank(key);
            market.accuse(leaseId, shard, index);
        }

        _accuse(leaseId, 0, segments);
    }

    function test_an_accusation_stands_where_there_is_no_judge() public {
        market = _marketWithoutJudge();
        uint256 leaseId = _leaseIn(LeaseStatus.Accused);
        (StateOpening memory before, RecordOpening memory opened) = _openingsFor(1);

        vm.expectRevert(IChallenges.ChallengeNeedsJudge.selector);
        vm.prank(_worker(PROVIDER));
        market.answer(1, before, opened);

        _passTime(401);
        market.resolve(1);
        assertStatus(leaseId, LeaseStatus.Slashed);
    }

    function test_nobody_else_accuses_where_there_is_no_judge() public {
        market = _marketWithoutJudge();
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);

        vm.expectRevert(IChallenges.ChallengeNeedsJudge.selector);
        vm.prank(CHALLENGER);
        market.challenge{value: BOND}(leaseId, 0, 1);
    }

    // By anyone

    function test_a_challenge_holds_a_bond_and_keeps_the_lease_from_being_final() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        _toDeadline(leaseId); // in the last second

        uint256 challengeId = _challenge(leaseId, 0, 3);

        Challenge memory challenge = market.getChallenge(challengeId);
        assertEq(challenge.bond, BOND);
        assertEq(challenge.position, 3);
        assertEq(challenge.challenger, CHALLENGER);
        assertEq(CHALLENGER.balance, WEALTH - BOND);
        _passTime(1);
        _expectStatus(leaseId, LeaseStatus.Attested, LeaseStatus.Final);
        market.settle(leaseId);
    }

    function test_a_bond_grows_with_the_lease_and_is_paid_exactly() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _finishAudit(leaseId);

        vm.expectRevert(abi.encodeWithSelector(IAssets.AssetWrongPayment.selector, BOND, 2 * BOND));
        vm.prank(CHALLENGER);
        market.challenge{value: BOND}(leaseId, 0, 1);

        assertEq(market.getChallenge(_challenge(leaseId, 1, 0)).position, 16);
    }

    function test_an_upheld_challenge_of_a_drawn_record_slashes_the_provider_and_whoever_attested() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 auditor = _auditorOf(leaseId);
        uint256 challengeId = _challenge(leaseId, 0, market.drawnSegments(leaseId)[1] + 1);
        _answer(challengeId);

        vm.expectEmit(address(market));
        emit IAudits.LeaseSlashed(leaseId, LeaseStatus.Attested, 2 * STAKE, 2 * REWARD);
        _rule(challengeId, true);

        (uint256 taken, uint256 attested,) = market.getRound(1, 0);
        assertStatus(leaseId, LeaseStatus.Slashed);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(auditor, DEPOSIT - STAKE, 0, 0);
        assertEq(market.creditOf(CHALLENGER, asset), BOND + 2 * REWARD);
        assertEq(market.burnable(asset), 2 * (STAKE - REWARD));
        assertEq(taken | attested, 0);
    }

    function test_an_auditor_vouches_for_where_every_shard_begins() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _finishAudit(leaseId);
        uint256 auditor = _auditorOf(leaseId);
        uint256 challengeId = _challenge(leaseId, 1, 0);
        _answer(challengeId);

        _rule(challengeId, true);

        assertAccount(auditor, DEPOSIT - 2 * STAKE, 0, 0);
    }

    function test_an_auditor_answers_for_no_record_that_was_not_drawn() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 auditor = _auditorOf(leaseId);
        uint256 challengeId = _challenge(leaseId, 0, _undrawnSegment(leaseId) + 1);
        _answer(challengeId);

        _rule(challengeId, true);

        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(auditor, DEPOSIT, 0, 0);
        assertEq(market.creditOf(CHALLENGER, asset), BOND + REWARD);
        assertEq(market.burnable(asset), STAKE - REWARD);
    }

    function test_an_unanswered_challenge_is_upheld() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, _undrawnSegment(leaseId) + 1);
        _passTime(400);
        vm.expectRevert(
            abi.encodeWithSelector(IChallenges.ChallengeNotDue.selector, challengeId, ChallengeStatus.Open)
        );
        market.resolve(challengeId);

        _passTime(1);
        market.resolve(challengeId);

        assertStatus(leaseId, LeaseStatus.Slashed);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertEq(market.creditOf(CHALLENGER, asset), BOND + REWARD);
    }

    function test_attack_a_provider_that_is_silent_about_its_own_challenge_does_not_take_the_auditor_along()
        public
    {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 auditor = _auditorOf(leaseId);
        uint256 challengeId = _challenge(leaseId, 0, market.drawnSegments(leaseId)[0] + 1);
        _passTime(401);

        market.resolve(challengeId);

        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
        assertAccount(auditor, DEPOSIT, 0, 0); // what it attested was true
    }

    function test_a_rejected_challenge_costs_its_bond_and_the_honest_nothing() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 auditor = _auditorOf(leaseId);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        _answer(challengeId);

        _rule(challengeId, false);

        assertEq(market.creditOf(CHALLENGER, asset), 0);
        assertEq(market.burnable(asset), BOND - BOND * 3 / 10);
        _settle(leaseId);
        assertAccount(PROVIDER, DEPOSIT, 0, price + BOND * 3 / 10);
        assertAccount(auditor, DEPOSIT, 0, FEE);
    }

    function test_a_challenge_that_the_judge_is_silent_about_gives_its_bond_back() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        _answer(challengeId);
        _passTime(301);

        market.resolve(challengeId);

        assertChallenge(challengeId, ChallengeStatus.Dropped);
        assertEq(market.creditOf(CHALLENGER, asset), BOND);
        _settle(leaseId);
        assertAccount(PROVIDER, DEPOSIT, 0, price);
    }

    function test_challenges_run_side_by_side_and_a_lost_one_proves_nothing() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 thrown = _challenge(leaseId, 0, 3);
        uint256 right = _challenge(leaseId, 0, 3);
        _answer(thrown);
        _rule(thrown, false); // its challenger was the provider's

        _answer(right);
        _rule(right, true);

        assertStatus(leaseId, LeaseStatus.Slashed);
    }

    function test_a_challenge_of_a_lease_that_is_over_gives_its_bond_back() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256[3] memory ids;
        for (uint256 i = 0; i < 3; ++i) {
            ids[i] = _challenge(leaseId, 0, i);
        }
        _answer(ids[0]);
        _answer(ids[1]);
        _rule(ids[0], true);
        uint256 credit = market.creditOf(CHALLENGER, asset);

        _rule(ids[1], true);
        market.resolve(ids[2]);

        assertChallenge(ids[1], ChallengeStatus.Dropped);
        assertChallenge(ids[2], ChallengeStatus.Dropped);
        assertEq(market.creditOf(CHALLENGER, asset), credit + 2 * BOND);
        assertAccount(PROVIDER, DEPOSIT - STAKE, 0, 0);
    }

    function test_a_lease_settles_once_every_challenge_is_closed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        (uint256 first, uint256 second) = (_challenge(leaseId, 0, 1), _challenge(leaseId, 0, 2));
        _answer(first);
        _answer(second);
        _rule(first, false);
        _passTime(301);
        _passDeadline(leaseId);
        _expectStatus(leaseId, LeaseStatus.Attested, LeaseStatus.Final);
        market.settle(leaseId);

        market.resolve(second);

        market.settle(leaseId);
        assertStatus(leaseId, LeaseStatus.Settled);
    }

    function test_only_an_attested_lease_in_its_window_is_challenged() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Drawn);
        vm.expectRevert(
            abi.encodeWithSelector(IChallenges.ChallengeNotChallengeable.selector, leaseId, LeaseStatus.Drawn)
        );
        vm.prank(CHALLENGER);
        market.challenge{value: BOND}(leaseId, 0, 1);

        _attest(leaseId);
        _passDeadline(leaseId);
        vm.expectRevert(
            abi.encodeWithSelector(
                IChallenges.ChallengeWindowOver.selector, leaseId, block.timestamp, block.timestamp - 1
            )
        );
        vm.prank(CHALLENGER);
        market.challenge{value: BOND}(leaseId, 0, 1);
    }

    function test_a_providers_own_keys_cannot_challenge_its_lease() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        address[2] memory keys = [_worker(PROVIDER), _owner(PROVIDER)];

        for (uint256 i = 0; i < 2; ++i) {
            vm.deal(keys[i], BOND);
            vm.expectRevert(
                abi.encodeWithSelector(IChallenges.ChallengeByProvider.selector, leaseId, keys[i])
            );
            vm.prank(keys[i]);
            market.challenge{value: BOND}(leaseId, 0, 1);
        }
    }

    function _undrawnSegment(uint256 leaseId) private view returns (uint256 segment) {
        uint256[] memory drawn = market.drawnSegments(leaseId);
        while (_contains(drawn, segment)) ++segment;
    }

    function _contains(uint256[] memory list, uint256 item) private pure returns (bool found) {
        for (uint256 i = 0; i < list.length; ++i) {
            found = found || list[i] == item;
        }
    }

    function _marketWithoutJudge() private returns (Market deployed) {
        Config memory constants = _config();
        constants.judge = address(0);
        market = deployed = _deploy(constants, _assets());
        for (uint256 operator = PROVIDER; operator <= COLLEAGUE; ++operator) {
            _register();
        }
        _stake(PROVIDER, DEPOSIT);
        _buyTickets(AUDITOR, TICKETS);
    }
}
