"""Which worker gets which calls."""

import sys
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.functions import Function
from manyhands.core.model import CallOptions
from manyhands.core.resources import ONE_CPU, Capacity, Need, make_need
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.local import pool_state
from manyhands.engines.local.channel import _MAX_FDS, MAX_FRAME
from manyhands.engines.local.pool_parts import Entry, StageState, WorkerState
from manyhands.engines.local.pool_state import PoolState


def make_function(seconds: float | None, key: int = 1) -> Function:
    function = Function(key, "f", b"")
    function.seconds = seconds
    return function


def make_pool(workers: int = 2, capacity: Capacity | None = None) -> PoolState:
    pool = PoolState(capacity or Capacity(workers))
    for number in range(1, workers + 1):
        pool.add_worker(number)
    return pool


def fill(pool: PoolState, keys: Iterable[int], function: Function, size: int = 10) -> None:
    for key in keys:
        pool.enqueue(Entry(key, function, bytes(size)))


SLOW = make_function(5.0)
"""Calls of it travel one by one."""


def add(
    pool: PoolState,
    *keys: int,
    need: Need = ONE_CPU,
    priority: int = 0,
    depth: int = 0,
    stage: int = 0,
    function: Function = SLOW,
) -> list[Entry]:
    """Queue calls that are not plain."""
    options = CallOptions(need=need, priority=priority, actor=max(stage, 0))
    entries = [Entry(key, function, b"", options, depth=depth, stage=stage) for key in keys]
    for entry in entries:
        pool.enqueue(entry)
    return entries


def plan(pool: PoolState) -> list[tuple[int, list[int]]]:
    return [(worker.number, [entry.key for entry in sent]) for worker, sent in pool.plan()]


def send(pool: PoolState) -> list[int]:
    """Plan; the keys that were sent, in their order."""
    return [key for _, keys in plan(pool) for key in keys]


def finish_all(pool: PoolState, worker: WorkerState) -> None:
    keys = list(worker.inflight)
    pool.finish(worker, keys, [5.0] * len(keys))


def count_sent(pool: PoolState) -> list[int]:
    return [len(worker.inflight) for worker in pool.workers.values()]


def test_an_empty_pool_has_nothing_to_do() -> None:
    pool = make_pool()
    assert plan(pool) == []
    assert not pool.is_busy()
    assert pool.has_idle()
    assert pool.count_busy() == 0
    assert pool.find_hoarder() is None
    assert pool.drain() == []


def test_without_workers_calls_wait() -> None:
    pool = PoolState(Capacity(2))
    fill(pool, [1, 2], make_function(None))
    assert plan(pool) == []
    assert pool.is_busy()
    pool.add_worker(1)
    assert plan(pool) == [(1, [1]), (1, [2])]
    assert not pool.has_queued()


def test_unknown_calls_travel_one_by_one_and_few_ahead() -> None:
    pool = make_pool(2)
    fill(pool, range(1, 11), make_function(None))
    assert all(len(keys) == 1 for _, keys in plan(pool))
    assert count_sent(pool) == [pool_state.AHEAD_CALLS] * 2
    assert plan(pool) == []


def test_long_calls_are_not_piled_up() -> None:
    pool = make_pool(3)
    fill(pool, range(1, 100), make_function(10.0))
    assert all(len(keys) == 1 for _, keys in plan(pool))
    assert count_sent(pool) == [pool_state.AHEAD_CALLS] * 3


def test_few_calls_are_shared() -> None:
    pool = make_pool(2)
    fill(pool, range(1, 5), make_function(1e-6))
    plan(pool)
    assert count_sent(pool) == [2, 2]


def test_quick_calls_travel_together_and_as_far_ahead_as_is_worth_it() -> None:
    seconds = 1e-5
    pool = make_pool(2)
    fill(pool, range(1, 20_000), make_function(seconds))
    messages = plan(pool)
    each = seconds + pool_state.OVERHEAD_SECONDS
    assert max(len(keys) for _, keys in messages) > 10
    assert max(len(keys) for _, keys in messages) <= pool_state.MESSAGE_SECONDS / each
    for sent in count_sent(pool):
        assert 0.45 <= sent * each / pool_state.AHEAD_SECONDS <= 1.05
    assert plan(pool) == [], "a worker that has enough is left alone"


def test_the_least_busy_worker_is_served_first() -> None:
    pool = make_pool(2)
    function = make_function(1.0)
    fill(pool, [1, 2, 3], function)
    plan(pool)
    busy = max(pool.workers.values(), key=lambda worker: len(worker.inflight))
    fill(pool, [4], function)
    assert plan(pool)[0][0] != busy.number


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=150), st.integers(1, 3))
def test_a_message_fits_a_frame(sizes: list[int], workers: int) -> None:
    pool = make_pool(workers)
    function = make_function(1e-7)
    for key, size in enumerate(sizes, 1):
        pool.enqueue(Entry(key, function, bytes(size)))
    for _, sent in pool.plan():
        inline = [entry for entry in sent if len(entry.payload) <= INLINE_BYTES]
        assert sum(len(entry.payload) for entry in inline) + 40 * len(sent) < MAX_FRAME


@given(st.integers(1, 400), st.integers(INLINE_BYTES + 1, 300_000))
@settings(max_examples=20)
def test_a_message_has_no_more_large_payloads_than_a_channel_hands_over(
    calls: int, size: int
) -> None:
    pool = make_pool(1)
    payload = bytes(size)
    for key in range(1, calls + 1):
        pool.enqueue(Entry(key, make_function(1e-7), payload))
    assert all(len(sent) <= _MAX_FDS for _, sent in pool.plan())


def test_a_call_larger_than_a_message_travels_alone() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2], make_function(1e-7), size=10 * pool_state.MESSAGE_BYTES)
    assert plan(pool) == [(1, [1]), (1, [2])]


def test_what_could_not_be_sent_goes_first_the_next_time() -> None:
    pool = make_pool(1)
    fill(pool, range(1, 6), make_function(10.0))
    for worker, sent in pool.plan():
        pool.give_back(worker, [entry.key for entry in sent])
        break
    assert not pool.workers[1].inflight
    assert plan(pool) == [(1, [1]), (1, [2])]


def test_outcomes_teach_how_long_a_function_takes() -> None:
    pool = make_pool(1)
    quick, slow = make_function(None, 1), make_function(None, 2)
    fill(pool, [1], quick)
    fill(pool, [2], slow)
    plan(pool)
    worker = pool.workers[1]
    assert [entry.key for entry in pool.finish(worker, [1, 2], [1e-6, 3.0]) if entry] == [1, 2]
    assert (quick.seconds, slow.seconds) == (1e-6, 3.0)
    assert not pool.is_busy()


class WatchedFunction(Function):
    """Remembers what it was told."""

    def __init__(self, key: int) -> None:
        super().__init__(key, "f", b"")
        self.seconds = 1e-7
        self.told: list[tuple[float, int]] = []

    def observe(self, seconds: float, calls: int) -> None:
        self.told.append((seconds, calls))


