"""Calls that make calls and wait for them."""

import threading
from itertools import count
from typing import Any

import pytest

from manyhands.core.resources import make_need
from manyhands.core.run import guard
from manyhands.engines.threads import ThreadsEngine
from manyhands.engines.threads.bell import Bell
from manyhands.errors import CallInterrupted
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call
from tests.unit.engines.threads.conftest import Open, list_threads


class Nest:
    """Makes calls inside calls."""

    def __init__(self, engine: ThreadsEngine, sink: FakeSink) -> None:
        self.engine = engine
        self.sink = sink
        self._keys = count(1000)
        self._lock = threading.Lock()
        self.computing = 0
        self.most = 0

    def submit(self, fn: Any, *args: Any, **options: Any) -> int:
        key = next(self._keys)
        self.engine.submit(call(key, fn, *args, **options))
        return key

    def wait(self, key: int) -> Any:
        assert self.engine.wait_until(self.sink.has(key), LONG, key)
        return self.sink.ends[key]

    def compute(self) -> None:
        """Count how many compute at once."""
        with self._lock:
            self.computing += 1
            self.most = max(self.most, self.computing)
        sum(range(300))
        with self._lock:
            self.computing -= 1

    def fibonacci(self, n: int) -> int:
        self.compute()
        if n < 2:
            return n
        keys = [self.submit(self.fibonacci, n - 1), self.submit(self.fibonacci, n - 2)]
        found = sum(self.wait(key) for key in keys)
        self.compute()
        return found


@pytest.mark.parametrize("workers", [1, 2])
def test_recursion(open_engine: Open, sink: FakeSink, workers: int) -> None:
    """It needs no more cpus than there are, and a thread for each call that waits, of which there are few."""
    engine = open_engine(workers)
    nest = Nest(engine, sink)
    engine.submit(call(1, nest.fibonacci, 11))
    assert engine.wait_until(sink.has(1), LONG, 1)
    assert sink.ends[1] == 89
    assert nest.most <= workers
    assert len(list_threads(engine)) <= 40


