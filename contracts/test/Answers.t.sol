// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAudits, IChallenges, RecordOpening, StateOpening} from "../src/interfaces/IAudits.sol";
import {IOperators} from "../src/interfaces/IOperators.sol";
import {ChallengeStatus} from "../src/libraries/Challenges.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {LeaseStatus} from "../src/libraries/Leases.sol";
import {LeaseStates} from "./LeaseStates.sol";

/// @notice What a provider opens for the judge, and what the judge may rule on.
contract AnswersTest is LeaseStates {
    function test_an_answer_is_kept_for_the_judge() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        (StateOpening memory before, RecordOpening memory opened) = _openingsFor(challengeId);

        vm.expectEmit(address(market));
        emit IChallenges.ChallengeAnswered(challengeId, before, opened, block.timestamp + 300);
        _answer(challengeId);

        assertChallenge(challengeId, ChallengeStatus.Answered);
        assertEq(market.getChallenge(challengeId).opened, keccak256(abi.encode(before, opened)));
    }

    function testFuzz_every_record_of_every_shard_can_be_opened(uint256 shard, uint256 index) public {
        (slots, quorum) = (3, 3);
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 3);
        _finishAudit(leaseId);
        (shard, index) = (clamp(shard, 0, 2), clamp(index, 0, segments));
        uint256 challengeId = _challenge(leaseId, shard, index);

        _answer(challengeId);

        assertChallenge(challengeId, ChallengeStatus.Answered);
    }

    function test_what_is_opened_must_be_what_was_committed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        (StateOpening memory before, RecordOpening memory opened) = _openingsFor(challengeId);
        opened.gradientRoot = "other";
        _expectAnswerRefused(challengeId, before, opened, 3);

        (before, opened) = _openingsFor(challengeId);
        before.stateRoot = "other";
        _expectAnswerRefused(challengeId, before, opened, 2);

        (before, opened) = _openingsFor(challengeId);
        before = works[leaseId].stateOpening(0, 4);
        _expectAnswerRefused(challengeId, before, opened, 2);
    }

    function test_a_shards_first_record_is_opened_alone_and_in_its_place() public {
        uint256 leaseId = _claim(PROVIDER, _openJob(), 0, 0, 2);
        _finishAudit(leaseId);
        uint256 challengeId = _challenge(leaseId, 1, 0);
        RecordOpening memory nothing;
        uint256 place = Commitments.positionOf(1, 0, segments);
        _expectAnswerRefused(challengeId, works[leaseId].stateOpening(0, 0), nothing, place);

        StateOpening memory before = works[leaseId].stateOpening(1, 0);
        vm.prank(_worker(PROVIDER));
        market.answer(challengeId, before, nothing);

        assertChallenge(challengeId, ChallengeStatus.Answered);
    }

    function test_only_a_worker_of_the_provider_answers_once_and_in_time() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        (StateOpening memory before, RecordOpening memory opened) = _openingsFor(challengeId);
        vm.expectRevert(abi.encodeWithSelector(IOperators.OperatorNotWorker.selector, PROVIDER, STRANGER));
        vm.prank(STRANGER);
        market.answer(challengeId, before, opened);

        _passTime(401);
        _expectChallengeStatus(challengeId, ChallengeStatus.Unanswered, ChallengeStatus.Open);
        vm.prank(_worker(PROVIDER));
        market.answer(challengeId, before, opened);
        vm.warp(block.timestamp - 1);
        _answer(challengeId);
        _expectChallengeStatus(challengeId, ChallengeStatus.Answered, ChallengeStatus.Open);
        vm.prank(_worker(PROVIDER));
        market.answer(challengeId, before, opened);
    }

    function test_only_the_judge_rules_on_what_is_answered_and_in_time() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        vm.expectRevert(abi.encodeWithSelector(IChallenges.ChallengeNotJudge.selector, STRANGER, JUDGE));
        vm.prank(STRANGER);
        market.rule(challengeId, true);
        _expectChallengeStatus(challengeId, ChallengeStatus.Open, ChallengeStatus.Answered);
        vm.prank(JUDGE);
        market.rule(challengeId, true);

        _answer(challengeId);
        _passTime(301);
        _expectChallengeStatus(challengeId, ChallengeStatus.Unruled, ChallengeStatus.Answered);
        vm.prank(JUDGE);
        market.rule(challengeId, true);
    }

    function test_a_closed_challenge_stays_closed() public {
        uint256 leaseId = _leaseIn(LeaseStatus.Attested);
        uint256 challengeId = _challenge(leaseId, 0, 3);
        _answer(challengeId);
        _rule(challengeId, false);

        _expectChallengeStatus(challengeId, ChallengeStatus.Rejected, ChallengeStatus.Answered);
        vm.prank(JUDGE);
        market.rule(challengeId, true);
        vm.expectRevert(
            abi.encodeWithSelector(
                IChallenges.ChallengeNotDue.selector, challengeId, ChallengeStatus.Rejected
            )
        );
        market.resolve(challengeId);
    }

    function _expectAnswerRefused(
        uint256 challengeId,
        StateOpening memory before,
        RecordOpening memory opened,
        uint256 position
    ) private {
        uint256 leaseId = market.getChallenge(challengeId).leaseId;
        vm.expectRevert(abi.encodeWithSelector(IAudits.AuditInvalidOpening.selector, leaseId, position));
        vm.prank(_worker(PROVIDER));
        market.answer(challengeId, before, opened);
    }

    function _expectChallengeStatus(uint256 challengeId, ChallengeStatus current, ChallengeStatus required)
        private
    {
        vm.expectRevert(
            abi.encodeWithSelector(
                IChallenges.ChallengeInUnexpectedStatus.selector, challengeId, current, required
            )
        );
    }
}
