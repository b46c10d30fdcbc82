"""A session's side in a process of a cluster: it runs the calls that come there."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextvars import copy_context
from functools import partial
from time import monotonic

from manyhands.core import place
from manyhands.core.attempt import attempt_rest, describe_exit, has_exited, is_awaitable
from manyhands.core.exceptions import pack_exception
from manyhands.core.future import Future
from manyhands.core.model import Call, CallOptions
from manyhands.core.run import Run, get_own_run
from manyhands.core.stacks import see_stack
from manyhands.core.watchdog import Watchdog
from manyhands.engines.cluster.keeper import ClusterKeeper
from manyhands.engines.cluster.marks import Marks, read_marks
from manyhands.engines.cluster.packed import Packed, pack_result
from manyhands.engines.cluster.unpack import discard, reset_variables, set_variables, unpack
from manyhands.errors import CallInterrupted, UnloadableError, WorkerDiedError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from asyncio import Task as Task_
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn, TypeVar

    from manyhands.core.attempt import Outcome
    from manyhands.engines.cluster.cluster import Link
    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.cluster.unpack import Unpacked

    T = TypeVar("T")


GRACE_SECONDS = 1.0
"""How long a call has to yield after it was interrupted."""

_SETTLING_SECONDS = 0.002
"""How soon after a question has come it is taken in."""

_MESSAGE_BYTES = 1024
"""Up to which size a result goes to the session at once, which then need not ask for it."""

_REMEMBERED = 100_000
"""Calls that have ended, or are not to begin, and are still known as such."""

_FUNCTIONS = 1_000
"""Functions that a process keeps unpickled."""


class StationRun(Run):
    """A call under way in a process of a cluster; to the call it is the way to its session."""

    is_alone = False

    __slots__ = ("_has_left", "credit", "is_ended", "station", "task", "texts")

    def __init__(self, call: Call, task: Task, station: Station) -> None:
        super().__init__(call)
        self.task = task
        self.station = station
        self.credit = task.window
        self.is_ended = False
        self.texts: dict[str, str] = {}
        self._has_left = False

    # Its place among the calls of the process.

    def wait(self, wait: Callable[[], T]) -> T:
        """Call `wait`, and let another call run meanwhile.

        One that is to end, or that has waited for nothing, goes on without a place: others may be long.
        """
        if self._has_left:
            return wait()
        self.station.link.leave()
        self._has_left = True
        found = wait()
        if found and not self.is_due:
            self.station.link.enter()
            self._has_left = False
        return found

    def vacate(self) -> None:
        """Let another call run in its place from now on: it waits, and nobody knows when."""
        if not self._has_left:
            self._has_left = True
            self.station.link.leave()

    @property
    def files(self) -> dict[str, str]:
        """Where its session's files are, by their names."""
        return self.station.files

    # What it sends.

    def send(self, *message: Any) -> None:
        """Send a message about this call to the session that made it."""
        self.station.link.send(self.task.topic, message)

    def write(self, stream: str, text: str) -> None:
        """Send what the call has printed, line by line."""
        text = self.texts.get(stream, "") + text
        whole, newline, rest = text.rpartition("\n")
        self.texts[stream] = rest
        if newline:
            self.station.tell("print", stream, whole + newline)

    def flush(self) -> None:
        """Send what it has printed since its last line ended."""
        for stream, text in self.texts.items():
            if text:
                self.station.tell("print", stream, text)
        self.texts.clear()

    def emit(self, item: Any) -> None:
        """Send one item of a stream, and wait until another one is wanted."""
        packed = pack_result(item)
        if not self.thread:
            self._send_item(packed)
            self.station.wait_until(lambda: self.credit > 0 or self.is_ended or self.is_interrupted)
            self._check_wanted()
            return
        with self:
            self._send_item(packed)
            if self.credit <= 0:
                self.station.wait_in(self, lambda: self.credit > 0)

    def _send_item(self, packed: Packed) -> None:
        self._check_wanted()
        self.credit -= 1
        self.send("item", self.task.id, packed)

    def _check_wanted(self) -> None:
        if self.is_ended or self.is_interrupted:
            raise CallInterrupted("the stream was closed")

    def keep(self, actor: int, state: Any) -> None:
        """Actors do not live here yet."""


class CallFailedError(Exception):
    """What a call's failure is to the cluster: it carries the packed error, and the id of the call that failed."""

    def __init__(self, packed: bytes, origin: str) -> None:
        super().__init__(packed, origin)
        self.packed = packed
        self.origin = origin

    def __str__(self) -> str:
        return "a call of manyhands has failed; its session has the error"


class CallJoinedError(Exception):
    """What it is to the cluster that a call gave a future: it carries the handle of what that will give.

    An error, so that those who follow the call hear of it, and need not read a result to see that it is none.
    """

    def __init__(self, native: Any, origin: str) -> None:
        super().__init__(native, origin)
        self.native = native
        self.origin = origin

    def __str__(self) -> str:
        return "a call of manyhands goes on as another; its session follows that"


