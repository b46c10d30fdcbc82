"""A session over engines that do as the test says."""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manyhands import session as session_module
from manyhands import wait
from manyhands.core import place, timers
from manyhands.core.acting import ActorMaker
from manyhands.core.actors import ActorLife
from manyhands.core.future import Future
from manyhands.core.generators import StreamCall
from manyhands.core.handles import find_handles
from manyhands.core.model import (
    ActorPlace,
    Call,
    CallOptions,
    Capabilities,
    EngineConfig,
    EngineStats,
    RetryPolicy,
)
from manyhands.core.refs import Record, Ref
from manyhands.core.resources import ONE_CPU, make_need
from manyhands.core.stream import Stream
from manyhands.engines.inline import InlineEngine
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import (
    ActorDiedError,
    DependencyError,
    InvalidArgumentError,
    NotCallableError,
    SessionClosedError,
    UnknownEngineError,
    UnpicklableError,
    UnsupportedError,
    WorkerDiedError,
    WorkerStartError,
)
from manyhands.session import Session, get_session


class FakeEngine:
    """Keeps calls until the test lets them end."""

    capabilities = Capabilities(isolates=False, parallel=False, pickles=False)
    first_key = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: dict[int, Call] = {}
        self.running: set[int] = set()
        self.submitted: list[int] = []
        self.refusal: Exception | None = None
        self.lost: Exception | None = None
        self.interrupted: set[int] = set()
        self.parent = 0
        self.misfit: str | None = None
        self.granted: list[tuple[int, int]] = []
        self.actors: list[tuple[Any, ...]] = []
        self.restarts = 0
        self.closed_with: float | None = None
        self.attended = 0
        self.looked = 0
        self.measured = EngineStats()

    def start(self, config: EngineConfig, sink: Session) -> None:
        self.config = config
        self.sink = sink

    def submit(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls[call.key] = call
        self.submitted.append(call.key)

    def resubmit(self, key: int, attempt: Call) -> None:
        assert attempt.key == key
        self.submit(attempt)

    def explain_misfit(self, call: Call) -> str | None:
        return self.misfit

    def get_running(self) -> int:
        return self.parent

    def grant(self, key: int, items: int) -> None:
        self.granted.append((key, items))

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:
        self.actors.append(("start", actor, call, where))

    def restart_actor(self, actor: int) -> None:
        self.actors.append(("restart", actor))

    def bury_actor(self, actor: int, error: BaseException) -> None:
        self.actors.append(("bury", actor, error))

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        self.actors.append(("stop", actor, kill))

    def restart_workers(self) -> None:
        self.restarts += 1

    def ask(self, question: str, *args: Any) -> Any:
        return self.sink.answer(question, *args)

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        return value, None

    def forward(self, value: Any) -> Any:
        if self.lost is not None:
            raise self.lost
        return value

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        taken = {key for key in keys if key in self.calls and (running or key not in self.running)}
        self.interrupted |= taken & self.running
        for key in taken:
            del self.calls[key]
        return taken

    def is_running(self, key: int) -> bool:
        return key in self.running

    def look(self) -> None:
        self.looked += 1

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        while not is_done() and self.calls and timeout is None:
            self.work()
        return is_done()

    def rouse(self) -> None:
        self.roused = True

    def attend(self) -> None:
        self.attended += 1

    def stats(self) -> EngineStats:
        return self.measured

    def close(self, grace: float) -> None:
        self.closed_with = grace

    # What the test does.

    def work(self, key: int | None = None) -> None:
        """Run one call, the oldest where none is named."""
        key = next(iter(self.calls)) if key is None else key
        call = self.calls.pop(key)
        try:
            value = call.fn(*call.args, **call.kwargs)
        except Exception as error:
            self.sink.take_failure(key, error, call)
        else:
            self.sink.take_results([(key, value)])

    def work_all(self) -> None:
        while self.calls:
            self.work()


@pytest.fixture(autouse=True)
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session_module, "create_engine", FakeEngine)
    monkeypatch.setattr(session_module, "_default", None)
    monkeypatch.delenv(session_module.ENGINE_VARIABLE, raising=False)
    before = list(session_module._open_sessions)
    yield
    for opened in list(session_module._open_sessions):
        if opened not in before:
            opened.close()


@pytest.fixture
def session() -> Session:
    return Session("fake", workers=2)


@pytest.fixture
def engine(session: Session) -> FakeEngine:
    assert isinstance(session._engine, FakeEngine)
    return session._engine


def fail(error: BaseException) -> None:
    raise error


def retry(retries: int, *retry_on: type[BaseException], backoff: float = 0.0) -> CallOptions:
    """Options of a call that is tried again, at once unless told otherwise."""
    return CallOptions(RetryPolicy(retries, retry_on, backoff=backoff))


