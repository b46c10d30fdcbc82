"""Histories of a simulated world: the parent's own code with simulated workers, clock and messages, by seeds."""

import pytest

from tests.simulation.account import ViolationError
from tests.simulation.world import World

HISTORIES = 40


@pytest.mark.parametrize("first", range(0, 200, HISTORIES))
def test_histories_keep_every_promise(first: int) -> None:
    for seed in range(first, first + HISTORIES):
        World(seed).run()


def test_a_seed_replays_exactly() -> None:
    steps = []
    for _ in range(2):
        world = World(11)
        world.run()
        steps.append(world.steps)
    assert steps[0] == steps[1] > 20


def test_a_lost_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(60):
        world = World(seed)
        settle = world.session.take_results
        monkeypatch.setattr(
            world.session, "take_results", lambda found, settle=settle: settle(found[1:])
        )
        try:
            world.run()
        except ViolationError:
            return
    pytest.fail("results were lost, and nothing was noticed")
