from market.protocol.program import Kind
from tests.trainer.parallel.models import lower_mlp
from trainer.parallel.ranks import Move, RankSteps, list_steps
from trainer.parallel.schedule import arrange_stages
from trainer.parallel.strategies import StrategyName, partition

WORLD = 4


def list_stages(micro_batches: int) -> list[RankSteps]:
    program, _ = lower_mlp(batch=512, micro_batches=micro_batches, width=64)
    divided = partition(program, WORLD, StrategyName.PIPELINE)
    return [list_steps(divided, rank) for rank in range(WORLD)]


def list_moves(stage: RankSteps, source: int, target: int) -> list[int]:
    moves = [step.exchange for step in stage.steps if isinstance(step.exchange, Move)]
    return [m.tensor for m in moves if m.source == source and target in m.targets]


def test_a_stage_works_on_one_micro_batch_while_others_are_elsewhere() -> None:
    alone = arrange_stages(list_stages(1))[1]
    ends = [arrange_stages(list_stages(count))[1] for count in (2, 4)]

    assert ends[1] < ends[0] < 0.8 * alone


def test_arranged_steps_are_the_same_steps_each_after_what_it_reads() -> None:
    stages = list_stages(4)

    arranged, _ = arrange_stages(stages)

    for before, after in zip(stages, arranged, strict=True):
        assert before.steps != after.steps
        assert sorted(map(repr, before.steps)) == sorted(map(repr, after.steps))
        given = {number for number, _ in after.program.inputs}
        for step in after.steps:
            assert given.issuperset(view.tensor for view in step.reads)
            given.update(view.tensor for view in step.writes)


def test_two_ranks_send_and_receive_in_one_order() -> None:
    arranged, _ = arrange_stages(list_stages(4))

    for source in range(WORLD):
        for target in set(range(WORLD)) - {source}:
            sent = list_moves(arranged[source], source, target)

            assert sent == list_moves(arranged[target], source, target)
            assert len(sent) > 2


def test_the_stages_of_a_network_multiply_only_by_their_own_weights() -> None:
    for rank, stage in enumerate(list_stages(1)):
        names = {
            stage.program.tensors[step.instruction.operands[0].tensor].name
            for step in stage.steps
            if step.instruction is not None and step.instruction.kind is Kind.QUANTIZE
        }

        assert {name for name in names if name} == {f"{3 * rank + 1}.weight"}
