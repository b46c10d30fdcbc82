"""Actors whose calls run in their callers."""

import threading
from typing import Any

import pytest

from manyhands.core import acting
from manyhands.engines.inline import InlineEngine
from manyhands.errors import (
    ActorDiedError,
    CallTimeoutError,
    InvalidArgumentError,
    WorkerDiedError,
)
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, fail, spin
from tests.unit.engines.troupe import Cast, Counter, Picky


@pytest.fixture
def cast(engine: InlineEngine, sink: FakeSink) -> Cast:
    return Cast(engine, sink)


def test_an_actor_is_made_and_called_here(cast: Cast) -> None:
    key = cast.start(5)
    assert cast.sink.ends == {key: None}
    assert (cast.ask("add", 2), cast.ask("add", 3)) == (7, 10)
    assert set(cast.ask("list_threads")) == {threading.get_ident()}


def test_an_actor_that_never_fits(cast: Cast) -> None:
    key = cast.start(cpus=3)
    assert isinstance(cast.sink.ends[key], InvalidArgumentError)
    with pytest.raises(ActorDiedError, match="no such actor"):
        cast.submit("add", 1)


def test_calls_of_several_threads_run_one_after_the_other(cast: Cast) -> None:
    present, most = [0], [0]

    def enter() -> None:
        present[0] += 1
        most[0] = max(most[0], present[0])
        sum(range(2000))
        present[0] -= 1

    cast.start()
    calls = [cast.make_call("run", enter) for _ in range(40)]
    threads = [
        threading.Thread(target=lambda part=part: [cast.engine.submit(c) for c in part])  # type: ignore[misc]
        for part in (calls[:20], calls[20:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert most == [1]


def test_calls_at_once_where_they_may(cast: Cast) -> None:
    meeting = threading.Barrier(2, timeout=LONG)
    cast.start(concurrency=2)
    first, second = (cast.make_call("run", meeting.wait) for _ in range(2))
    thread = threading.Thread(target=cast.engine.submit, args=(first,))
    thread.start()
    cast.engine.submit(second)
    thread.join(LONG)
    assert {cast.sink.ends[first.key], cast.sink.ends[second.key]} == {0, 1}


def test_a_method_may_call_its_own_actor(cast: Cast) -> None:
    cast.start()
    assert cast.ask("run", lambda: cast.ask("add", 3)) == 3


def test_coroutines(cast: Cast) -> None:
    cast.start(is_async=True, concurrency=10)
    assert (cast.ask("add_async", 2), cast.ask("add_async", 3)) == (2, 5)


def test_a_stream_of_a_method(cast: Cast) -> None:
    cast.start()
    key = cast.submit("count_up", 2, window=4)
    assert cast.ask("add", 0) == 0
    assert cast.engine.wait_until(lambda: key in cast.sink.items, LONG, key)
    assert cast.ask("add", 0) == 1
    assert cast.engine.wait_until(cast.sink.has(key), LONG, key)
    assert (cast.sink.items[key], cast.sink.ends[key]) == ([1, 2], 2)


def test_an_error_leaves_it_alive(cast: Cast) -> None:
    error = ValueError("x")
    cast.start()
    assert cast.ask("run", fail, error) is error
    assert isinstance(cast.ask("run", spin, timeout=0.03), CallTimeoutError)
    assert isinstance(cast.ask("run", fail, WorkerDiedError("elsewhere")), WorkerDiedError)
    assert cast.ask("add", 1) == 1
    assert cast.sink.deaths == []


def test_an_actor_that_cannot_be_made(cast: Cast) -> None:
    error = ValueError("x")
    assert cast.wait(cast.start(error, cls=Picky)) is error
    key = cast.submit("add", 1)
    assert key not in cast.sink.ends
    cast.engine.bury_actor(cast.number, ActorDiedError("never made"))
    assert str(cast.sink.ends[key]) == "never made"
    assert cast.sink.deaths == []


@pytest.mark.parametrize("error", [SystemExit(3), WorkerDiedError("heard of")])
def test_an_actor_that_dies_while_it_is_made(cast: Cast, error: BaseException) -> None:
    assert isinstance(cast.wait(cast.start(error, cls=Picky)), WorkerDiedError)
    [(number, _)] = cast.sink.deaths
    assert number == cast.number


def test_an_actor_that_leaves_is_dead(cast: Cast) -> None:
    cast.start(5)
    assert isinstance(cast.ask("exit"), WorkerDiedError)
    assert [number for number, _ in cast.sink.deaths] == [cast.number]
    assert cast.number not in acting._stages
    waiting = [cast.submit("add", 1) for _ in range(3)]
    stream = cast.submit("count_up", 100, window=4)
    assert cast.engine.cancel([waiting[1]]) == {waiting[1]}
    assert not cast.engine.wait_until(cast.sink.has(waiting[0]), 0)
    assert not cast.engine.wait_until(lambda: stream in cast.sink.items, 0, stream)
    cast.engine.restart_actor(cast.number)
    assert [cast.sink.ends[waiting[0]], cast.sink.ends[waiting[2]]] == [6, 7]
    cast.engine.restart_actor(cast.number)
    assert cast.engine.wait_until(lambda: stream in cast.sink.items, LONG, stream)
    assert cast.sink.items[stream] == [8]


def test_it_is_made_again_of_what_was_kept(cast: Cast) -> None:
    cast.sink.on_death = lambda actor, _: cast.engine.restart_actor(actor)
    cast.start(5, every=2)
    for _ in range(3):
        cast.ask("add", 1)
    cast.ask("exit")
    assert cast.ask("add", 0) == 7


def test_an_actor_that_cannot_be_made_again(cast: Cast) -> None:
    class Fragile(Counter):
        @classmethod
        def restore(cls, kept: dict[str, int]) -> Counter:
            raise ValueError("no more")

    making = cast.start(5, cls=Fragile, every=1)
    cast.ask("add", 1)
    cast.ask("exit")
    cast.engine.restart_actor(cast.number)
    assert len(cast.sink.deaths) == 2
    assert "could not be made again: ValueError('no more')" in str(cast.sink.deaths[1][1])
    assert cast.sink.ends[making] is None


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
    assert cast.wait(cast.start(cls=Flickering)) is None
    assert cast.ask("add", 1) == 1


def test_it_is_stopped(cast: Cast) -> None:
    cast.start()
    stream = cast.submit("count_up", 5, window=4)
    cast.engine.stop_actor(cast.number, kill=False)
    cast.engine.stop_actor(cast.number, kill=False)
    assert cast.number not in acting._stages
    assert isinstance(cast.sink.ends[stream], ActorDiedError)
    with pytest.raises(ActorDiedError, match="the actor Counter was stopped"):
        cast.submit("add", 1)
    assert cast.sink.deaths == []


def test_it_is_stopped_after_the_calls_of_other_threads(cast: Cast) -> None:
    blocker = Blocker()
    cast.start()
    made = cast.make_call("run", blocker)
    threads = [
        threading.Thread(target=cast.engine.submit, args=(made,)),
        threading.Thread(
            target=cast.engine.stop_actor, args=(cast.number,), kwargs={"kill": False}
        ),
    ]
    threads[0].start()
    assert blocker.begun.wait(LONG)
    threads[1].start()
    blocker.may_end.set()
    for thread in threads:
        thread.join(LONG)
    assert cast.sink.ends[made.key] == "done"
    assert cast.number not in acting._stages


def test_it_is_killed_at_once(cast: Cast) -> None:
    spinner = Spinner()
    cast.start()
    made = cast.make_call("run", spinner)
    thread = threading.Thread(target=cast.engine.submit, args=(made,))
    thread.start()
    assert spinner.begun.wait(LONG)
    cast.engine.stop_actor(cast.number, kill=True)
    thread.join(LONG)
    assert isinstance(cast.sink.ends[made.key], ActorDiedError)
    assert cast.sink.attempts[made.key] is None
    assert cast.sink.deaths == []


def test_a_close_lets_actors_go(cast: Cast) -> None:
    cast.start()
    cast.engine.submit(call(1, abs, -1))
    cast.engine.close(0)
    assert cast.number not in acting._stages