class Later:
    """What is due in a while, until the test lets the time pass."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.due: list[Callable[[], object]] = []

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        self.delays.append(seconds)
        self.due.append(fn)

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for fn in due:
            fn()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    later = Later()
    monkeypatch.setattr(timers, "timers", later)
    return later


def is_empty(session: Session) -> bool:
    """Whether the session remembers nothing of any call."""
    ledger = session._ledger
    kept = ledger._kept or ledger._inputs or ledger._delayed or ledger._life
    return not (session._futures or session._children or kept)


# Arguments.


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_a_number_of_workers_that_cannot_be_meant_is_refused(workers: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="workers="):
        Session("fake", workers=workers)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"start_method": "forkserver"}, InvalidArgumentError),
        ({"initializer": 3}, NotCallableError),
        ({"engine": 3}, InvalidArgumentError),
    ],
)
def test_other_arguments_are_checked_before_any_engine_is_made(
    options: dict[str, Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "create_engine", lambda name: pytest.fail("it was made"))
    with pytest.raises(error):
        Session(**options)


def test_the_engine_is_told_how_to_start(session: Session, engine: FakeEngine) -> None:
    assert engine.config.workers == session.workers == 2
    made = Session("x", workers=1, initializer=abs, initargs=iter([1, 2]), start_method="spawn")
    config = made._engine.config  # type: ignore[attr-defined]
    assert (config.initializer, config.initargs, config.start_method) == (abs, (1, 2), "spawn")


def test_left_out_the_number_of_workers_is_that_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands.engines.local.cpus.count_cpus", lambda: 13)
    assert Session("fake").workers == 13
    assert Session("inline").workers == 1


def test_left_out_the_engine_is_chosen_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Session().engine == "auto"
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "elsewhere")
    assert Session().engine == "elsewhere"
    assert Session("fake").engine == "fake"
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "")
    assert Session().engine == "auto"


def test_inside_of_a_worker_calls_go_to_the_programs_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FakeLink:
        nested = None
        settings = {"workers": 7}  # noqa: RUF012 - of this test alone

    monkeypatch.setattr(place, "in_worker", True)
    monkeypatch.setattr(place, "link", FakeLink())
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "local")
    session = Session()
    assert (session.engine, session.workers) == ("nested", 7)


def test_inside_of_a_worker_that_cannot_reach_the_program_calls_run_inline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, "in_worker", True)
    monkeypatch.setattr(place, "link", None)
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "local")
    assert Session().engine == "inline"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_workers": 3}, "min_workers=3.*at most workers=2"),
        ({"min_workers": -1}, "min_workers=-1"),
        ({"min_workers": True}, "min_workers=True"),
        ({"max_calls_per_worker": 0}, "max_calls_per_worker=0"),
        ({"max_calls_per_worker": 1.5}, "max_calls_per_worker=1.5"),
        ({"gpus": -1}, "gpus=-1"),
        ({"gpus": True}, "gpus=True"),
        ({"gpus": "0,1"}, "gpus='0,1'"),
        ({"memory": "much"}, "memory='much'"),
    ],
)
def test_amounts_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Session("fake", workers=2, **options)


def test_the_engine_is_told_what_there_is() -> None:
    session = Session(
        "fake",
        workers=3,
        min_workers=0,
        max_calls_per_worker=100,
        pin=True,
        gpus=2,
        memory="2 GB",
        resources={"licence": 1},
    )
    config = session._engine.config  # type: ignore[attr-defined]
    assert (config.min_workers, config.max_calls_per_worker, config.pin) == (0, 100, True)
    assert (config.gpus, config.memory) == (("0", "1"), 2_000_000_000)
    assert config.resources == {"licence": 1}
    plain = Session("fake")._engine.config  # type: ignore[attr-defined]
    assert (plain.min_workers, plain.max_calls_per_worker, plain.pin) == (None, None, False)
    assert (plain.gpus, plain.memory, plain.resources) == (None, None, {})
    named = Session("fake", gpus=iter(["GPU-a", 3]))._engine.config  # type: ignore[attr-defined]
    assert named.gpus == ("GPU-a", "3")


def test_an_engine_that_does_not_start_leaves_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(self: FakeEngine, config: EngineConfig, sink: Session) -> None:
        raise WorkerStartError("no")

    monkeypatch.setattr(FakeEngine, "start", break_down)
    before = list(session_module._open_sessions)
    with pytest.raises(WorkerStartError):
        Session("fake")
    assert session_module._open_sessions == before


def test_an_unknown_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.engines.registry import create_engine

    monkeypatch.setattr(session_module, "create_engine", create_engine)
    with pytest.raises(UnknownEngineError, match="'no such'"):
        Session("no such")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((3, [1]), {}, NotCallableError, "3"),
        ((None, [1]), {}, NotCallableError, r"without \(\)"),
        ((abs, 5), {}, InvalidArgumentError, "iterate over"),
        ((abs, [1], 5), {}, InvalidArgumentError, "iterate over"),
        ((abs, [1]), {"batch": 0}, InvalidArgumentError, "batch="),
        ((abs, [1]), {"retries": -1}, InvalidArgumentError, "retries="),
        ((abs, [1]), {"on_error": "no"}, InvalidArgumentError, "on_error="),
        ((abs, [1]), {"timeout": 0}, InvalidArgumentError, "timeout="),
        ((abs, [1]), {"deadline": -1}, InvalidArgumentError, "deadline="),
        ((abs, [1]), {"gpus": 1.5}, InvalidArgumentError, "gpus="),
        ((abs, [1]), {"workers": 2}, TypeError, "workers"),
    ],
)
@pytest.mark.parametrize("kind", ["map", "imap", "imap_unordered"])
def test_a_maps_arguments_are_checked_at_the_call(
    session: Session,
    engine: FakeEngine,
    *,
    kind: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        getattr(session, kind)(*arguments, **options)
    assert engine.submitted == []


# One call.


def test_a_call(session: Session, engine: FakeEngine) -> None:
    future = session.submit(pow, 2, 5, mod=7)
    assert (future.name, future.key, future.owner) == ("pow", 1, session)
    assert not future.done()
    assert future.result() == 4
    assert is_empty(session)


def test_a_failed_call(session: Session, engine: FakeEngine) -> None:
    error = ValueError("x")
    future = session.submit(fail, error)
    engine.work()
    assert future.exception() is error
    assert is_empty(session)


def test_what_cannot_be_called_is_refused(session: Session, engine: FakeEngine) -> None:
    with pytest.raises(NotCallableError):
        session.submit(3)  # type: ignore[call-overload]
    assert is_empty(session)


def test_what_cannot_travel_is_its_futures_error(session: Session, engine: FakeEngine) -> None:
    engine.refusal = UnpicklableError("argument 0")
    future = session.submit(abs, 1)
    assert future.exception() is engine.refusal
    assert is_empty(session)


def test_what_cannot_travel_is_not_tried_again(session: Session, engine: FakeEngine) -> None:
    engine.refusal = UnpicklableError("argument 0")
    future = session.start_call(abs, (1,), {}, retry(5, Exception))
    assert future.done()
    assert session.report().retried == 0
    assert is_empty(session)


def test_a_failed_call_is_tried_again(session: Session, engine: FakeEngine) -> None:
    outcomes = iter([ValueError("1"), ValueError("2"), None])

    def run() -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return "at last"

    future = session.start_call(run, (), {}, retry(2, ValueError))
    engine.work()
    assert not future.done()
    assert future.result() == "at last"
    assert engine.submitted == [1, 1, 1]
    report = session.report()
    assert (report.calls, report.failed, report.retried) == (1, 0, 2)
    assert is_empty(session)


def test_the_last_error_is_the_calls(session: Session, engine: FakeEngine) -> None:
    errors = [ValueError("1"), ValueError("2")]
    outcomes = iter(errors)
    future = session.start_call(lambda: fail(next(outcomes)), (), {}, retry(1, ValueError))
    engine.work_all()
    assert future.exception() is errors[1]
    assert errors[1].__notes__ == ["All 2 attempts failed:\n  1. ValueError: 1\n  2. ValueError: 2"]
    assert not hasattr(errors[0], "__notes__")
    report = session.report()
    assert (report.calls, report.failed, report.retried) == (1, 1, 1)
    assert is_empty(session)


def test_a_call_whose_worker_dies_is_tried_once_more_unasked(
    session: Session, engine: FakeEngine
) -> None:
    outcomes = iter([WorkerDiedError("gone"), None])

    def run() -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return "at last"

    assert session.submit(run).result() == "at last"
    assert session.report().retried == 1
    assert is_empty(session)


def test_a_call_that_keeps_killing_workers_is_given_up(
    session: Session, engine: FakeEngine
) -> None:
    future = session.start_call(fail, (WorkerDiedError("gone"),), {}, retry(5, Exception))
    engine.work_all()
    error = future.exception()
    assert isinstance(error, WorkerDiedError)
    assert "All 2 attempts failed" in error.__notes__[0]
    assert is_empty(session)


def test_a_call_that_can_never_fit_fails_at_once(session: Session, engine: FakeEngine) -> None:
    engine.misfit = "it needs 9 cpus, and the session has 2"
    future = session.start_call(abs, (-1,), {}, CallOptions(need=make_need(cpus=9)))
    assert isinstance(future.exception(), InvalidArgumentError)
    assert "9 cpus" in str(future.exception())
    assert engine.submitted == []
    assert session.start_call(abs, (-1,), {}, CallOptions(need=ONE_CPU)).result() == 1
    assert is_empty(session)


def test_a_call_has_the_name_that_it_was_given(session: Session) -> None:
    future = session.start_call(abs, (-1,), {}, CallOptions(name="the size"))
    assert future.name == "the size"


def test_the_keys_begin_where_the_engine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "first_key", 7001)
    session = Session("fake")
    assert [session.submit(abs, 1).key for _ in range(2)] == [7001, 7002]


def test_a_call_is_cancelled_before_it_starts(session: Session, engine: FakeEngine) -> None:
    first, second = session.submit(abs, 1), session.submit(abs, 2)
    engine.running.add(first.key)
    assert first.running() and not second.running()
    assert not first.cancel()
    assert second.cancel()
    engine.work_all()
    assert first.result() == 1
    assert second.cancelled()
    assert is_empty(session)
    assert session.report().calls == 1


def test_cancelling_also_ends_what_runs_if_told_so(session: Session, engine: FakeEngine) -> None:
    one, other = session.submit(abs, 1), session.submit(abs, 2)
    engine.running |= {one.key, other.key}
    assert not one.cancel()
    assert one.cancel(running=True)
    session.cancel_calls([other], running=True)
    assert engine.interrupted == {one.key, other.key}
    assert one.cancelled() and other.cancelled()
    assert is_empty(session)


def test_a_call_between_two_attempts_is_cancelled_and_not_tried_again(
    session: Session, engine: FakeEngine, later: Later
) -> None:
    future = session.start_call(fail, (ValueError("x"),), {}, retry(3, ValueError, backoff=1.0))
    dependent = session.submit(abs, future)
    engine.work_all()
    assert not future.done()
    assert future.cancel()
    assert dependent.cancelled()
    later.pass_time()
    assert engine.submitted == [1]
    assert is_empty(session)


def test_the_next_attempt_comes_after_its_delay(
    session: Session, engine: FakeEngine, later: Later
) -> None:
    future = session.start_call(fail, (ValueError("x"),), {}, retry(2, ValueError, backoff=1.0))
    engine.work_all()
    (delay,) = later.delays
    assert 0.5 <= delay <= 1.0
    assert engine.submitted == [1]
    later.pass_time()
    engine.work_all()
    later.pass_time()
    engine.work_all()
    assert engine.submitted == [1, 1, 1]
    assert 1.0 <= later.delays[1] <= 2.0
    assert isinstance(future.exception(), ValueError)
    assert is_empty(session)


def test_a_session_that_is_closed_tries_nothing_again(
    session: Session, engine: FakeEngine, later: Later
) -> None:
    future = session.start_call(fail, (ValueError("x"),), {}, retry(2, ValueError, backoff=1.0))
    engine.work_all()
    session.close()
    assert future.cancelled()
    later.pass_time()
    assert engine.submitted == [1]


# Calls of calls.


def test_calls_of_a_call_that_comes_to_nothing_are_cancelled(
    session: Session, engine: FakeEngine
) -> None:
    outer = session.submit(fail, ValueError("x"))
    engine.parent = outer.key
    inner, ran = session.submit(abs, -1), session.submit(abs, -2)
    engine.parent = inner.key
    innermost = session.submit(abs, -3)
    engine.parent = 0
    other = session.submit(abs, -4)
    engine.work(ran.key)
    engine.work(outer.key)
    assert inner.cancelled() and innermost.cancelled()
    assert ran.result() == 2
    assert other.result() == 4
    assert is_empty(session)


def test_calls_of_a_cancelled_call_are_cancelled(session: Session, engine: FakeEngine) -> None:
    outer = session.submit(abs, -1)
    engine.parent = outer.key
    inner = session.submit(abs, -2)
    engine.running |= {outer.key, inner.key}
    assert outer.cancel(running=True)
    assert inner.cancelled()
    assert engine.interrupted == {outer.key, inner.key}
    assert is_empty(session)


def test_calls_of_a_call_that_ends_well_go_on(session: Session, engine: FakeEngine) -> None:
    outer = session.submit(abs, -1)
    engine.parent = outer.key
    inner = session.submit(abs, -2)
    engine.parent = 0
    engine.work(outer.key)
    assert inner.result() == 2
    assert is_empty(session)


# Calls with inputs.


def make_future(session: Session) -> Future[Any]:
    return session.submit(abs, -1)


def test_futures_are_found_wherever_results_are_put(session: Session) -> None:
    one, two, three, four = (make_future(session) for _ in range(4))
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    found = find_handles(
        (one, 5, [two, (three, "x"), {"k": [four]}], {one}), {"key": standard, "none": None}
    )
    assert found == [one, two, three, four, standard]


@pytest.mark.parametrize(
    "value", [[], {}, (), [1, 2.5, "x", None], {"a": {"b": (1,)}}, object(), range(3), abs]
)
def test_where_there_are_none_none_are_found(value: Any) -> None:
    assert find_handles((value,), {"x": value}) == []


def collect(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def test_a_call_gets_the_results_of_its_inputs(session: Session, engine: FakeEngine) -> None:
    inputs = [session.submit(abs, -number) for number in range(4)]
    kept = ["as it is", (1, 2)]
    future = session.submit(
        collect, inputs[0], [inputs[1], (inputs[2], 9)], kept, key={"k": inputs[3]}
    )
    assert engine.submitted == [1, 2, 3, 4], "it is not sent before its inputs are there"
    args, kwargs = future.result()
    assert args == (0, [1, (2, 9)], ["as it is", (1, 2)])
    assert kwargs == {"key": {"k": 3}}
    assert is_empty(session)


def test_an_input_that_is_there_already_is_not_waited_for(
    session: Session, engine: FakeEngine
) -> None:
    first = session.submit(abs, -1)
    first.result()
    second = session.submit(abs, first)
    assert engine.submitted == [1, 2]
    assert second.result() == 1
    assert is_empty(session)


def test_one_input_may_stand_in_several_places(session: Session, engine: FakeEngine) -> None:
    first = session.submit(abs, -3)
    assert session.submit(pow, first, first).result() == 27
    assert is_empty(session)


def test_futures_of_others_are_inputs_too(session: Session, engine: FakeEngine) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    other = Session("fake", workers=1)
    foreign = other.submit(abs, -2)
    future = session.submit(pow, foreign, standard)
    other._engine.work_all()  # type: ignore[attr-defined]
    assert engine.submitted == []
    standard.set_result(5)
    assert future.result() == 32
    assert is_empty(session)
    assert is_empty(other)


def test_a_failed_input_fails_the_call_with_its_error_as_cause(
    session: Session, engine: FakeEngine
) -> None:
    error = ValueError("first")
    first = session.submit(fail, error)
    second = session.submit(abs, first)
    third = session.submit(abs, [second])
    engine.work_all()
    assert first.exception() is error
    for future, cause in ((second, error), (third, second.exception())):
        found = future.exception()
        assert isinstance(found, DependencyError)
        assert found.__cause__ is cause
        assert f"call {future.key}, abs, was not run" in str(found)
    assert engine.submitted == [1]
    assert session.report().failed == 3


@pytest.mark.parametrize("ended", [True, False], ids=["before", "after"])
def test_an_input_of_others_that_fails(
    session: Session, engine: FakeEngine, *, ended: bool
) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    if ended:
        standard.set_exception(ValueError("x"))
    future = session.submit(abs, standard)
    if not ended:
        standard.set_exception(ValueError("x"))
    error = future.exception()
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, ValueError)
    assert is_empty(session)


@pytest.mark.parametrize("ended", [True, False], ids=["before", "after"])
def test_an_input_of_others_that_is_cancelled(
    session: Session, engine: FakeEngine, *, ended: bool
) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    if ended:
        standard.cancel()
    future = session.submit(abs, standard)
    if not ended:
        standard.cancel()
    assert future.cancelled()
    assert engine.submitted == []
    assert is_empty(session)


def test_an_input_that_failed_before_fails_the_call_at_once(
    session: Session, engine: FakeEngine
) -> None:
    first = session.submit(fail, ValueError("x"))
    engine.work_all()
    second = session.submit(abs, first)
    assert second.done()
    assert isinstance(second.exception(), DependencyError)
    assert is_empty(session)


def test_a_cancelled_input_cancels_the_call(session: Session, engine: FakeEngine) -> None:
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    third = session.submit(abs, [second])
    assert first.cancel()
    assert second.cancelled() and third.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        third.result()
    assert is_empty(session)
    assert session.report().failed == 0


def test_an_input_that_was_cancelled_before_cancels_the_call_at_once(
    session: Session, engine: FakeEngine
) -> None:
    first = session.submit(abs, -1)
    assert first.cancel()
    second = session.submit(abs, first)
    assert second.cancelled()
    assert is_empty(session)


def test_a_waiting_call_is_cancelled_and_never_sent(session: Session, engine: FakeEngine) -> None:
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    third = session.submit(abs, second)
    assert second.cancel()
    engine.work_all()
    assert (first.result(), second.cancelled(), third.cancelled()) == (1, True, True)
    assert engine.submitted == [1]
    assert is_empty(session)


def test_an_input_is_waited_for_through_its_retries(session: Session, engine: FakeEngine) -> None:
    outcomes = iter([ValueError("1"), None])

    def run() -> int:
        error = next(outcomes)
        if error is not None:
            raise error
        return -7

    first = session.start_call(run, (), {}, retry(1, ValueError))
    second = session.submit(abs, first)
    assert second.result() == 7
    assert is_empty(session)


def test_inputs_that_cannot_be_filled_in_are_the_calls_error(
    session: Session, engine: FakeEngine
) -> None:
    engine.lost = LookupError("gone")
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    engine.work_all()
    assert isinstance(second.exception(), (LookupError, DependencyError))
    assert is_empty(session)


def test_nothing_is_kept_after_a_chain_of_failures(session: Session, engine: FakeEngine) -> None:
    future = session.submit(fail, ValueError("x"))
    for _ in range(5):
        future = session.submit(abs, future)
    engine.work_all()
    assert isinstance(future.exception(), DependencyError)
    assert is_empty(session)


def test_nothing_is_kept_after_a_waiting_call_was_cancelled(
    session: Session, engine: FakeEngine
) -> None:
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    second.cancel()
    engine.work_all()
    assert first.result() == 1
    assert is_empty(session)


def test_nothing_is_kept_of_the_other_inputs_of_a_failed_call(
    session: Session, engine: FakeEngine
) -> None:
    bad, good = session.submit(fail, ValueError("x")), session.submit(abs, -1)
    both = session.submit(collect, bad, good)
    engine.work_all()
    assert isinstance(both.exception(), DependencyError)
    assert is_empty(session)


def test_a_result_that_nobody_holds_is_let_go(session: Session, engine: FakeEngine) -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    future = session.submit(collect, big)
    last = session.submit(lambda value: None, future)
    engine.work_all()
    assert last.result() is None
    del big, future
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("how", ["input fails", "input is cancelled", "call is cancelled"])
@pytest.mark.parametrize("kind", [InlineEngine, ThreadsEngine])
def test_who_waits_is_woken_by_what_another_thread_ends(
    monkeypatch: pytest.MonkeyPatch, kind: type, how: str
) -> None:
    monkeypatch.setattr(session_module, "create_engine", lambda name: kind())
    with Session("real", workers=1) as session:
        standard: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = session.submit(abs, standard)
        waiting = threading.Event()
        answers: list[bool] = []

        def is_done() -> bool:
            waiting.set()
            return future.done()

        thread = threading.Thread(target=lambda: answers.append(session.wait_until(is_done, 10)))
        thread.start()
        assert waiting.wait(10)
        if how == "input fails":
            standard.set_exception(ValueError("x"))
        elif how == "input is cancelled":
            standard.cancel()
        else:
            assert future.cancel()
        assert future.done()
        thread.join(2)
        woken = not thread.is_alive()
        session._engine.submit(Call(-1, int, (), {}))  # which wakes whoever still waits
        thread.join()
        assert woken


# The life of a session.


def test_a_closed_session_says_so(session: Session, engine: FakeEngine) -> None:
    future = session.submit(abs, 1)
    waiting = session.submit(abs, future)
    session.close(grace=2.5)
    session.close()
    assert engine.closed_with == 2.5
    assert future.cancelled() and waiting.cancelled()
    for use in (
        lambda: session.submit(abs, 1),
        lambda: session.map(abs, [1]),
        lambda: session.imap(abs, [1]),
        session.__enter__,
    ):
        with pytest.raises(SessionClosedError, match="closed"):
            use()
    assert "closed" in repr(session)
    assert not future.cancel() or future.cancelled()
    assert session.report().wall_seconds == session.report().wall_seconds


def test_an_engine_that_fails_to_close_still_ends_the_futures(
    session: Session, engine: FakeEngine
) -> None:
    future = session.submit(abs, 1)

    def break_down(grace: float) -> None:
        raise OSError("no")

    engine.close = break_down  # type: ignore[method-assign]
    with pytest.raises(OSError):
        session.close()
    assert future.cancelled()


def test_a_forked_child_cannot_use_its_parents_session(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = session.submit(abs, 1)
    parent = os.getpid()
    monkeypatch.setattr(session_module.os, "getpid", lambda: parent + 1)
    with pytest.raises(SessionClosedError, match=f"process {parent}"):
        session.submit(abs, 1)
    assert not future.cancel()
    session.close()
    assert engine.closed_with is None, "the workers are the parent's"


def test_a_block_closes_its_session() -> None:
    with pytest.raises(LookupError), Session("fake") as session:
        assert get_session() is session
        raise LookupError
    with pytest.raises(SessionClosedError):
        session.submit(abs, 1)


def test_the_innermost_block_counts() -> None:
    with Session("a") as outer:
        with Session("b") as inner:
            assert get_session() is inner
        assert get_session() is outer
    assert get_session().engine == "auto"


def test_a_closed_block_does_not_count() -> None:
    with Session("a") as outer, Session("b") as inner:
        inner.close()
        assert get_session() is outer


def test_a_block_that_is_left_out_of_order() -> None:
    outer, inner = Session("a"), Session("b")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert get_session() is inner
    inner.__exit__(None, None, None)
    assert get_session() not in (outer, inner)


def run_in_thread(work: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]


def test_a_thread_without_a_block_uses_the_one_that_was_entered_last() -> None:
    with Session("a"), Session("b") as inner:
        assert run_in_thread(get_session) is inner


def test_threads_have_blocks_of_their_own() -> None:
    inside, leave = threading.Event(), threading.Event()
    found: list[Session] = []

    def work() -> None:
        with Session("theirs") as theirs:
            found.append(theirs)
            inside.set()
            leave.wait(30)
            found.append(get_session())

    thread = threading.Thread(target=work)
    with Session("ours") as ours:
        thread.start()
        assert inside.wait(30)
        assert get_session() is ours
        leave.set()
        thread.join(30)
        assert found[1] is found[0]
        assert get_session() is ours


def test_asyncio_tasks_have_blocks_of_their_own() -> None:
    async def work(name: str) -> bool:
        with Session(name) as session:
            await asyncio.sleep(0)
            same = get_session() is session
            await asyncio.sleep(0)
            return same and get_session() is session

    async def main() -> list[bool]:
        return await asyncio.gather(*(work(name) for name in "abc"))

    assert asyncio.run(main()) == [True] * 3


def test_a_call_that_runs_here_uses_the_session_that_it_belongs_to() -> None:
    with Session("its own") as own, Session("of the block"):
        token = place.here.set(place.Place(own, 1))
        try:
            assert get_session() is own
            own.close()
            assert get_session() is not own
        finally:
            place.here.reset(token)


def test_a_context_that_outlives_its_block_does_not_count() -> None:
    with Session("a") as session:
        context = contextvars.copy_context()
    assert context.run(get_session) is not session


def test_the_default_session_is_opened_once_and_anew_after_its_end() -> None:
    first = get_session()
    assert get_session() is first
    first.close()
    second = get_session()
    assert second is not first
    session_module.shutdown()
    with pytest.raises(SessionClosedError):
        second.submit(abs, 1)
    session_module.shutdown()
    assert get_session() is not second


def test_at_exit_every_session_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_open_sessions", [])
    sessions = [Session("fake") for _ in range(5)]
    session_module._close_all()
    for opened in sessions:
        with pytest.raises(SessionClosedError):
            opened.submit(abs, 1)


def test_it_tells_what_it_is(session: Session, engine: FakeEngine) -> None:
    assert repr(session) == "<Session on fake, 2 workers, 0 calls outstanding>"
    session.submit(abs, 1)
    assert repr(session) == "<Session on fake, 2 workers, 1 calls outstanding>"
    assert session.capabilities is FakeEngine.capabilities


def test_others_who_wait_are_attended(session: Session, engine: FakeEngine) -> None:
    future = session.submit(abs, 1)
    future.add_done_callback(lambda done: None)
    assert engine.attended == 1
    session.close()
    session.attend()
    assert engine.attended == 1


# Reports and maps.


def test_a_report_tells_what_was_counted(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "monotonic", lambda: session._opened + 10.0)
    engine.measured.starting = 1.0
    engine.measured.computing = 5.0
    engine.measured.moving = 2.0
    engine.measured.deaths = 3
    session.submit(abs, 1)
    session.submit(fail, ValueError())
    engine.work_all()
    report = session.report()
    assert (report.engine, report.workers) == ("fake", 2)
    assert (report.calls, report.failed, report.deaths) == (2, 1, 3)
    assert report.wall_seconds == 10.0
    assert (report.starting_seconds, report.computing_seconds) == (1.0, 5.0)
    assert report.moving_seconds == 2.0
    assert report.waiting_seconds == 2 * (10.0 - 1.0) - 7.0


def test_maps(session: Session) -> None:
    assert session.map(abs, [-1, 2, -3]) == [1, 2, 3]
    assert session.map(pow, [2, 3], [3, 2, 9]) == [8, 9]
    assert session.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    assert list(session.imap(abs, iter([-1, -2]))) == [1, 2]
    assert sorted(session.imap_unordered(abs, [-1, -2])) == [1, 2]
    assert is_empty(session)


def test_a_report_counts_items_and_not_batches(session: Session) -> None:
    session.map(abs, range(100), batch=7)
    report = session.report()
    assert (report.calls, report.failed) == (100, 0)
    results = session.map(lambda x: 1 // x, [1, 0, 2, 0], batch=3, on_error="return")
    assert [type(value) for value in results] == [int, ZeroDivisionError, int, ZeroDivisionError]
    report = session.report()
    assert (report.calls, report.failed) == (104, 2)


def test_a_stream_that_is_left_withdraws_its_rest(session: Session, engine: FakeEngine) -> None:
    stream = session.imap(abs, iter(range(10**9)), batch=1)
    assert next(stream) == 0
    assert engine.calls
    stream.close()  # type: ignore[attr-defined]
    assert not engine.calls
    assert is_empty(session)


def test_a_map_with_retries_counts_them(session: Session) -> None:
    seen: list[int] = []

    def fail_once(x: int) -> int:
        seen.append(x)
        if x == 3 and seen.count(3) == 1:
            raise ValueError(x)
        return x

    options: Any = {"batch": 3, "retries": 1, "backoff": 0}
    assert session.map(fail_once, range(6), **options) == list(range(6))
    report = session.report()
    assert (report.calls, report.failed, report.retried) == (6, 0, 1)


def test_progress_is_shown(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    class FakeBar:
        def __init__(self, name: str, total: int | None) -> None:
            self.told = [name, total]
            bars.append(self)

        def advance(self, items: int, failed: int) -> None:
            self.told.append((items, failed))

        def close(self) -> None:
            self.told.append("closed")

    monkeypatch.setattr("manyhands.observe.progress.ProgressBar", FakeBar)
    session.map(pow, range(10), [1] * 4, batch=4, progress=True)
    session.map(abs, iter([1]), progress=True)
    assert bars[0].told == ["pow", 4, (4, 0), "closed"]
    assert bars[1].told == ["abs", None, (1, 0), "closed"]


# Stored values.


class FakeKeeper:
    def read(self, record: Record) -> Any:
        return record.content


def make_ref(value: Any) -> Ref[Any]:
    return Ref(Record(FakeKeeper(), 1, value, "thing", 0))  # type: ignore[arg-type]


def test_refs_are_found_among_arguments() -> None:
    one, two, three = make_ref(1), make_ref(2), make_ref(3)
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    args = (one, 1, "x", [two, (3, {"a": three})], future)
    assert find_handles(args, {}) == [one, two, three, future]
    assert find_handles((1, "x"), {"a": one, "b": [two], "c": 3}) == [one, two]


def test_refs_elsewhere_are_not() -> None:
    ref = make_ref(1)

    class Holder:
        held = ref

    values = ({ref}, frozenset({ref}), Holder(), lambda: ref, {ref: 1}, [Holder()], Ref)
    assert find_handles(values, {}) == []


def test_a_ref_among_arguments_stands_for_its_value(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarded: list[Any] = []

    def forward(value: Any) -> Any:
        forwarded.append(value)
        return value.content if isinstance(value, Record) else value

    monkeypatch.setattr(engine, "forward", forward)
    one, two = make_ref(1), make_ref(2)
    future = session.submit(lambda *args, **kwargs: (args, kwargs), one, [two, 5], b={"c": one})
    assert engine.submitted, "a ref is there, and nobody waits for it"
    assert future.result() == ((1, [2, 5]), {"b": {"c": 1}})
    assert forwarded == [one.record, two.record, one.record]
    assert is_empty(session)


def test_refs_and_futures_mix(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "forward", lambda v: v.content if isinstance(v, Record) else v)
    first = session.submit(lambda: 10)
    second = session.submit(lambda a, b: a + b, first, make_ref(5))
    assert len(engine.submitted) == 1
    assert second.result() == 15


def test_a_ref_that_cannot_be_handed_on_fails_its_call(
    session: Session, engine: FakeEngine
) -> None:
    engine.lost = InvalidArgumentError("of another session")
    future = session.submit(abs, make_ref(5))
    with pytest.raises(InvalidArgumentError, match="of another session"):
        future.result()
    assert is_empty(session)


def test_a_call_with_a_ref_can_be_tried_again(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "forward", lambda record: record.content)
    tries: list[int] = []

    def fail_once(value: int) -> int:
        tries.append(value)
        if len(tries) == 1:
            raise ValueError("once")
        return value

    future = session.start_call(fail_once, (make_ref(5),), {}, retry(2, ValueError))
    assert future.result() == 5
    assert tries == [5, 5]


@pytest.mark.parametrize("options", [{"store": "1GB"}, {"spill": 0}, {"spill_folder": "/tmp"}])
def test_an_engine_without_a_store_has_none_to_limit(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"'fake' has no store.*'local'"):
        Session("fake", **options)


@pytest.fixture
def storing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FakeEngine,
        "capabilities",
        Capabilities(isolates=True, parallel=True, pickles=True, stores=True),
    )


@pytest.mark.usefixtures("storing")
def test_limits_reach_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    with Session("fake", store="1.5 GB", spill=1000, spill_folder=tmp_path.name) as session:
        store = session._engine.config.store  # type: ignore[attr-defined]
        assert (store.memory, store.disk, store.folder) == (1_500_000_000, 1000, str(tmp_path))
    with Session("fake", spill=0, spill_folder=tmp_path) as session:
        store = session._engine.config.store  # type: ignore[attr-defined]
        assert (store.memory, store.disk, store.folder) == (None, 0, str(tmp_path))
    with Session("fake") as session:
        store = session._engine.config.store  # type: ignore[attr-defined]
        assert (store.memory, store.disk, store.folder) == (None, None, None)


@pytest.mark.usefixtures("storing")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"store": "much"}, "store='much'"),
        ({"store": -1}, "store=-1"),
        ({"spill": "8 apples"}, "spill='8 apples'"),
        ({"spill_folder": "/nowhere"}, "spill_folder='/nowhere': there is no such folder"),
        ({"spill_folder": "/etc/passwd"}, "no such folder"),
    ],
)
def test_limits_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    before = list(session_module._open_sessions)
    with pytest.raises(InvalidArgumentError, match=words):
        Session("fake", **options)
    assert session_module._open_sessions == before


def test_a_closed_session_stores_nothing(session: Session) -> None:
    session.close()
    with pytest.raises(SessionClosedError):
        session.put(1)
    with pytest.raises(SessionClosedError):
        session.allocate(100)


def test_engines_that_share_the_programs_memory_store_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "create_engine", lambda name: InlineEngine())
    with Session("inline") as session:
        value = [1]
        ref = session.put(value)
        assert session.submit(lambda x: x is value, ref).result()
        assert session.submit(lambda box: next(iter(box)) is ref, {ref}).result()
        assert session.submit(lambda: ref).result() is ref
        assert session.allocate(10) is None
        assert session.memory().values == ()
    assert "stores nothing" in str(session.memory())
    assert ref.get() is value


# Streams.


def start_stream(session: Session, window: int = 4) -> Stream[Any]:
    return session.start_stream(StreamCall(range, "numbers"), (3,), {}, CallOptions(window=window))


def test_a_stream_gets_what_its_call_yields_until_it_ends(
    session: Session, engine: FakeEngine
) -> None:
    stream = start_stream(session)
    (key,) = engine.calls
    session.take_item(key, "a")
    session.take_item(key, "b")
    assert (next(stream), next(stream)) == ("a", "b")
    assert engine.granted == [(key, 2)]
    session.take_results([(key, 2)])
    assert list(stream) == []
    session.take_item(key, "too late, and for nobody")
    assert is_empty(session)


def test_a_streams_failure_is_its_end(session: Session, engine: FakeEngine) -> None:
    stream = start_stream(session)
    (key,) = engine.calls
    session.take_item(key, "a")
    session.take_failure(key, ValueError("x"), engine.calls[key])
    assert next(stream) == "a"
    with pytest.raises(ValueError, match="x"):
        next(stream)
    assert list(stream) == []
    assert is_empty(session)


def test_a_stream_that_has_not_yielded_is_tried_again(session: Session, engine: FakeEngine) -> None:
    stream = start_stream(session)
    (key,) = engine.calls
    session.take_failure(key, WorkerDiedError("x"), engine.calls[key])
    assert engine.submitted == [key, key]
    session.take_item(key, "a")
    session.take_failure(key, WorkerDiedError("y"), engine.calls[key])
    assert engine.submitted == [key, key], "what was yielded cannot be taken back"
    assert next(stream) == "a"
    with pytest.raises(WorkerDiedError, match="y"):
        next(stream)


def test_a_stream_that_is_closed_ends_its_call(session: Session, engine: FakeEngine) -> None:
    stream = start_stream(session)
    (key,) = engine.calls
    engine.running.add(key)
    stream.close()
    assert engine.interrupted == {key}
    assert list(stream) == []
    assert is_empty(session)


def test_a_stream_that_nobody_holds_ends_its_call(
    session: Session, engine: FakeEngine, later: Later
) -> None:
    stream = start_stream(session)
    (key,) = engine.calls
    engine.running.add(key)
    del stream
    gc.collect()
    assert not engine.interrupted, "it may be dropped amid anything"
    later.pass_time()
    assert engine.interrupted == {key}
    assert is_empty(session)


# Actors.


class Greeter:
    pass


def start_actor(session: Session, *, name: str | None = None, restarts: int = 0) -> ActorLife:
    return session.start_actor(
        Greeter,
        (),
        {},
        ActorPlace(make_need(cpus=0)),
        methods={"greet": "plain"},
        restarts=restarts,
        every=0,
        name=name,
    )


def list_states(session: Session) -> list[str]:
    return [fact.state for fact in session.actors()]


def test_an_actor_is_started_and_told_of(session: Session, engine: FakeEngine) -> None:
    life = start_actor(session, name="hello")
    ((_, number, call, _),) = engine.actors
    assert number == life.number
    assert isinstance(call.fn, ActorMaker)
    assert list_states(session) == ["starting"]
    session.take_results([(call.key, None)])
    (fact,) = session.actors()
    assert (fact.class_name, fact.name, fact.state) == ("Greeter", "hello", "alive")
    assert session.find_actor("hello") == (number, "Greeter", "hello", {"greet": "plain"})


def test_a_name_is_that_of_one_actor(session: Session, engine: FakeEngine) -> None:
    life = start_actor(session, name="hello")
    with pytest.raises(InvalidArgumentError, match="there is an actor of that name"):
        start_actor(session, name="hello")
    with pytest.raises(InvalidArgumentError, match=r"'nobody'; there are 'hello'"):
        session.find_actor("nobody")
    session.stop_actor(life.number, kill=False)
    assert engine.actors[-1] == ("stop", life.number, False)
    with pytest.raises(InvalidArgumentError, match="'hello'"):
        session.find_actor("hello")
    start_actor(session, name="hello")
    assert list_states(session) == ["dead", "starting"]


def test_an_actor_that_cannot_be_sent_leaves_its_name_free(
    session: Session, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise UnpicklableError("argument 0")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "start_actor", refuse)
        with pytest.raises(UnpicklableError):
            start_actor(session, name="hello")
    with pytest.raises(InvalidArgumentError, match="'hello'"):
        session.find_actor("hello")
    start_actor(session, name="hello")


def test_an_actor_is_made_again_as_often_as_allowed(session: Session, engine: FakeEngine) -> None:
    life = start_actor(session, restarts=1)
    ((_, number, call, _),) = engine.actors
    session.take_results([(call.key, None)])
    session.take_actor_end(number, WorkerDiedError("first"))
    assert engine.actors[-1] == ("restart", number)
    assert list_states(session) == ["restarting"]
    session.take_results([(call.key, None)])
    assert list_states(session) == ["alive"]
    session.take_actor_end(number, WorkerDiedError("second"))
    kind, buried, error = engine.actors[-1]
    assert (kind, buried) == ("bury", number)
    assert isinstance(error, ActorDiedError) and "second" in str(error)
    assert life.error is error
    assert list_states(session) == ["dead"]
    session.take_actor_end(number, WorkerDiedError("third"))
    session.take_actor_end(number + 1, WorkerDiedError("of an actor that is not known"))
    assert [what for what, *_ in engine.actors].count("restart") == 1
    assert life.error is error


def test_an_actor_that_cannot_be_made_is_dead(session: Session, engine: FakeEngine) -> None:
    start_actor(session, restarts=3)
    ((_, number, call, _),) = engine.actors
    session.take_failure(call.key, ValueError("in __init__"), None)
    kind, buried, error = engine.actors[-1]
    assert (kind, buried) == ("bury", number)
    assert "in __init__" in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert list_states(session) == ["dead"]


def test_an_actor_that_is_stopped_and_cannot_be_made_answers_its_calls(
    session: Session, engine: FakeEngine
) -> None:
    start_actor(session, restarts=3)
    ((_, number, call, _),) = engine.actors
    session.stop_actor(number, kill=False)
    session.take_failure(call.key, ValueError("in __init__"), None)
    kind, buried, error = engine.actors[-1]
    assert (kind, buried) == ("bury", number)
    assert "in __init__" in str(error)


def test_an_actor_whose_worker_dies_while_it_is_made_is_made_again(
    session: Session, engine: FakeEngine
) -> None:
    start_actor(session, restarts=1)
    ((_, number, call, _),) = engine.actors
    session.take_failure(call.key, WorkerDiedError("x"), None)
    session.take_actor_end(number, WorkerDiedError("x"))
    assert engine.actors[1:] == [("restart", number)]


# What else the engine is asked for.


def test_workers_are_restarted(session: Session, engine: FakeEngine) -> None:
    session.restart_workers()
    session.answer("restart_workers")
    assert engine.restarts == 2
    session.close()
    with pytest.raises(SessionClosedError):
        session.restart_workers()


def test_who_asks_without_waiting_has_the_engine_look(session: Session, engine: FakeEngine) -> None:
    future = session.submit(abs, 1)
    before = engine.looked
    assert not future.done()
    assert engine.looked > before


def test_who_asks_again_and_again_for_the_first_leaves_nothing_behind(
    session: Session, engine: FakeEngine
) -> None:
    futures = [session.submit(abs, -n) for n in range(3)]
    for _ in range(5):
        assert wait(futures, timeout=0, return_when="FIRST_COMPLETED").done == set()
    assert [future._make_listeners().callbacks for future in futures] == [[], [], []]


def test_a_hint_is_given_once_and_hints_do_not_grow_without_end() -> None:
    with Session("inline") as session:
        for number in (1, 1, *range(50)):
            session.hint(f"hint {number}")
        hints = session.report().hints
    assert hints[:3] == ("hint 1", "hint 0", "hint 2")
    assert len(hints) == len(set(hints)) <= 20
