"""The process engine: wires the pool's state, the processes and the driver together.

One call, from here on: `submit` pickles it and puts it in the queue; `dispatch` has the pool's state choose
calls for a worker and sends them in one message; the worker's answer wakes the driver, which hands it to
`_take_results`; `deliver` passes the outcomes to the session.
"""

from __future__ import annotations

import os
import signal
import sys
import weakref
from _pickle import loads
from collections import deque
from functools import partial
from struct import calcsize, unpack_from
from time import monotonic

from manyhands.core.exceptions import unpack_exception
from manyhands.core.functions import FunctionTable
from manyhands.core.model import Capabilities, EngineStats
from manyhands.core.modules import ModuleSurvey
from manyhands.core.parcels import PlainInput
from manyhands.core.refs import Record
from manyhands.core.serialize import Serializer
from manyhands.engines.local import messages as m
from manyhands.engines.local.courier import Courier, LateStore
from manyhands.engines.local.cpus import count_cpus
from manyhands.engines.local.driver import Driver
from manyhands.engines.local.pool_state import Entry, PoolState
from manyhands.engines.local.process import TemplateProcess, WorkerProcess
from manyhands.errors import StoreFullError, UnloadableError, WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import Call, EngineConfig, MemoryFacts
    from manyhands.core.parcels import Payload
    from manyhands.core.refs import Ref
    from manyhands.engines.local.pool_state import WorkerState
    from manyhands.engines.local.store import Store

_STILLBIRTHS = 3
"""Workers in a row that end before they are ready, after which no more are started."""

_NAP_SECONDS = 0.004
"""How long results may wait for the parent while every worker has enough to do: each time that the parent wakes
costs the worker on its core 0.1 ms."""

_STALL_SECONDS = 0.005
"""How long a worker may be at one of several calls that came in one message, before it is asked for the rest."""

_REST_SECONDS = 1.0
"""How long the session idles before memory that is only kept to be quick is given back."""

_ORPHANED = "The template process had ended before; how this worker ended is not known."

_ENTRY_SIZE = calcsize(m.JOURNAL_ENTRY)


