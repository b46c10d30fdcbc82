"""The child process that runs calls.

Importing this module loads C modules alone, and nothing of the parent's side: a worker starts in a few
milliseconds and shares its memory with the template that it was forked from.
"""

from __future__ import annotations

import _signal
import faulthandler
import fcntl
import gc
import mmap
import os
import select
import sys
from _pickle import dumps, loads
from _struct import calcsize, pack_into
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from time import perf_counter

from manyhands.core import place
from manyhands.core.acting import remove_actor
from manyhands.core.exceptions import pack_exception
from manyhands.core.parcels import Parcel, measure
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.local import messages as m
from manyhands.engines.local import stdio
from manyhands.engines.local.shelf import Shelf
from manyhands.engines.local.waits import Waits
from manyhands.errors import CallInterrupted, StoreFullError, UnloadableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from manyhands.core.interruption import Interruptible
    from manyhands.core.parcels import Payload
    from manyhands.engines.local.channel import Channel
    from manyhands.engines.local.nested import NestedEngine

    Extra = tuple[float | None, dict[str, str] | None, int]

_FLUSH_SECONDS = 0.001
"""How long an ended call's result may wait for others to travel with."""

_SPIN_SECONDS = 0.00008
"""How long a worker that has nothing to do looks for more before it sleeps."""

_TURN_SECONDS = 0.05
"""How long a thread beside the one that reads messages sleeps before it looks for itself."""

_ENTRY_SIZE = calcsize(m.JOURNAL_ENTRY)


def serve(channel: Channel, life: int, region: int, settings: dict[str, Any]) -> None:
    """Run calls until the parent closes the channel.

    Parameters
    ----------
    channel
        To the parent.
    life
        Reading end of a pipe that the parent alone can write to; its closing kills this process.
    region
        Descriptor of the memory shared with the parent, see `messages`.
    settings
        See `process.describe_worker`.
    """
    place.in_worker = True
    _die_with(life)
    faulthandler.enable()  # a crash of native code then tells, on standard error, where Python stood
    if settings["core"] is not None:
        os.sched_setaffinity(0, {settings["core"]})
    make: Callable[..., Worker] = Worker
    if settings["is_host"]:
        from manyhands.engines.local.host import Host

        make = Host
    worker = make(channel, memoryview(mmap.mmap(region, 0)), settings)
    _signal.signal(m.GIVE_BACK_SIGNAL, worker.give_back)
    _signal.signal(m.INTERRUPT_SIGNAL, worker.interrupt)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    os.lseek(region, m.REGION_SIZE, os.SEEK_SET)
    faulthandler.register(m.STACK_SIGNAL, file=region, all_threads=settings["is_host"])
    if settings["log_levels"] is not None:
        from manyhands.core.logs import forward_logging

        forward_logging(settings["log_levels"], lambda payload: channel.send((m.RECORD, payload)))
    os.register_at_fork(after_in_child=_forget_parent)
    if settings["authkey"] is not None:
        _share_authkey(settings["authkey"])
    if worker.initialize(settings["initializer"]):
        worker.serve()


def _share_authkey(key: bytes) -> None:
    """Let proxies of the program's managers (of `multiprocessing`) be of use here."""
    from manyhands.core.arrivals import when_imported

    def set_key(process: Any) -> None:
        process.current_process().authkey = key

    when_imported("multiprocessing.process", set_key)


def _forget_parent() -> None:
    """In a child that a call has forked: the session's way to the program is the worker's alone."""
    place.link = place.post = place.putter = None


