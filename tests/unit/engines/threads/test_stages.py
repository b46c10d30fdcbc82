"""Actors whose calls run in threads."""

import asyncio
import gc
import threading
import weakref
from collections import deque
from typing import Any

import pytest

from manyhands.core import acting
from manyhands.core.resources import make_need
from manyhands.engines.threads import ThreadsEngine, overdue
from manyhands.errors import (
    ActorDiedError,
    CallTimeoutError,
    InvalidArgumentError,
    WorkerDiedError,
)
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, fail, spin
from tests.unit.engines.threads.conftest import Open, list_threads
from tests.unit.engines.troupe import Cast, Counter, Picky


@pytest.fixture
def cast(engine: ThreadsEngine, sink: FakeSink) -> Cast:
    return Cast(engine, sink)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "GRACE_SECONDS", 0.05)


def settle(engine: ThreadsEngine, is_so: Any) -> None:
    """Wait for what nobody is told of."""
    assert engine.wait_until(lambda: bool(is_so()) or engine.rouse() is not None, LONG)


def restart_when_dead(cast: Cast) -> None:
    cast.sink.on_death = lambda actor, _: cast.engine.restart_actor(actor)


# Its life.


def test_two_threads_let_go_of_an_actor_at_once(engine: ThreadsEngine) -> None:
    class Emptied(deque[int]):
        """Looks as it did before another thread had the last one."""

        def __len__(self) -> int:
            return 1

    engine._pool.stages._removed = Emptied()
    engine._pool.stages.sweep()


def test_an_actor_is_made_and_called(cast: Cast) -> None:
    assert cast.wait(cast.start(5)) is None
    assert cast.ask("add", 2) == 7
    assert cast.ask("add", 3) == 10


def test_calls_that_came_before_it_was_made_wait(cast: Cast) -> None:
    blocker = Blocker()

    class Slow(Counter):
        def __init__(self) -> None:
            super().__init__(0)
            blocker()

    key = cast.start(cls=Slow)
    keys = [cast.submit("add", 1) for _ in range(3)]
    assert blocker.begun.wait(LONG)
    assert not cast.sink.ends
    blocker.may_end.set()
    assert [cast.wait(k) for k in keys] == [1, 2, 3]
    assert cast.wait(key) is None


def test_calls_run_in_their_order_in_one_thread(cast: Cast) -> None:
    cast.start()
    keys = [cast.submit("add", 1) for _ in range(200)]
    assert [cast.wait(key) for key in keys] == list(range(1, 201))
    assert len(set(cast.ask("list_threads"))) == 1


