"""What is the same for the engines whose workers are another library's: calls under way, messages, values."""

from __future__ import annotations

import os
import threading
from itertools import count
from math import inf
from time import monotonic

from manyhands.core import place
from manyhands.core.echo import list_log_levels, write
from manyhands.core.exceptions import unpack_exception
from manyhands.core.functions import FunctionTable
from manyhands.core.lifecycle import is_own_death
from manyhands.core.loops import get_running_loop, lend_idle_time
from manyhands.core.luggage import Luggage
from manyhands.core.model import EngineStats, MemoryFacts
from manyhands.core.parcels import Input
from manyhands.core.refs import Record, Ref, name_type
from manyhands.core.resources import ONE_CPU
from manyhands.core.run import get_own_run, guard
from manyhands.core.serialize import INLINE_BYTES, Serializer
from manyhands.engines.cluster.bundle import pack
from manyhands.engines.cluster.flights import Attempt, Flight, LostWorkerError, Result
from manyhands.engines.cluster.gate import Gate
from manyhands.engines.cluster.keeper import ClusterKeeper
from manyhands.engines.cluster.marks import read_marks
from manyhands.engines.cluster.packed import LOOSE, Packed, Slot
from manyhands.engines.cluster.station import (
    CallFailedError,
    CallJoinedError,
    StationRun,
    get_origin,
)
from manyhands.engines.cluster.task import Settings, Task
from manyhands.engines.cluster.travel import TravelSurvey
from manyhands.engines.cluster.unpack import list_roots
from manyhands.errors import (
    CallInterrupted,
    InvalidArgumentError,
    UnloadableError,
    UnsupportedError,
    WorkerDiedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.model import ActorPlace, Call, Capabilities, EngineConfig
    from manyhands.engines.cluster.cluster import Cluster

_CLOSED_SECONDS = 0.02
_LONGEST_SECONDS = 3600.0
"""Between two looks of who waits: of a session that has ended, and else."""

_MOST_LOSSES = 20
"""Workers that a call may lose before it has begun on them, as far as these tell; then it is taken for the cause."""

_TURN_SECONDS = 0.05
"""The same of who waits by the cluster's own means."""

_SETTLING_SECONDS = 0.001
"""How soon after the end of a call its session knows of it."""


class ClusterEngine:
    """Runs calls on the workers of a cluster; see `manyhands.core.engine.Engine` for the members.

    Parameters
    ----------
    cluster
    station
        In a worker, that of the session that the calls belong to in the end.
    """

    def __init__(self, cluster: Cluster, settings: Settings | None = None) -> None:
        self._cluster = cluster
        self._settings = settings
        self._is_nested = settings is not None
        self.owe: Callable[[int, str], bool] = lambda key, name: False  # noqa: ARG005 - see `Station.owe`
        # Calls that calls make have numbers of their own, whoever makes them.
        self.first_key = (int.from_bytes(os.urandom(4), "big") << 32) + 1 if settings else 1

    @property
    def name(self) -> str:
        """Of the cluster's library."""
        return self._cluster.name

    @property
    def capabilities(self) -> Capabilities:
        """What is possible there."""
        return self._cluster.capabilities

    def start(self, config: EngineConfig, sink: Sink) -> None:
        _refuse_settings(config, self.name)
        self._sink = sink
        self._topic = f"manyhands-{os.urandom(6).hex()}"
        self._numbers = count(1)
        self._values = count(int.from_bytes(os.urandom(6), "big") << 16)
        self._flights: dict[int, Flight] = {}
        self._ahead: dict[
            int, Flight
        ] = {}  # those whose inputs have not ended, or not as far as we know
        self._keys: dict[str, int] = {}
        self._marks: dict[
            str, tuple[int, list[str]] | None
        ] = {}  # what workers were at that are gone
        self._reading = threading.Lock()
        self._change = threading.Condition(threading.RLock())
        self._stats = EngineStats()
        self._is_closed = False
        luggage = config.luggage or Luggage()
        shipped = luggage.ship if self._settings is None else list_roots(self._settings.bundle)
        survey = TravelSurvey(is_near=self._cluster.is_near, shipped=shipped)
        self._serializer = Serializer(survey.travels_by_value, lambda: LOOSE, self._topic)
        self._functions = FunctionTable(self._serializer, survey.travels_by_value)
        self._keeper = ClusterKeeper(self._fetch, self._hold)
        begin = monotonic()
        if self._settings is None:
            self._settings = Settings(
                self._topic,
                config.workers,
                self._pack_initializer(config),
                list_log_levels(),
                pack(luggage),
                luggage.env,
            )
        there = self._cluster.connect(config.workers, self._settings, self._topic, self._take)
        is_limited = 0 < config.workers < there and not self._is_nested
        self._gate = Gate(config.workers if is_limited else None)
        config.workers = config.workers if is_limited else there
        self._stats.starting = monotonic() - begin

    def _pack_initializer(self, config: EngineConfig) -> Packed | None:
        if config.initializer is None:
            return None
        beginning = config.initializer, config.initargs
        return Packed.of(self._serializer.dump(beginning, "the initializer"))

    # Calls.

    def submit(self, call: Call) -> None:
        with guard():
            flight = self._ahead.get(call.key)
            if flight is not None:
                self._catch_up(flight, call)
            else:
                self._enter(self._prepare(call))

    def _prepare(self, call: Call) -> Attempt:
        self._refuse(call)
        function = self._functions.register(call.fn)
        payload = self._serializer.dump_arguments(call.args, call.kwargs)
        name = call.options.name or function.name
        return Attempt(call, function, self._topic, payload, name=name)

    # Calls that the cluster gets before their inputs have ended.

    def foresee(self, key: int) -> Any:
        """What stands in another call for the result of a call under way; None where nothing can.

        Where it comes to nothing, the other call is sent again once its inputs have ended.
        """
        flight = self._flights.get(key) or self._ahead.get(key)
        native = flight.native if flight is not None else None
        return None if native is None else Input(Slot(native))  # type: ignore[arg-type]

    def anticipate(self, call: Call) -> None:
        """Give the cluster a call whose inputs have not all ended; `submit` or `forsake` follows.

        Nobody hears of its end before. Calls that cannot be sent ahead are left to `submit`.
        """
        if self._gate.is_limited or call.options.timeout is not None or call.options.window:
            return
        with guard():
            flight = Flight(self._make_id(), self._prepare(call))
            with self._change:
                self._ahead[call.key] = flight
                self._keys[flight.id] = call.key
            try:
                self._launch(flight)
            except BaseException:
                self._forget_ahead(call.key)
                raise

    def forsake(self, key: int) -> None:
        """A call that was sent ahead is not wanted any more."""
        native = self._forget_ahead(key)
        if native is not None:
            with guard():
                self._cluster.release(native)

    def _forget_ahead(self, key: int) -> Any:
        """Its handle, if it has got that far."""
        with self._change:
            flight = self._ahead.pop(key, None)
            if flight is None:
                return None
            self._keys.pop(flight.id, None)
            return flight.native

    def _catch_up(self, flight: Flight, call: Call) -> None:
        """The inputs of a call that was sent ahead have ended."""
        with self._change:
            flight.call = call
            self._flights[flight.attempt.key] = flight
            del self._ahead[flight.attempt.key]
            ended = flight.ended
        if ended is not None:
            self._take_end(flight, ended)

    def _send_anew(self, flight: Flight, call: Call) -> None:
        """What failed was an attempt at an input of a call that was sent ahead; another one went well."""
        if not self._land(call.key, flight):
            return
        try:
            self._enter(self._prepare(call))
        except Exception as error:
            self._sink.take_failure(call.key, error, None)
            self.rouse()

    def _make_id(self) -> str:
        return f"{self._topic}-{next(self._numbers)}"

    def resubmit(self, key: int, attempt: Attempt) -> None:
        with guard():
            try:
                self._enter(attempt)
            except Exception as error:
                self._sink.take_failure(key, error, None)

    def _enter(self, attempt: Attempt) -> None:
        flight = Flight(self._make_id(), attempt)
        with self._change:
            self._flights[attempt.key] = flight
            self._keys[flight.id] = attempt.key
        # Coroutines share a worker, many at a time.
        with self._change:
            goes = attempt.is_async or self._gate.admit(attempt.key, attempt.options.priority)
        if goes:
            self._launch(flight)

    def _launch(self, flight: Flight) -> None:
        assert self._settings is not None
        attempt, options = flight.attempt, flight.attempt.options
        task = Task(
            self._settings.session,
            flight.id,
            self._topic,
            attempt.key,
            attempt.name,
            attempt.function,
            attempt.arguments,
            options.timeout,
            options.window,
            attempt.is_async,
        )
        try:
            flight.native = self._cluster.launch(
                task, attempt.inputs, options, lambda ended: self._take_end(flight, ended)
            )
        except BaseException:
            self._land(attempt.key, flight)
            raise

    def _launch_later(self, flight: Flight) -> None:
        """The same where nobody is there who could be told that it failed, but the session."""
        try:
            self._launch(flight)
        except Exception as error:
            self._sink.take_failure(flight.attempt.key, error, None)
            self.rouse()

    def _launch_anew(self, flight: Flight) -> None:
        flight.losses += 1
        if (
            flight.call is not None
        ):  # what it was sent with may be an attempt at an input that failed
            self._send_anew(flight, flight.call)
            return
        with self._change:
            if self._flights.get(flight.attempt.key) is not flight:
                return
            self._keys.pop(flight.id, None)
            flight.id = self._make_id()
            self._keys[flight.id] = flight.attempt.key
        self._launch_later(flight)

    def _land(self, key: int, flight: Flight) -> bool:
        """The cluster has a call no more; False where that was known."""
        with self._change:
            if self._flights.get(key) is not flight:
                return False
            del self._flights[key]
            self._keys.pop(flight.id, None)
        self._leave_gate(key)
        return True

    def _leave_gate(self, key: int) -> None:
        """A call needs its place no more: another one goes."""
        with self._change:
            others = self._gate.leave(key)
        for other in others:
            flight = self._flights.get(other)
            if flight is not None:
                self._launch_later(flight)

    def explain_misfit(self, call: Call) -> str | None:  # noqa: ARG002 - `submit` says what cannot be
        return None

    def _refuse(self, call: Call) -> None:
        options = call.options
        if options.need is not ONE_CPU:
            raise UnsupportedError(
                f"{call.options.name or self._functions.register(call.fn).name}: the engine {self.name!r} has no "
                f"resources for calls yet (cpus, gpus, memory, resources); the engines 'local' and 'threads' have"
            )

    def _take_end(self, flight: Flight, native: Any) -> None:
        key = flight.attempt.key
        with self._change:
            if self._ahead.get(key) is flight:
                flight.ended = native
                return
        if self._flights.get(key) is not flight:  # nobody waits for it any more
            return
        error = self._cluster.explain_end(native)
        if self._is_withdrawn(flight, error, native):
            return
        is_inputs = error is not None and not flight.is_through and get_origin(error) != flight.id
        if flight.call is not None and is_inputs:
            self._send_anew(flight, flight.call)
            return
        if isinstance(error, CallJoinedError):
            try:
                self._follow(flight, error.native)
                return
            except Exception as trouble:
                error = trouble
        elif isinstance(error, LostWorkerError) and not (
            flight.is_through
            or flight.losses >= _MOST_LOSSES
            or self._was_at(error.worker, flight.id)
        ):
            self._launch_anew(flight)  # it had not begun, and its worker's end is none of its own
            return
        if not self._land(key, flight):
            return
        if flight.is_through and not self.owe(key, flight.id):
            self.let_go([flight.id])
        if error is None:
            self._sink.take_results([(key, Result(native, flight.packed, flight.attempt.kept))])
        else:
            attempt = flight.attempt if _is_repeatable(error) else None
            self._sink.take_failure(key, self._translate(error, flight), attempt)
        self.rouse()

    def _is_withdrawn(self, flight: Flight, error: BaseException | None, native: Any) -> bool:
        """Whether a call has ended because `cancel`, which is under way, has it not begin: that says so itself."""
        if not isinstance(error, CallFailedError) or not flight.is_withdrawing:
            return False
        if not isinstance(unpack_exception(error.packed), CallInterrupted):
            return False
        with self._change:
            flight.ended = native if flight.is_withdrawing else None
            return flight.is_withdrawing

    def _follow(self, flight: Flight, native: Any) -> None:
        """A call gave a future, and ends with that."""
        flight.is_through = True
        self._leave_gate(flight.attempt.key)
        flight.native = self._cluster.follow(native, lambda ended: self._take_end(flight, ended))

    def let_go(self, ids: list[str]) -> None:
        """What these calls went on as has ended, and nobody follows them any more."""
        self._ask_or_not("let_go", ids, cancel=False)

    def _was_at(self, worker: str, call: str) -> bool:
        """Whether a worker that is gone had begun a call, or may have."""
        marks = self._find_marks(worker)
        return marks is None or call in marks[1]

    def _find_marks(self, worker: str) -> tuple[int, list[str]] | None:
        assert self._settings is not None
        with self._reading:
            if worker not in self._marks:
                # It may have been of this host, and the last one.
                marks = read_marks(self._settings.session, worker)
                answers = [marks] if marks else self._ask_or_not("read_marks", worker)
                self._marks[worker] = answers[0] if answers else None
            return self._marks[worker]

    def _ask_or_not(self, method: str, *args: Any, **options: Any) -> list[Any]:
        """Ask the stations what is not needed; where they cannot be asked, there are no answers."""
        try:
            return self._cluster.ask(method, *args, **options)
        except Exception:
            return []

    def _translate(self, error: BaseException, flight: Flight) -> BaseException:
        if isinstance(error, CallFailedError):
            error = unpack_exception(error.packed)
            if is_own_death(error, flight.attempt.key):  # it ended its worker as far as it could
                self._note_death()
            return error
        if isinstance(error, LostWorkerError):
            self._note_death()
            marks = self._find_marks(error.worker)
            error = WorkerDiedError(f"call {flight.attempt.key}, {flight.attempt.name}: {error}")
            error.call, error.key = flight.attempt.name, flight.attempt.key
            error.pid = None if marks is None else marks[0]
        return error

    def _note_death(self) -> None:
        """A worker has died: the program's session counts."""
        if self._is_nested:
            self._cluster.report("death")
        else:
            self._stats.deaths += 1

    # Messages of stations.

    def _take(self, kind: str, *fields: Any) -> None:
        """A message has come; called in a thread of the cluster's library, which must not wait."""
        if kind == "print":
            write(*fields)
            return
        if kind == "log":
            write("logging", *fields)
            return
        if kind == "death":
            self._stats.deaths += 1
            return
        name, *rest = fields
        key = self._keys.get(name)
        flight = (self._flights.get(key) or self._ahead.get(key)) if key is not None else None
        if flight is None or key is None:
            return
        if kind == "item":
            self._sink.take_item(key, Result(None, rest[0]))
            self.rouse()
        elif kind == "end":
            seconds, flight.packed = rest
            self._stats.computing += seconds
        elif kind == "late":
            self._give_up(key, flight, unpack_exception(rest[0]))

    def _give_up(self, key: int, flight: Flight, error: BaseException) -> None:
        """A call ends with an error, whatever its worker does."""
        if not self._land(key, flight):
            return
        self._note_death()
        threading.Thread(target=self._cluster.drop, args=([flight.native],), daemon=True).start()
        self._sink.take_failure(key, error, flight.attempt)
        self.rouse()

    # What becomes of values.

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        try:
            packed = value.packed if value.packed is not None else self._fetch(value.native)
            return packed.load(self._keeper.adopt), None
        except CallFailedError as failure:
            return None, unpack_exception(failure.packed)
        except WorkerDiedError as lost:
            return None, lost
        except Exception as cause:
            error = UnloadableError(
                f"a result arrived and could not be rebuilt here: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            return None, error

    def _fetch(self, native: Any) -> Packed:
        if isinstance(native, Packed):
            return native
        run = get_own_run()
        if not isinstance(run, StationRun):
            return self._cluster.fetch(native)
        return run.wait(lambda: self._cluster.fetch(native))

    def _hold(self, native: Any) -> Any:
        return native if isinstance(native, Packed) else self._cluster.hold(native)

    def forward(self, value: Any) -> Any:
        native = value.content[1] if isinstance(value, Record) else value.native
        return Input(Slot(native))  # type: ignore[arg-type]

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        if writable and copy:
            raise InvalidArgumentError(
                "writable=True and copy=True exclude each other: a change is seen by all, or by nobody else"
            )
        if writable:
            raise UnsupportedError(
                f"writable=True: the workers of the engine {self.name!r} share no memory; those of 'local' do"
            )
        with guard():
            payload = self._serializer.dump(value, "the value")
            packed = Packed.of(payload, is_private=copy)
            native = packed if packed.nbytes <= INLINE_BYTES else self._cluster.store(packed)
            stub = next(self._values), native, name_type(value), packed.nbytes
            return self._keeper.hand_out(self._keeper.adopt(stub))

    def allocate(self, size: int) -> Any:  # noqa: ARG002 - no memory is shared
        return None

    def describe_memory(self) -> MemoryFacts:
        return MemoryFacts()

    def get_native(self, future: Any) -> Any:
        """In a worker: the cluster's handle of what a future of this session will give; None where there is none."""
        if getattr(future, "owner", None) is not self._sink:
            return None
        flight = self._flights.get(future.key)
        if flight is None or flight.attempt.options.policy.retries:
            return None
        return flight.native

    # Calls that are to end.

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        with guard():
            with self._change:
                flights = {key: self._flights[key] for key in keys if key in self._flights}
            if not flights:
                return set()
            with self._change:
                self._gate.withdraw(flights)
                for flight in flights.values():
                    flight.is_withdrawing = True
            ids = [flight.id for flight in flights.values() if flight.native is not None]
            begun: set[str] = set()
            try:
                if ids:
                    begun = begun.union(*self._cluster.ask("withdraw", ids))
                withdrawn = {
                    key: flight
                    for key, flight in flights.items()
                    if (running or flight.id not in begun) and self._land(key, flight)
                }
            finally:
                self._take_held(flights)
            running_ids = [f.id for f in withdrawn.values() if f.id in begun]
            if running_ids:
                self._cluster.ask("interrupt", running_ids)
            through = [f.id for f in withdrawn.values() if f.is_through]
            if through:
                self._cluster.ask("let_go", through, cancel=True)
            launched = [
                f.native for f in withdrawn.values() if f.native is not None and f.id not in begun
            ]
            if launched:
                self._cluster.drop(launched)
            return set(withdrawn)

    def _take_held(self, flights: dict[int, Flight]) -> None:
        """The stations have been asked: ends that came meanwhile count where nothing was cancelled."""
        for key, flight in flights.items():
            with self._change:
                flight.is_withdrawing = False
                ended = flight.ended if self._flights.get(key) is flight else None
            if ended is not None:
                self._take_end(flight, ended)

    def is_running(self, key: int) -> bool:
        flight = self._flights.get(key)
        if flight is None or flight.native is None:
            return False
        return any(flight.id in ids for ids in self._cluster.ask("list_running"))

    def grant(self, key: int, items: int) -> None:
        flight = self._flights.get(key)
        if flight is not None:
            with guard():
                self._cluster.ask("grant", flight.id, items)

    # The session.

    def ask(self, question: str, *args: Any) -> Any:
        return self._sink.answer(question, *args)

    def look(self) -> None:
        """Messages are taken in by the cluster's own threads."""

    def attend(self) -> None:
        """A call waits by means of its own: others run in its place from now on."""
        run = get_own_run()
        if isinstance(run, StationRun):
            run.vacate()
            loop = get_running_loop() if self._cluster.waits else None
            if loop is not None:
                lend_idle_time(loop, run.station.lend)

    def get_running(self) -> int:
        here = place.here.get()
        run = here.post if here is not None else None
        return run.task.key if self._is_nested and isinstance(run, StationRun) else 0

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:  # noqa: ARG002 - none can be
        raise UnsupportedError(
            f"the engine {self.name!r} has no actors; 'local', 'threads' and 'inline' have"
        )

    def restart_actor(self, actor: int) -> None:
        """There are none."""

    def bury_actor(self, actor: int, error: BaseException) -> None:
        """There are none."""

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        """There are none."""

    def restart_workers(self) -> None:
        raise UnsupportedError(
            f"the workers of the engine {self.name!r} are the cluster's; those of 'local' and 'threads' can be replaced"
        )

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:  # noqa: ARG002 - the end of any call wakes
        if is_done():
            return True
        run = get_own_run()
        if isinstance(run, StationRun):
            return self._wait_in(run, is_done, timeout)
        return self._wait(is_done, timeout)

    def _wait_in(self, run: StationRun, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait in a call, which lets others run meanwhile."""
        with run:
            run.set_wake(self.rouse)
            try:
                wait = self._wait_there if self._cluster.waits else self._wait
                run.wait(lambda: wait(lambda: run.is_due or is_done(), timeout))
            finally:
                run.set_wake(None)
            return is_done()

    def _wait(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        deadline = inf if timeout is None else monotonic() + timeout
        with self._change:
            while not is_done():
                left = deadline - monotonic()
                if left <= 0:
                    return False
                # Of what ends with the session nobody tells.
                longest = _CLOSED_SECONDS if self._is_closed else _LONGEST_SECONDS
                self._change.wait(min(left, longest))
        return True

    def _wait_there(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        deadline = inf if timeout is None else monotonic() + timeout
        while not self._wait(is_done, min(_SETTLING_SECONDS, max(0.0, deadline - monotonic()))):
            left = deadline - monotonic()
            if left <= 0:
                return False
            with self._change:
                natives = [flight.native for flight in self._flights.values()]
            under_way = [native for native in natives if native is not None]
            self._cluster.wait_for_any(under_way, min(left, _TURN_SECONDS))
        return True

    def rouse(self) -> None:
        with self._change:
            self._change.notify_all()

    def stats(self) -> EngineStats:
        return self._stats

    def close(self, grace: float) -> None:  # noqa: ARG002 - what runs is interrupted
        with self._change:
            self._is_closed = True
            flights = [*self._flights.values(), *self._ahead.values()]
            self._flights.clear()
            self._ahead.clear()
            self._keys.clear()
            self._change.notify_all()
        self._functions.clear()
        self._cluster.close([flight.native for flight in flights if flight.native is not None])


def _is_repeatable(error: BaseException) -> bool:
    return not isinstance(error, UnsupportedError)


def _refuse_settings(config: EngineConfig, name: str) -> None:
    """Raise for what a cluster's own configuration decides."""
    asked = {
        "start_method": config.start_method,
        "min_workers": config.min_workers,
        "max_calls_per_worker": config.max_calls_per_worker,
        "pin": config.pin,
        "gpus": config.gpus,
        "memory": config.memory,
        "resources": config.resources,
    }
    for option, value in asked.items():
        if value:
            raise UnsupportedError(
                f"{option}={value!r}: the workers of the engine {name!r} are the cluster's; 'local' has it"
            )
