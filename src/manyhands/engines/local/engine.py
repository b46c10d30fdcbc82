"""The process engine: wires the pool's state, the processes and the driver together.

One call, from here on: `submit` pickles it and puts it in the queue; `dispatch` has the pool's state choose
calls for a worker and sends them in one message; the worker's answer wakes the driver, which hands it to
`Intake`; `deliver` passes the outcomes to the session.
"""

from __future__ import annotations

import os
import sys
import weakref
from _pickle import loads
from collections import deque
from functools import partial
from time import monotonic

from manyhands.core.afterlife import renew
from manyhands.core.coroutines import choose_runner
from manyhands.core.echo import list_log_levels, warn, write
from manyhands.core.functions import FunctionTable, name_callable
from manyhands.core.model import Capabilities, EngineStats
from manyhands.core.modules import ModuleSurvey
from manyhands.core.parcels import PlainInput
from manyhands.core.refs import Record
from manyhands.core.resources import Capacity
from manyhands.core.serialize import Serializer
from manyhands.engines.local import messages as m
from manyhands.engines.local.courier import Courier, LateStore
from manyhands.engines.local.cpus import count_cpus
from manyhands.engines.local.driver import Driver
from manyhands.engines.local.intake import Intake
from manyhands.engines.local.limits import Limits
from manyhands.engines.local.nesting import Nesting
from manyhands.engines.local.pool_parts import Entry
from manyhands.engines.local.pool_state import PoolState
from manyhands.engines.local.staff import Staff
from manyhands.engines.local.stages import LOOP_STAGE, Stages
from manyhands.errors import (
    UnloadableError,
    WorkerError,
    WorkerStartError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import ActorPlace, Call, EngineConfig, MemoryFacts
    from manyhands.core.refs import Ref
    from manyhands.core.resources import Need
    from manyhands.engines.local.pool_parts import WorkerState
    from manyhands.engines.local.process import WorkerProcess
    from manyhands.engines.local.store import Store

_NAP_SECONDS = 0.004
"""How long results may wait for the parent while every worker has enough to do: each time that the parent wakes
costs the worker on its core 0.1 ms."""

_STALL_SECONDS = 0.005
"""How long a worker may be at one of several calls that came in one message, before it is asked for the rest."""

_REST_SECONDS = 1.0
"""How long the session idles before memory that is only kept to be quick is given back."""


class LocalEngine:
    """Workers that are processes of this machine; see `manyhands.core.engine.Engine` for the members."""

    name = "local"
    capabilities = Capabilities(
        isolates=True, parallel=True, pickles=True, stores=True, interrupts=True
    )
    first_key = 1

    def start(self, config: EngineConfig, sink: Sink) -> None:
        self.config = config
        self.sink = sink
        self._cpus = count_cpus()
        self.began_at = monotonic()
        self._survey = ModuleSurvey()
        self.late_store = LateStore(self._make_store)
        self._idle_since: float | None = None
        self._seen_changes = 0  # of the store, at the last look
        self.serializer = Serializer(self._survey.travels_by_value, self.late_store.get)
        capacity = _find_capacity(config)  # before anything is started
        self.staff = Staff(self, self._describe_worker(config), self._cpus)
        self.functions = FunctionTable(self.serializer, self._survey.travels_by_value)
        self.pool = PoolState(capacity)
        self.processes: dict[int, WorkerProcess] = {}
        self.courier = Courier(self.pool, self.processes, self.functions, self.late_store)
        self.limits = Limits(self.pool, self.processes, self.courier)
        self.nesting = Nesting(
            self.pool, self.processes, self.functions, self.late_store, self.courier
        )
        self.intake = Intake(self)
        self.stages = Stages(self)
        self.pool.most_calls = self.staff.most_calls
        self.statistics = EngineStats()
        self.broken: BaseException | None = None
        self.results: list[tuple[int, Any]] = []
        self.errors: list[tuple[int, BaseException, Entry | None]] = []
        self.items: list[tuple[int, Any]] = []
        self.actor_ends: list[tuple[int, BaseException]] = []
        self.joins: dict[int, int] = {}  # calls whose results are those of others, by key
        self.questions: deque[tuple[WorkerProcess, int, str, bytes]] = deque()
        self.output: deque[tuple[Any, str]] = deque()
        self.is_closing = False
        self.driver = Driver(self)
        self.driver.watch(self.staff.template.channel.fileno(), self.staff.take_news)
        for _ in range(config.workers if config.min_workers is None else config.min_workers):
            self.staff.hire()
        _engines.add(self)

    # The Engine protocol.

    def submit(self, call: Call) -> None:
        if self.broken is not None:
            raise renew(self.broken)
        function = self.functions.register(choose_runner(call))
        payload = self.serializer.dump_arguments(call.args, call.kwargs)
        for content in (function.payload, payload):
            if type(content) is not bytes:
                self.late_store.get().check_own(content)
        self._enqueue(Entry(call.key, function, payload, call.options))

    def resubmit(self, key: int, attempt: Entry) -> None:  # noqa: ARG002 - the entry has it
        if self.broken is not None:
            raise renew(self.broken)
        self._enqueue(attempt)

    def _enqueue(self, entry: Entry) -> None:
        if entry.options.actor or entry.function.is_async:
            self.route(entry)
        self.pool.enqueue(entry)
        self.driver.nudge()
        if self.broken is not None:  # it broke meanwhile, and perhaps before it could see this call
            self.driver.run(partial(self.give_up, self.broken))

    def route(self, entry: Entry) -> None:
        """Give a call that does not run on the crew its stage."""
        if entry.options.actor:
            entry.stage = entry.options.actor
        elif entry.function.is_async:
            self.driver.run(self.stages.ensure_loop)
            entry.stage = LOOP_STAGE

    def explain_misfit(self, call: Call) -> str | None:
        reason = self.explain_need(call.options.need)
        return None if reason is None else f"call {call.key}, {name_callable(call.fn)}: {reason}"

    def explain_need(self, need: Need) -> str | None:
        """Why nothing that needs so much could ever run here; None where it could."""
        capacity = self.pool.capacity
        if need.memory and capacity.memory is None:  # most sessions never need to know
            from manyhands.core.machine import read_memory

            memory = read_memory()
            there = memory.group_limit or memory.machine or need.memory
            capacity.limit_memory(there - there % 2**20)
        return capacity.explain_misfit(need)

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        try:
            return (
                loads(value) if type(value) is bytes else self.late_store.get().load(value)
            ), None
        except (Exception, SystemExit) as cause:
            error = UnloadableError(
                f"a result arrived and could not be rebuilt here: {type(cause).__name__}: {cause}. Its class must be "
                f"importable in this process and survive pickling."
            )
            error.__cause__ = cause
            return None, error

    def forward(self, value: Any) -> Any:
        if isinstance(value, Record):
            if value.keeper is not self.late_store.current:  # of another session: as any value
                return value.keeper.read(value)
            value = value.content
        return PlainInput(value) if type(value) is bytes else self.late_store.get().forward(value)

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        return self.late_store.get().put(value, self.serializer, writable=writable, copy=copy)

    def allocate(self, size: int) -> Any:
        return self.late_store.get().allocate(size)

    def describe_memory(self) -> MemoryFacts:
        return self.late_store.get().describe_memory(
            [(entry.function.name, entry.payload) for entry in self.pool.list_queued()]
        )

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        withdrawn: set[int] = set()
        self.driver.run(lambda: self.withdraw(set(keys), withdrawn, running))
        return withdrawn

    def is_running(self, key: int) -> bool:
        return any(process.get_current() == key for process in list(self.processes.values()))

    def get_running(self) -> int:
        return 0

    def ask(self, question: str, *args: Any) -> Any:
        return self.sink.answer(question, *args)

    def look(self) -> None:
        """The background thread takes in what comes."""

    def grant(self, key: int, items: int) -> None:
        self.driver.run(lambda: self.grant_from(key, items))
        self.driver.nudge()

    def wait_until(
        self,
        is_done: Callable[[], bool],
        timeout: float | None,
        key: int = 0,  # noqa: ARG002 - whatever ends is taken in
    ) -> bool:
        return self.driver.wait_until(is_done, timeout)

    def rouse(self) -> None:
        self.driver.rouse()

    def attend(self) -> None:
        self.driver.attend()

    def stats(self) -> EngineStats:
        self.statistics.pids = [p.pid for p in list(self.processes.values()) if p.pid is not None]
        return self.statistics

    def close(self, grace: float) -> None:
        self.is_closing = True
        self.driver.run(self.staff.send_home)
        self.driver.wait_until(lambda: not self.staff.leaving, grace)
        self.driver.run(self.staff.end_all)
        self.driver.close()
        self.deliver()
        self.functions.clear()
        if self.late_store.current is not None:
            self.late_store.current.close()
        self.limits.close()
        _engines.discard(self)

    # What the driver drives.

    def dispatch(self) -> float | None:
        if self.is_closing:
            return None  # nothing is sent any more
        pool = self.pool
        self._idle_since = None
        again = None
        if self.nesting.is_used:
            again = self.nesting.deliver()
            self.staff.dismiss_closing()
        if pool.has_queued():
            if not pool.count_busy() and self.staff.template.channel.has_message():
                self.staff.take_news()  # what befell workers that idled, before they are sent anything
            if pool.has_urgent():
                self._take_back_ahead()
            if self.limits.endings:
                self.limits.drop_cancelled()  # also of those that have just come back
            self._send_all()
            while pool.wants_worker() and self.staff.hire_more():
                self._send_all()
            if pool.is_stuck():
                self._give_up_deep_calls()
            self.stages.fail_orphans()
        if pool.stages:
            self.stages.check_stopping()
            if any(stage.is_waiting for stage in pool.stages.values()):
                self.stages.give_places()  # calls that have ended may have made room
        if not pool.has_queued():
            self._even_out()
        if self.functions.departed:
            self.courier.forget_functions()
        store = self.late_store.current
        if store is not None and store.has_freed() and not pool.is_busy():
            self.courier.tell_freed()
        again = _choose_sooner(again, self._watch_stalls())
        return _choose_sooner(again, self.limits.check())

    def deliver(self) -> None:
        while self.output:
            stream, text = self.output.popleft()
            write(stream, text)
        if self.late_store.current is not None and self.late_store.current.room.notices:
            warn(self.late_store.current.room.notices)
        items, self.items = self.items, []
        results, self.results = self.results, []
        errors, self.errors = self.errors, []
        interrupt: BaseException | None = (
            None  # of a callback; what has come is passed on all the same
        )
        for key, item in items:
            self.sink.take_item(key, item)
        try:
            if results:
                self.sink.take_results(results)
        except BaseException as error:
            interrupt = error
        for key, failure, entry in errors:
            try:
                self.sink.take_failure(key, failure, entry)
            except BaseException as error:
                interrupt = interrupt or error
        actor_ends, self.actor_ends = self.actor_ends, []
        for actor, end in actor_ends:
            self.sink.take_actor_end(actor, end)
        while self.questions:
            self.intake.answer(*self.questions.popleft())
        if interrupt is not None:
            raise interrupt

    def is_busy(self) -> bool:
        return self.pool.is_busy()

    def rest(self) -> float | None:
        """The session idles; seconds after which to look again, or None."""
        store = self.late_store.current
        kept = self.staff.count_kept()
        if store is None and len(self.pool.crew) <= kept:
            return None
        now = monotonic()
        changes = store.changes if store is not None else 0
        if self._idle_since is None or changes != self._seen_changes:
            self._idle_since, self._seen_changes = now, changes
        elif now - self._idle_since >= _REST_SECONDS:
            if len(self.pool.crew) > kept:
                self.driver.run(self.staff.shrink)
            if store is not None and store.is_in_use():
                self.driver.run(self._rest)
        return _REST_SECONDS

    def _rest(self) -> None:
        """Have everybody let go of what is only kept to be quick, and hear what workers let go of."""
        store = self.late_store.get()
        if store.needs_rest():
            self.functions.rest()
            store.rest()
            for process in self.processes.values():
                self.courier.send(process, (m.REST,))
        for process in list(self.processes.values()):
            self.intake.take_messages(process)
        self.courier.tell_freed()

    def estimate_slack(self) -> float:
        return min(_NAP_SECONDS, self.pool.estimate_backlog() / 2)

    def has_free_core(self) -> bool:
        return 0 < self.pool.count_busy() < self._cpus

    def give_up(self, error: BaseException) -> None:
        """Nothing can run any more: every call ends with `error`."""
        if not isinstance(error, WorkerStartError):
            cause = error
            error = WorkerStartError(
                f"the local engine has failed: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
        self.broken = error
        for process in self.processes.values():
            process.kill()
        for entry in self.pool.drain():
            self.fail(entry, renew(error), can_repeat=False)
        self.sink.take_breakdown(error)

    # Sending.

    def _send_all(self) -> None:
        """Send queued calls to the workers that have room for more."""
        full: set[int] = set()
        for worker, entries in self.pool.plan():
            self.limits.note_sending(worker, entries)  # before a quick worker begins them
            if worker.number in full or not self.courier.send_calls(worker, entries):
                full.add(worker.number)
                self.pool.give_back(worker, [entry.key for entry in entries])

    def _give_up_deep_calls(self) -> None:
        """Every worker that there can be is at a call that waits for others: these fail."""
        count = len(self.pool.workers)
        error = WorkerError(
            f"{count} calls wait for calls that they have made, each holds a worker, and there can be no more. Have "
            f"calls return futures instead of waiting for them, or recurse less deeply"
        )
        for entry in self.pool.list_queued():
            if self.pool.withdraw(entry.key):
                self.fail(entry, error, can_repeat=False)

    def _take_back_ahead(self) -> None:
        """Take calls back that workers have not read: others are more urgent."""
        for worker in self.pool.list_ahead():
            self.courier.take_back(self.processes[worker.number], worker)

    def _even_out(self) -> None:
        """Take calls back that the busiest worker has not read, where others idle."""
        worker = self.pool.find_hoarder()
        if worker is not None and self.courier.take_back(self.processes[worker.number], worker):
            self._send_all()

    def _watch_stalls(self) -> float | None:
        """Ask workers that are stuck in a call of a message for the rest of it; when to look again.

        The calls of such a message were expected to be quick: those that have ended wait to be sent with the
        others, and those that have not begun wait for what is not quick at all.
        """
        again = None
        now = monotonic()
        for worker in self.pool.workers.values():
            if not worker.is_grouped or len(worker.inflight) < 2:
                continue
            process = self.processes[worker.number]
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

    def grant_from(self, key: int, items: int) -> None:
        """So many items more of a stream may come from the worker that runs it."""
        worker = self.pool.find(key)
        if worker is not None:
            self.nesting.grant(self.processes[worker.number], key, items)

    def fail(self, entry: Entry, error: BaseException, *, can_repeat: bool = True) -> None:
        """An attempt at a call has failed."""
        if m.get_origin(entry.key):
            self.nesting.end_with(entry.key, error)
        else:
            self.errors.append((entry.key, error, entry if can_repeat else None))

    # Workers' lives.

    def restart_workers(self) -> None:
        self.driver.run(self.staff.renew)

    # What actors need: see `stages`.

    @property
    def workers(self) -> int:
        """Of the crew."""
        return self.config.workers

    @property
    def store(self) -> Store:
        """From now on there."""
        return self.late_store.get()

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:
        if self.broken is not None:
            raise renew(self.broken)
        prepared = self.stages.prepare(actor, call)
        self.driver.run(lambda: self.stages.start(actor, prepared, where))
        self.driver.nudge()

    def restart_actor(self, actor: int) -> None:
        self.driver.run(lambda: self.stages.restart(actor))
        self.driver.nudge()

    def bury_actor(self, actor: int, error: BaseException) -> None:
        self.driver.run(lambda: self.stages.bury(actor, error))
        self.driver.rouse()

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        self.driver.run(lambda: self.stages.stop(actor, kill=kill))
        self.driver.nudge()

    def note_actor_end(self, actor: int, error: BaseException) -> None:
        """The worker of an actor has ended; its session says what becomes of it."""
        self.actor_ends.append((actor, error))

    # The end.

    def withdraw(self, keys: set[int], withdrawn: set[int], running: bool) -> None:
        """Drop calls that have not begun, with `running` also those that have; `withdrawn` gets their keys."""
        pool = self.pool
        for number in list(pool.workers):
            worker = pool.workers.get(number)
            if worker is None or keys.isdisjoint(worker.inflight):
                continue
            self.intake.take_messages(self.processes[number])
            if number in self.processes:  # else it had nothing more to do, and is gone
                self.courier.take_back(self.processes[number], worker, keys)
        for key in keys:
            holder = pool.find(key)
            if holder is None:
                if pool.withdraw(key):
                    withdrawn.add(key)
            elif running:
                withdrawn.add(key)
                self._stop(key, holder)

    def _stop(self, key: int, holder: WorkerState) -> None:
        """End a call that a worker may be at, or hold unread."""
        process = self.processes[holder.number]
        if key in holder.joined:  # it waits for another, which is stopped with it
            inner = self.joins.pop(key, 0)
            del holder.joined[key]
            if inner:  # its worker may be busy with the very one
                self.withdraw({inner}, set(), running=True)
            self.nesting.post(process, (m.STOP, key))
            return
        self.limits.cancel(key, holder.number)
        if not holder.is_host:
            process.ask_back()

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent, without a word to anybody."""
        self.driver.abandon()
        if self.late_store.current is not None:
            self.late_store.current.abandon()
        self.staff.template.channel.close()
        for process in [*self.processes.values(), *self.staff.leaving.values()]:
            process.close()

    def share_with_child(self) -> None:
        """The program has forked."""
        if self.late_store.current is not None:
            self.late_store.current.share_with_child()

    def _make_store(self) -> Store:
        from manyhands.engines.local.store import Store

        self.driver.attend()  # from now on there is something to do when the session idles
        return Store(self.config.store, self.config.workers)

    def _describe_worker(self, config: EngineConfig) -> dict[str, Any]:
        """What each worker is told at its birth."""
        initializer = None
        if config.initializer is not None:
            initializer = self.serializer.dump_alone(
                (config.initializer, tuple(config.initargs)), "the initializer"
            )
        return {
            "start_method": config.start_method or "fork",
            "initializer": initializer,
            "log_levels": list_log_levels(),
            "authkey": _find_authkey(),
            "workers": config.workers,
            "files": {} if config.luggage is None else config.luggage.files,
        }


def _find_authkey() -> bytes | None:
    """What opens the managers of `multiprocessing` in this program, for proxies of their objects among arguments."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else bytes(process.current_process().authkey)


def _choose_sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two pauses, None for no end."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _find_capacity(config: EngineConfig) -> Capacity:
    """What the session has for calls to hold."""
    gpus = config.gpus
    if gpus is None:
        from manyhands.core.devices import find_gpus

        gpus = find_gpus(os.environ)
    return Capacity(config.workers, gpus, config.memory, config.resources)


_engines: weakref.WeakSet[LocalEngine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_engines):
        engine.abandon()
    _engines.clear()


def _share_all() -> None:
    for engine in list(_engines):
        engine.share_with_child()


os.register_at_fork(after_in_child=_abandon_all, after_in_parent=_share_all)