def test_outcomes_of_one_function_are_taken_in_together() -> None:
    pool = make_pool(1)
    one, other = WatchedFunction(1), WatchedFunction(2)
    fill(pool, [1, 2, 3, 4], one)
    fill(pool, [5], other)
    plan(pool)
    pool.finish(pool.workers[1], [1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 2.0, 9.0])
    assert one.told == [(2.0, 4)]
    assert other.told == [(9.0, 1)]


def test_outcomes_that_are_known_already_teach_nothing() -> None:
    pool = make_pool(1)
    function = make_function(None)
    fill(pool, [1], function)
    plan(pool)
    first, second, third = pool.finish(pool.workers[1], [7, 1, 8], [100.0, 2.0, 100.0])
    assert first is None and third is None
    assert second is not None and second.key == 1
    assert function.seconds == 2.0


def test_a_worker_that_ends_is_blamed_for_what_it_was_at_alone() -> None:
    pool = make_pool(2)
    fill(pool, [1, 2, 3, 4], make_function(5.0))
    plan(pool)
    worker = next(worker for worker in pool.workers.values() if 1 in worker.inflight)
    others = [key for key in worker.inflight if key != 1]
    assert [entry.key for entry in pool.lose(worker, [1])] == [1]
    assert worker.number not in pool.workers
    assert [entry.key for entry in pool.queue] == others
    pool.validate()


def test_a_worker_that_ends_between_calls_is_blamed_for_none() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2], make_function(5.0))
    plan(pool)
    assert pool.lose(pool.workers[1], [0]) == []
    assert [entry.key for entry in pool.queue] == [1, 2]


def test_a_hoarder_is_who_holds_the_most_while_another_idles() -> None:
    pool = make_pool(3)
    fill(pool, range(1, 7), make_function(5.0))
    plan(pool)
    assert pool.find_hoarder() is None, "nobody idles"
    first, second, third = pool.workers.values()
    pool.finish(first, list(first.inflight), [5.0, 5.0])
    pool.finish(second, list(second.inflight)[:1], [5.0])
    assert pool.find_hoarder() is third
    fill(pool, [9], make_function(5.0))
    assert pool.find_hoarder() is None, "there is something queued"
    pool.withdraw(9)
    assert pool.find_hoarder() is third
    pool.finish(third, list(third.inflight)[:1], [5.0])
    assert pool.find_hoarder() is None, "one call cannot be shared"


def test_calls_are_not_shared_where_there_is_no_cpu_for_them() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2], make_function(None))
    plan(pool)
    pool.add_worker(9)
    assert pool.find_hoarder() is None
    pool.block(next(iter(pool.workers.values())))
    assert pool.find_hoarder() is not None


def test_a_withdrawn_call_is_never_sent() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2, 3], make_function(None))
    assert pool.withdraw(1)
    assert not pool.withdraw(1)
    assert not pool.withdraw(99)
    assert [key for _, keys in plan(pool) for key in keys] == [2, 3]
    assert not pool.withdraw(2), "it has been sent"


def test_a_withdrawn_call_is_left_out_of_a_message() -> None:
    pool = make_pool(1)
    fill(pool, range(1, 8), make_function(1e-7))
    for key in (3, 4, 7):
        pool.withdraw(key)
    assert plan(pool) == [(1, [1, 2, 5, 6])]
    pool.validate()


def test_a_pool_whose_calls_were_all_withdrawn_is_not_busy() -> None:
    pool = make_pool(1)
    fill(pool, [1], make_function(None))
    assert pool.is_busy()
    pool.withdraw(1)
    assert not pool.is_busy()
    assert plan(pool) == []


def test_the_backlog_is_that_of_the_worker_with_the_least() -> None:
    pool = make_pool(2)
    fill(pool, range(1, 8), make_function(0.25))
    assert pool.estimate_backlog() == 0.0
    plan(pool)
    assert count_sent(pool) == [2, 2]
    assert pool.estimate_backlog() == 0.25
    worker = pool.workers[2]
    pool.finish(worker, list(worker.inflight)[:1], [0.25])
    assert pool.estimate_backlog() == 0.0


def test_all_that_has_no_outcome_is_drained() -> None:
    pool = make_pool(1)
    fill(pool, range(1, 8), make_function(None))
    pool.withdraw(6)
    plan(pool)
    assert sorted(entry.key for entry in pool.drain()) == [1, 2, 3, 4, 5, 7]
    assert not pool.is_busy()
    pool.validate()
    assert pool.drain() == []


def test_validate_finds_a_call_in_two_places() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2], make_function(None))
    plan(pool)
    pool.enqueue(pool.workers[1].inflight[1])
    with pytest.raises(AssertionError):
        pool.validate()


# Priorities and depth.


def test_calls_of_more_priority_go_first() -> None:
    pool = make_pool(1)
    add(pool, 1, 2)
    add(pool, 3, 4, priority=-1)
    add(pool, 5, 6, priority=7)
    order = []
    while keys := send(pool):
        order += keys
        finish_all(pool, pool.workers[1])
    assert order == [5, 6, 1, 2, 3, 4]


def test_deeper_calls_go_first_among_those_of_one_priority() -> None:
    pool = make_pool(1)
    add(pool, 1, 2)
    add(pool, 3, depth=1)
    add(pool, 4, depth=3)
    add(pool, 5, priority=1)
    order = []
    while keys := send(pool):
        order += keys
        finish_all(pool, pool.workers[1])
    assert order == [5, 4, 3, 1, 2]


def test_calls_that_may_wait_for_others_are_not_sent_ahead() -> None:
    pool = make_pool(1)
    add(pool, 1, 2, depth=1, function=make_function(1e-7))
    assert plan(pool) == [(1, [1])]
    assert plan(pool) == []


def test_calls_that_differ_in_need_alone_go_in_the_order_in_which_they_came() -> None:
    pool = make_pool(1)
    half = make_need(cpus=0.5)
    add(pool, 1)
    add(pool, 2, need=half)
    add(pool, 3)
    order = []
    while keys := send(pool):
        order.append(keys)
        finish_all(pool, pool.workers[1])
    assert order == [[1, 3], [2]], "those in flight with one worker are alike"


def test_urgent_calls_are_told_of_until_they_are_planned() -> None:
    pool = make_pool(1)
    add(pool, 1, need=make_need(cpus=0.5))
    add(pool, 2, priority=-1)
    add(pool, 3, stage=9)
    assert not pool.has_urgent()
    add(pool, 4, priority=1)
    assert pool.has_urgent()
    plan(pool)
    assert not pool.has_urgent()
    add(pool, 5, depth=1)
    assert pool.has_urgent()


def test_workers_that_hold_more_than_they_are_at() -> None:
    pool = make_pool(2)
    fill(pool, [1, 2, 3], SLOW)
    plan(pool)
    (worker,) = pool.list_ahead()
    assert len(worker.inflight) == 2


def test_calls_that_came_back_go_before_those_of_their_kind() -> None:
    pool = make_pool(1)
    add(pool, 1, 2, priority=1)
    plan(pool)
    add(pool, 3, priority=1)
    add(pool, 4, priority=2)
    pool.give_back(pool.workers[1], [1, 2])
    pool.validate()
    assert send(pool) == [4, 1]


