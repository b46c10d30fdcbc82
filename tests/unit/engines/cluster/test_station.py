"""A session's side in a process of a cluster."""

import asyncio
import gc
import importlib
import os
import pickle
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhands.core import place
from manyhands.core.exceptions import unpack_exception
from manyhands.core.future import Future
from manyhands.core.generators import StreamCall
from manyhands.core.luggage import Luggage
from manyhands.core.model import Call
from manyhands.core.parcels import Input
from manyhands.core.run import Run
from manyhands.core.timers import timers
from manyhands.engines.cluster import station as station_module
from manyhands.engines.cluster.bundle import pack as pack_bundle
from manyhands.engines.cluster.packed import Slot
from manyhands.engines.cluster.station import CallJoinedError, StationRun
from manyhands.errors import (
    CallInterrupted,
    CallTimeoutError,
    UnloadableError,
    UnpicklableError,
    WorkerDiedError,
    WorkerStartError,
)
from manyhands.testing.checks import wait_for
from tests.unit.engines.cluster.desk import Desk, Work
from tests.unit.engines.cluster.fakes import FakeLink, Near, Unloadable, pack
from tests.unit.engines.sinks import LONG, Blocker, Spinner, fail

OpenDesk = Callable[..., Desk]


def get_station_run() -> StationRun:
    """The run of the call that this thread is at."""
    here = place.here.get()
    assert here is not None
    assert isinstance(here.post, StationRun)
    return here.post


# Results and errors.


def test_a_call_gives_its_result(desk: Desk) -> None:
    assert desk.perform_task(desk.make_task(divmod, 7, 2)) == (3, 1)


def test_a_small_result_goes_to_its_session_at_once(desk: Desk, link: FakeLink) -> None:
    desk.perform(lambda: "x", id="call-x")
    ((topic, (kind, name, seconds, packed)),) = link.sent
    assert (topic, kind, name) == ("caller", "end", "call-x")
    assert 0 <= seconds < LONG
    assert packed.load(desk.keeper.adopt) == "x"


def test_a_larger_one_stays(desk: Desk, link: FakeLink) -> None:
    assert len(desk.perform(lambda: "x" * 2000)) == 2000
    ((_, _, packed),) = link.list_sent("end")
    assert packed is None


def test_a_call_fails_with_its_own_error(desk: Desk, link: FakeLink) -> None:
    with pytest.raises(KeyError, match="mine") as caught:
        desk.perform(fail, KeyError("mine"))
    (note,) = caught.value.__notes__
    assert "in fail" in note
    assert "station.py" not in note
    assert link.list_sent("end") == []


def test_an_exit_ends_the_call_and_not_the_worker(desk: Desk, link: FakeLink) -> None:
    with pytest.raises(WorkerDiedError, match=r"sys\.exit\(3\)"):
        desk.perform(sys.exit, 3)
    assert not link.has_died.is_set()
    assert desk.perform(abs, -2) == 2


def test_a_result_that_cannot_travel(desk: Desk) -> None:
    with pytest.raises(UnpicklableError, match=r"the result\[0\]"):
        desk.perform(lambda: [threading.Lock()])


def test_arguments_that_cannot_be_rebuilt(desk: Desk) -> None:
    with pytest.raises(UnloadableError, match=r"arguments .* ValueError: not here"):
        desk.perform(print, Unloadable())


def test_a_function_that_cannot_be_loaded(desk: Desk) -> None:
    task = desk.make_task(Unloadable(), name="theirs")
    for _ in range(2):
        with pytest.raises(UnloadableError, match=r"function theirs .* ValueError: not here"):
            desk.perform_task(task)


def test_values_of_the_cluster_stand_in_its_arguments(desk: Desk) -> None:
    task = desk.make_task(max, Input(Slot("native")), 2)  # type: ignore[arg-type]
    assert desk.perform_task(task, [pack(5)]) == 5


def test_refs_in_its_arguments(desk: Desk, link: FakeLink) -> None:
    link.values["native"] = pack(np.arange(5))
    ref = desk.keeper.hand_out(desk.keeper.adopt((1, "native", "ndarray", 40)))
    small = desk.keeper.hand_out(desk.keeper.adopt((2, pack("small"), "str", 5)))

    def read(refs: Any) -> Any:
        return refs[0].get().sum(), refs[1].get(), refs

    total, word, refs = desk.perform(read, [ref, small])
    assert (total, word) == (10, "small")
    assert refs == [ref, small]