class LocalEngine:
    """Workers that are processes of this machine; see `manyhands.core.engine.Engine` for the members."""

    name = "local"
    capabilities = Capabilities(isolates=True, parallel=True, pickles=True, stores=True)

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self._config = config
        self._sink = sink
        self._cpus = count_cpus()
        self._begin = monotonic()
        self._survey = ModuleSurvey()
        self._store = LateStore(self._make_store)
        self._idle_since: float | None = None
        self._serializer = Serializer(self._survey.travels_by_value, self._store.get)
        self._settings = self._describe_worker(config)
        self._template = TemplateProcess(config.workers, self._cpus)
        self._functions = FunctionTable(self._serializer, self._survey.travels_by_value)
        self._pool = PoolState()
        self._processes: dict[int, WorkerProcess] = {}
        self._courier = Courier(self._pool, self._processes, self._functions, self._store)
        self._leaving: dict[int, WorkerProcess] = {}
        self._numbers = 0
        self._stillbirths = 0
        self._stats = EngineStats()
        self._broken: BaseException | None = None
        self._results: list[tuple[int, Any]] = []
        self._errors: list[tuple[int, BaseException]] = []
        self._output: deque[tuple[Any, str]] = deque()
        self._is_closing = False
        self._oom_kills = _count_oom_kills()
        self._driver = Driver(self)
        self._driver.watch(self._template.channel.fileno(), self._take_news)
        for _ in range(config.workers):
            self._add_worker()
        _engines.add(self)

    # The Engine protocol.

    def submit(self, call: Call) -> None:
        if self._broken is not None:
            raise self._broken
        function = self._functions.register(call.fn)
        payload = self._serializer.dump_arguments(call.args, call.kwargs)
        for content in (function.payload, payload):
            if type(content) is not bytes:
                self._store.get().check_own(content)
        self._pool.enqueue(Entry(call.key, function, payload))
        self._driver.nudge()
        if (
            self._broken is not None
        ):  # it broke meanwhile, and perhaps before it could see this call
            self._driver.run(partial(self.give_up, self._broken))

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        try:
            return (loads(value) if type(value) is bytes else self._store.get().load(value)), None
        except Exception as cause:
            error = UnloadableError(
                f"a result arrived and could not be rebuilt here: {type(cause).__name__}: {cause}. Its class must be "
                f"importable in this process and survive pickling."
            )
            error.__cause__ = cause
            return None, error

    def forward(self, value: Any) -> Any:
        if type(value) is Record:
            if value.keeper is not self._store.current:  # of another session: as any value
                return value.keeper.read(value)
            value = value.content
        return PlainInput(value) if type(value) is bytes else self._store.get().forward(value)

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        return self._store.get().put(value, self._serializer, writable=writable, copy=copy)

    def allocate(self, size: int) -> Any:
        return self._store.get().allocate(size)

    def describe_memory(self) -> MemoryFacts:
        return self._store.get().describe_memory(
            [(entry.function.name, entry.payload) for entry in list(self._pool.queue)]
        )

    def cancel(self, keys: Iterable[int], *, kill: bool = False) -> set[int]:
        withdrawn: set[int] = set()
        self._driver.run(lambda: self._withdraw(set(keys), withdrawn, kill))
        return withdrawn

    def is_running(self, key: int) -> bool:
        return any(process.get_current() == key for process in list(self._processes.values()))

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        return self._driver.wait_until(is_done, timeout)

    def rouse(self) -> None:
        self._driver.rouse()

    def attend(self) -> None:
        self._driver.attend()

    def stats(self) -> EngineStats:
        self._stats.pids = [p.pid for p in list(self._processes.values()) if p.pid is not None]
        return self._stats

    def close(self, grace: float) -> None:
        self._is_closing = True
        self._driver.run(self._send_home)
        self._driver.wait_until(lambda: not self._leaving, grace)
        self._driver.run(self._end_processes)
        self._driver.close()
        self.deliver()
        self._functions.clear()
        if self._store.current is not None:
            self._store.current.close()
        _engines.discard(self)

    # What the driver drives.

    def dispatch(self) -> float | None:
        pool = self._pool
        self._idle_since = None
        if pool.queue:
            if not pool.count_busy() and self._template.channel.has_message():
                self._take_news()  # what befell workers that idled, before they are sent anything
            self._send_all()
        if not pool.queue:
            self._even_out()
        if self._functions.departed:
            self._courier.forget_functions()
        store = self._store.current
        if store is not None and store.has_freed() and not pool.is_busy():
            self._courier.tell_freed()
        return self._watch_stalls()

    def deliver(self) -> None:
        while self._output:
            stream, text = self._output.popleft()
            _write(stream, text)
        if self._store.current is not None and self._store.current.room.notices:
            _warn(self._store.current.room.notices)
        results, self._results = self._results, []
        errors, self._errors = self._errors, []
        if results:
            self._sink.take_results(results)
        for key, error in errors:
            self._sink.take_error(key, error)

    def is_busy(self) -> bool:
        return self._pool.is_busy()

    def rest(self) -> float | None:
        """The session idles; seconds after which to look again, or None."""
        store = self._store.current
        if store is None:
            return None
        now = monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= _REST_SECONDS and store.is_in_use():
            self._driver.run(self._rest)
        return _REST_SECONDS

    def _rest(self) -> None:
        """Have everybody let go of what is only kept to be quick, and hear what workers let go of."""
        store = self._store.get()
        if store.needs_rest():
            self._functions.rest()
            store.rest()
            for process in self._processes.values():
                self._courier.send(process, (m.REST,))
        for process in list(self._processes.values()):
            self._take_messages(process)
        self._courier.tell_freed()

    def estimate_slack(self) -> float:
        return min(_NAP_SECONDS, self._pool.estimate_backlog() / 2)

    def has_free_core(self) -> bool:
        return 0 < self._pool.count_busy() < self._cpus

    def give_up(self, error: BaseException) -> None:
        """Nothing can run any more: every call ends with `error`."""
        if not isinstance(error, WorkerStartError):
            cause = error
            error = WorkerStartError(
                f"the local engine has failed: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
        self._broken = error
        for process in self._processes.values():
            process.kill()
        self._errors += [(entry.key, error) for entry in self._pool.drain()]
        self._sink.take_breakdown(error)

    # Sending.

    def _send_all(self) -> None:
        """Send queued calls to the workers that have room for more."""
        full: set[int] = set()
        for worker, entries in self._pool.plan():
            if worker.number in full or not self._courier.send_calls(worker, entries):
                full.add(worker.number)
                self._pool.give_back(worker, [entry.key for entry in entries])

    def _even_out(self) -> None:
        """Take calls back that the busiest worker has not read, where others idle."""
        worker = self._pool.find_hoarder()
        if worker is not None and self._courier.take_back(self._processes[worker.number], worker):
            self._send_all()

    def _watch_stalls(self) -> float | None:
        """Ask workers that are stuck in a call of a message for the rest of it; when to look again.

        The calls of such a message were expected to be quick: those that have ended wait to be sent with the
        others, and those that have not begun wait for what is not quick at all.
        """
        again = None
        now = monotonic()
        for worker in self._pool.workers.values():
            if not worker.is_grouped or len(worker.inflight) < 2:
                continue
            process = self._processes[worker.number]
            current = process.get_current()
            if current != worker.current:
                worker.current, worker.since = current, now
            elif current and worker.since is not None and now - worker.since >= _STALL_SECONDS:
                worker.since = None  # once for each call
                process.ask_back()
            if worker.since is not None:
                again = _STALL_SECONDS
        return again

    # Taking in.

    def _take_messages(self, process: WorkerProcess) -> None:
        """All that a worker has sent."""
        while True:
            try:
                received = process.channel.receive(wait=False)
            except (EOFError, OSError):
                return
            if received is None:
                return
            message, fds = received
            kind = message[0]
            if kind == m.RESULTS:
                self._take_results(process, message)
            elif kind == m.READY:
                self._take_ready(process, message[1])
            elif kind == m.GIVE_BACK:
                worker = self._pool.workers.get(process.number)
                if worker is not None:
                    worker.known.difference_update(message[2])
                    if message[3]:
                        self._store.get().take_back(process.number, message[3])
                    self._pool.give_back(worker, message[1])
            elif kind == m.RECORD:
                self._output.append(("logging", message[1]))
            elif kind == m.HEAP:
                self._store.get().add_heap(message[1], fds[0], message[2])
            elif kind == m.DROPPED:
                self._store.get().drop(process.number, message[1])
            elif kind == m.NEED_ROOM:
                is_there = self._store.get().make_room(message[1])
                if not is_there:
                    process.refusal = self._store.get().explain_fullness(message[1])
                self._courier.tell_room(process)
                process.answer_room(is_there=is_there)

    def _take_results(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        _, keys, payloads, seconds, failed, busy, wrote, born, dropped = message
        if wrote:
            self._take_output(process)
        store = self._store.current
        if not all(type(one) is bytes for one in payloads):
            payloads = self._store.get().unpack(payloads, process.number, born)
        worker = self._pool.workers.get(process.number)
        if worker is None:
            return
        total = sum(seconds)
        self._stats.computing += total
        self._stats.moving += busy - total
        entries = self._pool.finish(worker, keys, seconds)
        if store is not None and (born or dropped):
            store.drop(process.number, dropped)
            store.settle()
            self._courier.tell_room(process)
        if process.is_orphan:
            self._retire(process)
        if not failed and None not in entries:
            self._results += zip(keys, payloads, strict=True)
            return
        for index, entry in enumerate(entries):
            if entry is not None:
                self._settle(process, entry.key, payloads[index], failed=index in failed)

    def _settle(self, process: WorkerProcess, key: int, payload: Payload, *, failed: bool) -> None:
        """A call has ended."""
        if not failed:
            self._results.append((key, payload))
            return
        packed = payload if isinstance(payload, bytes) else self._store.get().read_stream(payload)
        error = unpack_exception(packed)
        if isinstance(error, StoreFullError) and process.refusal:
            error.args = (f"a result was too large: {process.refusal}",)
        self._errors.append((key, error))

    def _take_ready(self, process: WorkerProcess, failure: bytes | None) -> None:
        if failure is not None:
            cause = unpack_exception(failure)
            error = WorkerStartError(
                f"the initializer failed in a worker: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            self.give_up(error)
            return
        process.is_ready = True
        self._stillbirths = 0
        if not self._stats.starting:
            self._stats.starting = monotonic() - self._begin

    def _take_output(self, process: WorkerProcess, *, last: bool = False) -> None:
        for name, reader in (("stdout", process.stdout), ("stderr", process.stderr)):
            lines: list[str] = []
            if not reader.read(lines.append, last=last):
                self._driver.unwatch(reader.fd)
            self._output += [(name, text) for text in lines]

    # Workers' lives.

    def _add_worker(self) -> None:
        self._numbers += 1
        number = self._numbers
        process = self._template.start_worker(number, self._settings)
        self._processes[number] = process
        self._pool.add_worker(number)
        self._driver.watch(process.channel.fileno(), partial(self._take_messages, process))
        self._driver.watch(process.stdout.fd, partial(self._take_output, process))
        self._driver.watch(process.stderr.fd, partial(self._take_output, process))

    def _take_news(self) -> None:
        """All that the template has sent."""
        channel = self._template.channel
        while True:
            try:
                received = channel.receive(wait=False)
            except (EOFError, OSError):
                self._lose_template()
                return
            if received is None:
                return
            (kind, number, pid, *status), _ = received
            if kind == m.STARTED and number in self._processes:
                self._processes[number].pid = pid
            elif kind == m.EXITED:
                self._lose(number, status[0])

    def _lose(self, number: int, status: int, note: str | None = None) -> None:
        """A worker has ended: its own call fails, what it had not begun runs elsewhere, another takes its place."""
        leaving = self._leaving.pop(number, None)
        if leaving is not None:
            self._take_output(leaving, last=True)
            self._remove(leaving)
            return
        process = self._processes.pop(number)
        worker = self._pool.workers[number]
        self._take_messages(process)
        self._take_journal(process, worker)
        self._courier.take_back(process, worker)
        self._take_output(process, last=True)
        blamed = self._pool.lose(worker, process.get_current())
        if self._store.current is not None:
            self._store.current.lose(number)
        self._stats.deaths += 1
        if blamed is not None:
            error = self._describe_death(blamed, process, status)
            if note is not None:
                error.add_note(note)
            self._errors.append((blamed.key, error))
        elif not process.is_ready:
            self._stillbirths += 1
        stderr = "\n".join(process.stderr.tail)
        self._remove(process)
        if self._broken is not None or self._is_closing:
            return
        if self._stillbirths >= _STILLBIRTHS:
            self.give_up(
                WorkerStartError(f"workers end before they are ready (status {status}). {stderr}")
            )
            return
        if not process.is_orphan:  # another has its place already
            self._add_worker()

    def _take_journal(self, process: WorkerProcess, worker: WorkerState) -> None:
        """Results that the dead worker had computed and not sent."""
        journal = bytes(process.get_journal())
        place = 0
        while place + _ENTRY_SIZE <= len(journal):
            key, _, kind, size = unpack_from(m.JOURNAL_ENTRY, journal, place)
            place += _ENTRY_SIZE + size
            entry = worker.inflight.pop(key, None)
            if entry is None or place > len(journal):
                continue
            content = journal[place - size : place]
            payload: Payload = content
            failed = kind == m.FAILED
            if kind == m.SHARED:
                packed, born, failed = loads(content)
                payload = self._store.get().unpack([packed], process.number, born)[0]
            self._settle(process, key, payload, failed=failed)

    def _describe_death(self, entry: Entry, process: WorkerProcess, status: int) -> BaseException:
        from manyhands.engines.local.deaths import describe_death

        return describe_death(
            entry.function.name,
            entry.key,
            process.pid,
            status,
            list(process.stderr.tail),
            out_of_memory=_count_oom_kills() > self._oom_kills,
        )

    def _remove(self, process: WorkerProcess) -> None:
        for fd in (process.channel.fileno(), process.stdout.fd, process.stderr.fd, process.end_fd):
            self._driver.unwatch(fd)
        process.close()

    def _lose_template(self) -> None:
        """The template has ended, and nobody reports on its workers: another begins, with workers of its own."""
        self._driver.unwatch(self._template.channel.fileno())
        status = self._template.close()
        if self._is_closing or self._broken is not None:
            for process in [*self._processes.values(), *self._leaving.values()]:
                process.kill()
            for number in list(self._leaving):
                self._lose(number, status)
            return
        if not self._stats.starting:
            self.give_up(
                WorkerStartError(
                    f"the template process ended at its start (status {status}); what it wrote stands above. Try "
                    f"`{sys.executable} -S -c pass`, or the engine 'threads'."
                )
            )
            return
        self._template = TemplateProcess(self._config.workers, self._cpus)
        self._driver.watch(self._template.channel.fileno(), self._take_news)
        for process in list(self._processes.values()):
            self._orphan(process)

    def _orphan(self, process: WorkerProcess) -> None:
        """Let a worker without a template end what it is at, and have another in its place at once."""
        worker = self._pool.workers[process.number]
        worker.is_closing = process.is_orphan = True
        self._add_worker()
        self._courier.take_back(process, worker)
        try:
            fd = os.pidfd_open(process.pid or 0)
        except OSError:  # it is dead, or never lived
            self._lose(process.number, signal.SIGKILL, _ORPHANED)
            return
        process.end_fd = fd
        self._driver.watch(fd, partial(self._lose, process.number, signal.SIGKILL, _ORPHANED))
        self._retire(process)

    def _retire(self, process: WorkerProcess) -> None:
        """End an orphan once it has nothing to do."""
        worker = self._pool.workers.get(process.number)
        if worker is not None and not worker.inflight and process.number in self._processes:
            process.kill()
            self._lose(process.number, signal.SIGKILL)

    # The end.

    def _withdraw(self, keys: set[int], withdrawn: set[int], kill: bool) -> None:
        pool = self._pool
        for number in list(pool.workers):
            worker = pool.workers[number]
            if not keys.isdisjoint(worker.inflight):
                self._take_messages(self._processes[number])
                self._courier.take_back(self._processes[number], worker)
        for key in keys:
            worker_state = pool.find(key)
            if worker_state is None:
                if pool.withdraw(key):
                    withdrawn.add(key)
            elif kill and key in worker_state.inflight:
                del worker_state.inflight[key]
                withdrawn.add(key)
                self._processes[worker_state.number].kill()

    def _send_home(self) -> None:
        """Let every worker end: one that idles does so at once."""
        self._leaving.update(self._processes)
        for number, process in self._processes.items():
            self._courier.take_back(process, self._pool.workers[number])
            self._driver.unwatch(process.channel.fileno())
            process.channel.close()
        self._pool.drain()
        self._processes.clear()
        self._pool.workers.clear()

    def _end_processes(self) -> None:
        for process in self._leaving.values():
            self._take_output(process, last=True)
            self._remove(process)
        self._leaving.clear()
        self._driver.unwatch(self._template.channel.fileno())
        self._template.close()

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent, without a word to anybody."""
        self._driver.abandon()
        if self._store.current is not None:
            self._store.current.abandon()
        self._template.channel.close()
        for process in [*self._processes.values(), *self._leaving.values()]:
            process.close()

    def share_with_child(self) -> None:
        """The program has forked."""
        if self._store.current is not None:
            self._store.current.share_with_child()

    def _make_store(self) -> Store:
        from manyhands.engines.local.store import Store

        self._driver.attend()  # from now on there is something to do when the session idles
        return Store(self._config.store, self._config.workers)

    def _describe_worker(self, config: EngineConfig) -> dict[str, Any]:
        """What each worker is told at its birth."""
        initializer = None
        if config.initializer is not None:
            initializer = self._serializer.dump_alone(
                (config.initializer, tuple(config.initargs)), "the initializer"
            )
        return {
            "start_method": config.start_method or "fork",
            "initializer": initializer,
            "log_levels": _list_log_levels(),
        }


def _list_log_levels() -> dict[str, int] | None:
    """Levels of this process's loggers; None where logging was not set up, and goes to standard error."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    named = logging.getLogger().manager.loggerDict.items()
    loggers = {"": logging.getLogger()} | {
        name: logger
        for name, logger in list(named)
        if isinstance(logger, logging.Logger) and not name.startswith("concurrent.")
    }
    is_set_up = any(
        logger.level != (logging.NOTSET if name else logging.WARNING)
        or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)
        for name, logger in loggers.items()
    )
    return (
        {name: g.level for name, g in loggers.items() if g.level or not name} if is_set_up else None
    )


def _write(stream: str, text: Any) -> None:
    """Print what a worker printed; what the program's own streams make of it is its affair."""
    try:
        if stream == "logging":
            _log(text)
        else:
            target = sys.stdout if stream == "stdout" else sys.stderr
            target.write(text)
            target.flush()
    except Exception:
        return


def _warn(notices: list[str]) -> None:
    """Tell the user what the store has to say; where warnings are errors, the work goes on all the same."""
    import warnings

    while notices:
        try:
            warnings.warn(notices.pop(0), RuntimeWarning, stacklevel=2)
        except Exception:
            continue


def _log(payload: bytes) -> None:
    import logging

    record = logging.makeLogRecord(loads(payload))
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _count_oom_kills() -> int:
    from manyhands.engines.local.deaths import count_oom_kills

    return count_oom_kills()


_engines: weakref.WeakSet[LocalEngine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_engines):
        engine.abandon()
    _engines.clear()


def _share_all() -> None:
    for engine in list(_engines):
        engine.share_with_child()


os.register_at_fork(after_in_child=_abandon_all, after_in_parent=_share_all)