def test_a_withdrawn_call_that_is_not_plain_is_never_sent() -> None:
    pool = make_pool(1)
    add(pool, 1, 2, 3, priority=1)
    assert pool.withdraw(1)
    plan(pool)
    assert list(pool.workers[1].inflight) == [2, 3]
    add(pool, 4, priority=1)
    assert pool.withdraw(4)
    finish_all(pool, pool.workers[1])
    assert send(pool) == []
    assert not pool.is_busy()


# What calls hold.


def test_no_more_runs_than_there_are_cpus() -> None:
    pool = make_pool(4, Capacity(2))
    fill(pool, range(1, 9), SLOW)
    plan(pool)
    assert sorted(count_sent(pool)) == [0, 0, 2, 2]
    assert not pool.wants_worker()


def test_a_call_holds_what_it_needs_until_it_has_ended() -> None:
    capacity = Capacity(4, named={"licence": 1})
    pool = make_pool(2, capacity)
    licensed = make_need(resources={"licence": 1})
    add(pool, 1, 2, 3, need=licensed)
    plan(pool)
    assert sorted(count_sent(pool)) == [0, 1], "one at a time"
    assert not capacity.fits(licensed)
    for key in (1, 2, 3):
        worker = pool.find(key)
        assert worker is not None
        pool.finish(worker, [key], [5.0])
        assert capacity.fits(licensed)
        pool.validate()
        assert send(pool) == ([key + 1] if key < 3 else [])


@pytest.mark.parametrize("how", ["lose", "give_back", "set_aside", "drain"])
def test_what_a_call_held_is_free_however_it_leaves(how: str) -> None:
    capacity = Capacity(1, named={"licence": 1})
    pool = make_pool(1, capacity)
    licensed = make_need(resources={"licence": 1})
    add(pool, 1, need=licensed)
    plan(pool)
    worker = pool.workers[1]
    if how == "lose":
        assert [entry.key for entry in pool.lose(worker, [1])] == [1]
    elif how == "give_back":
        pool.give_back(worker, [1])
    elif how == "set_aside":
        pool.set_aside(worker, 1)
    else:
        pool.drain()
    assert capacity.fits(licensed)
    pool.validate()


def test_what_does_not_fit_holds_back_only_what_needs_the_same() -> None:
    pool = make_pool(3, Capacity(3, named={"licence": 1, "tape": 1}))
    licensed, taped = make_need(resources={"licence": 1}), make_need(resources={"tape": 1})
    both = make_need(resources={"licence": 1, "tape": 1})
    add(pool, 1, need=licensed)
    plan(pool)
    add(pool, 2, need=both)
    add(pool, 3, need=taped)
    fill(pool, [4], SLOW)
    add(pool, 5, need=make_need(cpus=0, resources={"licence": 1}))
    assert send(pool) == [3, 4]
    pool.validate()


def test_what_does_not_fit_keeps_what_it_lacks() -> None:
    """A call that needs both cpus is not passed for ever by calls that need one."""
    pool = make_pool(2)
    wide = make_need(cpus=2)
    fill(pool, [1, 2], SLOW)
    plan(pool)
    add(pool, 3, need=wide)
    add(pool, 4, need=make_need(cpus=0))
    fill(pool, [5, 6, 7, 8], SLOW)
    pool.add_worker(3)
    assert send(pool) == [4], "what needs no cpu may go"
    first, second = pool.workers[1], pool.workers[2]
    finish_all(pool, first)
    assert send(pool) == []
    finish_all(pool, second)
    assert send(pool) == [3], "and nothing that needs a cpu beside it"
    pool.validate()


@given(st.data())
@settings(max_examples=40)
def test_nothing_starves(data: st.DataObject) -> None:
    """Whatever goes on coming of the same priority, a call is sent before those that came after it was passed."""
    pool = make_pool(4, Capacity(2, ("0", "1"), named={"licence": 1}))
    needs = [
        ONE_CPU,
        make_need(cpus=0.5),
        make_need(cpus=2),
        make_need(gpus=0.5),
        make_need(gpus=2),
        make_need(resources={"licence": 1}),
    ]
    rare = data.draw(st.sampled_from(needs))
    key = 1
    for _ in range(data.draw(st.integers(0, 8))):
        add(pool, key, need=data.draw(st.sampled_from(needs)))
        key += 1
    plan(pool)
    add(pool, awaited := key, need=rare)
    for _ in range(60):
        for _ in range(3):  # more than can run
            key += 1
            add(pool, key, need=data.draw(st.sampled_from(needs)))
        if awaited in send(pool):
            return
        while pool.wants_worker():
            pool.add_worker(1 + max(pool.workers)).is_ready = True
            if awaited in send(pool):
                return
        busy = [worker for worker in pool.workers.values() if worker.inflight]
        finish_all(pool, data.draw(st.sampled_from(busy)))
        pool.validate()
    pytest.fail("it was never sent")


def test_a_call_that_needs_no_cpu_needs_no_free_one() -> None:
    pool = make_pool(3, Capacity(1))
    for worker in pool.workers.values():
        worker.is_ready = True
    fill(pool, [1], SLOW)
    add(pool, 4, 5, 6, need=make_need(cpus=0))
    assert sorted(send(pool)) == [1, 4, 5]
    assert pool.wants_worker(), "it needs a worker all the same"


def test_calls_are_sent_ahead_also_where_there_are_more_workers_than_cpus() -> None:
    pool = make_pool(3, Capacity(2))
    function = make_function(1e-4)
    fill(pool, range(1, 1000), function)
    plan(pool)
    busy = [worker for worker in pool.workers.values() if worker.inflight]
    assert len(busy) == 2
    for worker in busy:
        most = len(worker.inflight)
        keys = list(worker.inflight)[: most - 2]
        pool.finish(worker, keys, [1e-4] * len(keys))
    plan(pool)
    assert all(len(worker.inflight) > 20 for worker in busy), "they are not left to run dry"


def test_fractions_share_a_cpu() -> None:
    pool = make_pool(3, Capacity(1))
    add(pool, 1, need=make_need(cpus=0.5))
    add(pool, 2, need=make_need(cpus=0.25))
    add(pool, 3, need=make_need(cpus=0.3))
    assert sorted(send(pool)) == [1, 2]
    assert not pool.wants_worker()


# Devices.


def test_a_worker_gets_the_devices_of_its_call() -> None:
    pool = make_pool(2, Capacity(2, ("0", "1")))
    add(pool, 1, 2, need=make_need(gpus=1))
    plan(pool)
    assert [worker.devices for worker in pool.workers.values()] == [("0",), ("1",)]
    pool.finish(pool.workers[1], [1], [5.0])
    assert (pool.workers[1].devices, pool.workers[1].visible) == ((), ("0",))


