"""Which worker gets which calls."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.functions import Function
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.local import pool_state
from manyhands.engines.local.channel import _MAX_FDS, MAX_FRAME
from manyhands.engines.local.pool_state import Entry, PoolState, WorkerState


def make_function(seconds: float | None, key: int = 1) -> Function:
    function = Function(key, "f", b"")
    function.seconds = seconds
    return function


def make_pool(workers: int = 2) -> PoolState:
    pool = PoolState()
    for number in range(1, workers + 1):
        pool.add_worker(number)
    return pool


def fill(pool: PoolState, keys: Iterable[int], function: Function, size: int = 10) -> None:
    for key in keys:
        pool.enqueue(Entry(key, function, bytes(size)))


def plan(pool: PoolState) -> list[tuple[int, list[int]]]:
    return [(worker.number, [entry.key for entry in sent]) for worker, sent in pool.plan()]


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
    pool = PoolState()
    fill(pool, [1, 2], make_function(None))
    assert plan(pool) == []
    assert pool.is_busy()
    pool.add_worker(1)
    assert plan(pool) == [(1, [1]), (1, [2])]


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
    blamed = pool.lose(worker, 1)
    assert blamed is not None and blamed.key == 1
    assert worker.number not in pool.workers
    assert [entry.key for entry in pool.queue] == others
    pool.validate()


def test_a_worker_that_ends_between_calls_is_blamed_for_none() -> None:
    pool = make_pool(1)
    fill(pool, [1, 2], make_function(5.0))
    plan(pool)
    assert pool.lose(pool.workers[1], 0) is None
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


class PoolMachine(RuleBasedStateMachine):
    """Beside a model: a queue in order, and what each worker was sent, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PoolState()
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
        current = data.draw(st.sampled_from([0, *sent[:20]]))
        blamed = self.pool.lose(worker, current)
        assert (blamed.key if blamed else 0) == current
        if current:
            self.ended.add(current)
        self.queue[:0] = [key for key in sent if key != current]

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
TestPoolMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