def test_calls_that_wait_for_any_of_theirs(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    nest = Nest(engine, sink)

    def outer() -> list[int]:
        keys = [nest.submit(pow, x, 2) for x in range(5)]
        assert engine.wait_until(lambda: all(key in sink.ends for key in keys), LONG)
        return [sink.ends[key] for key in keys]

    for key in range(1, 6):
        engine.submit(call(key, outer))
    assert engine.wait_until(sink.has(*range(1, 6)), LONG)
    assert all(sink.ends[key] == [0, 1, 4, 9, 16] for key in range(1, 6))


def test_a_call_knows_its_key(engine: ThreadsEngine, sink: FakeSink) -> None:
    assert engine.get_running() == 0
    engine.submit(call(7, engine.get_running))
    assert engine.wait_until(sink.has(7), LONG)
    assert sink.ends[7] == 7


def test_a_call_of_another_session_is_none_of_ours(
    open_engine: Open, engine: ThreadsEngine
) -> None:
    other_sink = FakeSink()
    other = ThreadsEngine()
    other.start(engine._pool._config, other_sink)
    other.submit(call(7, engine.get_running))
    assert other.wait_until(other_sink.has(7), LONG)
    assert other_sink.ends[7] == 0
    other.close(LONG)


def test_a_call_that_waits_lets_others_run_and_goes_on_before_new_ones(
    open_engine: Open, sink: FakeSink
) -> None:
    engine = open_engine(1)
    nest = Nest(engine, sink)
    order: list[str] = []
    begun, may_wait = threading.Event(), threading.Event()

    def outer() -> None:
        key = nest.submit(order.append, "inner")
        begun.set()
        assert may_wait.wait(LONG)
        nest.wait(key)
        order.append("outer")

    engine.submit(call(1, outer))
    assert begun.wait(LONG)
    for key in (2, 3):
        engine.submit(call(key, order.append, f"new {key}"))
    may_wait.set()
    assert engine.wait_until(sink.has(1, 2, 3), LONG)
    assert order == ["inner", "outer", "new 2", "new 3"]


def test_a_wait_in_a_call_has_a_limit(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    engine.submit(call(1, lambda: engine.wait_until(lambda: False, 0.01)))
    engine.submit(call(2, lambda: engine.wait_until(lambda: False, 0)))
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert sink.ends == {1: False, 2: False}


def test_a_call_waits_no_longer_than_it_said(open_engine: Open, sink: FakeSink) -> None:
    """It goes on beside the call that has the cpu, and nothing else does."""
    engine = open_engine(1)
    blocker = Blocker()
    went_on, may_end = threading.Event(), threading.Event()

    def outer() -> None:
        engine.submit(call(2, blocker))
        assert not engine.wait_until(lambda: False, 0.01)
        went_on.set()
        assert may_end.wait(LONG)

    engine.submit(call(1, outer))
    assert blocker.begun.wait(LONG)
    assert went_on.wait(LONG)
    engine.submit(call(3, abs, -3))
    blocker.may_end.set()
    assert engine.wait_until(sink.has(2), LONG)
    assert not engine.is_running(3)
    may_end.set()
    assert engine.wait_until(sink.has(1, 3), LONG)


def test_a_wait_that_is_interrupted(open_engine: Open, sink: FakeSink) -> None:
    """It ends at once, though another call has the cpus."""
    engine = open_engine(1)
    blocker = Blocker()
    caught: list[BaseException] = []
    ended = threading.Event()

    def outer() -> None:
        try:
            engine.submit(call(2, blocker))
            engine.wait_until(sink.has(2), None, 2)
        except BaseException as error:
            caught.append(error)
            raise
        finally:
            ended.set()

    engine.submit(call(1, outer))
    assert blocker.begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    assert ended.wait(LONG)
    assert isinstance(caught[0], CallInterrupted)
    blocker.may_end.set()
    assert engine.wait_until(sink.has(2), LONG)
    assert 1 not in sink.ends
    engine.submit(call(3, abs, -3))
    assert engine.wait_until(sink.has(3), LONG)


def test_calls_of_a_cancelled_call_do_not_start(open_engine: Open, sink: FakeSink) -> None:
    """Not even between its end and that of its calls."""
    engine = open_engine(1)
    nest = Nest(engine, sink)
    spinner = Spinner()
    ran: list[int] = []
    made = threading.Event()

    def outer() -> None:
        for x in range(10):
            nest.submit(ran.append, x)
        made.set()
        spinner()

    engine.submit(call(1, outer))
    assert made.wait(LONG)
    assert spinner.begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    assert spinner.ended.wait(LONG)
    engine.submit(call(2, abs, -2))
    assert engine.wait_until(sink.has(2), LONG)
    assert ran == []
    assert engine.cancel(range(1000, 1010)) == set(range(1000, 1010))


def test_a_call_of_a_cancelled_call_that_comes_late(open_engine: Open, sink: FakeSink) -> None:
    """It is made while its maker is cancelled: nobody could withdraw it, and it ends at once."""
    engine = open_engine(1)
    nest = Nest(engine, sink)
    begun, may_submit, ended = threading.Event(), threading.Event(), threading.Event()
    ran: list[int] = []

    def outer() -> None:
        with guard():  # as in the session
            begun.set()
            assert may_submit.wait(LONG)
            try:
                nest.submit(ran.append, 1)
            finally:
                ended.set()

    engine.submit(call(1, outer))
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    may_submit.set()
    assert ended.wait(LONG)
    assert engine.wait_until(sink.has(1000), LONG)
    assert isinstance(sink.ends[1000], CallInterrupted)
    assert ran == []


def test_deeper_calls_go_first(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    nest = Nest(engine, sink)
    order: list[str] = []
    begun, may_go_on = threading.Event(), threading.Event()

    def outer() -> None:
        begun.set()
        assert may_go_on.wait(LONG)
        nest.wait(nest.submit(order.append, "inner"))

    engine.submit(call(1, outer))
    assert begun.wait(LONG)
    engine.submit(call(2, order.append, "outer"))
    may_go_on.set()
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert order == ["inner", "outer"]


def test_a_waiting_call_keeps_what_else_it_holds(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(2, resources={"licence": 1})
    nest = Nest(engine, sink)
    need = make_need(resources={"licence": 1})
    blocker = Blocker()

    def outer() -> None:
        nest.wait(nest.submit(blocker))

    engine.submit(call(1, outer, need=need))
    assert blocker.begun.wait(LONG)
    engine.submit(call(2, abs, -2, need=need))
    engine.submit(call(3, abs, -3))
    assert engine.wait_until(sink.has(3), LONG)
    assert not engine.is_running(2)
    blocker.may_end.set()
    assert engine.wait_until(sink.has(1, 2), LONG)


def test_many_random_trees(open_engine: Open, sink: FakeSink) -> None:
    """Calls that make calls of various needs, some of which are cancelled, end all; then all is free."""
    import random

    engine = open_engine(2, resources={"licence": 2})
    nest = Nest(engine, sink)
    needs = [make_need(), make_need(cpus=0), make_need(cpus=0.5), make_need(cpus=2)]
    needs.append(make_need(resources={"licence": 1}))

    def grow(seed: int, depth: int) -> int:
        chance = random.Random(seed)
        nest_size = 1
        if depth:
            keys = [
                nest.submit(grow, seed * 7 + x, depth - 1, need=chance.choice(needs[:4]))
                for x in range(chance.randrange(3))
            ]
            victims = set(keys) & engine.cancel(keys[:1]) if chance.random() < 0.3 else set()
            nest_size += sum(nest.wait(key) for key in keys if key not in victims)
        return nest_size

    for key in range(1, 41):
        engine.submit(call(key, grow, key, 4, need=needs[key % 5]))
    assert engine.wait_until(sink.has(*range(1, 41)), LONG)
    assert all(isinstance(end, int) for end in sink.ends.values())
    capacity = engine._pool.capacity
    assert engine.wait_until(
        lambda: (
            capacity.fits(make_need(cpus=2, resources={"licence": 2})) or engine.rouse() is None
        ),
        LONG,
    )
    capacity.validate()


def test_nobody_stays_behind(engine: ThreadsEngine, sink: FakeSink) -> None:
    for key in range(1, 20):
        engine.submit(call(key, abs, -key))
        assert engine.wait_until(sink.has(key), LONG, key)
    assert not engine.wait_until(lambda: False, 0.01)
    assert engine._pool.waits._waiters == {}


def test_a_bell_that_rang_before_is_heard() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    bell.sleep(LONG)
    bell.hush()
    bell.sleep(0)
    bell.ring()
    bell.hush()
    bell.sleep(0.001)
