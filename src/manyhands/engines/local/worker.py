"""The child process that runs calls.

Importing this module loads C modules alone, and nothing of the parent's side: a worker starts in a few
milliseconds and shares its memory with the template that it was forked from.
"""

from __future__ import annotations

import _signal
import faulthandler
import fcntl
import gc
import os
import sys
from _pickle import dumps, loads
from _struct import calcsize, pack_into
from collections import deque
from time import perf_counter

from manyhands.core import place
from manyhands.core.exceptions import pack_exception
from manyhands.core.parcels import Parcel, measure
from manyhands.core.serialize import INLINE_BYTES
from manyhands.engines.local import messages as m
from manyhands.engines.local import stdio
from manyhands.engines.local.shelf import Shelf
from manyhands.engines.local.shm import open_region
from manyhands.errors import StoreFullError, UnloadableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from manyhands.core.parcels import Payload
    from manyhands.engines.local.channel import Channel

_FLUSH_SECONDS = 0.001
"""How long an ended call's result may wait for others to travel with."""

_SPIN_SECONDS = 0.00008
"""How long a worker that has nothing to do looks for more before it sleeps."""

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
    worker = Worker(channel, memoryview(open_region(region)), settings["number"])
    _signal.signal(m.GIVE_BACK_SIGNAL, worker.give_back)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if settings["log_levels"] is not None:
        stdio.forward_logging(
            settings["log_levels"], lambda payload: channel.send((m.RECORD, payload))
        )
    if worker.initialize(settings["initializer"]):
        worker.serve()


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
        Memory shared with the parent, `messages.REGION_SIZE` bytes.
    number
        Of this worker.
    """

    def __init__(self, channel: Channel, region: memoryview, number: int) -> None:
        self._channel = channel
        self._region = region
        self._words = region.cast("Q")
        self._shelf = Shelf(channel, self._words, number)
        place.putter = self._shelf
        self._functions: dict[int, Callable[..., Any]] = {}
        self._payloads: dict[int, Any] = {}  # of functions that were not called yet
        self._function_uses: dict[int, list[int]] = {}
        self._waiting: deque[tuple[int, int, Any]] = deque()
        self._is_in_call = False  # the outbox is whole, whatever interrupts the call
        self._outbox = _Outbox(channel, region, self._words, self._shelf)

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
            try:
                self._channel.watch(_SPIN_SECONDS)
                received = self._channel.receive()
            except EOFError:
                return
            except KeyboardInterrupt:  # meant for a call that has just ended
                continue
            assert received is not None
            message, fds = received
            kind = message[0]
            if kind == m.CALLS:
                if message[5]:
                    self._shelf.free(message[5])
                self._run(message[1], message[2], message[3], message[4])
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
        keys = []
        while self._waiting:
            keys.append(self._waiting.popleft()[0])
        try:
            if keys:
                self._channel.send((m.GIVE_BACK, keys, [], []))
            if self._is_in_call:
                self._outbox.flush()
        except OSError:  # the parent is gone, and so are we in a moment
            return

    def _run(
        self, keys: list[int], function_keys: list[int], payloads: list[Any], uses: list[int]
    ) -> None:
        outbox, words, functions = self._outbox, self._words, self._functions
        waiting, shelf = self._waiting, self._shelf
        waiting.extend(zip(keys, function_keys, payloads, strict=True))
        outbox.begin(alone=len(keys) == 1)
        while waiting:
            key, function_key, payload = waiting.popleft()
            fn = functions.get(function_key)
            if uses and type(payload) is not bytes:
                payload = shelf.unbox(payload, uses)
            is_missing = fn is None and function_key not in self._payloads
            if is_missing or not shelf.knows(payload):
                # The parent took the function or heap back, and we were quicker to take the call.
                boxes = (
                    [payload[1][0]] if not shelf.knows(payload) and payload[0] == m.BOXED else []
                )
                uses = [number for number in uses if number not in boxes]
                functions_lost = [function_key] if is_missing else []
                self._channel.send((m.GIVE_BACK, [key], functions_lost, boxes))
                continue
            words[m.CURRENT] = key
            failed = False
            begin = end = 0.0
            try:
                if fn is None:
                    fn = self._load_function(function_key)
                args, kwargs = _load_arguments(shelf, payload)
                begin = perf_counter()
                self._is_in_call = True
                value = fn(*args, **kwargs) if kwargs else fn(*args)
                self._is_in_call = False
                end = perf_counter()
                result = shelf.dump(value)
            except BaseException as error:
                self._is_in_call = False
                if isinstance(error, SystemExit):
                    self._exit(error)
                end = perf_counter()
                begin = begin or end
                failed = True
                result = self._pack_error(error)
            # Freed before the next call asks for memory, and before it is told who still has a view of what.
            value = args = kwargs = None  # type: ignore[assignment]
            outbox.add(key, result, end - begin, failed)
            if waiting and (end - outbox.sent_at > _FLUSH_SECONDS or outbox.size > m.FLUSH_BYTES):
                outbox.flush()
        outbox.flush(shelf.end_message(uses))
        words[m.CURRENT] = 0

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


def _load_arguments(shelf: Shelf, payload: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
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
