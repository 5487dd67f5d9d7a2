"""Providers with policies: who takes a job, at which moment, and what the others say."""

from collections.abc import Callable

from market.chain.devnet import get_account
from market.protocol.economics import Reason
from market.protocol.hashing import Hash32
from tests.e2e.conftest import TERMS, World
from trainer.declines import DECLINES_FILE, DeclineLog
from trainer.policy import POLICY_FILE, STEPS_FILE, StepTimes

RAMP = TERMS.model_copy(update={"floor_bps": 1_000, "ramp_time_s": 1_000})


def write_policy(world: World, number: int, text: str) -> None:
    home = world.folder / get_account(number).address
    home.mkdir()
    (home / POLICY_FILE).write_text(text)


def read_reasons(world: World, number: int) -> list[Reason]:
    with DeclineLog(world.folder / get_account(number).address / DECLINES_FILE) as log:
        return [kept.decline.reason for kept in log.read()]


def test_a_provider_claims_when_the_ramp_reaches_its_floor(open_world: Callable[..., World]):
    world = open_world(terms=RAMP)
    write_policy(world, 2, "jitter = 0\n[assets.0]\nfloor_per_shard = '0.0055ether'")
    world.add_provider(2)
    world.run_until(lambda: world.chain.get_job(world.job_id).seeded)
    for _ in range(3):
        world.parties[0].take_turn()
    assert world.leases() == {}
    world.devnet.advance_time(500)

    world.run_until(lambda: bool(world.leases()))

    (claimed,) = world.leases().values()
    assert 5_500 <= claimed.price_bps < 7_000
    assert read_reasons(world, 2) == []


def test_a_job_below_the_floor_of_one_provider_is_taken_by_another(
    open_world: Callable[..., World],
):
    world = open_world()
    write_policy(world, 2, "[assets.0]\nfloor_per_shard = '1ether'")
    world.add_provider(2)
    other = world.add_provider(3)

    world.run_until(lambda: bool(world.leases()) and bool(read_reasons(world, 2)))

    assert {claimed.operator for claimed in world.leases().values()} == {other}
    assert read_reasons(world, 2) == [Reason.PRICE_BELOW_FLOOR]


def test_a_provider_learns_the_time_of_its_steps_from_what_it_trains(
    open_world: Callable[..., World],
):
    world = open_world()
    world.add_provider(2)
    path = world.folder / get_account(2).address / STEPS_FILE
    root = Hash32(world.spec.program.root)
    world.run_until(lambda: bool(world.leases()))
    before = path.read_text()

    world.run_until(lambda: path.read_text() != before)

    assert StepTimes(path).find(root) is not None