def _die_with(life: int) -> None:
    """Have the kernel kill this process, whatever it is at, when the other end of the pipe `life` closes.

    Unlike PR_SET_PDEATHSIG it needs no ctypes, follows the parent and not the template, and lets the parent
    kill a worker for certain, without a process id that may be somebody else's by now.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETSIG, _signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":  # it was closed before we listened
            os._exit(0)
    except BlockingIOError:
        pass


class Worker:
    """Takes messages off the channel and sends results back.

    Parameters
    ----------
    channel
        To the parent.
    region
        Memory shared with the parent, from `messages.REGION_SIZE` bytes on.
    settings
        As in `serve`.

    Attributes
    ----------
    nested : NestedEngine or None
        Of the session that this worker's calls use, once one does.
    sessions : int
        How many there have been.
    reading
        Held by the thread that reads a message.
    taking : int
        Messages that other threads than the main one have read and are taking in.
    """

    is_alone = True  # see `manyhands.core.roles.Post`

    def __init__(self, channel: Channel, region: memoryview, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.channel = self._channel = channel
        self._region = region
        self.words = self._words = region.cast("Q")
        self.shelf = self._shelf = Shelf(channel, self._words, settings["number"])
        self.nested: NestedEngine | None = None
        self.sessions = 0
        self.waits = Waits(self)
        self._early: dict[int, tuple[tuple[Any, ...], tuple[int, ...]]] = {}
        self._turn = 0  # the number of the next of the messages that keep their order
        self._credits: dict[int, int] = {}  # items that streams may still yield
        self._joined: dict[int, Any] = {}  # futures whose results are those of calls that ran here
        self._main = get_ident()
        self.reading = allocate_lock()
        self.taking = 0
        self.lock = RLock()  # of what threads that calls have started share with this one
        place.putter = self._shelf
        place.post = self
        place.link = self
        place.files = settings["files"]
        self._functions: dict[int, Callable[..., Any]] = {}
        self._payloads: dict[int, Any] = {}  # of functions that were not called yet
        self._function_uses: dict[int, list[int]] = {}
        self._waiting: deque[tuple[int, int, Any]] = deque()
        # The calls of an actor can run nowhere else, and keep their order: they are never handed back.
        self._keeps_calls = bool(settings["is_stage"])
        self._held: deque[tuple[tuple[Any, ...], tuple[int, ...]]] = deque()
        self._is_in_call = False  # the outbox is whole, whatever interrupts the call
        self._outbox = _Outbox(channel, region, self._words, self._shelf)
        self._shown: dict[str, str] = {}  # variables of the call, and what they were before
        self._hidden: dict[str, str | None] = {}

    def initialize(self, payload: bytes | None) -> bool:
        """Run the initializer and report; False where it failed."""
        failure = None
        if payload is not None:
            try:
                fn, args = loads(payload)
                fn(*args)
            except BaseException as error:
                failure = pack_exception(error, skip=1)
        stdio.flush()
        self._channel.send((m.READY, failure))
        return failure is None

    def serve(self) -> None:
        while True:
            while self._held:
                self.take(*self._held.popleft())
            try:
                self._channel.watch(_SPIN_SECONDS)
                with self.reading:
                    received = self._channel.receive()
            except EOFError:
                return
            except KeyboardInterrupt:  # meant for a call that has just ended
                continue
            assert received is not None
            self.take(*received)

    def take(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        """Do what a message of the parent asks for."""
        kind = message[0]
        if kind == m.ORDERED:
            self._early[message[1]] = message[2], fds
            while self._turn in self._early:
                self._turn += 1
                inner, inner_fds = self._early.pop(self._turn - 1)
                if inner[0] == m.CALLS:  # after all that has come, which they may wait for
                    self._held.append((inner, inner_fds))
                else:
                    self.take(inner, inner_fds)
        elif kind == m.CALLS:
            if message[5]:
                self._shelf.free(message[5])
            self._run(message[1], message[2], message[3], message[4], message[6])
        elif kind == m.FUNCTION:
            self._take_function(*message[1:])
        elif kind == m.FORGET:
            self._forget(message[1])
        elif kind == m.HEAP:
            self._shelf.add_heap(message[1], fds[0], message[2])
        elif kind == m.FREE:
            self._shelf.free(message[1])
        elif kind == m.REST:
            self._rest()
        else:
            self._take_for_call(message)

    def _take_for_call(self, message: tuple[Any, ...]) -> None:
        """What is about a call that has begun."""
        kind = message[0]
        if kind == m.GRANT:
            if message[1] in self._credits:
                self._credits[message[1]] += message[2]
        elif kind == m.DISMISS:
            remove_actor(message[1])
        elif kind == m.STOP:
            self._stop(message[1])
        else:
            if self.nested is not None:
                self.nested.take(message)
            if kind == m.OUTCOMES and message[6]:
                self.waits.let_go_on()

    def _stop(self, key: int) -> None:
        """A call is not wanted any more that ran here, and whose result is another's."""
        future = self._joined.pop(key, None)
        if future is not None:
            future.cancel(running=True)

    def note_wait(self, change: int) -> None:
        """A thread of a call begins to wait for others (1), or goes on (-1): of account where calls run in threads."""

    def note_outstanding(self, key: int, change: int) -> None:
        """So many more of the calls that a call has made are outstanding: likewise."""

    def find_guard(self) -> Interruptible | None:
        """What holds interrupts back from the call that this thread is at, if any is."""
        return None

    def take_beside(self, message: tuple[Any, ...], fds: tuple[int, ...]) -> None:
        """The same while a call waits: other calls cannot begin here, and go back."""
        with self.lock:
            if message[0] == m.CALLS and self._keeps_calls:
                self._held.append((message, fds))
            elif message[0] == m.CALLS:
                _, keys, _, _, uses, freed, _ = message
                if freed:
                    self._shelf.free(freed)
                self._channel.send((m.GIVE_BACK, keys, [], list(uses)))
            else:
                self.take(message, fds)

    def _take_function(self, key: int, name: str, payload: Any, uses: list[int]) -> None:
        payload = self._shelf.unbox(payload, uses)
        self._shelf.pin(uses)
        self._function_uses[key] = uses
        if self._shelf.knows(payload):
            self._payloads[key] = (name, payload)

    def _forget(self, keys: list[int]) -> None:
        for key in keys:
            self._functions.pop(key, None)
            self._payloads.pop(key, None)
            self._shelf.unpin(self._function_uses.pop(key, ()))
        self._drop()

    def _rest(self) -> None:
        """Nothing is to be done for a while."""
        gc.collect()
        self._drop()
        self._shelf.rest()

    def _drop(self) -> None:
        """Tell what nobody views any more."""
        dropped = self._shelf.take_gone()
        for start in range(0, len(dropped), m.IDS):
            self._channel.send((m.DROPPED, dropped[start : start + m.IDS]))

    def give_back(self, _signal: int, _frame: object) -> None:
        """Hand back the calls of the current message that have not begun, and send results (a signal handler)."""
        try:
            with self.waits.guard():  # an interrupt must not come between the two
                keys = self.give_up_waiting()
                if keys:
                    self._channel.send((m.GIVE_BACK, keys, [], []))
                if self._is_in_call:
                    self._outbox.flush()
        except OSError:  # the parent is gone, and so are we in a moment
            return

    def give_up_waiting(self) -> list[int]:
        """The keys of the current message's calls that have not begun; here they will not."""
        keys: list[int] = []
        while self._waiting and not self._keeps_calls:
            keys.append(self._waiting.popleft()[0])
        return keys

    def interrupt(self, _signal: int, _frame: object) -> None:
        """Raise `CallInterrupted` in the call that the parent means, if it runs (a signal handler)."""
        words = self._words
        key = words[m.INTERRUPT]
        if key and key == words[m.CURRENT] and self._is_in_call:
            words[m.INTERRUPT] = 0
            self.waits.interrupt()

    def is_main_in_call(self) -> bool:
        """Whether this is the thread that runs calls, and it is at one."""
        return self._is_in_call and get_ident() == self._main

    def await_answer(self, is_there: Callable[[], bool], change: Any) -> None:
        """Wait for an answer of the parent, which comes at once."""
        while not is_there():
            if get_ident() == self._main:
                with self.waits.guard():
                    with self.reading:
                        received = self._channel.receive()
                    assert received is not None
                    self.take_beside(*received)
            elif not self.read_beside(_TURN_SECONDS):
                with change:
                    if not is_there():
                        change.wait(_TURN_SECONDS)

    def read_beside(self, seconds: float) -> bool:
        """In a thread that a call has started: take messages in while nobody else does; whether any came."""
        if not self._is_in_call or self.waits.is_waiting:
            return False
        poll = select.poll()  # the others' are in use
        poll.register(self._channel.fileno(), select.POLLIN)
        if not poll.poll(seconds * 1000):
            return True
        if not self.reading.acquire(blocking=False):
            return False
        received = None
        try:
            if self._is_in_call and not self.waits.is_waiting:  # else it is for the main thread
                received = self._channel.receive(wait=False)
                self.taking += received is not None
        finally:
            self.reading.release()
        if received is not None:
            try:
                self.take_beside(*received)
            finally:
                with self.reading:
                    self.taking -= 1
        return True

    def join(self, key: int, future: Any) -> None:
        """A call's result will be that of `future`."""
        self._joined[key] = future
        future.notify(lambda ended: self._end_joined(key, ended))

    def _end_joined(self, key: int, future: Any) -> None:
        if self._joined.pop(key, None) is None:  # it was cancelled
            return
        failed = False
        try:
            result = self._shelf.dump(future.result())
        except BaseException as error:
            failed = True
            result = self._pack_error(error)
        self._outbox.begin(alone=True)
        self._outbox.add(key, result, 0.0, failed)
        self._outbox.flush()

    def flush(self) -> None:
        """Send what has ended, before the call that runs waits for others."""
        self._outbox.flush()

    # What calls send while they run: see `manyhands.core.roles.Post`.

    def emit(self, item: Any) -> None:
        key = self._words[m.CURRENT]
        with self.waits.guard():
            self._send_part(m.YIELD, key, item)
            self._credits[key] -= 1
        if self._credits[key] <= 0:
            self.waits.wait(lambda: self._credits[key] > 0, None)

    def keep(self, actor: int, state: Any) -> None:
        with self.waits.guard():
            self._send_part(m.KEEP, actor, state)

    def _send_part(self, kind: int, number: int, value: Any) -> None:
        packed: Any = self._shelf.dump(value)
        born: list[tuple[int, int, int]] = []
        if type(packed) is not bytes:
            packed, born = self._shelf.pack(packed)
        stdio.flush()
        self._channel.send((kind, number, packed, born))

    def _run(  # noqa: C901 - every call passes here, and each function that it calls costs a hundredth of one
        self,
        keys: list[int],
        function_keys: list[int],
        payloads: list[Any],
        uses: list[int],
        extras: dict[int, Extra] | None,
    ) -> None:
        outbox, words, functions = self._outbox, self._words, self._functions
        waiting, shelf = self._waiting, self._shelf
        waiting.extend(zip(keys, function_keys, payloads, strict=True))
        outbox.begin(alone=len(keys) == 1)
        while True:
            try:  # a signal may have given the rest back since any look at it
                key, function_key, payload = waiting.popleft()
            except IndexError:
                break
            fn = functions.get(function_key)
            if uses and type(payload) is not bytes:
                payload = shelf.unbox(payload, uses)
            is_missing = fn is None and function_key not in self._payloads
            if is_missing or not shelf.knows(payload):
                # The parent took the function or heap back, and we were quicker to take the call.
                lost = [function_key] if is_missing else []
                uses = self._return_call(key, payload, uses, lost)
                continue
            if extras is not None:
                words[m.STARTED] = 0  # what stands there is another call's
            words[m.CURRENT] = key
            failed = False
            begin = end = 0.0
            try:
                if fn is None:
                    fn = self._load_function(function_key)
                args, kwargs = load_arguments(shelf, payload)
                if extras is not None and key in extras:
                    self._prepare(key, extras[key])
                begin = perf_counter()
                self._is_in_call = True
                if words[m.CANCELS]:
                    self._check_cancelled(key)
                value = fn(*args, **kwargs) if kwargs else fn(*args)
                self._is_in_call = False
                end = perf_counter()
                if self.nested is None:
                    result = shelf.dump(value)
                elif self.nested.join(key, value):
                    value = args = kwargs = None  # type: ignore[assignment]
                    self.waits.seconds = 0.0
                    continue
                else:
                    with self.lock:
                        result = shelf.dump(value)
            except BaseException as error:
                self._is_in_call = False
                if isinstance(error, SystemExit):
                    self._exit(error)
                end = perf_counter()
                begin = begin or end
                failed = True
                result = self._pack_error(error)
                if self.nested is not None:
                    self.nested.end_badly(key)
            if self.waits.seconds:  # nothing was computed meanwhile
                begin += self.waits.seconds
                outbox.pass_over(self.waits.seconds)
                self.waits.seconds = 0.0
            # Freed before the next call asks for memory, and before it is told who still has a view of what.
            value = args = kwargs = None  # type: ignore[assignment]
            outbox.add(key, result, end - begin, failed)
            if waiting and (end - outbox.sent_at > _FLUSH_SECONDS or outbox.size > m.FLUSH_BYTES):
                outbox.flush()
        outbox.flush(shelf.end_message(uses))
        words[m.CURRENT] = 0

    def _return_call(self, key: int, payload: Any, uses: list[int], lost: list[int]) -> list[int]:
        """Hand back a call that cannot run here, and the functions that are `lost`; what is in use without it."""
        is_boxed = not self._shelf.knows(payload) and payload[0] == m.BOXED
        boxes = [payload[1][0]] if is_boxed else []
        self._channel.send((m.GIVE_BACK, [key], lost, boxes))
        return [number for number in uses if number not in boxes]

    def _check_cancelled(self, key: int) -> None:
        """Raise CallInterrupted if the call is not to begin."""
        if key in self._words[m.CANCELLED_KEYS.start : m.CANCELLED_KEYS.stop]:
            raise CallInterrupted("the call was cancelled")

    def _prepare(self, key: int, extra: Extra) -> None:
        """Before a call that has a time-out, devices, or a stream."""
        timeout, environment, window = extra
        if environment is not None:
            self.show(environment)
        if window:
            self._credits = {key: window}
        if timeout is not None:
            self._words[m.STARTED] = int(perf_counter() * 1e9)

    def show(self, environment: dict[str, str]) -> None:
        """Set variables for a call, and what was set for the one before as it was."""
        if environment == self._shown:
            return  # also for the sake of threads that read them right now
        for name, value in self._hidden.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._hidden = {name: os.environ.get(name) for name in environment}
        self._shown = environment
        os.environ.update(environment)

    def _pack_error(self, error: BaseException) -> Payload:
        packed = pack_exception(error, skip=1)
        if len(packed) <= INLINE_BYTES:
            return packed
        try:
            return Parcel(self._shelf.keep_chunks([packed]))
        except StoreFullError as full:
            return pack_exception(full)

    def _load_function(self, key: int) -> Callable[..., Any]:
        name, payload = self._payloads[key]
        try:
            fn: Callable[..., Any] = self._shelf.load(payload)
        except Exception as error:
            raise UnloadableError(
                f"the function {name} could not be loaded in a worker: {type(error).__name__}: {error}. Workers see "
                f"the sys.path, working directory and environment that the session had when it opened."
            ) from error
        del self._payloads[key]
        self._functions[key] = fn
        return fn

    def _exit(self, request: SystemExit) -> NoReturn:
        """End as ``sys.exit`` in the main program would; the parent sees the call's worker die."""
        self._outbox.flush()
        code = request.code
        if code is not None and not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
        leave(code or 0)