def get_origin(error: BaseException) -> str | None:
    """The id of the call that failed, where an error of the cluster tells: its own, or that of one of its inputs."""
    return getattr(error, "origin", None)


class Joined:
    """What a call gave that goes on as another one, until its session has taken that over.

    Attributes
    ----------
    future
    native
        The cluster's handle of it, which keeps it there.
    owed
        Ids of calls that are to be let go of with it.
    """

    def __init__(self, future: Future[Any], native: Any) -> None:
        self.future = future
        self.native = native
        self.owed: list[str] = []


class Station:
    """Runs the calls of one session in one process.

    Parameters
    ----------
    settings
    link
        To the cluster.
    worker
        What the cluster calls the process.
    """

    def __init__(self, settings: Settings, link: Link, worker: str) -> None:
        self.settings = settings
        self.link = link
        self._marks = Marks(settings.session, worker)
        self.keeper = ClusterKeeper(self._fetch, self._hold)
        self._change = threading.Condition()
        self._begun: dict[str, None] = {}
        self._runs: dict[str, StationRun] = {}
        self._joined: dict[str, Joined] = {}
        self._withdrawn: dict[str, None] = {}
        self._unwanted: set[str] = set()  # calls that have begun, and were interrupted
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self._functions: dict[tuple[str, int], Callable[..., Any]] = {}
        self._watchdog = Watchdog(self._take_due)
        self._loop: AbstractEventLoop | None = None
        self._engine: Any = None  # of the session of calls that calls make here
        self._late = place.Late(self._make_engine)
        self._preparation: WorkerStartError | None = None
        self._variables: dict[str, str | None] = {}  # of the environment, as they were before
        self._unpacked: Unpacked | None = None
        self._is_prepared = False
        self._preparing = threading.Lock()
        self._opening = threading.Lock()

    def _fetch(self, native: Any) -> Packed:
        if isinstance(native, Packed):
            return native
        run = get_own_run()
        if not isinstance(run, StationRun):
            return self.link.fetch(native)
        return run.wait(lambda: self.link.fetch(native))

    def _hold(self, native: Any) -> Any:
        return native if isinstance(native, Packed) else self.link.hold(native)

    # A call.

    def perform(self, task: Task, inputs: Sequence[Packed]) -> Packed:
        """Run a call; its result.

        Raises
        ------
        CallFailedError, CallJoinedError
        """
        self._enter(task.id)
        try:
            return self._perform(task, inputs)
        finally:
            self._leave(task.id)

    def _perform(self, task: Task, inputs: Sequence[Packed]) -> Packed:
        try:
            self._prepare()
            run = self._begin(task, inputs)
        except BaseException as error:
            raise CallFailedError(pack_exception(_see_exit(error, task)), task.id) from None
        begin = monotonic()
        try:
            value, failure = self._execute(run)
        finally:
            self._end(run)
        seconds = monotonic() - begin
        if run.is_over_time():  # whatever it gave
            failure = run.make_timeout_error(failure)
        if failure is not None:
            self._fail(run, failure)
        if isinstance(value, Future):
            return self._join(run, value)
        try:
            packed = pack_result(value)
        except BaseException as trouble:
            self._fail(run, _see_exit(trouble, task))
        small = packed if packed.nbytes <= _MESSAGE_BYTES else None
        run.send("end", task.id, seconds, small)
        return packed

    def _fail(self, run: StationRun, failure: BaseException) -> NoReturn:
        if self._late.session is not None:
            self._late.session.cancel_children(run.task.key)
        raise CallFailedError(pack_exception(failure, skip=2), run.task.id) from None

    def _enter(self, name: str) -> None:
        """A call has begun: what it is made of may end the process already."""
        with self._change:
            if name in self._withdrawn:
                del self._withdrawn[name]
                withdrawn = CallInterrupted("the call was cancelled before it had begun")
                raise CallFailedError(pack_exception(withdrawn), name)
            self._begun[name] = None
            self._marks.write(self._begun)

    def _leave(self, name: str) -> None:
        with self._change:
            self._begun.pop(name, None)
            self._unwanted.discard(name)
            self._marks.write(self._begun)
            self._ended.append(name)
            self._change.notify_all()

    def _end(self, run: StationRun) -> None:
        with self._change:
            self._runs.pop(run.task.id, None)
            run.is_ended = True
            self._change.notify_all()
        self._watchdog.unwatch(run)
        run.flush()
        run.let_go()

    def _begin(self, task: Task, inputs: Sequence[Packed]) -> StationRun:
        fn = self._load_function(task)
        try:
            args, kwargs = task.arguments.load(self.keeper.adopt, inputs)
        except Exception as error:
            raise UnloadableError(
                f"the arguments of a call could not be rebuilt in a worker: {type(error).__name__}: {error}"
            ) from error
        options = CallOptions(timeout=task.timeout, window=task.window, name=task.name)
        run = StationRun(Call(task.key, fn, args, kwargs or {}, options), task, self)
        self._runs[task.id] = run
        return run

    def _execute(self, run: StationRun) -> Outcome:
        run.began = monotonic()
        if run.task.timeout is not None:
            self._watchdog.watch(run, run.task.timeout)
        run.context = copy_context()
        value, error = run.perform(self._late, run)  # type: ignore[arg-type]
        if isinstance(error, WorkerDiedError) and has_exited(error):
            error.pid = os.getpid()
        if error is None and is_awaitable(value):
            return self._attend(run, value)
        return value, error

    def _attend(self, run: StationRun, awaitable: Any) -> Outcome:
        """Go on with a coroutine on this process's event loop, and leave the place to other calls."""
        loop = self._get_loop()
        ended = threading.Event()
        outcome: list[Outcome] = []

        def begin() -> None:
            task = loop.create_task(attempt_rest(run.call, awaitable), context=run.context)
            task.add_done_callback(end)
            if not run.set_stop(lambda: loop.call_soon_threadsafe(task.cancel)):
                loop.call_soon(task.cancel)

        def end(task: Task_[Outcome]) -> None:
            outcome.append((None, CallInterrupted()) if task.cancelled() else task.result())
            ended.set()

        loop.call_soon_threadsafe(begin)
        run.vacate()
        ended.wait()
        return outcome[0]

    def _join(self, run: StationRun, future: Future[Any]) -> Packed:
        """A call gave a future: its result is the call's."""
        native = self._engine.get_native(future) if self._engine is not None else None
        if native is None:  # of another session, or with a life of its own: it is waited for here
            run.vacate()
            try:
                return pack_result(future.result())
            except BaseException as error:
                raise CallFailedError(pack_exception(error), run.task.id) from None
        with self._change:
            self._joined[run.task.id] = Joined(future, native)
            is_unwanted = run.task.id in self._unwanted
        if is_unwanted:
            self.let_go([run.task.id], cancel=True)
        self.link.publish(native)
        raise CallJoinedError(native, run.task.id)

    def _load_function(self, task: Task) -> Callable[..., Any]:
        table, number, packed = task.function
        fn = self._functions.get((table, number))
        if fn is None:
            try:
                fn = packed.load(self.keeper.adopt)
            except Exception as error:
                raise UnloadableError(
                    f"the function {task.name} could not be loaded in a worker: {type(error).__name__}: {error}. The "
                    f"modules that it comes from have to be there"
                ) from error
            while len(self._functions) >= _FUNCTIONS:
                self._functions.pop(next(iter(self._functions)), None)
            self._functions[table, number] = fn
        return fn

    def _prepare(self) -> None:
        with self._preparing:
            if not self._is_prepared:
                self._is_prepared = True
                self._preparation = self._initialize()
            if self._preparation is not None:
                raise self._preparation

    def _initialize(self) -> WorkerStartError | None:
        self._variables = set_variables(self.settings.env)
        if self.settings.bundle is not None:
            try:
                self._unpacked = unpack(self.settings.bundle)
            except WorkerStartError as clash:
                return clash
            except OSError as cause:
                error = WorkerStartError(f"what the session ships could not be unpacked: {cause}")
                error.__cause__ = cause
                return error
        if self.settings.initializer is None:
            return None
        try:
            initializer, initargs = self.settings.initializer.load(self.keeper.adopt)
            initializer(*initargs)
        except BaseException as cause:
            error = WorkerStartError(
                f"the initializer failed in a worker: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            return error
        return None

    @property
    def files(self) -> dict[str, str]:
        """Where the session's files are, by their names."""
        return {} if self._unpacked is None else self._unpacked.list_files()

    # What the session asks for.

    def withdraw(self, ids: Iterable[str]) -> set[str]:
        """Do not begin these calls any more; those of them that have begun."""
        with self._change:
            begun = {name for name in ids if name in self._begun or name in self._ended}
            self._withdrawn.update((name, None) for name in ids if name not in begun)
            while len(self._withdrawn) > _REMEMBERED:  # most of them never come here
                del self._withdrawn[next(iter(self._withdrawn))]
            return begun

    def interrupt(self, ids: Iterable[str]) -> None:
        """End calls that run, with the process if need be; and what they go on as."""
        for name in ids:
            with self._change:
                run = self._runs.get(name)
                is_joined = name in self._joined
                if name in self._begun:
                    self._unwanted.add(name)
            if run is not None:
                self._interrupt(run)
            elif is_joined:
                self.let_go([name], cancel=True)

    def _interrupt(self, run: StationRun) -> None:
        run.interrupt()
        with self._change:
            if not run.is_ended:  # else nobody would call the watchdog off
                self._watchdog.watch(run, GRACE_SECONDS)
            self._change.notify_all()

    def list_running(self) -> list[str]:
        """The calls that run here."""
        return list(self._runs)

    def grant(self, name: str, items: int) -> None:
        """The consumer of a stream has taken so many items."""
        with self._change:
            run = self._runs.get(name)
            if run is not None:
                run.credit += items
                self._change.notify_all()

    def let_go(self, ids: Iterable[str], *, cancel: bool) -> None:
        """The futures that calls gave are not needed here any more; with `cancel`, nowhere."""
        with self._change:
            popped = [self._joined.pop(name, None) for name in ids]
        joined = [entry for entry in popped if entry is not None]
        owed = [name for entry in joined for name in entry.owed]
        if owed or (
            cancel and joined
        ):  # not in this thread, which may be that of the cluster's library
            end = partial(self._end_joined, joined, owed, cancel=cancel)
            threading.Thread(target=end, name="manyhands-cancel", daemon=True).start()

    def _end_joined(self, joined: list[Joined], owed: list[str], *, cancel: bool) -> None:
        if cancel:
            for entry in joined:
                entry.future.cancel(running=True)
        if owed:
            self._engine.let_go(owed)

    def owe(self, key: int, name: str) -> bool:
        """A call that a call here has made went on as another one and has ended; whether somebody else follows it yet.

        Then what it went on as is let go of together with what the call here gave.
        """
        with self._change:
            for entry in self._joined.values():
                if entry.future.key == key:
                    entry.owed.append(name)
                    return True
        return False

    def read_marks(self, worker: str) -> tuple[int, list[str]] | None:
        """Of a process of this host that has ended, its id and what it was at; None where nobody here knows."""
        return read_marks(self.settings.session, worker)

    # Waiting.

    def wait_in(self, run: StationRun, is_done: Callable[[], bool]) -> None:
        """Wait in a call, under its guard, until `is_done` or until it is interrupted; others run meanwhile."""
        run.set_wake(self._ring)
        try:
            wait = self._wait_there if self.link.waits else self.wait_until
            run.wait(lambda: wait(lambda: run.is_due or is_done()))
        finally:
            run.set_wake(None)

    def wait_until(self, is_done: Callable[[], bool]) -> bool:
        """Wait for a message of the session, or the end of a call; true."""
        with self._change:
            return self._change.wait_for(is_done)

    def _wait_there(self, is_done: Callable[[], bool]) -> bool:
        while True:
            with self._change:
                if self._change.wait_for(is_done, _SETTLING_SECONDS):
                    return True
            self.link.doze()

    def lend(self, sleep: Callable[[float], Any]) -> Any:
        """Let another call run while an event loop of a call waits; see `manyhands.core.loops.lend_idle_time`."""
        while (events := sleep(_SETTLING_SECONDS)) is None:
            self.link.doze()
        return events

    def _ring(self) -> None:
        with self._change:
            self._change.notify_all()

    def _make_engine(self) -> Any:
        self._engine = self.link.make_engine(self.settings)
        self._engine.owe = self.owe
        return self._engine

    def tell(self, *message: Any) -> None:
        """Send a message to the program's own session."""
        self.link.send(self.settings.session, message)

    def close(self) -> None:
        """The session has ended."""
        self._watchdog.close()
        for run in list(self._runs.values()):
            run.interrupt()
        self._ring()
        self._marks.close()
        with self._preparing:
            if self._unpacked is not None:
                discard(self._unpacked)
                self._unpacked = None
            reset_variables(self.settings.env, self._variables)
        if self._late.session is not None:
            self._late.session.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _take_due(self, run: StationRun) -> None:
        if run.is_ended:  # just now
            return
        if not run.is_interrupted:
            run.is_late = True
            self._interrupt(run)
            return
        stack = see_stack(run.thread) if run.thread else ""
        if run.is_late:
            run.send("late", run.task.id, pack_exception(run.make_timeout_error(stack=stack)))
        self.link.die()

    def _get_loop(self) -> AbstractEventLoop:
        with self._opening:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve_loop, args=(self._loop,), daemon=True).start()
            return self._loop

    def _serve_loop(self, loop: AbstractEventLoop) -> None:
        import asyncio

        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            if tasks:  # they clean up: whoever stops the loop has interrupted them
                loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE_SECONDS))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def _see_exit(error: BaseException, task: Task) -> BaseException:
    """An error that came while values were pickled or rebuilt: they may end the process too."""
    if not isinstance(error, SystemExit):
        return error
    return describe_exit(Call(task.key, None, (), {}, CallOptions(name=task.name)), error)  # type: ignore[arg-type]
