"""Calls of a session on another library's workers: on their way there, and on their way back."""

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.core import place
from manyhands.core.exceptions import pack_exception
from manyhands.core.future import Future
from manyhands.core.generators import StreamCall
from manyhands.core.model import ActorPlace, Call, EngineConfig, RetryPolicy
from manyhands.core.resources import ONE_CPU, make_need
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.engines.cluster.packed import Packed
from manyhands.engines.cluster.station import CallFailedError
from manyhands.errors import (
    CallInterrupted,
    CallTimeoutError,
    InvalidArgumentError,
    UnloadableError,
    UnpicklableError,
    UnsupportedError,
    WorkerDiedError,
    WorkerStartError,
)
from manyhands.testing.checks import wait_for
from tests.unit.engines.cluster.conftest import Open, get_cluster
from tests.unit.engines.cluster.fakes import Near, Net, Unloadable, refuse
from tests.unit.engines.sinks import LONG, Blocker, FakeSink, Spinner, call, fail


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are of another machine."""
    monkeypatch.setattr("manyhands.engines.cluster.engine.read_marks", lambda *_: None)


def near(key: int, fn: Callable[..., Any], *args: Any, **options: Any) -> Call:
    """A call of a function of the test's."""
    return call(key, Near(fn), *args, **options)


def get_result(engine: ClusterEngine, sink: FakeSink, key: int) -> Any:
    """What a call gave, or its error; whoever waits for it is roused."""
    begin = monotonic()
    assert engine.wait_until(sink.has(key), LONG, key), f"call {key} ends"
    assert monotonic() - begin < LONG, "nobody roused who waits"
    end = sink.ends[key]
    if isinstance(end, BaseException):
        return end
    value, error = engine.load(end)
    return error if error is not None else value


def begin(engine: ClusterEngine, key: int, **options: Any) -> Blocker:
    """A call that has begun, and goes on until it may end."""
    blocker = Blocker()
    engine.submit(near(key, blocker, **options))
    assert blocker.begun.wait(LONG)
    return blocker


# Calls and what becomes of them.


def test_calls_give_results(engine: ClusterEngine, sink: FakeSink) -> None:
    engine.submit(call(1, divmod, 7, 2))
    engine.submit(Call(2, sorted, ([2, 3],), {"reverse": True}))
    engine.submit(near(3, lambda: "x" * 100_000))
    assert get_result(engine, sink, 1) == (3, 1)
    assert get_result(engine, sink, 2) == [3, 2]
    assert len(get_result(engine, sink, 3)) == 100_000
    assert engine._flights == {}
    assert engine._keys == {}


def test_a_small_result_is_here_and_a_large_one_stays(
    engine: ClusterEngine, sink: FakeSink
) -> None:
    engine.submit(near(1, lambda: "x"))
    engine.submit(near(2, lambda: "x" * 100_000))
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert isinstance(sink.ends[1].packed, Packed)
    assert sink.ends[2].packed is None


def test_what_calls_took_is_counted(engine: ClusterEngine, sink: FakeSink) -> None:
    never = threading.Event()
    engine.submit(near(1, never.wait, 0.02))
    assert get_result(engine, sink, 1) is False
    assert 0.01 < engine.stats().computing < LONG
    assert engine.stats().starting > 0
    assert engine.stats().deaths == 0


def test_a_call_fails_with_its_own_error(engine: ClusterEngine, sink: FakeSink) -> None:
    engine.submit(near(1, fail, KeyError("mine")))
    error = get_result(engine, sink, 1)
    assert isinstance(error, KeyError)
    assert error.args == ("mine",)
    assert "in fail" in error.__notes__[0]
    assert engine.stats().deaths == 0