class _Outbox:
    """Results that have ended and are not sent yet; a journal in shared memory keeps them from a crash."""

    def __init__(
        self, channel: Channel, region: memoryview, words: memoryview, shelf: Shelf
    ) -> None:
        self._channel = channel
        self._region = region
        self._words = words
        self._shelf = shelf
        self.sent_at = 0.0
        self._begin = 0.0
        self._journal = False
        self._clear()

    def _clear(self) -> None:
        self._keys: list[int] = []
        self._payloads: list[Any] = []
        self._born: list[tuple[int, int, int]] = []
        self._seconds: list[float] = []
        self._failed: list[int] = []
        self._end = m.JOURNAL_START
        self.size = 0

    def begin(self, *, alone: bool) -> None:
        """A message has come; `alone` where it holds one call, whose result is sent at once."""
        self._begin = self.sent_at = perf_counter()
        self._journal = not alone

    def pass_over(self, seconds: float) -> None:
        """So long the worker was busy with nothing."""
        self._begin += seconds

    def add(self, key: int, payload: Payload, seconds: float, failed: bool) -> None:
        if failed:
            self._failed.append(len(self._keys))
        packed: Any = payload
        born: list[tuple[int, int, int]] = []
        if type(payload) is not bytes:
            packed, born = self._shelf.pack(payload)
            self._born += born
        self._keys.append(key)
        self._payloads.append(packed)
        self._seconds.append(seconds)
        self.size += measure(payload)
        if self._journal:
            self._enter(key, packed, born, seconds, failed)

    def _enter(self, key: int, packed: Any, born: list[Any], seconds: float, failed: bool) -> None:
        """Note an ended call in the journal."""
        kind, entry = (m.FAILED if failed else m.ENDED), packed
        if type(packed) is not bytes:
            kind, entry = m.SHARED, dumps((packed, born, failed), 5)
        size = len(entry)
        start = self._end + _ENTRY_SIZE
        if start + size > m.REGION_SIZE:
            self.flush()
            return
        pack_into(m.JOURNAL_ENTRY, self._region, self._end, key, seconds, kind, size)
        self._region[start : start + size] = entry
        self._end = start + size
        self._words[m.JOURNAL_END] = self._end

    def flush(self, dropped: Sequence[int] = ()) -> None:
        """Send what there is, after the output that its calls wrote; and what was `dropped`."""
        dropped = [*dropped, *self._shelf.take_gone()]
        rest = dropped[m.IDS :] if self._keys else dropped
        if self._keys:
            wrote = stdio.flush()
            now = perf_counter()
            message = (
                m.RESULTS,
                self._keys,
                self._payloads,
                self._seconds,
                self._failed,
                now - self._begin,
                wrote,
                self._born,
                dropped[: m.IDS],
            )
            self._channel.send(message)
            self._begin = self.sent_at = now
            if self._journal:
                self._words[m.JOURNAL_END] = 0
            self._clear()
        for start in range(0, len(rest), m.IDS):
            self._channel.send((m.DROPPED, rest[start : start + m.IDS]))


def load_arguments(shelf: Shelf, payload: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """A call's arguments, by position and by name.

    Raises
    ------
    UnloadableError
    """
    try:
        arguments: tuple[tuple[Any, ...], dict[str, Any] | None] = (
            loads(payload) if type(payload) is bytes else shelf.load(payload)
        )
    except Exception as error:
        raise UnloadableError(
            f"the arguments of a call could not be rebuilt in a worker: {type(error).__name__}: {error}"
        ) from error
    return arguments


def leave(code: int) -> NoReturn:
    """End this process as an interpreter would, but for what only a main program has to tear down."""
    import atexit

    atexit._run_exitfuncs()
    stdio.flush()
    os._exit(code)