def test_a_worker_that_has_seen_devices_is_given_no_others() -> None:
    pool = make_pool(1, Capacity(2, ("0", "1")))
    add(pool, 1, need=make_need(gpus=1))
    plan(pool)
    finish_all(pool, pool.workers[1])
    add(pool, 2, need=make_need(gpus=2))
    assert send(pool) == []
    assert pool.wants_worker(), "another process can see both"
    pool.add_worker(2)
    assert plan(pool) == [(2, [2])]
    assert pool.workers[2].devices == ("0", "1")
    finish_all(pool, pool.workers[2])
    add(pool, 3, need=make_need(gpus=1))
    fill(pool, [4], SLOW)
    assert plan(pool) == [(1, [3]), (2, [4])], "and the first one still sees its own"


# How many workers.


def test_a_worker_is_wanted_where_a_call_could_run() -> None:
    pool = make_pool(1, Capacity(2))
    pool.workers[1].is_ready = True
    assert not pool.wants_worker()
    fill(pool, [1, 2, 3], SLOW)
    plan(pool)
    assert pool.wants_worker()
    pool.add_worker(2)
    assert send(pool) == [3]
    assert not pool.wants_worker()


def test_no_worker_is_wanted_where_nothing_could_run() -> None:
    pool = make_pool(1, Capacity(1))
    pool.workers[1].is_ready = True
    fill(pool, [1, 2, 3], SLOW)
    plan(pool)
    assert pool.has_queued()
    assert not pool.wants_worker()


def test_workers_are_started_together_as_far_as_there_are_cpus_and_else_one_by_one() -> None:
    pool = PoolState(Capacity(2))
    add(pool, *range(1, 6), need=make_need(cpus=0))
    numbers = 0
    while plan(pool) or pool.wants_worker():
        if pool.wants_worker():
            numbers += 1
            pool.add_worker(numbers)
    assert numbers == 2
    fill(pool, [8, 9], SLOW)
    for worker in pool.workers.values():
        worker.is_ready = True
    plan(pool)
    assert pool.wants_worker()


def test_there_is_an_end_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_state, "MOST_WORKERS", 3)
    pool = make_pool(2, Capacity(2))
    add(pool, *range(1, 20), need=make_need(cpus=0))
    for worker in pool.workers.values():
        worker.is_ready = True
    plan(pool)
    assert pool.wants_worker()
    pool.add_worker(3).is_ready = True
    plan(pool)
    assert pool.has_queued()
    assert not pool.wants_worker()


def test_idle_workers_beyond_those_that_are_kept_go_the_youngest_first() -> None:
    pool = make_pool(5)
    fill(pool, [1], SLOW)
    plan(pool)
    assert [worker.number for worker in pool.list_excess(2)] == [5, 4, 3]
    assert [worker.number for worker in pool.list_excess(0)] == [5, 4, 3, 2]
    assert pool.list_excess(5) == []
    pool.retire(pool.workers[5])
    assert 5 not in pool.workers and 5 not in pool.crew
    assert [worker.number for worker in pool.list_excess(2)] == [4, 3]


def test_a_worker_runs_so_many_calls_and_no_more() -> None:
    pool = make_pool(1, Capacity(1))
    pool.most_calls = 3
    fill(pool, range(1, 9), make_function(1e-7))
    assert send(pool) == [1, 2, 3]
    pool.finish(pool.workers[1], [1, 2], [0.1, 0.1])
    assert send(pool) == []
    pool.finish(pool.workers[1], [3], [0.1])
    assert send(pool) == []
    assert pool.workers[1].calls == 3


def test_a_worker_that_goes_gets_nothing_more() -> None:
    pool = make_pool(2)
    pool.workers[1].is_closing = True
    fill(pool, range(1, 9), SLOW)
    add(pool, 9, priority=1)
    assert {number for number, _ in plan(pool)} == {2}


# Calls that wait for others.


def test_a_call_that_waits_gives_its_cpus_up() -> None:
    pool = make_pool(1, Capacity(1))
    outer = pool.workers[1]
    outer.is_ready = True
    fill(pool, [1], SLOW)
    plan(pool)
    pool.block(outer)
    assert pool.count_busy() == 0
    add(pool, 2, depth=1)
    assert send(pool) == []
    assert pool.wants_worker()
    inner = pool.add_worker(2)
    assert plan(pool) == [(2, [2])]
    pool.ask_resume(outer)
    assert pool.resume() == [], "there is one cpu"
    finish_all(pool, inner)
    assert pool.resume() == [outer]
    assert not outer.is_blocked
    assert pool.resume() == []
    pool.validate()


def test_a_call_that_waits_keeps_the_rest_of_what_it_holds() -> None:
    capacity = Capacity(2, ("0",), named={"licence": 1})
    pool = make_pool(2, capacity)
    both = make_need(gpus=1, resources={"licence": 1})
    add(pool, 1, need=both)
    plan(pool)
    holder = next(worker for worker in pool.workers.values() if worker.inflight)
    pool.block(holder)
    assert capacity.fits(make_need(cpus=2))
    assert not capacity.fits(make_need(cpus=0, gpus=0.5))
    assert capacity.find_short(both) == ("gpus", "licence")
    finish_all(pool, holder)
    assert capacity.fits(make_need(cpus=2, gpus=1, resources={"licence": 1}))
    pool.validate()


def test_calls_go_on_before_others_begin() -> None:
    pool = make_pool(2, Capacity(1))
    outer, other = pool.workers.values()
    fill(pool, [1], SLOW)
    plan(pool)
    pool.block(outer)
    fill(pool, [2], SLOW)
    assert plan(pool) == [(2, [2])]
    pool.ask_resume(outer)
    add(pool, 3, depth=1)
    add(pool, 4, need=make_need(cpus=0))
    fill(pool, [5], SLOW)
    finish_all(pool, other)
    assert plan(pool) == [(2, [4])], "the cpu is for the one that waits for it"
    assert pool.resume() == [outer]


def test_those_that_go_on_do_so_in_the_order_in_which_they_asked() -> None:
    pool = make_pool(3, Capacity(3))
    fill(pool, [1, 2, 3], SLOW)
    plan(pool)
    for worker in pool.workers.values():
        pool.block(worker)
        pool.block(worker)
    assert pool.resume() == []
    for number in (3, 1, 2, 3):
        pool.ask_resume(pool.workers[number])
    assert [worker.number for worker in pool.resume()] == [3, 1, 2]
    pool.ask_resume(pool.workers[1])
    assert pool.resume() == [], "it does not wait"
    pool.validate()


def test_a_worker_whose_call_waits_gets_no_other() -> None:
    pool = make_pool(1, Capacity(1))
    fill(pool, [1], SLOW)
    plan(pool)
    pool.block(pool.workers[1])
    fill(pool, [2], SLOW)
    add(pool, 3, depth=1)
    assert send(pool) == []


def test_a_worker_that_dies_while_its_call_waits_asks_for_nothing_more() -> None:
    pool = make_pool(2, Capacity(1))
    fill(pool, [1], SLOW)
    plan(pool)
    outer = pool.workers[1]
    pool.block(outer)
    pool.ask_resume(outer)
    assert [entry.key for entry in pool.lose(outer, [1])] == [1]
    assert pool.resume() == []
    pool.validate()
    fill(pool, [2], SLOW)
    assert send(pool) == [2]


# Calls whose results are those of others.


