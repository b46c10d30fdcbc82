"""In a worker: the engine of the sessions that its calls use. The program has other workers run their calls.

To the session it is an engine like any other, so all that sessions can do is there: maps, dependencies, retries.
"""

from __future__ import annotations

import sys
import threading
from _pickle import dumps, loads
from time import monotonic, sleep
from weakref import WeakSet

from manyhands.core import place
from manyhands.core.acting import ActorMaker
from manyhands.core.coroutines import choose_runner
from manyhands.core.exceptions import rebuild_exception, unpack_exception
from manyhands.core.functions import FunctionTable
from manyhands.core.loops import get_running_loop, lend_idle_time
from manyhands.core.model import DEFAULT_OPTIONS, Capabilities, EngineStats, MemoryFacts
from manyhands.core.serialize import Serializer
from manyhands.engines.local import messages as m
from manyhands.errors import UnloadableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.engine import Sink
    from manyhands.core.functions import Function
    from manyhands.core.model import ActorPlace, Call, CallOptions, EngineConfig
    from manyhands.core.parcels import Payload
    from manyhands.core.refs import Ref

_TURN_SECONDS = 0.05
"""How long a thread beside the reading one sleeps before it looks for itself."""


class _Attempt:
    """A call as it was sent, in case that it is sent again."""

    __slots__ = ("function", "options", "parent", "payload")

    def __init__(
        self, function: Function, payload: Payload, options: CallOptions, parent: int
    ) -> None:
        self.function = function
        self.payload = payload
        self.options = options
        self.parent = parent


