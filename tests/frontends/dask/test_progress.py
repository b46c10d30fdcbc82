"""Any graph is run through: all of it once, in order, and no value is kept longer than it is needed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.frontends.dask.progress import Progress

Dependencies = dict[int, frozenset[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Dependencies:
    """Each key needs some of those before it."""
    count = draw(st.integers(1, 12))
    return {
        key: frozenset(draw(st.sets(st.integers(0, key - 1), max_size=4))) if key else frozenset()
        for key in range(count)
    }


def find_wanted(draw: st.DataObject, dependencies: Dependencies) -> frozenset[int]:
    """What nobody needs is wanted, as nothing else is in a graph; and some others."""
    needed = frozenset().union(*dependencies.values())
    others = st.sets(st.sampled_from(sorted(needed))) if needed else st.just(set[int]())
    return frozenset(dependencies) - needed | draw.draw(others)


def is_needed(key: int, dependencies: Dependencies, wanted: frozenset[int], ran: set[int]) -> bool:
    users = {user for user, needed in dependencies.items() if key in needed}
    return key in wanted or not users <= ran


@given(dependencies=graphs(), draw=st.data())
def test_everything_runs_once_and_is_kept_while_it_is_needed(
    dependencies: Dependencies, draw: st.DataObject
) -> None:
    wanted = find_wanted(draw, dependencies)
    progress = Progress(dict(dependencies), wanted, lambda key: key)
    running: list[int] = []
    ran: set[int] = set()
    kept: set[int] = set()
    while not progress.is_done:
        if progress.ready and (not running or draw.draw(st.booleans())):
            key = progress.take()
            assert key not in ran and key not in running
            assert dependencies[key] <= kept
            running.append(key)
        else:
            key = running.pop(draw.draw(st.integers(0, len(running) - 1)))
            ran.add(key)
            kept.add(key)
            released = progress.finish(key)
            assert len(released) == len(set(released)) and kept.issuperset(released)
            kept -= set(released)
        assert kept == {key for key in ran if is_needed(key, dependencies, wanted, ran)}
        assert progress.finished == ran
        assert progress.running == set(running)
        assert progress.released == ran - kept
    assert ran == set(dependencies)
    assert kept == wanted
    assert not progress.ready and not progress.waiting and not running


@given(dependencies=graphs(), draw=st.data())
def test_what_is_bypassed_is_made_by_those_that_need_it(
    dependencies: Dependencies, draw: st.DataObject
) -> None:
    wanted = find_wanted(draw, dependencies)
    progress = Progress(dict(dependencies), wanted, lambda key: key)
    needed_now = dict(dependencies)
    kept: set[int] = set()
    bypassed: set[int] = set()
    while not progress.is_done:
        key = progress.take()
        assert needed_now[key] == progress.dependencies[key] <= kept
        if key not in wanted and draw.draw(st.booleans()):
            users = {user for user, needed in needed_now.items() if key in needed}
            assert set(progress.bypass(key)) == users
            bypassed.add(key)
            for user in users:
                needed_now[user] = needed_now[user] - {key} | needed_now[key]
        else:
            kept.add(key)
            kept.difference_update(progress.finish(key))
        ran = progress.finished
        assert kept == {
            key for key in ran - bypassed if is_needed(key, needed_now, wanted, set(ran))
        }
    assert progress.finished == set(dependencies)
    assert kept == wanted


@given(dependencies=graphs(), draw=st.data())
def test_of_those_that_are_ready_the_first_in_rank_is_next(
    dependencies: Dependencies, draw: st.DataObject
) -> None:
    ranks = draw.draw(st.permutations(range(len(dependencies))))
    progress = Progress(dict(dependencies), set(dependencies), ranks.__getitem__)
    while not progress.is_done:
        ready = [
            key
            for key, needed in dependencies.items()
            if needed <= progress.finished and key not in progress.finished
        ]
        key = progress.take()
        assert key == min(ready, key=ranks.__getitem__)
        progress.finish(key)


def test_ranks_may_be_equal_and_keys_need_no_order() -> None:
    keys: list[Any] = ["a", ("a", 1), 1.5, b"x"]
    progress = Progress(dict.fromkeys(keys, frozenset()), keys, lambda key: 0)
    assert [progress.take() for _ in keys] == keys
    with pytest.raises(IndexError):
        progress.take()


def test_of_nothing_all_is_done() -> None:
    assert Progress({}, [], lambda key: key).is_done