def test_actors_work_beside_each_other_and_beside_calls(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    casts = [Cast(engine, sink, first) for first in (100, 200)]
    meeting = threading.Barrier(3, timeout=LONG)
    for cast in casts:
        cast.start()
    keys = [cast.submit("run", meeting.wait) for cast in casts]
    engine.submit(call(1, meeting.wait))
    assert engine.wait_until(sink.has(1, *keys), LONG)
    assert {sink.ends[key] for key in (1, *keys)} == {0, 1, 2}


def test_an_actor_holds_its_need_as_long_as_it_lives(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(2)
    casts = [Cast(engine, sink, first) for first in (100, 200, 300)]
    first, second, third = [cast.start(cpus=1) for cast in casts]
    assert engine.wait_until(sink.has(first, second), LONG)
    engine.submit(call(1, abs, -1))
    engine.submit(call(2, abs, -2, need=make_need(cpus=0)))
    assert engine.wait_until(sink.has(2), LONG)
    assert not sink.has(third)()
    assert 1 not in sink.ends
    casts[0].engine.stop_actor(casts[0].number, kill=False)
    assert engine.wait_until(sink.has(third), LONG)
    engine.stop_actor(casts[1].number, kill=False)
    assert engine.wait_until(sink.has(1), LONG)


def test_an_actor_that_never_fits(cast: Cast) -> None:
    error = cast.wait(cast.start(cpus=3))
    assert isinstance(error, InvalidArgumentError)
    assert "the actor Counter" in str(error)
    with pytest.raises(ActorDiedError, match="no such actor"):
        cast.submit("add", 1)


def test_a_method_of_an_actor_waits_for_calls(open_engine: Open, sink: FakeSink) -> None:
    """The actor gives its cpu up meanwhile, with which the call runs."""
    engine = open_engine(1)
    cast = Cast(engine, sink)
    cast.start(cpus=1)

    def nest() -> Any:
        engine.submit(call(1, abs, -1))
        assert engine.wait_until(sink.has(1), LONG, 1)
        return sink.ends[1]

    assert cast.ask("run", nest) == 1
    assert cast.ask("add", 2) == 2


def test_calls_of_one_actor_at_once(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    cast = Cast(engine, sink)
    cast.start(concurrency=3)
    meeting = threading.Barrier(3, timeout=LONG)
    keys = [cast.submit("run", meeting.wait) for _ in range(3)]
    assert {cast.wait(key) for key in keys} == {0, 1, 2}


def test_no_more_of_them_than_it_allows(cast: Cast) -> None:
    present, most, lock = [0], [0], threading.Lock()

    def enter() -> None:
        with lock:
            present[0] += 1
            most[0] = max(most[0], present[0])
        sum(range(2000))
        with lock:
            present[0] -= 1

    cast.start(concurrency=2)
    keys = [cast.submit("run", enter) for _ in range(50)]
    for key in keys:
        assert cast.wait(key) is None
    assert most[0] <= 2


def test_all_calls_of_an_actor_wait(open_engine: Open, sink: FakeSink) -> None:
    """Its cpu is given up when all of its calls wait, and each of them has it again when it goes on."""
    engine = open_engine(1)
    cast = Cast(engine, sink)
    cast.start(cpus=1, concurrency=4)
    lock = threading.Lock()
    keys = iter(range(1, 100))

    def nest() -> Any:
        with lock:
            key = next(keys)
        engine.submit(call(key, abs, -key))
        assert engine.wait_until(sink.has(key), LONG, key)
        return sink.ends[key] == key

    found = [cast.wait(key) for key in [cast.submit("run", nest) for _ in range(12)]]
    assert found == [True] * 12
    engine._pool.capacity.validate()


def test_light_actors_have_no_threads_of_their_own(engine: ThreadsEngine, sink: FakeSink) -> None:
    before = threading.active_count()
    casts = [Cast(engine, sink, 1000 * n) for n in range(1, 301)]
    for cast in casts:
        cast.start(is_light=True)
    keys = [(cast, cast.submit("add", 1), cast.submit("add", 1)) for cast in casts]
    for cast, first, second in keys:
        assert (cast.wait(first), cast.wait(second)) == (1, 2)
    assert threading.active_count() - before < 300


def test_a_stream_of_a_method(cast: Cast) -> None:
    cast.start()
    key = cast.submit("count_up", 5, window=10)
    assert cast.wait(key) == 5
    assert cast.sink.items[key] == [1, 2, 3, 4, 5]
    assert cast.ask("add", 1) == 6


def test_calls_that_wait_can_be_withdrawn(cast: Cast) -> None:
    blocker = Blocker()
    cast.start()
    running = cast.submit("run", blocker)
    assert blocker.begun.wait(LONG)
    keys = [cast.submit("add", 1) for _ in range(4)]
    assert cast.engine.cancel([keys[0], keys[2]]) == {keys[0], keys[2]}
    blocker.may_end.set()
    assert (cast.wait(keys[1]), cast.wait(keys[3])) == (1, 2)
    assert cast.wait(running) == "done"


# Methods that are coroutines.


def test_coroutines_of_an_actor_run_at_once(cast: Cast) -> None:
    cast.start(concurrency=100, is_async=True)
    arrived: list[int] = []

    all_here: list[asyncio.Event] = []

    async def meet() -> int:
        if not all_here:
            all_here.append(asyncio.Event())
        arrived.append(threading.get_ident())
        if len(arrived) == 20:
            all_here[0].set()
        await all_here[0].wait()
        return arrived[0]

    found = {cast.wait(key) for key in [cast.submit("run_async", meet) for _ in range(20)]}
    assert len(found) == len(set(arrived)) == 1


def test_no_more_coroutines_than_it_allows(cast: Cast) -> None:
    cast.start(concurrency=2, is_async=True)
    present, most = [0], [0]

    async def enter() -> None:
        present[0] += 1
        most[0] = max(most[0], present[0])
        for _ in range(3):
            await asyncio.sleep(0)
        present[0] -= 1

    for key in [cast.submit("run_async", enter) for _ in range(30)]:
        assert cast.wait(key) is None
    assert most[0] == 2


def test_coroutines_begin_in_their_order(cast: Cast) -> None:
    cast.start(concurrency=100, is_async=True)
    keys = [cast.submit("add_async", 1) for _ in range(50)]
    assert [cast.wait(key) for key in keys] == list(range(1, 51))


# Failures.


def test_an_error_leaves_an_actor_alive(cast: Cast) -> None:
    error = ValueError("x")
    cast.start()
    assert cast.ask("run", fail, error) is error
    assert cast.ask("add", 1) == 1
    assert cast.sink.deaths == []


def test_a_failed_call_can_be_tried_again_in_its_place(cast: Cast) -> None:
    tries = []

    def flicker() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return "at last"

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        cast.engine.resubmit(key, attempt)
        return True

    cast.sink.on_failure = try_again
    cast.start()
    assert cast.ask("run", flicker) == "at last"


def test_an_actor_that_cannot_be_made(cast: Cast) -> None:
    error = ValueError("x")
    assert cast.wait(cast.start(error, cls=Picky)) is error
    key = cast.submit("add", 1)
    reason = ActorDiedError("it could not be made")
    cast.engine.bury_actor(cast.number, reason)
    found = cast.wait(key)
    assert isinstance(found, ActorDiedError)
    assert str(found) == "it could not be made"
    assert cast.sink.deaths == []


@pytest.mark.parametrize("error", [SystemExit(3), WorkerDiedError("heard of")])
def test_an_actor_that_dies_while_it_is_made(cast: Cast, error: BaseException) -> None:
    """The session hears of the call's end, and of the actor's."""
    found = cast.wait(cast.start(error, cls=Picky))
    assert isinstance(found, WorkerDiedError)
    settle(cast.engine, lambda: cast.sink.deaths)
    [(number, death)] = cast.sink.deaths
    assert number == cast.number
    assert isinstance(death, WorkerDiedError)


def test_an_actor_that_leaves_is_dead(cast: Cast) -> None:
    cast.start(5)
    failed, waiting = cast.submit("exit"), cast.submit("add", 1)
    assert isinstance(cast.wait(failed), WorkerDiedError)
    settle(cast.engine, lambda: cast.sink.deaths)
    assert waiting not in cast.sink.ends
    assert cast.number not in acting._stages
    cast.engine.restart_actor(cast.number)
    assert cast.wait(waiting) == 6
    cast.engine.restart_actor(cast.number)
    assert cast.ask("add", 1) == 7


def test_news_of_another_death_is_not_its_own(cast: Cast) -> None:
    cast.start()
    assert isinstance(cast.ask("run", fail, WorkerDiedError("elsewhere")), WorkerDiedError)
    assert cast.ask("add", 1) == 1
    assert cast.sink.deaths == []


def test_it_is_made_again_of_what_was_kept(cast: Cast) -> None:
    restart_when_dead(cast)
    cast.start(5, every=2)
    for amount in (1, 1, 1):
        cast.ask("add", amount)
    cast.ask("exit")
    assert cast.ask("add", 0) == 7
    cast.ask("exit")
    assert cast.ask("add", 0) == 7


def test_an_actor_that_cannot_be_made_again(cast: Cast) -> None:
    class Fragile(Counter):
        @classmethod
        def restore(cls, kept: dict[str, int]) -> Counter:
            raise ValueError("no more")

    def restart_once(actor: int, error: BaseException) -> None:
        if len(cast.sink.deaths) == 1:
            cast.engine.restart_actor(actor)

    cast.sink.on_death = restart_once
    making = cast.start(5, cls=Fragile, every=1)
    cast.ask("add", 1)
    waiting = cast.submit("exit"), cast.submit("add", 1)
    settle(cast.engine, lambda: len(cast.sink.deaths) == 2)
    death = cast.sink.deaths[1][1]
    assert isinstance(death, ActorDiedError)
    assert "could not be made again: ValueError('no more')" in str(death)
    assert cast.sink.ends[making] is None
    cast.engine.bury_actor(cast.number, death)
    assert isinstance(cast.wait(waiting[1]), ActorDiedError)


def test_other_calls_of_a_dead_actor_fail(cast: Cast) -> None:
    cast.start(concurrency=2)
    spinner = Spinner()
    beside = cast.submit("run", spinner)
    assert spinner.begun.wait(LONG)
    assert isinstance(cast.ask("exit"), WorkerDiedError)
    assert isinstance(cast.wait(beside), WorkerDiedError)
    assert spinner.ended.wait(LONG)
    assert len(cast.sink.deaths) == 1


def test_a_method_that_takes_too_long(cast: Cast) -> None:
    cast.start()
    assert isinstance(cast.ask("run", spin, timeout=0.03), CallTimeoutError)
    assert cast.ask("add", 1) == 1
    assert cast.sink.deaths == []


@pytest.mark.usefixtures("impatient")
def test_a_method_that_hangs_ends_the_actor(cast: Cast) -> None:
    """Its call fails, the actor is made again in another thread, and what waited goes on."""
    restart_when_dead(cast)
    blocker = Blocker()
    cast.start(5, every=1)
    assert cast.ask("add", 1) == 6
    stuck, waiting = cast.submit("run", blocker, timeout=0.03), cast.submit("add", 1)
    assert isinstance(cast.wait(stuck), CallTimeoutError)
    assert cast.wait(waiting) == 7
    [(_, death)] = cast.sink.deaths
    assert isinstance(death, WorkerDiedError)
    assert "did not yield" in str(death)
    blocker.may_end.set()
    assert cast.ask("add", 1) == 8


@pytest.mark.usefixtures("impatient")
def test_a_cancelled_method_that_hangs_ends_the_actor(cast: Cast) -> None:
    restart_when_dead(cast)
    blocker = Blocker()
    cast.start(5)
    stuck, waiting = cast.submit("run", blocker), cast.submit("add", 1)
    assert blocker.begun.wait(LONG)
    assert cast.engine.cancel([stuck], running=True) == {stuck}
    assert cast.wait(waiting) == 6
    blocker.may_end.set()
    assert stuck not in cast.sink.ends


# Its end.


def test_it_ends_after_its_calls(cast: Cast) -> None:
    blocker = Blocker()
    cast.start()
    keys = [cast.submit("run", blocker), cast.submit("add", 1)]
    assert blocker.begun.wait(LONG)
    cast.engine.stop_actor(cast.number, kill=False)
    with pytest.raises(ActorDiedError, match="was stopped"):
        cast.submit("add", 1)
    blocker.may_end.set()
    assert [cast.wait(key) for key in keys] == ["done", 1]
    settle(cast.engine, lambda: cast.number not in acting._stages)
    with pytest.raises(ActorDiedError, match="the actor Counter was stopped"):
        cast.submit("add", 1)
    assert cast.sink.deaths == []


def test_an_idle_actor_ends_at_once(cast: Cast) -> None:
    watched = []

    class Watched(Counter):
        def __init__(self) -> None:
            super().__init__()
            watched.append(weakref.ref(self))

    cast.wait(cast.start(cls=Watched, cpus=2))
    settle(cast.engine, lambda: not cast.engine.is_running(100))
    cast.engine.stop_actor(cast.number, kill=False)
    settle(cast.engine, lambda: gc.collect() >= 0 and watched[0]() is None)
    cast.engine.submit(call(1, abs, -1, need=make_need(cpus=2)))
    assert cast.wait(1) == 1


def test_it_is_killed_at_once(cast: Cast) -> None:
    spinner = Spinner()
    cast.start()
    running, waiting = cast.submit("run", spinner), cast.submit("add", 1)
    assert spinner.begun.wait(LONG)
    cast.engine.stop_actor(cast.number, kill=True)
    for key in (running, waiting):
        assert isinstance(cast.wait(key), ActorDiedError)
        assert cast.sink.attempts[key] is None
    assert cast.sink.ends[running] is not cast.sink.ends[waiting]
    assert spinner.ended.wait(LONG)
    assert cast.sink.deaths == []


def test_none_of_its_calls_begins_while_it_is_killed(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    spinner, blocker = Spinner(), Blocker()
    cast.start()
    running, waiting = cast.submit("run", spinner), cast.submit("run", blocker)
    assert spinner.begun.wait(LONG)
    pool = cast.engine._pool
    stop = pool.overdue.stop

    def stop_and_see(run: Any) -> None:
        stop(run)
        assert spinner.ended.wait(LONG)
        settle(cast.engine, lambda: running not in pool.runs)

    monkeypatch.setattr(pool.overdue, "stop", stop_and_see)
    cast.engine.stop_actor(cast.number, kill=True)
    assert isinstance(cast.wait(running), ActorDiedError)
    assert isinstance(cast.wait(waiting), ActorDiedError)
    assert not blocker.begun.is_set()


def test_it_is_killed_while_it_is_made(cast: Cast) -> None:
    spinner = Spinner()

    class Slow(Counter):
        def __init__(self) -> None:
            spinner()

    making, waiting = cast.start(cls=Slow), cast.submit("add", 1)
    assert spinner.begun.wait(LONG)
    cast.engine.stop_actor(cast.number, kill=True)
    assert isinstance(cast.wait(making), ActorDiedError)
    assert isinstance(cast.wait(waiting), ActorDiedError)
    assert spinner.ended.wait(LONG)


def test_it_ends_while_it_waits_for_a_place(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    cast = Cast(engine, sink)
    making, waiting = cast.start(cpus=1), cast.submit("add", 1)
    engine.stop_actor(cast.number, kill=True)
    assert isinstance(cast.wait(making), ActorDiedError)
    assert isinstance(cast.wait(waiting), ActorDiedError)
    blocker.may_end.set()
    engine.submit(call(2, abs, -2))
    assert cast.wait(2) == 2


def test_a_stopped_actor_that_dies_is_only_stopped(cast: Cast) -> None:
    blocker = Blocker()
    cast.start()
    keys = [cast.submit("run", blocker), cast.submit("exit"), cast.submit("add", 1)]
    cast.engine.stop_actor(cast.number, kill=False)
    blocker.may_end.set()
    assert isinstance(cast.wait(keys[1]), WorkerDiedError)
    assert isinstance(cast.wait(keys[2]), ActorDiedError)
    assert cast.sink.deaths == []


def test_a_method_may_end_its_own_actor(cast: Cast) -> None:
    ended = threading.Event()

    def end() -> None:
        try:
            cast.engine.stop_actor(cast.number, kill=True)
            cast.engine.rouse()
        finally:
            ended.set()

    cast.start()
    key = cast.submit("run", end)
    assert isinstance(cast.wait(key), ActorDiedError)
    assert ended.wait(LONG)


def test_a_buried_actor_answers_with_its_error(cast: Cast) -> None:
    error = ActorDiedError("dead for good")
    cast.start()
    cast.ask("exit")
    settle(cast.engine, lambda: cast.sink.deaths)
    waiting = cast.submit("add", 1)
    cast.engine.bury_actor(cast.number, error)
    assert str(cast.wait(waiting)) == "dead for good"
    with pytest.raises(ActorDiedError, match="dead for good"):
        cast.submit("add", 1)
    cast.engine.restart_actor(cast.number)
    cast.engine.stop_actor(cast.number, kill=True)


def test_an_actor_whose_making_was_withdrawn(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(1)
    blocker = Blocker()
    engine.submit(call(1, blocker))
    assert blocker.begun.wait(LONG)
    cast = Cast(engine, sink)
    making, waiting = cast.start(cpus=1), cast.submit("add", 1)
    assert engine.cancel([making]) == {making}
    engine.bury_actor(cast.number, ActorDiedError("never made"))
    assert isinstance(cast.wait(waiting), ActorDiedError)
    assert making not in sink.ends
    blocker.may_end.set()


def test_making_it_can_be_tried_again(cast: Cast) -> None:
    tries = []

    class Flickering(Counter):
        def __init__(self) -> None:
            super().__init__()
            tries.append(1)
            if len(tries) < 3:
                raise OSError("not yet")

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        cast.engine.resubmit(key, attempt)
        return True

    cast.sink.on_failure = try_again
    making = cast.start(cls=Flickering)
    assert cast.ask("add", 1) == 1
    assert cast.wait(making) is None


def test_a_close_lets_actors_go(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(2)
    cast = Cast(engine, sink)
    cast.wait(cast.start())
    threads = list_threads(engine)
    assert len(threads) == 3
    engine.close(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert cast.number not in acting._stages