def test_what_a_call_knows_of_itself(desk: Desk) -> None:
    found: list[Any] = []
    desk.perform(lambda: found.append((get_station_run(), place.here.get())), key=77)
    ((run, here),) = found
    assert (run.task.key, here.key, here.session) == (77, 77, None)
    assert run.is_ended
    assert run.context is None


def test_a_function_is_loaded_once(desk: Desk) -> None:
    task = desk.make_task(Near(abs), -1, number=1)
    other = desk.make_task(Unloadable(), -2, number=1)
    assert desk.perform_task(task) == 1
    assert desk.perform_task(other) == 2


def test_functions_are_forgotten_in_their_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station_module, "_FUNCTIONS", 2)
    for number in (1, 2, 3):
        desk.perform(abs, -1, number=number)
    assert [number for _, number in desk.station._functions] == [2, 3]


# The initializer.


def test_the_initializer_runs_once(open_desk: OpenDesk) -> None:
    made: list[tuple[int, int]] = []
    blocker = Blocker()

    def initialize(*args: int) -> None:
        blocker()
        made.append((args[0], args[1]))

    desk = open_desk((Near(initialize), (1, 2)))
    works = [desk.start(lambda: list(made)) for _ in range(3)]
    assert blocker.begun.wait(LONG)
    blocker.may_end.set()
    assert [work.finish() for work in works] == [[(1, 2)]] * 3


def test_no_call_runs_where_the_initializer_failed(open_desk: OpenDesk) -> None:
    made: list[int] = []

    def initialize() -> None:
        made.append(1)
        raise SystemExit("no licence")

    desk = open_desk((Near(initialize), ()))
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="SystemExit: no licence") as caught:
            desk.perform(made.append, 2)
        assert isinstance(caught.value.__cause__, SystemExit)
    assert made == [1]


def test_an_initializer_that_cannot_be_loaded(open_desk: OpenDesk) -> None:
    with pytest.raises(WorkerStartError, match="ValueError: not here"):
        open_desk((Unloadable(), ())).perform(abs, 1)


# Time.


def check_timeout(error: Any, *stack: str) -> None:
    assert isinstance(error, CallTimeoutError), error
    assert error.call == "work"
    assert error.seconds >= 0.03
    for words in stack:
        assert words in error.stack


def test_what_computes_too_long_is_interrupted(desk: Desk, link: FakeLink) -> None:
    spinner = Spinner()
    check_timeout(desk.start(spinner, timeout=0.03).fail(), "in spin", "in __call__")
    assert isinstance(spinner.caught[0], CallInterrupted)
    assert desk.start(abs, -2, timeout=LONG).finish() == 2
    assert not link.has_died.is_set()
    assert desk.station._watchdog._due == {}


def test_an_error_while_it_cleans_up_is_the_cause(desk: Desk) -> None:
    def work() -> None:
        try:
            Spinner()()
        finally:
            raise ValueError("in cleaning")

    error = desk.start(work, timeout=0.03).fail()
    check_timeout(error)
    assert isinstance(error.__cause__, ValueError)


def test_what_swallows_the_interrupt_is_late_all_the_same(desk: Desk) -> None:
    def work() -> str:
        try:
            Spinner()()
        except CallInterrupted:
            pass
        return "swallowed"

    check_timeout(desk.start(work, timeout=0.03).fail())


def test_what_ends_by_itself_too_late_is_late(desk: Desk, link: FakeLink) -> None:
    never = threading.Event()

    def work() -> str:
        never.wait(0.1)  # native code, which no interrupt reaches
        return "late"

    check_timeout(desk.start(work, timeout=0.03).fail())
    assert link.list_sent("end") == []


@pytest.mark.usefixtures("impatient")
def test_what_does_not_yield_ends_its_process(desk: Desk, link: FakeLink) -> None:
    """Its session hears of it before."""
    blocker = Blocker()
    work = desk.start(blocker, timeout=0.03, id="call-x")
    assert link.has_died.wait(LONG)
    ((name, packed),) = link.list_sent("late")
    assert name == "call-x"
    check_timeout(unpack_exception(packed), "in __call__")
    blocker.may_end.set()
    check_timeout(work.fail())