def test_calls_may_come_while_the_leading_thread_looks_and_plans() -> None:
    """Other threads queue calls at any moment, also in the middle of a look at those that have come."""
    pool = make_pool()
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        feeder = threading.Thread(target=lambda: [add(pool, k, depth=k % 2) for k in range(3000)])
        feeder.start()
        sent: list[int] = []
        while len(sent) < 3000:
            pool.has_urgent()
            if len(pool._arrivals) > 50 or not feeder.is_alive():
                sent += send(pool)
            for worker in pool.crew.values():
                finish_all(pool, worker)
        feeder.join()
    finally:
        sys.setswitchinterval(switch_interval)
    assert sorted(sent) == list(range(3000))


def test_a_call_that_was_set_aside_holds_nothing_and_has_no_outcome_yet() -> None:
    pool = make_pool(1, Capacity(1))
    worker = pool.workers[1]
    fill(pool, [1], SLOW)
    plan(pool)
    pool.set_aside(worker, 1)
    pool.set_aside(worker, 99)
    assert pool.is_busy()
    assert pool.find(1) is worker
    add(pool, 2, depth=1)
    assert send(pool) == [2]
    entries = pool.finish(worker, [2, 1], [1.0, 0.0])
    assert [entry and entry.key for entry in entries] == [2, 1]
    assert not pool.is_busy()
    pool.validate()


def test_a_call_that_was_set_aside_ends_with_its_worker() -> None:
    pool = make_pool(1, Capacity(1))
    worker = pool.workers[1]
    fill(pool, [1], SLOW)
    plan(pool)
    pool.set_aside(worker, 1)
    fill(pool, [2, 3], SLOW)
    plan(pool)
    assert {entry.key for entry in pool.lose(worker, [2])} == {1, 2}
    assert [entry.key for entry in pool.list_queued()] == [3]
    pool.validate()


def test_calls_that_were_set_aside_are_drained() -> None:
    pool = make_pool(1)
    fill(pool, [1], SLOW)
    plan(pool)
    pool.set_aside(pool.workers[1], 1)
    assert [entry.key for entry in pool.drain()] == [1]
    assert not pool.is_busy()


# Stages.

NOTHING = make_need(cpus=0)


def add_stage(
    pool: PoolState,
    number: int,
    making: int = 0,
    *,
    need: Need = NOTHING,
    limit: int = 256,
    is_light: bool = False,
    is_host: bool = False,
) -> StageState:
    """An actor, with the call that makes it if there is one."""
    stage = StageState(number, need, limit, is_light=is_light, is_host=is_host)
    pool.add_stage(stage)
    if making:
        pool.reopen_stage(stage, Entry(making, SLOW, b"", CallOptions(actor=number), stage=number))
    return stage


def place(pool: PoolState, hosts: int = 2) -> list[int]:
    """Give stages their places; those that a worker was started for."""
    placed = []
    for stage in pool.place_stages(hosts):
        number = 100 + len(pool.workers)
        pool.add_worker(number, is_host=stage.is_host, stage=stage.number)
        placed.append(stage.number)
    return placed


def make_host(pool: PoolState) -> WorkerState:
    """An actor that holds a cpu and runs calls beside each other, two of which it is at; its worker."""
    stage = add_stage(pool, 7, need=ONE_CPU, limit=4, is_host=True)
    place(pool)
    add(pool, 1, 2, stage=7)
    plan(pool)
    host = stage.worker
    assert host is not None and list(host.inflight) == [1, 2]
    return host


def test_a_host_whose_calls_all_wait_gives_its_cpus_up_and_has_them_again_at_once() -> None:
    pool = make_pool(1, Capacity(1))
    host = make_host(pool)
    add(pool, 3, depth=1)
    assert send(pool) == []
    pool.pause(host, is_paused=True)
    pool.pause(host, is_paused=True)
    assert plan(pool) == [(1, [3])]
    pool.pause(host, is_paused=False)
    pool.validate()
    finish_all(pool, pool.workers[1])
    add(pool, 4)
    assert send(pool) == [], "the host has the cpu"
    pool.validate()


def test_a_host_that_gave_its_cpus_up_is_sent_calls_all_the_same() -> None:
    pool = make_pool(1, Capacity(1))
    host = make_host(pool)
    pool.pause(host, is_paused=True)
    add(pool, 3, stage=7)
    assert plan(pool) == [(host.number, [3])]


def test_a_host_that_ends_while_others_have_its_cpus_takes_nothing_with_it() -> None:
    pool = make_pool(1, Capacity(1))
    host = make_host(pool)
    pool.pause(host, is_paused=True)
    pool.lose(host, [1, 2])
    pool.validate()
    add(pool, 3)
    assert send(pool) == [3]
    pool.stages[7].is_waiting = True
    assert place(pool) == [], "the cpu is taken"
    finish_all(pool, pool.workers[1])
    assert place(pool) == [7]
    pool.validate()


def test_an_actor_is_made_before_its_calls_run() -> None:
    pool = make_pool(1)
    stage = add_stage(pool, 7, making=1)
    add(pool, 2, 3, stage=7)
    assert send(pool) == [], "it has no worker"
    assert place(pool) == [7]
    assert place(pool) == []
    worker = stage.worker
    assert worker is not None and worker.number not in pool.crew
    assert send(pool) == [1]
    assert send(pool) == [], "it is not made yet"
    pool.finish(worker, [1], [0.1])
    stage.making = None
    assert send(pool) == [2, 3]
    pool.validate()


def test_an_actors_calls_go_to_its_worker_in_their_order() -> None:
    pool = make_pool(3)
    stage = add_stage(pool, 7)
    place(pool)
    worker = stage.worker
    assert worker is not None
    add(pool, *range(1, 600), stage=7, function=make_function(1e-7))
    fill(pool, [1000], SLOW)
    planned = plan(pool)
    assert [number for number, _ in planned if number in pool.crew] == [1]
    assert list(worker.inflight) == list(range(1, 257)), "as many as may be in flight"
    pool.finish(worker, list(range(1, 101)), [1e-7] * 100)
    plan(pool)
    assert list(worker.inflight) == list(range(101, 357))
    pool.validate()


def test_priorities_do_not_change_the_order_of_an_actors_calls() -> None:
    pool = make_pool(1)
    add_stage(pool, 7)
    place(pool)
    add(pool, 1, stage=7)
    add(pool, 2, stage=7, priority=9)
    add(pool, 3, stage=7, depth=2)
    stage = pool.stages[7]
    assert send(pool) == [1, 2]
    assert stage.worker is not None
    pool.finish(stage.worker, [1, 2], [1e-6, 1e-6])
    assert send(pool) == [3]


def test_an_actor_runs_no_more_calls_at_a_time_than_it_may() -> None:
    pool = make_pool(1)
    stage = add_stage(pool, 7, limit=2, is_host=True)
    place(pool)
    add(pool, 1, 2, 3, 4, stage=7)
    assert [keys for _, keys in plan(pool)] == [[1], [2]], "each can be taken back by itself"
    assert stage.worker is not None
    pool.finish(stage.worker, [2], [0.1])
    assert send(pool) == [3]
    assert list(stage.worker.inflight) == [1, 3]


