"""Sessions in a simulated world: nothing that is promised breaks in random histories, and what is planted is found.

``MANYHANDS_HISTORIES`` says how many histories run in all.
"""

import os
from typing import Any

import pytest

from manyhands.core.lifecycle import Lifecycle
from manyhands.core.resources import Capacity
from manyhands.engines.local.pool_parts import WorkerState
from manyhands.engines.local.pool_state import PoolState
from tests.simulation.history import (
    SimulationError,
    run_histories,
    run_history,
    tell_history,
)

HISTORIES = int(os.environ.get("MANYHANDS_HISTORIES", "100000"))
PARTS = 50


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_promised_holds_in_every_history(part: int) -> None:
    share = -(-HISTORIES // PARTS)
    errors = run_histories(range(part * share, (part + 1) * share))
    seeds = [error.seed for error in errors]
    assert not errors, f"{len(errors)} of {share} histories, seeds {seeds}\n" + "\n\n".join(
        map(str, errors[:2])
    )


@pytest.mark.parametrize("seed", range(0, 100, 9))
def test_a_seed_replays_step_by_step(seed: int) -> None:
    assert tell_history(seed) == tell_history(seed)


def find_first(seeds: range = range(400)) -> SimulationError:
    for seed in seeds:
        error = run_history(seed)
        if error is not None:
            return error
    pytest.fail("what was planted was not found")


def test_an_error_tells_the_seed_the_step_and_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolState, "withdraw", lambda pool, key: key in pool._queued)
    error = find_first()
    assert error.step > 0
    assert error.story
    assert f"--seed {error.seed}" in str(error)
    again = run_history(error.seed)
    assert again is not None
    assert (str(again), again.step, again.story) == (str(error), error.step, error.story)


def test_a_call_that_is_forgotten_when_a_worker_dies_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose = PoolState.lose

    def forget(pool: PoolState, worker: WorkerState, *rest: Any) -> Any:
        held = set(worker.inflight)
        blamed = lose(pool, worker, *rest)
        for key in held & pool._queued.keys():
            del pool._queued[key]
        return blamed

    monkeypatch.setattr(PoolState, "lose", forget)
    find_first()


def test_attempts_that_are_not_counted_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = Lifecycle.fail

    def forget(life: Lifecycle, key: int, *rest: Any) -> Any:
        record = life._records.get(key)
        if record is not None:
            record.attempts = None
        return fail(life, key, *rest)

    monkeypatch.setattr(Lifecycle, "fail", forget)
    find_first()


def test_capacity_that_is_not_given_back_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capacity, "give", lambda capacity, need, devices=(): None)
    find_first()


def test_capacity_that_is_taken_without_being_there_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Capacity, "fits", lambda capacity, need: True)
    find_first()


def test_a_call_that_is_given_back_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back = PoolState.give_back

    def give_twice(pool: PoolState, worker: WorkerState, keys: list[int]) -> None:
        entries = [worker.inflight[key] for key in keys if key in worker.inflight]
        give_back(pool, worker, [entry.key for entry in entries])
        for entry in entries:
            pool.enqueue(entry)

    monkeypatch.setattr(PoolState, "give_back", give_twice)
    find_first()


def test_a_call_that_waits_and_keeps_its_cpus_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolState, "block", lambda pool, worker: None)
    find_first()