@pytest.mark.usefixtures("impatient")
def test_what_was_cancelled_and_does_not_yield_ends_its_process(desk: Desk, link: FakeLink) -> None:
    blocker = Blocker()
    work = desk.start(blocker, timeout=LONG, id="call-x")
    assert blocker.begun.wait(LONG)
    desk.station.interrupt(["call-x"])
    assert link.has_died.wait(LONG)
    assert link.list_sent("late") == []
    blocker.may_end.set()
    work.join(LONG)


def await_grace() -> None:
    """Wait until all is over that was due soon: one thread sees to everything in its order."""
    passed = threading.Event()
    timers.call_later(0.15, passed.set)
    assert passed.wait(LONG)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_what_ends_just_as_it_is_due_keeps_its_process(
    desk: Desk, link: FakeLink, is_interrupted: bool
) -> None:
    """Whoever says that it is due has looked before it ended."""
    runs: list[StationRun] = []
    desk.perform(lambda: runs.append(get_station_run()), timeout=LONG)
    runs[0].is_interrupted = is_interrupted
    desk.station._take_due(runs[0])
    await_grace()
    assert not link.has_died.is_set()


@pytest.mark.usefixtures("impatient")
def test_what_ends_just_as_it_is_interrupted_keeps_its_process(
    desk: Desk, link: FakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = Blocker()
    work = desk.start(blocker, id="call-x")
    assert blocker.begun.wait(LONG)
    interrupt = Run.interrupt

    def interrupt_late(run: Run) -> None:
        blocker.may_end.set()
        work.join(LONG)
        interrupt(run)

    monkeypatch.setattr(StationRun, "interrupt", interrupt_late)
    desk.station.interrupt(["call-x"])
    assert work.finish() == "done"
    await_grace()
    assert not link.has_died.is_set()


# What the session asks for.


def test_what_was_withdrawn_does_not_begin(desk: Desk) -> None:
    made: list[int] = []
    assert desk.station.withdraw(["call-x", "call-y"]) == set()
    with pytest.raises(CallInterrupted):
        desk.perform(made.append, 1, id="call-x")
    assert made == []
    assert desk.perform(abs, -1, id="call-z") == 1


def test_what_has_begun_is_not_withdrawn(desk: Desk) -> None:
    blocker = Blocker()
    work = desk.start(blocker, id="call-x")
    assert blocker.begun.wait(LONG)
    assert desk.station.withdraw(["call-x", "call-y"]) == {"call-x"}
    assert desk.station.list_running() == ["call-x"]
    blocker.may_end.set()
    assert work.finish() == "done"
    assert desk.station.list_running() == []
    assert desk.station.withdraw(["call-x"]) == {"call-x"}


def test_what_computes_can_be_interrupted(desk: Desk, link: FakeLink) -> None:
    spinner = Spinner()
    work = desk.start(spinner, id="call-x")
    assert spinner.begun.wait(LONG)
    desk.station.interrupt(["call-y", "call-x"])
    assert isinstance(work.fail(), CallInterrupted)
    assert not link.has_died.is_set()
    assert desk.station._watchdog._due == {}


def test_marks_name_what_runs(desk: Desk) -> None:
    blockers = [Blocker() for _ in range(2)]
    works = [desk.start(blocker, id=f"call-{n}") for n, blocker in enumerate(blockers)]
    for blocker in blockers:
        assert blocker.begun.wait(LONG)
    blockers[0].may_end.set()
    works[0].finish()
    assert desk.station.read_marks("worker") == (os.getpid(), ["call-1"])
    assert desk.station.read_marks("other") is None
    blockers[1].may_end.set()
    works[1].finish()


# Streams.


class Source:
    """A generator that tells how far it is."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.error: BaseException | None = None

    def __call__(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                yield self.made
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.closed.set()

    async def iterate_async(self) -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0)
                self.made += 1
                yield self.made
        finally:
            self.closed.set()


def start_stream(desk: Desk, fn: Callable[..., Any], window: int, **options: Any) -> Work:
    task = desk.make_task(StreamCall(Near(fn), "work"), window=window, **options)
    return Work(lambda: desk.perform_task(task))


INTERRUPTED = CallInterrupted, asyncio.CancelledError
"""What threads, and coroutines, end with."""


def list_items(desk: Desk) -> list[Any]:
    return [packed.load(desk.keeper.adopt) for _, packed in desk.link.list_sent("item")]


def await_items(desk: Desk, count: int) -> None:
    wait_for(lambda: len(list_items(desk)) >= count, f"{count} items")


KINDS = pytest.mark.parametrize("kind", ["__call__", "iterate_async"])


def test_items_come_before_the_end(desk: Desk, link: FakeLink) -> None:
    assert start_stream(desk, lambda: iter("abc"), 5, id="call-x").finish() == 3
    assert list_items(desk) == ["a", "b", "c"]
    assert [message[0] for _, message in link.sent] == ["item", "item", "item", "end"]
    assert {topic for topic, _ in link.sent} == {"caller"}
    assert {name for name, _ in link.list_sent("item")} == {"call-x"}


@KINDS
def test_a_stream_runs_no_further_than_it_may(desk: Desk, kind: str) -> None:
    source = Source()
    work = start_stream(desk, getattr(source, kind), 3, id="call-x")
    await_items(desk, 3)
    desk.station.grant("call-y", 5)
    assert not source.closed.wait(0.02)
    assert source.made == 3
    desk.station.grant("call-x", 2)
    await_items(desk, 5)
    assert not source.closed.wait(0.02)
    assert list_items(desk) == [1, 2, 3, 4, 5]
    desk.station.interrupt(["call-x"])
    assert isinstance(work.fail(), INTERRUPTED)
    assert source.closed.is_set()
    assert source.made == 5


@KINDS
def test_a_stream_that_waits_has_a_timeout(desk: Desk, kind: str) -> None:
    source = Source()
    check_timeout(start_stream(desk, getattr(source, kind), 2, timeout=0.05).fail())
    assert source.closed.is_set()
    assert list_items(desk) == [1, 2]


def test_what_was_interrupted_sends_nothing_more(desk: Desk) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def stubborn() -> Iterator[int]:
        yield 1
        begun.set()
        try:
            assert may_go_on.wait(LONG)
        except CallInterrupted:
            pass
        try:
            yield 2
        except BaseException as error:
            caught.append(error)

    work = start_stream(desk, stubborn, 9, id="call-x")
    assert begun.wait(LONG)
    desk.station.interrupt(["call-x"])
    may_go_on.set()
    assert isinstance(work.fail(), CallInterrupted)
    assert list_items(desk) == [1]
    assert len(caught) == 1


def test_an_item_that_cannot_travel(desk: Desk) -> None:
    def work() -> Iterator[Any]:
        yield 1
        yield threading.Lock()

    assert isinstance(start_stream(desk, work, 9).fail(), UnpicklableError)
    assert list_items(desk) == [1]


@KINDS
def test_a_station_that_closes_ends_its_streams(desk: Desk, kind: str) -> None:
    source = Source()
    work = start_stream(desk, getattr(source, kind), 1)
    await_items(desk, 1)
    desk.close()
    assert isinstance(work.fail(), INTERRUPTED)
    assert source.closed.wait(LONG)


# Coroutines.


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def raise_error(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def leave(code: int) -> None:
    sys.exit(code)


def test_a_coroutine_runs_to_its_end_and_leaves_its_place(desk: Desk, link: FakeLink) -> None:
    assert desk.perform(give, 3) == 3
    assert link.moves == ["leave"]
    assert desk.perform(lambda: 4) == 4
    assert link.moves == ["leave"]


def test_a_coroutine_fails_with_its_own_error(desk: Desk) -> None:
    with pytest.raises(ValueError, match="mine"):
        desk.perform(raise_error, ValueError("mine"))
    with pytest.raises(WorkerDiedError, match=r"sys\.exit\(3\)"):
        desk.perform(leave, 3)
    assert desk.perform(give, 1) == 1


def test_many_run_at_once_on_one_thread(desk: Desk) -> None:
    threads: set[int] = set()
    all_here: list[asyncio.Event] = []
    arrived: list[int] = []

    async def meet() -> int:
        if not all_here:
            all_here.append(asyncio.Event())
        arrived.append(1)
        threads.add(threading.get_ident())
        if len(arrived) == 20:
            all_here[0].set()
        await all_here[0].wait()
        return get_station_run().task.key

    works = [desk.start(meet, key=key) for key in range(1, 21)]
    assert [work.finish() for work in works] == list(range(1, 21))
    assert len(threads) == 1


class Sleeper:
    """A coroutine that waits for ever."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()

    async def __call__(self) -> None:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended.set()

    def start(self, desk: Desk, **options: Any) -> Work:
        work = desk.start(self, id="call-x", **options)
        assert self.begun.wait(LONG)
        return work


def test_a_coroutine_is_interrupted(desk: Desk) -> None:
    sleeper = Sleeper()
    work = sleeper.start(desk)
    desk.station.interrupt(["call-x"])
    assert isinstance(work.fail(), asyncio.CancelledError)
    assert sleeper.ended.is_set()


def test_a_coroutine_has_a_timeout(desk: Desk) -> None:
    sleeper = Sleeper()
    check_timeout(sleeper.start(desk, timeout=0.03).fail())
    assert sleeper.ended.is_set()


@pytest.mark.usefixtures("impatient")
def test_a_coroutine_that_does_not_yield_ends_its_process(desk: Desk, link: FakeLink) -> None:
    blocker = Blocker()

    async def block() -> str:
        return blocker()

    work = desk.start(block, timeout=0.03)
    assert link.has_died.wait(LONG)
    ((_, packed),) = link.list_sent("late")
    check_timeout(unpack_exception(packed))
    blocker.may_end.set()
    work.join(LONG)


def test_a_station_that_closes_ends_its_coroutines(desk: Desk) -> None:
    """They clean up before."""
    sleeper = Sleeper()
    work = sleeper.start(desk)
    desk.close()
    assert isinstance(work.fail(), asyncio.CancelledError)
    assert sleeper.ended.is_set()


def test_a_loop_ends_with_its_station(desk: Desk) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def look() -> None:
        loops.append(asyncio.get_running_loop())

    desk.perform(look)
    desk.close()
    wait_for(loops[0].is_closed, "the loop is closed")


# Calls that give futures, and the session of calls that calls make.


class FakeOwner:
    def attend(self) -> None:
        pass

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int) -> bool:
        wait_for(is_done, f"call {key} ends")
        return True