def test_what_failed_can_be_tried_again(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    ends: list[int] = []

    def work(number: int) -> int:
        ends.append(number)
        if len(ends) < 3:
            raise ValueError("not yet")
        return len(ends)

    def try_again(key: int, error: BaseException, attempt: Any) -> bool:
        assert attempt.options.timeout == LONG
        engine.resubmit(key, attempt)
        return True

    sink.on_failure = try_again
    engine.submit(near(1, work, 5, timeout=LONG))
    assert get_result(engine, sink, 1) == 3
    assert ends == [5, 5, 5]
    assert len({task.id for task in net.launched}) == 3


def test_an_attempt_has_the_arguments_of_the_submission(
    engine: ClusterEngine, sink: FakeSink
) -> None:
    given = [1]
    seen: list[Any] = []

    def work(values: list[int]) -> None:
        seen.append(list(values))
        raise ValueError("x")

    engine.submit(near(1, work, given))
    assert engine.wait_until(sink.has(1), LONG)
    given.append(2)
    del sink.ends[1]
    engine.resubmit(1, sink.attempts[1])
    assert engine.wait_until(sink.has(1), LONG)
    assert seen == [[1], [1]]


def test_what_cannot_travel_is_refused(engine: ClusterEngine, net: Net) -> None:
    with pytest.raises(UnpicklableError, match="argument"):
        engine.submit(call(1, print, threading.Lock()))
    assert net.launched == []
    assert engine._flights == {}


def test_a_result_that_cannot_be_rebuilt(engine: ClusterEngine, sink: FakeSink) -> None:
    engine.submit(near(1, Unloadable))
    error = get_result(engine, sink, 1)
    assert isinstance(error, UnloadableError)
    assert "ValueError: not here" in str(error)
    assert isinstance(error.__cause__, ValueError)


def test_what_a_task_says_of_its_call(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    engine.submit(near(1, abs, -1, timeout=5.0, window=3, name="mine", priority=7))
    engine.submit(call(2, abs, -1))
    assert engine.wait_until(sink.has(1, 2), LONG)
    first, second = net.launched
    assert (first.key, first.name, first.timeout, first.window) == (1, "mine", 5.0, 3)
    assert (second.key, second.name, second.timeout, second.window) == (2, "abs", None, 0)
    assert net.priorities == [7, 0]
    assert first.id.startswith(first.session)


def test_a_function_keeps_its_number(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    for key, fn in enumerate(("lower", "lower", "upper"), 1):
        engine.submit(call(key, getattr(str, fn), "x"))
    assert engine.wait_until(sink.has(1, 2, 3), LONG)
    numbers = [task.function[:2] for task in net.launched]
    assert numbers[0] == numbers[1] != numbers[2]


def test_a_cluster_that_takes_no_calls(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    """Whoever submits hears of it, and the engine forgets the call."""
    net.trouble = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        engine.submit(call(1, abs, -1))
    assert engine._flights == {}
    net.trouble = None
    engine.submit(call(2, abs, -2))
    assert get_result(engine, sink, 2) == 2
    assert 1 not in sink.ends


# A session that uses fewer workers than there are.


def test_so_many_calls_are_with_the_cluster(open_engine: Open, sink: FakeSink, net: Net) -> None:
    net.size = 4
    engine = open_engine(1)
    blocker = begin(engine, 1)
    for key, priority in [(2, 0), (3, 5), (4, 0)]:
        engine.submit(near(key, abs, -key, priority=priority))
    assert [task.key for task in net.launched] == [1]
    blocker.may_end.set()
    assert engine.wait_until(sink.has(1, 2, 3, 4), LONG)
    assert [task.key for task in net.launched] == [1, 3, 2, 4]


def test_coroutines_are_not_counted(open_engine: Open, sink: FakeSink, net: Net) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = begin(engine, 1)

    async def give() -> int:
        return 5

    engine.submit(near(2, give))
    assert get_result(engine, sink, 2) == 5
    blocker.may_end.set()


def test_how_many_workers_there_are(open_engine: Open, sink: FakeSink, net: Net) -> None:
    net.size = 4
    for asked, there in [(0, 4), (3, 3), (4, 4), (9, 4)]:
        config = EngineConfig(asked)
        engine = ClusterEngine(get_cluster(open_engine()))
        engine.start(config, sink)  # type: ignore[arg-type]
        assert config.workers == there


def test_a_waiting_call_that_cannot_be_launched_fails(
    open_engine: Open, sink: FakeSink, net: Net
) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = begin(engine, 1)
    for key in (2, 3):
        engine.submit(call(key, abs, -key))
    net.trouble = OSError("gone")
    blocker.may_end.set()
    for key in (2, 3):
        assert isinstance(get_result(engine, sink, key), OSError)
        assert sink.attempts[key] is None


# Workers that are lost.


def test_a_call_whose_worker_is_lost_fails(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    blocker = begin(engine, 5, name="deadly")
    (worker,) = net.list_alive()
    net.kill(worker)
    error = get_result(engine, sink, 5)
    assert type(error) is WorkerDiedError
    assert (error.call, error.key) == ("deadly", 5)
    assert worker.name in str(error)
    assert sink.attempts[5] is not None
    assert engine.stats().deaths == 1
    blocker.may_end.set()


def test_a_call_that_had_not_begun_goes_to_another_worker(
    engine: ClusterEngine, sink: FakeSink, net: Net, far: None
) -> None:
    blocker = begin(engine, 1)
    net.is_holding = True
    engine.submit(near(2, abs, -2))
    engine.submit(near(3, abs, -3))
    net.is_holding = False
    net.kill(net.list_alive()[0])
    assert isinstance(get_result(engine, sink, 1), WorkerDiedError)
    assert get_result(engine, sink, 2) == 2
    assert get_result(engine, sink, 3) == 3
    assert engine.stats().deaths == 1
    assert [task.key for task in net.launched] == [1, 2, 3, 2, 3]
    assert len({task.id for task in net.launched}) == 5
    assert net.asked.count("read_marks") == 1
    assert engine._keys == {}
    blocker.may_end.set()


def test_where_nobody_knows_what_it_was_at_all_calls_fail(
    engine: ClusterEngine, sink: FakeSink, net: Net, far: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where all workers of its machine are gone."""
    monkeypatch.setattr("manyhands.engines.cluster.station.read_marks", lambda *_: None)
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    net.kill(net.list_alive()[0])
    assert isinstance(get_result(engine, sink, 1), WorkerDiedError)


def test_a_call_that_cannot_be_launched_anew_fails(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    net.trouble = OSError("gone")
    net.kill(net.list_alive()[0])
    error = get_result(engine, sink, 1)
    assert isinstance(error, OSError)
    assert engine._flights == {}


def test_what_the_last_worker_of_this_machine_was_at_is_known(
    engine: ClusterEngine, sink: FakeSink, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.engines.cluster.station.read_marks", lambda *_: None)
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    net.is_holding = False
    net.kill(net.list_alive()[0])
    assert get_result(engine, sink, 1) == 1


def test_a_call_that_seems_to_end_worker_after_worker_fails(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    while 1 not in sink.ends:
        assert len(net.launched) < 50
        net.kill(net.list_alive()[0])
    assert isinstance(get_result(engine, sink, 1), WorkerDiedError)


def test_where_the_cluster_cannot_be_asked_all_calls_fail(
    engine: ClusterEngine, sink: FakeSink, net: Net, far: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(method: str, *args: Any) -> list[Any]:
        raise OSError("the scheduler is gone")

    monkeypatch.setattr(get_cluster(engine), "ask", ask)
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    net.kill(net.list_alive()[0])
    assert isinstance(get_result(engine, sink, 1), WorkerDiedError)


def test_a_lost_worker_of_a_session_with_a_limit(
    open_engine: Open, sink: FakeSink, net: Net
) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = begin(engine, 1)
    engine.submit(call(2, abs, -2))
    (busy,) = [worker for worker in net.list_alive() if worker.jobs]
    net.kill(busy)
    assert isinstance(get_result(engine, sink, 1), WorkerDiedError)
    assert get_result(engine, sink, 2) == 2
    blocker.may_end.set()


# Messages.


def test_messages_that_come_too_late_are_nobodys(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    engine.submit(call(1, abs, -1))
    assert get_result(engine, sink, 1) == 1
    name = net.launched[0].id
    computing = engine.stats().computing
    messages: list[Any] = [
        ("item", name, None),
        ("end", name, 5.0, None),
        ("late", name, pack_exception(ValueError("x"))),
    ]
    for message in messages:
        engine._take(*message)
    assert sink.items == {}
    assert engine.stats().computing == computing
    assert get_result(engine, sink, 1) == 1


def test_messages_of_an_earlier_attempt_are_nobodys(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    net.is_holding = True
    engine.submit(call(1, abs, -1))
    net.kill(net.list_alive()[0])
    wait_for(lambda: len(net.launched) == 2, "it is launched anew")
    engine._take("item", net.launched[0].id, None)
    engine._take("late", net.launched[0].id, pack_exception(ValueError("x")))
    net.release()
    assert get_result(engine, sink, 1) == 1
    assert sink.items == {}


def test_what_calls_print_is_printed(
    engine: ClusterEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine._take("print", "stdout", "out\n")
    engine._take("print", "stderr", "error\n")
    assert capsys.readouterr() == ("out\n", "error\n")


@pytest.mark.usefixtures("impatient")
def test_what_defies_its_timeout(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    """It fails once, with its time-out; its neighbours have lost their worker."""
    blocker, neighbour = Blocker(), Blocker()
    engine.submit(near(2, neighbour))
    engine.submit(near(1, blocker, timeout=0.03, name="stuck"))
    error = get_result(engine, sink, 1)
    assert isinstance(error, CallTimeoutError)
    assert error.call == "stuck"
    assert sink.attempts[1].options.timeout == 0.03
    assert isinstance(get_result(engine, sink, 2), WorkerDiedError)
    assert len(net.workers) == 2
    blocker.may_end.set()
    neighbour.may_end.set()
    engine.submit(call(3, abs, -3))
    assert get_result(engine, sink, 3) == 3


def test_a_timeout(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    engine.submit(near(1, Spinner(), timeout=0.03))
    error = get_result(engine, sink, 1)
    assert isinstance(error, CallTimeoutError)
    assert "in spin" in error.stack
    assert len(net.workers) == 1
    assert engine.stats().deaths == 0


# Streams.


def test_a_stream(engine: ClusterEngine, sink: FakeSink) -> None:
    engine.submit(call(1, StreamCall(Near(lambda: iter("abcde")), "stream"), window=2))
    for count in range(2, 6):
        assert engine.wait_until(lambda: len(sink.items.get(1, ())) >= count, LONG)  # noqa: B023
        assert count == len(sink.items[1])
        assert 1 not in sink.ends
        engine.grant(1, 1)
    assert get_result(engine, sink, 1) == 5
    assert [engine.load(item) for item in sink.items[1]] == [(letter, None) for letter in "abcde"]
    engine.grant(1, 1)


# Calls that make calls.


def name_inner(value: int) -> int:
    return value + 1


def count_up(depth: int) -> Any:
    return mh.submit(count_up, depth - 1) if depth else "deep"


def test_a_call_that_gives_a_future_ends_with_that(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    engine.submit(call(1, count_up, 3))
    assert get_result(engine, sink, 1) == "deep"
    assert len(net.launched) == 4
    assert len({task.session for task in net.launched}) == 1
    assert net.launched[0].topic != net.launched[1].topic


def test_a_call_that_waits_for_others_leaves_its_place(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    blocker = Blocker()
    inner = Near(blocker)

    engine.submit(near(1, lambda: mh.submit(inner).result()))
    wait_for(lambda: net.moves == ["leave"], "it leaves its place")
    blocker.may_end.set()
    assert get_result(engine, sink, 1) == "done"
    assert net.moves == ["leave", "enter"]


def test_a_future_that_is_followed_needs_no_place(
    open_engine: Open, sink: FakeSink, net: Net
) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = Blocker()
    inner = Near(blocker)

    engine.submit(near(1, lambda: mh.submit(inner)))
    assert blocker.begun.wait(LONG)
    engine.submit(call(2, abs, -2))
    assert get_result(engine, sink, 2) == 2
    assert 1 not in sink.ends
    blocker.may_end.set()
    assert get_result(engine, sink, 1) == "done"


def test_a_future_that_cannot_be_followed_fails_the_call(
    engine: ClusterEngine, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(native: Any, on_end: Callable[[Any], None]) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(get_cluster(engine), "follow", follow)
    blocker = Blocker()
    inner = Near(blocker)
    engine.submit(near(1, lambda: mh.submit(inner)))
    error = get_result(engine, sink, 1)
    assert isinstance(error, OSError)
    assert engine._flights == {}
    blocker.may_end.set()


def test_a_future_that_fails_fails_the_call(engine: ClusterEngine, sink: FakeSink) -> None:
    engine.submit(near(1, lambda: mh.submit(refuse)))
    error = get_result(engine, sink, 1)
    assert isinstance(error, ValueError)
    assert str(error) == "not here"


def test_a_future_whose_worker_is_lost_fails_the_call(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    """The outer call is through: it does not run again by itself, and kill one worker after the other."""
    blocker = Blocker()
    inner = Near(blocker)

    engine.submit(near(1, lambda: mh.submit(inner)))
    assert blocker.begun.wait(LONG)
    wait_for(lambda: engine._flights[1].is_through, "the outer call has run")
    net.kill(net.list_alive()[0])
    error = get_result(engine, sink, 1)
    assert isinstance(error, WorkerDiedError)
    assert [task.key for task in net.launched].count(1) == 1
    assert sink.attempts[1] is not None
    blocker.may_end.set()


def test_keys_of_calls_that_calls_make_are_their_own(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    assert engine.first_key == 1
    engine.submit(near(1, lambda: mh.submit(name_inner, 1).result()))
    assert get_result(engine, sink, 1) == 2
    assert net.launched[1].key > 2**32


def test_the_call_that_a_thread_is_at(engine: ClusterEngine, sink: FakeSink) -> None:
    seen: list[int] = []

    def look() -> None:
        here = place.here.get()
        assert here is not None
        nested = here.open_session(mh.Session)._engine
        seen.append(nested.get_running())
        seen.append(engine.get_running())

    engine.submit(near(7, look))
    assert get_result(engine, sink, 7) is None
    assert seen == [7, 0]
    assert engine.get_running() == 0


def test_handles_of_futures(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    blocker = begin(engine, 1)
    begin_again = begin(engine, 2, policy=RetryPolicy(retries=3))
    own: Any = sink
    stranger: Any = FakeSink()
    assert engine.get_native(Future(own, 1, "x")).number == 1
    assert engine.get_native(Future(own, 2, "x")) is None, "it may be tried again"
    assert engine.get_native(Future(own, 3, "x")) is None, "it has ended"
    assert engine.get_native(Future(stranger, 1, "x")) is None
    assert engine.get_native("no future") is None
    for each in (blocker, begin_again):
        each.may_end.set()


# Calls that are to end.


def test_a_call_that_waits_for_its_turn_is_cancelled(
    open_engine: Open, sink: FakeSink, net: Net
) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = begin(engine, 1)
    for key in (2, 3):
        engine.submit(call(key, abs, -key))
    assert engine.cancel([2, 99]) == {2}
    assert engine.cancel([2]) == set()
    assert "withdraw" not in net.asked
    blocker.may_end.set()
    assert get_result(engine, sink, 3) == 3
    assert [task.key for task in net.launched] == [1, 3]
    assert 2 not in sink.ends


def test_a_call_that_has_not_begun_is_cancelled(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    made: list[int] = []
    net.is_holding = True
    engine.submit(near(1, made.append, 1))
    engine.submit(near(2, made.append, 2))
    assert engine.cancel([1]) == {1}
    net.release()
    assert get_result(engine, sink, 2) is None
    assert made == [2]
    assert [native.number for native in get_cluster(engine).dropped] == [1]
    assert 1 not in sink.ends


def test_a_call_that_the_cluster_does_not_drop_does_not_begin(
    engine: ClusterEngine, sink: FakeSink, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_cluster(engine), "drop", lambda natives: None)
    made: list[int] = []
    net.is_holding = True
    engine.submit(near(1, made.append, 1))
    assert engine.cancel([1]) == {1}
    net.release()
    wait_for(lambda: not net.list_alive()[0].jobs, "the task ends")
    assert made == []
    assert sink.ends == {}


@pytest.mark.parametrize("running", [False, True])
def test_a_call_that_begins_as_it_is_cancelled_is_cancelled(
    engine: ClusterEngine,
    sink: FakeSink,
    net: Net,
    monkeypatch: pytest.MonkeyPatch,
    running: bool,
) -> None:
    """Its worker has refused it, and that is heard before all workers have answered."""
    net.is_holding = True
    engine.submit(near(1, abs, -1))
    cluster = get_cluster(engine)
    ask, native = cluster.ask, engine._flights[1].native
    refused = CallFailedError(pack_exception(CallInterrupted("not to begin")), "call-1")

    def ask_slowly(method: str, *args: Any, **options: Any) -> list[Any]:
        answers = ask(method, *args, **options)
        if method == "withdraw":
            monkeypatch.setattr(cluster, "explain_end", lambda _: refused)
            engine._take_end(engine._flights[1], native)
        return answers

    monkeypatch.setattr(cluster, "ask", ask_slowly)
    assert engine.cancel([1], running=running) == {1}
    assert sink.ends == {}


def test_what_a_call_raises_as_it_is_cancelled_is_not_lost(
    engine: ClusterEngine, sink: FakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = begin(engine, 1)
    cluster = get_cluster(engine)
    ask, native = cluster.ask, engine._flights[1].native
    own = CallFailedError(pack_exception(CallInterrupted("of its own")), "call-1")
    monkeypatch.setattr(cluster, "explain_end", lambda _: own)

    def ask_slowly(method: str, *args: Any, **options: Any) -> list[Any]:
        answers = ask(method, *args, **options)
        engine._take_end(engine._flights[1], native)
        return answers

    monkeypatch.setattr(cluster, "ask", ask_slowly)
    assert engine.cancel([1]) == set()
    assert isinstance(sink.ends[1], CallInterrupted)
    blocker.may_end.set()


def test_a_call_that_runs_is_cancelled_where_that_is_asked(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    spinner = Spinner()
    engine.submit(near(1, spinner))
    assert spinner.begun.wait(LONG)
    assert engine.cancel([1]) == set()
    assert not spinner.ended.wait(0.02)
    assert engine.cancel([1], running=True) == {1}
    assert spinner.ended.wait(LONG)
    assert isinstance(spinner.caught[0], CallInterrupted)
    wait_for(lambda: not net.list_alive()[0].jobs, "the task ends")
    assert sink.ends == {}


@pytest.mark.usefixtures("impatient")
def test_a_call_that_defies_its_end_loses_its_worker(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    blocker = begin(engine, 1)
    assert engine.cancel([1], running=True) == {1}
    wait_for(lambda: len(net.workers) == 2, "another worker comes")
    blocker.may_end.set()
    engine.submit(call(2, abs, -2))
    assert get_result(engine, sink, 2) == 2
    assert 1 not in sink.ends


def test_a_cancelled_call_lets_others_go(open_engine: Open, sink: FakeSink, net: Net) -> None:
    net.size = 2
    engine = open_engine(1)
    spinner = Spinner()
    engine.submit(near(1, spinner))
    assert spinner.begun.wait(LONG)
    engine.submit(call(2, abs, -2))
    assert engine.cancel([1], running=True) == {1}
    assert get_result(engine, sink, 2) == 2


def test_a_coroutine_is_cancelled(engine: ClusterEngine, sink: FakeSink) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def sleep_long() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    engine.submit(near(1, sleep_long))
    assert begun.wait(LONG)
    assert engine.cancel([1], running=True) == {1}
    assert ended.wait(LONG)


def test_what_runs(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    blocker = begin(engine, 1)
    net.is_holding = True
    engine.submit(call(2, abs, -2))
    assert engine.is_running(1)
    assert not engine.is_running(2)
    assert not engine.is_running(3)
    net.release()
    blocker.may_end.set()
    assert engine.wait_until(sink.has(1, 2), LONG)
    assert not engine.is_running(1)


def test_what_waits_for_its_turn_does_not_run(open_engine: Open, net: Net) -> None:
    net.size = 2
    engine = open_engine(1)
    blocker = begin(engine, 1)
    engine.submit(call(2, abs, -2))
    assert not engine.is_running(2)
    assert engine.is_running(1)
    blocker.may_end.set()


# Values.


def test_a_small_value_travels_with_its_ref(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    ref = engine.put([1, 2, 3], writable=False, copy=False)
    assert ref.get() == [1, 2, 3]
    assert (ref.type_name, isinstance(ref.record.content[1], Packed)) == ("list", True)
    assert net._jobs == {}
    engine.submit(call(1, sum, engine.forward(ref.record)))
    engine.submit(near(2, lambda refs: refs[0].get(), [ref]))
    engine.submit(near(3, lambda refs: refs, [ref]))
    assert get_result(engine, sink, 1) == 6
    assert get_result(engine, sink, 2) == [1, 2, 3]
    assert get_result(engine, sink, 3) == [ref]


def test_a_large_value_is_stored_once(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    array = np.arange(INLINE_BYTES)
    ref = engine.put(array, writable=False, copy=False)
    assert ref.nbytes >= array.nbytes
    assert len(net._jobs) == 1
    array[:] = 0
    assert int(ref.get()[-1]) == INLINE_BYTES - 1
    engine.submit(near(1, lambda x: (int(x.max()), x.flags.writeable), engine.forward(ref.record)))
    assert get_result(engine, sink, 1) == (INLINE_BYTES - 1, False)
    engine.submit(near(2, lambda refs: int(refs[0].get().max()), [ref]))
    assert get_result(engine, sink, 2) == INLINE_BYTES - 1
    assert len(net.launched[1].arguments.stream) < 1000


@pytest.mark.parametrize("length", [10, INLINE_BYTES])
def test_a_copy_is_for_each_call(engine: ClusterEngine, sink: FakeSink, length: int) -> None:
    ref = engine.put(np.zeros(length), writable=False, copy=True)

    def change(array: Any) -> float:
        array[0] += 1
        return float(array.sum())

    for key in (1, 2):
        engine.submit(near(key, change, engine.forward(ref.record)))
        assert get_result(engine, sink, key) == 1.0
    assert ref.get().sum() == 0


def test_refs_have_numbers_of_their_own(engine: ClusterEngine) -> None:
    refs = [engine.put("same", writable=False, copy=False) for _ in range(3)]
    assert len({ref.id for ref in refs}) == 3


def test_results_go_on_to_other_calls(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    engine.submit(near(1, lambda: list(range(10_000))))
    assert engine.wait_until(sink.has(1), LONG)
    stand_in = engine.forward(sink.ends[1])
    engine.submit(
        Call(2, Near(lambda xs, *, ys: sum(xs) + ys[0][1]), (stand_in,), {"ys": [stand_in]})
    )
    assert get_result(engine, sink, 2) == sum(range(10_000)) + 1
    assert len(net.launched[1].arguments.stream) < 1000


def test_values_that_are_written_to_are_refused(engine: ClusterEngine) -> None:
    with pytest.raises(
        UnsupportedError, match=r"writable=True: .*'fake' share no memory; .*'local'"
    ):
        engine.put([1], writable=True, copy=False)
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        engine.put([1], writable=True, copy=True)
    assert engine.allocate(100) is None


def test_a_value_that_cannot_travel(engine: ClusterEngine) -> None:
    with pytest.raises(UnpicklableError, match="the value"):
        engine.put(threading.Lock(), writable=False, copy=False)


def test_what_is_stored_is_the_clusters_affair(engine: ClusterEngine) -> None:
    facts = engine.describe_memory()
    assert (facts.used, facts.values) == (0, [])


def test_a_result_that_was_lost_with_its_worker(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    engine.submit(near(1, lambda: "x" * 100_000))
    assert engine.wait_until(sink.has(1), LONG)
    lost = WorkerDiedError("lost")
    net.find(sink.ends[1].native).error = lost
    assert engine.load(sink.ends[1]) == (None, lost)


# What a cluster does not do.


@pytest.mark.parametrize(
    "need",
    [{"cpus": 2}, {"gpus": 1}, {"memory": 1000}, {"resources": {"licence": 1}}],
    ids=lambda need: next(iter(need)),
)
def test_calls_with_other_needs_are_refused(
    engine: ClusterEngine, net: Net, need: dict[str, Any]
) -> None:
    asked = make_need(**need)
    assert asked is not ONE_CPU
    with pytest.raises(
        UnsupportedError, match=r"abs: the engine 'fake' has no resources .*'local'"
    ):
        engine.submit(call(1, abs, -1, need=asked))
    with pytest.raises(UnsupportedError, match=r"^mine: "):
        engine.submit(call(1, abs, -1, need=asked, name="mine"))
    assert net.launched == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("start_method", "fork"),
        ("min_workers", 1),
        ("max_calls_per_worker", 5),
        ("pin", True),
        ("gpus", ("0",)),
        ("memory", 1000),
        ("resources", {"licence": 1}),
    ],
)
def test_sessions_with_other_options_are_refused(
    open_engine: Open, net: Net, option: str, value: object
) -> None:
    with pytest.raises(
        UnsupportedError, match=f"^{option}=.*'fake' are the cluster's; 'local' has it"
    ):
        open_engine(**{option: value})
    assert net.workers == []


def test_actors_are_refused(engine: ClusterEngine) -> None:
    with pytest.raises(UnsupportedError, match="'fake' has no actors"):
        engine.start_actor(1, call(1, list), ActorPlace(ONE_CPU))


def test_workers_are_not_replaced(engine: ClusterEngine) -> None:
    with pytest.raises(UnsupportedError, match="'fake' are the cluster's"):
        engine.restart_workers()


# The session.


def test_the_initializer(open_engine: Open, sink: FakeSink) -> None:
    made: list[int] = []
    engine = open_engine(initializer=Near(made.append), initargs=(3,))
    for key in (1, 2):
        engine.submit(near(key, lambda: list(made)))
        assert get_result(engine, sink, key) == [3]


def test_an_initializer_that_fails(open_engine: Open, sink: FakeSink) -> None:
    engine = open_engine(initializer=refuse)
    engine.submit(call(1, abs, -1))
    assert isinstance(get_result(engine, sink, 1), WorkerStartError)


def test_an_initializer_that_cannot_travel(open_engine: Open, net: Net) -> None:
    with pytest.raises(UnpicklableError, match="the initializer"):
        open_engine(initializer=threading.Lock().acquire)
    assert net.workers == []


def test_questions_go_to_the_session(engine: ClusterEngine) -> None:
    assert engine.ask("question", 1, 2) == ("question", (1, 2))


def test_what_it_is(engine: ClusterEngine) -> None:
    assert engine.name == "fake"
    assert engine.capabilities is get_cluster(engine).capabilities
    assert engine.explain_misfit(call(1, abs)) is None


def test_a_wait_times_out(engine: ClusterEngine, sink: FakeSink) -> None:
    blocker = begin(engine, 1)
    assert not engine.wait_until(sink.has(1), 0.02, 1)
    assert not engine.wait_until(sink.has(1), 0)
    blocker.may_end.set()
    assert engine.wait_until(sink.has(1), LONG, 1)
    assert engine.wait_until(sink.has(1), 0)


def test_a_wait_in_a_call_times_out(engine: ClusterEngine, sink: FakeSink, net: Net) -> None:
    def outer() -> bool:
        return engine.wait_until(lambda: False, 0.02)

    engine.submit(near(1, outer))
    assert get_result(engine, sink, 1) is False
    assert net.moves == ["leave"]  # others may be long, and it goes on at once


def test_a_wait_ends_as_it_is_roused(engine: ClusterEngine) -> None:
    ready: list[int] = []
    looks: list[int] = []
    found: list[bool] = []

    def is_done() -> bool:
        looks.append(1)
        return bool(ready)

    thread = threading.Thread(
        target=lambda: found.append(engine.wait_until(is_done, None)), daemon=True
    )
    thread.start()
    wait_for(lambda: len(looks) == 2, "it waits")
    ready.append(1)
    engine.rouse()
    thread.join(LONG)
    assert found == [True]


def test_a_call_that_waits_is_interrupted(engine: ClusterEngine, net: Net) -> None:
    """It ends, and needs no place for that."""
    waits, ended = threading.Event(), threading.Event()

    def is_done() -> bool:
        waits.set()
        return False

    def outer() -> None:
        try:
            engine.wait_until(is_done, LONG)
        except CallInterrupted:
            ended.set()
            raise

    engine.submit(near(1, outer))
    assert waits.wait(LONG)
    wait_for(lambda: net.moves == ["leave"], "it leaves its place")
    assert engine.cancel([1], running=True) == {1}
    assert ended.wait(LONG)
    assert net.moves == ["leave"]


def test_a_close_with_calls_in_flight(open_engine: Open, sink: FakeSink, net: Net) -> None:
    net.size = 2
    engine = open_engine(1)
    spinner = Spinner()
    engine.submit(near(1, spinner))
    assert spinner.begun.wait(LONG)
    engine.submit(call(2, abs, -2))
    looks: list[int] = []
    closed: list[bool] = []

    def is_closed() -> bool:
        looks.append(1)
        return engine._is_closed

    waiter = threading.Thread(
        target=lambda: closed.append(engine.wait_until(is_closed, None)), daemon=True
    )
    waiter.start()
    wait_for(lambda: len(looks) == 2, "it waits")
    engine.close(LONG)
    waiter.join(LONG)
    assert closed == [True]
    assert spinner.ended.wait(LONG)
    given_up = get_cluster(engine).closed
    assert given_up is not None
    assert [native.number for native in given_up] == [1]
    wait_for(lambda: all(not worker.jobs for worker in net.workers), "the tasks end")
    assert sink.ends == {}
    assert [task.key for task in net.launched] == [1]


def test_what_ends_after_the_close_is_nobodys(
    engine: ClusterEngine, sink: FakeSink, net: Net
) -> None:
    """Nothing is asked of a cluster that the session has left; the fake one would fail."""
    blocker = begin(engine, 1)
    engine.close(LONG)
    (worker,) = net.list_alive()
    net.kill(worker)
    engine.rouse()
    blocker.may_end.set()
    wait_for(lambda: not worker.jobs, "the task ends")
    assert sink.ends == {}