class NestedEngine:
    """Sends calls to the program's session; see `manyhands.core.engine.Engine` for the members."""

    name = "nested"
    capabilities = Capabilities(
        isolates=True, parallel=True, pickles=True, stores=False, interrupts=True
    )

    def __init__(self) -> None:
        self._worker = place.link
        # Sessions of one worker follow each other, and an answer to one must not be taken for another's.
        self._worker.sessions = (self._worker.sessions + 1) % 256
        number = self._worker.settings["number"]
        self.first_key = (number << m.ORIGIN_SHIFT) + (self._worker.sessions << 32) + 1

    def start(self, config: EngineConfig, sink: Sink) -> None:  # noqa: ARG002 - the program's counts
        self._sink = sink
        self._shelf = self._worker.shelf
        by_value = _travels_by_value
        serial = f"worker {self._worker.settings['number']}"
        self._serializer = Serializer(by_value, lambda: self._shelf, serial)
        self._functions = FunctionTable(self._serializer, by_value)
        self._told: set[int] = set()  # functions that the program knows
        self._attempts: dict[int, _Attempt] = {}
        self._cancelling: set[int] = set()  # calls that the program is asked to withdraw
        self._held_back: dict[int, _Attempt] = {}  # those of them that are to be tried again
        self._answers: dict[int, Any] = {}
        self._reader: threading.Thread | None = None
        self._attention = threading.Semaphore(0)
        self._loops: WeakSet[Any] = WeakSet()  # event loops of calls, which take messages in
        self._questions = 0
        # One thread reads at a time: the main thread while it is at no call, else whoever waits.
        self._lock = self._worker.lock
        self._change = threading.Condition(threading.Lock())
        self._worker.nested = self

    # Calls.

    def submit(self, call: Call) -> None:
        with self._worker.waits.guard(), self._lock:
            function = self._functions.register(choose_runner(call))
            payload = self._serializer.dump_arguments(call.args, call.kwargs)
            attempt = _Attempt(function, payload, call.options, self.get_running())
            self._enter(call.key, attempt)
            self._send(call.key, attempt)

    def resubmit(self, key: int, attempt: _Attempt) -> None:
        with self._worker.waits.guard(), self._lock:
            self._enter(key, attempt)
            if key in self._cancelling:  # the program may have said already that it will not run
                self._held_back[key] = attempt
            else:
                self._send(key, attempt)

    def _enter(self, key: int, attempt: _Attempt) -> None:
        self._attempts[key] = attempt
        self._worker.note_outstanding(attempt.parent, 1)

    def _leave(self, key: int) -> _Attempt | None:
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            self._worker.note_outstanding(attempt.parent, -1)
        return attempt

    def _send(self, key: int, attempt: _Attempt) -> None:
        function = attempt.function
        self._tell(function)
        departed = []
        while self._functions.departed:
            gone = self._functions.departed.popleft()
            self._told.discard(gone)
            departed.append(gone)
        packed, born = self._pack(attempt.payload)
        o = attempt.options  # but for the policy, which is this session's affair
        options = (
            None
            if o is DEFAULT_OPTIONS
            else (o.timeout, o.priority, o.need, o.actor, o.window, o.name)
        )
        self._worker.channel.send(
            (m.SUBMIT, attempt.parent, key, function.key, packed, born, options, departed)
        )

    def _tell(self, function: Function) -> None:
        """Tell the program of a function, once."""
        if function.key not in self._told:
            packed, born = self._pack(function.payload)
            self._worker.channel.send(
                (m.MADE, function.key, function.name, packed, born, function.is_async)
            )
            self._told.add(function.key)

    def _pack(self, payload: Payload) -> tuple[Any, list[Any]]:
        return (payload, []) if type(payload) is bytes else self._shelf.pack(payload)

    def explain_misfit(self, call: Call) -> str | None:  # noqa: ARG002 - the program knows
        return None

    def get_running(self) -> int:
        here = place.here.get()
        return here.key if here is not None else int(self._worker.words[m.CURRENT])

    def look(self) -> None:
        if self._worker.is_main_in_call():
            with self._worker.waits.guard():
                self._worker.waits.take_in()

    def cancel(self, keys: Iterable[int], *, running: bool = False) -> set[int]:
        wanted = self.begin_cancelling(keys)
        withdrawn: set[int] = set()
        if wanted:
            try:
                withdrawn.update(self._ask(m.CANCEL, wanted, running))
            finally:
                self.end_cancelling(wanted, withdrawn)
        return withdrawn

    def begin_cancelling(self, keys: Iterable[int]) -> list[int]:
        """From here on calls are not tried again; those that the program has."""
        wanted = [key for key in keys if key in self._attempts]
        self._cancelling.update(wanted)
        return wanted

    def end_cancelling(self, wanted: list[int], withdrawn: set[int]) -> None:
        """The program has said which calls it has `withdrawn`: others that have failed meanwhile are tried again."""
        with self._worker.waits.guard(), self._lock:
            self._cancelling.difference_update(wanted)
            for key in withdrawn:
                self._leave(key)
            for key in wanted:
                attempt = self._held_back.pop(key, None)
                if attempt is not None and key not in withdrawn:
                    self._send(key, attempt)

    def is_running(self, key: int) -> bool:
        return bool(self.ask("is_running", key)) if key in self._attempts else False

    def grant(self, key: int, items: int) -> None:
        with self._worker.waits.guard():
            self._worker.channel.send((m.GRANT, key, items))

    # What comes of them.

    def take(self, message: tuple[Any, ...]) -> None:
        """The program says what became of calls, or answers."""
        kind = message[0]
        if kind == m.OUTCOMES:
            self._take_outcomes(message)
        elif kind == m.ITEMS:
            _, key, payloads, uses, freed = message
            self._shelf.free(freed)
            for payload in payloads:
                self._sink.take_item(key, self._open(payload, uses))
            self._drop(self._shelf.end_message(uses))
        elif kind in (m.CANCELLED, m.ANSWER):
            self._answers[message[1]] = message[2:]
        with self._change:
            self._change.notify_all()

    def _take_outcomes(self, message: tuple[Any, ...]) -> None:
        _, keys, payloads, failed, uses, freed, _ = message
        if freed:
            self._shelf.free(freed)
        results = []
        for index, key in enumerate(keys):
            attempt = self._leave(key)
            value, error = self._open(payloads[index], uses)
            if index in failed and error is None:
                self._sink.take_failure(key, rebuild_exception(value), attempt)
            else:
                results.append((key, (value, error)))
        if results:
            self._sink.take_results(results)
        value = error = None
        del results
        if uses:
            self._drop(self._shelf.end_message(uses))

    def _open(self, payload: Any, uses: list[int]) -> tuple[Any, BaseException | None]:
        try:
            if type(payload) is bytes:
                return loads(payload), None
            return self._shelf.load(self._shelf.unbox(payload, uses)), None
        except Exception as cause:
            error = UnloadableError(
                f"a result arrived and could not be rebuilt here: {type(cause).__name__}: {cause}"
            )
            error.__cause__ = cause
            return None, error

    def _drop(self, dropped: list[int]) -> None:
        for start in range(0, len(dropped), m.IDS):
            self._worker.channel.send((m.DROPPED, dropped[start : start + m.IDS]))

    def load(self, value: Any) -> tuple[Any, BaseException | None]:
        found: tuple[Any, BaseException | None] = value
        return found

    def forward(self, value: Any) -> Any:
        if type(value) is not tuple:
            return value.keeper.read(value)
        loaded, error = value
        if error is not None:
            raise error
        return loaded

    def join(self, key: int, value: Any) -> bool:
        """A call has ended with `value`: whether that is a future of this session, whose result will be the call's."""
        if (
            not hasattr(value, "add_done_callback")
            or getattr(value, "owner", None) is not self._sink
        ):
            return False
        self._worker.flush()
        self._worker.channel.send((m.JOIN, key, value.key))
        self._worker.join(key, value)
        return True

    def end_badly(self, key: int) -> None:
        """A call of this worker has failed: those that it made are not wanted any more."""
        self._sink.cancel_children(key)

    # Waiting.

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> bool:
        if is_done():
            return True
        if self._worker.is_main_in_call():
            # A call that the program has not got waits for others here, and any of those may matter.
            awaited = key if key in self._attempts else 0
            found: bool = self._worker.waits.wait(is_done, timeout, awaited)
            return found
        deadline = None if timeout is None else monotonic() + timeout
        with self._worker.waits.guard() as guard:
            self._worker.note_wait(1)
            try:
                while not is_done():
                    left = (
                        _TURN_SECONDS
                        if deadline is None
                        else min(_TURN_SECONDS, deadline - monotonic())
                    )
                    if left <= 0 or guard.is_due:
                        return is_done()
                    if not self._worker.read_beside(left):
                        with self._change:
                            if not is_done() and not guard.is_due:
                                self._change.wait(left)
            finally:
                self._worker.note_wait(-1)
        return True

    def rouse(self) -> None:
        with self._change:
            self._change.notify_all()

    def attend(self) -> None:
        """Somebody waits by other means than `wait_until`, and does not look at the worker's channel."""
        loop = get_running_loop()
        if loop is not None and self._worker.is_main_in_call():
            self._attend_loop(loop)
        else:
            self._read_beside()

    def _read_beside(self) -> None:
        """See that messages are taken in until the call that runs has ended, whatever it waits for."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read_on, daemon=True)
            self._reader.start()
        self._attention.release()

    def _read_on(self) -> None:
        worker = self._worker
        while True:
            self._attention.acquire()
            key = self.get_running()
            while key and key == self.get_running():
                if not worker.read_beside(_TURN_SECONDS):
                    sleep(_TURN_SECONDS)  # another thread reads

    def _attend_loop(self, loop: Any) -> None:
        """Have an event loop of the call take messages in, and let its cpus go to others while it has nothing to do."""
        if loop not in self._loops:
            self._loops.add(loop)
            loop.add_reader(self._worker.channel.fileno(), self.look)
            lend_idle_time(loop, self._lend)

    def _lend(self, sleep: Callable[[], Any]) -> Any:
        if not self._attempts or not self._worker.is_main_in_call():
            return sleep()
        return self._worker.waits.lend(sleep)

    def _ask(self, kind: int, *fields: Any) -> Any:
        """Send a question, and wait for its answer."""
        with self._worker.waits.guard(), self._lock:
            self._questions += 1
            number = self._questions
            self._worker.channel.send((kind, number, *fields))
        self._worker.await_answer(lambda: number in self._answers, self._change)
        return self._answers.pop(number)[0] if kind == m.CANCEL else self._answers.pop(number)

    def ask(self, question: str, *args: Any) -> Any:
        """Ask the program's session, which has methods for it."""
        failed, content = self._ask(m.ASK, question, dumps(args, 5))
        if failed:
            raise unpack_exception(content)
        return loads(content)

    # The rest.

    def put(self, value: Any, *, writable: bool, copy: bool) -> Ref[Any]:
        with self._worker.waits.guard(), self._lock:
            ref: Ref[Any] = self._shelf.put(value, writable=writable, copy=copy)
            return ref

    def allocate(self, size: int) -> Any:
        with self._worker.waits.guard(), self._lock:
            return self._shelf.allocate(size)

    def describe_memory(self) -> MemoryFacts:
        return MemoryFacts()

    def stats(self) -> EngineStats:
        return EngineStats()

    def start_actor(self, actor: int, call: Call, where: ActorPlace) -> None:
        with self._worker.waits.guard(), self._lock:
            assert isinstance(call.fn, ActorMaker)
            maker = self._functions.register(call.fn)
            restorer = call.fn.make_restorer()
            again = None if restorer is None else self._functions.register(restorer)
            packed, born = self._pack(self._serializer.dump_arguments(call.args, call.kwargs))
            for function in (maker, again):
                if function is not None:
                    self._tell(function)
            keys = maker.key, 0 if again is None else again.key
            self._worker.channel.send((m.ACT, actor, *keys, packed, born, where))

    def restart_actor(self, actor: int) -> None:
        """The program's session does that."""

    def bury_actor(self, actor: int, error: BaseException) -> None:
        """The program's session does that."""

    def stop_actor(self, actor: int, *, kill: bool) -> None:
        self.ask("stop_actor", actor, kill)

    def restart_workers(self) -> None:
        self.ask("restart_workers")

    def close(self, grace: float) -> None:  # noqa: ARG002 - nothing of it is at work
        if self._worker.nested is self:  # the workers are the program's
            self._worker.nested = None


def _travels_by_value(module: str) -> bool:
    """Whether what a module defines is found by its name in no other worker: it came to this one by value."""
    if module == "__main__":
        return True
    return module not in sys.modules