class FakeEngine:
    """Knows the cluster's handles of some futures."""

    def __init__(self) -> None:
        self.natives: dict[Any, Any] = {}

    def get_native(self, future: Any) -> Any:
        return self.natives.get(future)


class FakeSession:
    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.cancelled: list[int] = []
        self.is_closed = False

    def cancel_children(self, key: int) -> None:
        self.cancelled.append(key)

    def close(self) -> None:
        self.is_closed = True


def make_future() -> Future[Any]:
    owner: Any = FakeOwner()
    return Future(owner, 50, "inner")


def open_session() -> Any:
    """The session of calls that this call makes."""
    here = place.here.get()
    assert here is not None
    return here.open_session(FakeSession)


def test_a_future_of_another_session_is_waited_for(desk: Desk, link: FakeLink) -> None:
    """It keeps no place meanwhile, and the call runs no more."""
    future = make_future()
    work = desk.start(lambda: future, id="call-x")
    wait_for(lambda: link.moves == ["leave"], "it leaves its place")
    assert desk.station.list_running() == []
    future.set_result("inner result")
    assert work.finish() == "inner result"


def test_a_future_that_fails_fails_the_call(desk: Desk) -> None:
    future = make_future()
    future.set_exception(ValueError("inner"))
    with pytest.raises(ValueError, match="inner"):
        desk.perform(lambda: future)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_future_of_its_own_session_is_left_to_that(
    desk: Desk, link: FakeLink, is_async: bool
) -> None:
    future, engine = make_future(), FakeEngine()
    engine.natives[future] = "native"
    link.engine = engine

    def work() -> Any:
        open_session()
        return give(future) if is_async else future

    with pytest.raises(CallJoinedError) as caught:
        desk.perform(work)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert sent.native == "native"
    assert "goes on as another" in str(sent)
    assert link.sent == []