def test_actors_take_what_they_need_for_as_long_as_they_live() -> None:
    capacity = Capacity(2, ("0",))
    pool = make_pool(2, capacity)
    needy = make_need(cpus=2, gpus=1)
    first, second = (add_stage(pool, number, need=needy) for number in (7, 8))
    assert place(pool) == [7]
    assert first.devices == ("0",)
    fill(pool, [1], SLOW)
    assert send(pool) == [], "all cpus are taken"
    assert pool.remove_stage(7) == []
    assert capacity.fits(needy)
    assert place(pool) == [8]
    assert second.devices == ("0",)
    pool.validate()


def test_an_actor_that_does_not_fit_lets_others_have_their_places() -> None:
    pool = make_pool(1, Capacity(1, named={"licence": 1}))
    add_stage(pool, 7, need=make_need(cpus=0, resources={"licence": 1}))
    add_stage(pool, 8, need=make_need(cpus=0, resources={"licence": 1}))
    add_stage(pool, 9)
    assert place(pool) == [7, 9]


def test_light_actors_share_workers() -> None:
    pool = make_pool(1)
    for number in range(1, 41):
        add_stage(pool, number, is_light=True, is_host=True)
    assert place(pool, hosts=2) == [1, 9], "another one is started after so many"
    shares = [len(worker.stages) for worker in pool.workers.values() if worker.is_host]
    assert shares == [20, 20]


def test_light_actors_are_not_with_others() -> None:
    pool = make_pool(1)
    add_stage(pool, 1, is_host=True)
    add_stage(pool, 2, is_light=True, is_host=True)
    add_stage(pool, 3, is_light=True, is_host=True)
    assert place(pool) == [1, 2]
    assert pool.stages[3].worker is pool.stages[2].worker is not pool.stages[1].worker


def test_calls_to_an_actor_whose_worker_has_died_wait_for_the_next() -> None:
    pool = make_pool(1)
    stage = add_stage(pool, 7, making=1)
    place(pool)
    plan(pool)
    worker = stage.worker
    assert worker is not None
    pool.finish(worker, [1], [0.1])
    stage.making = None
    add(pool, 2, 3, stage=7)
    plan(pool)
    assert [entry.key for entry in pool.lose(worker, [2])] == [2]
    assert stage.worker is None
    add(pool, 4, stage=7)
    assert send(pool) == []
    assert place(pool) == [], "not before it is to be made again"
    pool.validate()
    pool.reopen_stage(stage, Entry(1, SLOW, b"", CallOptions(actor=7), stage=7))
    assert place(pool) == [7]
    assert send(pool) == [1]
    assert stage.worker is not None
    pool.finish(stage.worker, [1], [0.1])
    stage.making = None
    assert send(pool) == [3, 4]
    pool.validate()


def test_an_actor_whose_worker_dies_before_it_is_made_is_made_once() -> None:
    pool = make_pool(1)
    stage = add_stage(pool, 7, making=1)
    place(pool)
    plan(pool)
    worker, making = stage.worker, stage.making
    assert worker is not None and making is not None
    assert pool.lose(worker, [0]) == []
    pool.reopen_stage(stage, making)
    pool.validate()
    place(pool)
    assert send(pool) == [1]
    assert send(pool) == []


def test_calls_to_an_actor_that_is_gone_are_returned_and_later_ones_are_orphans() -> None:
    pool = make_pool(1)
    stage = add_stage(pool, 7)
    place(pool)
    add(pool, 1, stage=7)
    plan(pool)
    worker = stage.worker
    assert worker is not None
    add(pool, 2, 3, stage=7)
    pool.withdraw(2)
    assert [entry.key for entry in pool.remove_stage(7)] == [3]
    assert pool.remove_stage(7) == []
    assert worker.stages == set()
    add(pool, 4, 5, stage=7)
    pool.withdraw(4)
    assert send(pool) == []
    pool.validate()
    assert [entry.key for entry in pool.take_orphans()] == [5]
    assert pool.take_orphans() == []
    assert not pool.has_queued()


def test_actors_on_one_worker_end_with_it() -> None:
    pool = make_pool(1)
    for number in (1, 2, 3):
        add_stage(pool, number, is_light=True, is_host=True)
    place(pool)
    host = pool.stages[1].worker
    assert host is not None
    for number in (1, 2, 3):
        add(pool, 10 * number, 10 * number + 1, stage=number)
    plan(pool)
    assert len(host.inflight) == 6
    blamed = pool.lose(host, [10, 20, 21, 30])
    assert {entry.key for entry in blamed} == {10, 20, 21, 30}
    assert all(stage.worker is None and stage.inflight == 0 for stage in pool.stages.values())
    assert sorted(entry.key for entry in pool.list_queued()) == [11, 31]
    pool.validate()


def test_all_that_actors_have_to_do_is_drained() -> None:
    pool = make_pool(1)
    add_stage(pool, 7, limit=1, is_host=True)
    place(pool)
    add(pool, 1, 2, 3, stage=7)
    plan(pool)
    assert sorted(entry.key for entry in pool.drain()) == [1, 2, 3]
    assert not pool.is_busy()
    pool.validate()


def test_a_pool_with_actors_is_asked_for_results_soon() -> None:
    pool = make_pool(1)
    fill(pool, range(1, 4), make_function(1.0))
    plan(pool)
    assert pool.estimate_backlog() == 1.0
    add_stage(pool, 7)
    assert pool.estimate_backlog() == 0.0


