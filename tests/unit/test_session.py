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
from manyhands.core import place
from manyhands.core.future import Future
from manyhands.core.handles import find_handles
from manyhands.core.model import NO_RETRIES, Call, Capabilities, EngineConfig, EngineStats
from manyhands.core.refs import Record, Ref
from manyhands.engines.inline import InlineEngine
from manyhands.engines.threads import ThreadsEngine
from manyhands.errors import (
    DependencyError,
    InvalidArgumentError,
    NotCallableError,
    SessionClosedError,
    UnknownEngineError,
    UnpicklableError,
    UnsupportedError,
    WorkerStartError,
)
from manyhands.session import Session, check_on_error, get_session, make_policy


class FakeEngine:
    """Keeps calls until the test lets them end."""

    capabilities = Capabilities(isolates=False, parallel=False, pickles=False)

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: dict[int, Call] = {}
        self.running: set[int] = set()
        self.submitted: list[int] = []
        self.refusal: Exception | None = None
        self.lost: Exception | None = None
        self.killed: set[int] = set()
        self.closed_with: float | None = None
        self.attended = 0
        self.measured = EngineStats()

    def start(self, config: EngineConfig, sink: Session) -> None:
        self.config = config
        self.sink = sink

    def submit(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls[call.key] = call
        self.submitted.append(call.key)

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        return value, None

    def forward(self, value: Any) -> Any:
        if self.lost is not None:
            raise self.lost
        return value

    def cancel(self, keys: Iterable[int], *, kill: bool = False) -> set[int]:
        taken = {key for key in keys if key in self.calls and (kill or key not in self.running)}
        self.killed |= taken if kill else set()
        for key in taken:
            del self.calls[key]
        return taken

    def is_running(self, key: int) -> bool:
        return key in self.running

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
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
            self.sink.take_error(key, error)
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


def is_empty(session: Session) -> bool:
    """Whether the session remembers nothing of any call."""
    return not (session._futures or session._kept or session._inputs or session._lifecycle)


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


def test_left_out_the_engine_is_local_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Session().engine == "local"
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "elsewhere")
    assert Session().engine == "elsewhere"
    assert Session("fake").engine == "fake"
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "")
    assert Session().engine == "local"


def test_inside_of_a_worker_calls_run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "in_worker", True)
    monkeypatch.setenv(session_module.ENGINE_VARIABLE, "local")
    assert Session().engine == "inline"


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
    ("retries", "retry_on"),
    [
        (-1, Exception),
        (1.5, Exception),
        (True, Exception),
        ("1", Exception),
        (1, "ValueError"),
        (1, [ValueError]),
        (1, (ValueError, int)),
        (1, ValueError()),
        (0, 3),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(retries: Any, retry_on: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="retr"):
        make_policy(retries, retry_on)


def test_policies() -> None:
    assert make_policy(0, (OSError,)) is NO_RETRIES
    policy = make_policy(2, KeyboardInterrupt)
    assert (policy.retries, policy.retry_on) == (2, (KeyboardInterrupt,))
    assert make_policy(1, ()).retry_on == ()


def test_what_becomes_of_errors_is_one_of_two() -> None:
    assert check_on_error("return") is True
    assert check_on_error("raise") is False
    with pytest.raises(InvalidArgumentError, match="on_error='ignore'"):
        check_on_error("ignore")


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
    future = session.start_call(abs, (1,), {}, make_policy(5, Exception))
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

    future = session.start_call(run, (), {}, make_policy(2, ValueError))
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
    future = session.start_call(lambda: fail(next(outcomes)), (), {}, make_policy(1, ValueError))
    engine.work_all()
    assert future.exception() is errors[1]
    report = session.report()
    assert (report.calls, report.failed, report.retried) == (1, 1, 1)
    assert is_empty(session)


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


def test_killing_also_ends_what_runs(session: Session, engine: FakeEngine) -> None:
    future = session.submit(abs, 1)
    engine.running.add(future.key)
    session.cancel_calls([future], kill=True)
    assert engine.killed == {future.key}
    assert future.cancelled()


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
@pytest.mark.parametrize("how", ["error", "cancel"])
def test_an_input_of_others_that_comes_to_nothing(
    session: Session, engine: FakeEngine, how: str, ended: bool
) -> None:
    standard: concurrent.futures.Future[int] = concurrent.futures.Future()
    end = standard.cancel if how == "cancel" else lambda: standard.set_exception(ValueError("x"))
    if ended:
        end()
    future = session.submit(abs, standard)
    if not ended:
        end()
    error = future.exception()
    assert isinstance(error, DependencyError)
    expected = concurrent.futures.CancelledError if how == "cancel" else ValueError
    assert isinstance(error.__cause__, expected)
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


def test_an_input_that_is_cancelled_fails_the_call(session: Session, engine: FakeEngine) -> None:
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    assert first.cancel()
    error = second.exception()
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, concurrent.futures.CancelledError)
    assert is_empty(session)


def test_a_waiting_call_is_cancelled_and_never_sent(session: Session, engine: FakeEngine) -> None:
    first = session.submit(abs, -1)
    second = session.submit(abs, first)
    third = session.submit(abs, second)
    assert second.cancel()
    engine.work_all()
    assert (first.result(), second.cancelled()) == (1, True)
    assert isinstance(third.exception(), DependencyError)
    assert engine.submitted == [1]


def test_an_input_is_waited_for_through_its_retries(session: Session, engine: FakeEngine) -> None:
    outcomes = iter([ValueError("1"), None])

    def run() -> int:
        error = next(outcomes)
        if error is not None:
            raise error
        return -7

    first = session.start_call(run, (), {}, make_policy(1, ValueError))
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
    assert get_session().engine == "local"


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

    assert session.map(fail_once, range(6), batch=3, retries=1) == list(range(6))
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

    future = session.start_call(fail_once, (make_ref(5),), {}, make_policy(2, ValueError))
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