@pytest.mark.parametrize("when", ["as it gives the future", "later"])
def test_what_an_interrupted_call_goes_on_as_is_cancelled(
    desk: Desk, link: FakeLink, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also where the interrupt comes when the call is over, and its session has not heard of the future yet."""
    future, engine = make_future(), FakeEngine()
    cancelled = threading.Event()
    monkeypatch.setattr(Future, "cancel", lambda self, running: cancelled.set())
    engine.natives[future] = "native"
    link.engine = engine

    def get_native(future: Any) -> Any:
        if when != "later":
            desk.station.interrupt(["call-x"])
        return engine.natives[future]

    engine.get_native = get_native  # type: ignore[method-assign]

    def work() -> Any:
        open_session()
        return future

    with pytest.raises(CallJoinedError):
        desk.perform(work, id="call-x")
    if when == "later":
        assert not cancelled.is_set()
        desk.station.interrupt(["call-x"])
    assert cancelled.wait(LONG)
    assert desk.station._joined == {}
    assert desk.station._unwanted == set()


def test_calls_of_a_station_share_a_session(desk: Desk, link: FakeLink) -> None:
    link.engine = FakeEngine()
    found: list[Any] = []
    assert link.engines == []
    for _ in range(2):
        desk.perform(lambda: found.append(open_session()))
    assert found[0] is found[1]
    assert found[0].engine is link.engine
    assert link.engines == [desk.settings]
    desk.close()
    assert found[0].is_closed


def test_the_children_of_a_call_that_fails_are_cancelled(desk: Desk) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(open_session())
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        desk.perform(work, key=77)
    desk.perform(abs, 1, key=78)
    assert found[0].cancelled == [77]


# What goes with a session.


def test_a_call_finds_what_its_session_has_shipped(
    link: FakeLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHIPPED_LEVEL", raising=False)
    (tmp_path / "shipped_module.py").write_text("VALUE = 7\n")
    (tmp_path / "data.txt").write_text("data")
    ship, file = str(tmp_path / "shipped_module.py"), str(tmp_path / "data.txt")
    desk = Desk(
        link, bundle=pack_bundle(Luggage([ship], {"data": file})), env={"SHIPPED_LEVEL": "3"}
    )

    def work() -> Any:
        run = get_station_run()
        value = importlib.import_module("shipped_module").VALUE
        return value, Path(run.files["data"]).read_text(), os.environ["SHIPPED_LEVEL"]

    assert desk.station.files == {}
    assert desk.perform(work) == (7, "data", "3")
    file = desk.station.files["data"]
    desk.close()
    assert not Path(file).exists()
    assert "SHIPPED_LEVEL" not in os.environ


@pytest.mark.parametrize("trouble", ["clash", "disk"])
def test_what_cannot_be_unpacked_fails_each_call(
    link: FakeLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    (tmp_path / "data.txt").write_text("data")

    def fail_to_unpack(_: object) -> None:
        raise WorkerStartError("a clash") if trouble == "clash" else OSError(28, "No space left")

    monkeypatch.setattr(station_module, "unpack", fail_to_unpack)
    desk = Desk(link, bundle=pack_bundle(Luggage(files={"data": str(tmp_path / "data.txt")})))
    for _ in range(2):
        with pytest.raises(WorkerStartError, match=r"a clash|No space left"):
            desk.perform(abs, -1)
    desk.close()


# The end.


def test_a_station_that_closes_interrupts_its_calls(desk: Desk, link: FakeLink) -> None:
    spinner = Spinner()
    work = desk.start(spinner)
    assert spinner.begun.wait(LONG)
    desk.close()
    assert isinstance(work.fail(), CallInterrupted)
    assert desk.station.read_marks("worker") is None


def test_a_station_keeps_nothing_of_calls_that_have_ended(desk: Desk) -> None:
    class Thing:
        pass

    things = [Thing()]
    gone = weakref.ref(things[0])
    desk.perform(lambda: (things.pop(), None)[1], timeout=LONG)
    gc.collect()
    assert gone() is None
    assert desk.station._runs == {}
    assert desk.station._watchdog._due == {}


def test_a_run_keeps_no_state_of_actors(desk: Desk) -> None:
    run = StationRun(Call(1, abs, (), {}), desk.make_task(abs), desk.station)
    run.keep(1, "state")
    assert desk.link.sent == []