class PoolMachine(RuleBasedStateMachine):
    """Plain calls, beside a model: a queue in order, and what each worker was sent, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PoolState(Capacity(10_000))
        self.functions = [
            make_function(seconds, key)
            for key, seconds in enumerate((None, 1e-6, 1e-4, 0.01, 5.0), 1)
        ]
        self.keys = 0
        self.workers = 0
        self.queue: list[int] = []
        self.sent: dict[int, list[int]] = {}
        self.ended: set[int] = set()

    def draw_worker(self, data: st.DataObject) -> WorkerState:
        return self.pool.workers[data.draw(st.sampled_from(sorted(self.sent)))]

    def draw_some(self, data: st.DataObject, keys: list[int]) -> list[int]:
        some = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
        return sorted(some, key=keys.index)

    @rule()
    def add_worker(self) -> None:
        self.workers += 1
        self.sent[self.workers] = []
        self.pool.add_worker(self.workers)

    @rule(data=st.data(), calls=st.integers(1, 300), size=st.sampled_from([10, 10_000, 100_000]))
    def enqueue(self, data: st.DataObject, calls: int, size: int) -> None:
        function = data.draw(st.sampled_from(self.functions))
        payload = bytes(size)
        for _ in range(calls):
            self.keys += 1
            self.queue.append(self.keys)
            self.pool.enqueue(Entry(self.keys, function, payload))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ended)))
        self.ended.discard(key)
        self.queue.append(key)
        self.pool.enqueue(Entry(key, self.functions[0], b""))

    @rule(refused=st.none() | st.integers(0, 5))
    def plan(self, refused: int | None) -> None:
        """Send all that there is, or until a message finds no room."""
        share = -(-len(self.queue) // max(1, len(self.sent)))
        got = dict.fromkeys(self.sent, 0)
        for place, (worker, sent) in enumerate(self.pool.plan()):
            keys = [entry.key for entry in sent]
            assert keys == self.queue[: len(keys)], "not in the order in which they came"
            assert 1 <= len(keys) <= pool_state.MESSAGE_CALLS
            if place == refused:
                self.pool.give_back(worker, keys)
                return
            del self.queue[: len(keys)]
            self.sent[worker.number] += keys
            got[worker.number] += len(keys)
            assert got[worker.number] <= share, "more than its share"
        assert not self.queue or all(self.sent.values()), "one idles while calls are queued"

    @precondition(lambda self: any(self.sent.values()))
    @rule(data=st.data(), seconds=st.floats(0, 2))
    def finish(self, data: st.DataObject, seconds: float) -> None:
        worker = self.draw_worker(data)
        sent = self.sent[worker.number]
        keys = self.draw_some(data, sent[:20])
        strangers = [-1] if data.draw(st.booleans()) else []
        entries = self.pool.finish(worker, keys + strangers, [seconds] * len(keys + strangers))
        assert [entry and entry.key for entry in entries] == keys + [None] * len(strangers)
        self.ended.update(keys)
        self.sent[worker.number] = [key for key in sent if key not in keys]

    @precondition(lambda self: any(self.sent.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data)
        sent = self.sent[worker.number]
        keys = self.draw_some(data, sent[-20:])
        self.pool.give_back(worker, [*keys, -1])
        self.sent[worker.number] = [key for key in sent if key not in keys]
        self.queue[:0] = keys

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = self.draw_worker(data)
        sent = self.sent.pop(worker.number)
        begun = self.draw_some(data, sent[:20])
        blamed = self.pool.lose(worker, [*begun, 0])
        assert [entry.key for entry in blamed] == begun
        self.ended.update(begun)
        self.queue[:0] = [key for key in sent if key not in begun]

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if not self.keys:
            return
        near = st.sampled_from(self.queue[:50]) if self.queue else st.nothing()
        key = data.draw(near | st.integers(1, self.keys))
        assert self.pool.withdraw(key) == (key in self.queue)
        if key in self.queue:
            self.queue.remove(key)  # and it does not come again: the session has forgotten it

    @rule()
    def drain(self) -> None:
        outstanding = [*self.queue, *(key for sent in self.sent.values() for key in sent)]
        assert sorted(entry.key for entry in self.pool.drain()) == sorted(outstanding)
        self.ended.update(outstanding)
        self.queue.clear()
        self.sent = {number: [] for number in self.sent}

    @invariant()
    def every_call_is_in_its_place(self) -> None:
        self.pool.validate()
        queued = [e.key for e in self.pool.queue if e.key in self.pool._queued]
        assert queued == self.queue
        inflight = {w.number: list(w.inflight) for w in self.pool.workers.values()}
        assert inflight == self.sent
        for worker in self.pool.workers.values():
            assert all(self.pool.find(key) is worker for key in list(worker.inflight)[:3])

    @invariant()
    def questions_are_answered_as_the_model_would(self) -> None:
        sent = list(self.sent.values())
        assert self.pool.is_busy() == bool(self.queue or any(sent))
        assert self.pool.has_idle() == any(not keys for keys in sent)
        assert self.pool.count_busy() == sum(map(bool, sent))


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=40, stateful_step_count=40)


class NeedyMachine(RuleBasedStateMachine):
    """Calls of all kinds, of which it is known where each one is; at the end all can be brought to theirs."""

    NEEDS = (
        ONE_CPU,
        ONE_CPU,
        make_need(cpus=0),
        make_need(cpus=0.5),
        make_need(cpus=2),
        make_need(gpus=0.5),
        make_need(gpus=2),
        make_need(memory=60),
        make_need(resources={"licence": 1}),
        make_need(cpus=0, gpus=1, resources={"licence": 1}),
    )

    def __init__(self) -> None:
        super().__init__()
        self.pool = PoolState(Capacity(2, ("0", "1"), 100, {"licence": 1}))
        self.keys = 0
        self.numbers = 0
        self.stage_numbers = 0
        self.entries: dict[int, Entry] = {}  # that have not ended
        self.dead_stages: set[int] = set()  # whose workers have ended

    # What an engine does.

    def hire(self, stage: int = 0) -> WorkerState:
        self.numbers += 1
        is_host = bool(stage) and self.pool.stages[stage].is_host
        return self.pool.add_worker(self.numbers, is_host=is_host, stage=stage)

    def place_stages(self) -> None:
        for stage in self.pool.place_stages(2):
            self.hire(stage.number)

    def send_all(self) -> int:
        count = 0
        rank: tuple[int, int] = (-10, 0)
        for worker, sent in self.pool.plan():
            assert not worker.is_closing and not worker.is_blocked
            count += len(sent)
            if worker.number in self.pool.crew:
                assert not worker.stages
                for entry in sent:
                    assert worker.need is entry.options.need, "one need at a time"
                    assert rank <= (-entry.options.priority, -entry.depth), "not in order"
                    rank = -entry.options.priority, -entry.depth
            else:
                assert {entry.stage for entry in sent} <= worker.stages
        return count

    def dispatch(self) -> int:
        count = self.send_all()
        while self.pool.wants_worker():
            self.hire()
            count += self.send_all()
        for entry in self.pool.take_orphans():
            assert entry.stage not in self.pool.stages
            del self.entries[entry.key]
            count += 1
        return count

    def end(self, worker: WorkerState, keys: list[int]) -> None:
        for entry in self.pool.finish(worker, keys, [0.1] * len(keys)):
            assert entry is not None
            assert self.entries.pop(entry.key) is entry
            stage = self.pool.stages.get(entry.stage)
            if stage is not None and stage.making is entry:
                stage.making = None

    def draw_busy(self, data: st.DataObject) -> WorkerState | None:
        busy = [number for number, worker in self.pool.workers.items() if worker.inflight]
        return self.pool.workers[data.draw(st.sampled_from(busy))] if busy else None

    # What may happen.

    @rule()
    def start_worker(self) -> None:
        self.hire()

    @rule()
    def get_ready(self) -> None:
        for worker in self.pool.workers.values():
            worker.is_ready = True

    @rule(
        data=st.data(),
        calls=st.integers(1, 5),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        depth=st.sampled_from([0, 0, 1, 2]),
        need=st.sampled_from(NEEDS),
        seconds=st.sampled_from([None, 1e-6, 0.01]),
    )
    def enqueue(
        self,
        data: st.DataObject,
        *,
        calls: int,
        priority: int,
        depth: int,
        need: Need,
        seconds: float | None,
    ) -> None:
        stage = data.draw(st.sampled_from([0, 0, 0, *range(1, self.stage_numbers + 1)]))
        function = make_function(seconds)
        for _ in range(calls):
            self.keys += 1
            options = CallOptions(need=need, priority=priority, actor=stage)
            entry = self.entries[self.keys] = Entry(
                self.keys, function, b"x", options, depth=depth, stage=stage
            )
            self.pool.enqueue(entry)

    @rule()
    def plan(self) -> None:
        self.dispatch()

    @rule(refused=st.integers(0, 3))
    def plan_until_refused(self, refused: int) -> None:
        for place, (worker, sent) in enumerate(self.pool.plan()):
            if place == refused:
                self.pool.give_back(worker, [entry.key for entry in sent])
                return

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        worker = self.draw_busy(data)
        if worker is not None and not worker.is_blocked:
            keys = list(worker.inflight)
            if not worker.is_host:
                keys = keys[: data.draw(st.integers(1, len(keys)))]
            else:
                keys = data.draw(st.lists(st.sampled_from(keys), unique=True, min_size=1))
            self.end(worker, keys)

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = self.draw_busy(data)
        if worker is not None:
            begun = 1 if worker.number in self.pool.crew or worker.is_host else 0
            self.pool.give_back(worker, list(worker.inflight)[begun:])

    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        worker = self.draw_busy(data)
        if worker is not None and worker.number in self.pool.crew:
            self.pool.give_back(worker, list(worker.inflight)[1:])
            self.pool.block(worker)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        worker = self.draw_busy(data)
        if worker is not None:
            self.pool.ask_resume(worker)
        for resumed in self.pool.resume():
            assert not resumed.is_blocked and resumed.inflight

    @rule(data=st.data(), is_paused=st.booleans())
    def pause(self, data: st.DataObject, is_paused: bool) -> None:
        worker = self.draw_busy(data)
        if worker is not None and worker.is_host:
            self.pool.pause(worker, is_paused=is_paused)

    @rule(data=st.data())
    def set_aside(self, data: st.DataObject) -> None:
        worker = self.draw_busy(data)
        if worker is not None and worker.number in self.pool.crew and not worker.is_blocked:
            self.pool.set_aside(worker, next(iter(worker.inflight)))

    @rule(data=st.data())
    def finish_joined(self, data: st.DataObject) -> None:
        workers = [number for number, worker in self.pool.workers.items() if worker.joined]
        if workers:
            worker = self.pool.workers[data.draw(st.sampled_from(workers))]
            self.end(worker, [next(iter(worker.joined))])

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.entries)))
        entry = self.entries[key]
        stage = self.pool.stages.get(entry.stage)
        if stage is not None and stage.making is entry:
            return  # nobody cancels the making of an actor
        is_sent = self.pool.find(key) is not None
        assert self.pool.withdraw(key) != is_sent
        if not is_sent:
            del self.entries[key]

    @precondition(lambda self: self.pool.workers)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = self.pool.workers[data.draw(st.sampled_from(sorted(self.pool.workers)))]
        begun = list(worker.inflight)
        if not worker.is_host:
            begun = begun[: data.draw(st.integers(0, 1))]
        expected = {*begun, *worker.joined}
        self.dead_stages |= worker.stages
        blamed = self.pool.lose(worker, begun)
        assert {entry.key for entry in blamed} == expected
        for entry in blamed:
            del self.entries[entry.key]

    @precondition(lambda self: len(self.pool.crew) > 1)
    @rule()
    def retire(self) -> None:
        for worker in self.pool.list_excess(1):
            if not worker.joined:
                self.pool.retire(worker)

    @rule(
        need=st.sampled_from([make_need(cpus=0), make_need(cpus=1), make_need(cpus=0, gpus=0.5)]),
        limit=st.sampled_from([1, 2, 256]),
        is_light=st.booleans(),
        is_host=st.booleans(),
    )
    def start_actor(self, need: Need, limit: int, *, is_light: bool, is_host: bool) -> None:
        self.stage_numbers += 1
        number = self.stage_numbers
        stage = StageState(number, need, limit, is_light=is_light, is_host=is_host or is_light)
        self.pool.add_stage(stage)
        self.make(stage)

    def make(self, stage: StageState) -> None:
        entry = stage.making
        if entry is None:
            self.keys += 1
            options = CallOptions(actor=stage.number)
            entry = Entry(self.keys, make_function(None), b"", options, stage=stage.number)
        self.entries[entry.key] = entry
        self.pool.reopen_stage(stage, entry)
        self.place_stages()

    @precondition(lambda self: self.dead_stages)
    @rule(data=st.data())
    def restart_actor(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.dead_stages)))
        self.dead_stages.discard(number)
        self.make(self.pool.stages[number])

    @precondition(lambda self: self.pool.stages)
    @rule(data=st.data())
    def remove_actor(self, data: st.DataObject) -> None:
        self.remove(data.draw(st.sampled_from(sorted(self.pool.stages))))

    def remove(self, number: int) -> None:
        stage = self.pool.stages[number]
        worker = stage.worker
        self.dead_stages.discard(number)
        for entry in self.pool.remove_stage(number):
            del self.entries[entry.key]
        if worker is not None and not worker.stages:  # an engine ends it
            for entry in self.pool.lose(worker, list(worker.inflight)):
                del self.entries[entry.key]
        self.place_stages()

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        self.pool.validate()
        places = [entry.key for entry in self.pool.list_queued()]
        for worker in self.pool.workers.values():
            places += [*worker.inflight, *worker.joined]
        assert sorted(places) == sorted(self.entries)
        assert self.pool.is_busy() == bool(self.entries)

    @invariant()
    def what_is_free_is_what_nobody_holds(self) -> None:
        capacity = self.pool.capacity
        held = [worker.need for worker in self.pool.crew.values() if worker.need is not None]
        held += [stage.need for stage in self.pool.stages.values() if stage.holds]
        licences = sum(amount for need in held for _, amount in need.named)
        computing = [w.need for w in self.pool.crew.values() if w.need and not w.is_blocked]
        computing += [
            stage.need for stage in self.pool.stages.values() if stage.holds and not stage.is_paused
        ]
        # A host that goes on has its cpus beside those that have them: nothing new begins then, cpus or not.
        is_overdrawn = sum(need.cpus for need in computing) > 2
        licensed = make_need(cpus=0, resources={"licence": 1})
        assert capacity.fits(licensed) == (licences == 0 and not is_overdrawn)
        assert capacity.fits(make_need(cpus=2)) == (sum(need.cpus for need in computing) == 0)

    def teardown(self) -> None:
        """Actors live again or are gone, and all that waits is woken: then every call comes to its end."""
        for number in sorted(self.dead_stages):
            self.remove(number)
        for number, stage in list(self.pool.stages.items()):
            if stage.need is not NOTHING:  # it may hold for ever what calls wait for
                self.remove(number)
        for _ in range(5 * self.keys + 50):
            if not self.entries:
                break
            self.get_ready()
            self.place_stages()
            for worker in self.pool.workers.values():
                self.pool.ask_resume(worker)
            moved = self.dispatch() + len(self.pool.resume())
            for worker in self.pool.workers.values():
                ready = [] if worker.is_blocked else [*worker.inflight]
                ready += worker.joined
                if ready:
                    self.end(worker, ready)
                    moved += 1
            self.pool.validate()
            assert moved, "nothing moves, and calls are left"
        assert not self.entries


TestNeedyMachine = NeedyMachine.TestCase
TestNeedyMachine.settings = settings(max_examples=40, stateful_step_count=50)
