"""Calls that workers' calls make: the parent's side of `nested`."""

from __future__ import annotations

from _pickle import dumps
from functools import partial

from manyhands.core.exceptions import pack_exception
from manyhands.core.model import DEFAULT_OPTIONS, CallOptions
from manyhands.core.parcels import measure
from manyhands.engines.local import messages as m
from manyhands.engines.local.pool_parts import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.core.functions import Function, FunctionTable
    from manyhands.core.parcels import Payload
    from manyhands.engines.local.courier import Courier, LateStore
    from manyhands.engines.local.pool_state import PoolState
    from manyhands.engines.local.process import WorkerProcess

_OUTCOMES = 64
"""Outcomes in one message at most."""

_OUTCOME_BYTES = 96 * 1024
"""Bytes of payloads in one message of outcomes at most, but for one that has more by itself."""


_AGAIN_SECONDS = 0.005
"""How long to wait for room in a socket."""


class _Home:
    """A worker whose calls have made calls.

    Attributes
    ----------
    functions
        Those that it has told of, by its keys.
    ended
        Outcomes that it has not been sent: key, payload, whether it failed.
    items
        Of streams that its calls read: key and payload.
    awaited
        The call that its call waits for alone; 0 for any, None where it does not wait.
    unsent
        Answers for which there was no room in its socket.
    """

    __slots__ = ("awaited", "ended", "functions", "items", "unsent")

    def __init__(self) -> None:
        self.functions: dict[int, Function] = {}
        self.ended: list[tuple[int, Payload, bool]] = []
        self.items: list[tuple[int, Payload]] = []
        self.awaited: int | None = None
        self.unsent: list[tuple[Any, ...]] = []


class Nesting:
    """Takes calls of calls in, and brings what becomes of them back.

    Parameters
    ----------
    pool, processes, functions, store, courier
        The engine's.
    """

    def __init__(
        self,
        pool: PoolState,
        processes: dict[int, WorkerProcess],
        functions: FunctionTable,
        store: LateStore,
        courier: Courier,
    ) -> None:
        self._pool = pool
        self._processes = processes
        self._functions = functions
        self._store = store
        self._courier = courier
        self._homes: dict[int, _Home] = {}
        self._stirred: dict[int, _Home] = {}  # those that have something to be sent

    @property
    def is_used(self) -> bool:
        """Whether any call has made calls so far."""
        return bool(self._homes)

    def _get_home(self, number: int) -> _Home:
        home = self._homes.get(number)
        if home is None:
            home = self._homes[number] = _Home()
        return home

    # From workers.

    def take_function(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """A worker tells of a function that its calls use."""
        _, key, name, packed, born, is_async = message
        payload = self.unpack(process, packed, born)
        self._get_home(process.number).functions[key] = self._functions.adopt(
            name, payload, is_async=is_async
        )

    def take_call(self, process: WorkerProcess, message: tuple[Any, ...]) -> Entry:
        """A worker's call has made a call: what is to be queued."""
        _, parent, key, function_key, packed, born, described, departed = message
        home = self._get_home(process.number)
        function = home.functions[function_key]
        for gone in departed:
            if gone != function_key:
                home.functions.pop(gone, None)
        payload = self.unpack(process, packed, born)
        worker = self._pool.workers.get(process.number)
        outer = worker.inflight.get(parent) if worker is not None else None
        options = DEFAULT_OPTIONS if described is None else _rebuild_options(described)
        depth = 1 if outer is None else outer.depth + 1
        return Entry(key, function, payload, options, depth=depth)

    def take_actor(
        self, process: WorkerProcess, message: tuple[Any, ...], making: int
    ) -> tuple[Entry, Function | None]:
        """A worker's call starts an actor: the call that makes it, and the function that restores it."""
        _, actor, key, restorer_key, packed, born, _ = message
        functions = self._get_home(process.number).functions
        payload = self.unpack(process, packed, born)
        entry = Entry(making, functions[key], payload, CallOptions(actor=actor), stage=actor)
        return entry, functions.get(restorer_key)

    def unpack(self, process: WorkerProcess, packed: Any, born: Any) -> Payload:
        """What a worker has packed."""
        if type(packed) is bytes:
            return packed
        return self._store.get().unpack([packed], process.number, born)[0]

    def take_blocked(self, process: WorkerProcess, keys: list[int], awaited: int) -> None:
        """The call that a worker is at waits."""
        worker = self._pool.workers.get(process.number)
        if worker is None:
            return
        self._pool.give_back(worker, keys)
        self._pool.block(worker)  # what it has not read it gives back itself
        home = self._get_home(process.number)
        home.awaited = awaited
        if any(awaited in (0, key) for key, *_ in home.ended) or home.items:
            self._pool.ask_resume(worker)

    def take_wake(self, process: WorkerProcess, at_once: bool) -> None:
        """A call waits no longer: what it waited for is there or, `at_once`, its time is over or it is interrupted."""
        worker = self._pool.workers.get(process.number)
        if worker is not None:
            self._pool.ask_resume(worker, at_once=at_once)

    # To workers.

    def end(self, key: int, payload: Payload, *, failed: bool) -> None:
        """A call that a worker's call made has ended."""
        home = self._homes.get(m.get_origin(key))
        if home is not None:
            home.ended.append((key, payload, failed))
            self._stirred[m.get_origin(key)] = home
            if home.awaited in (0, key):
                self._rouse(m.get_origin(key))

    def end_with(self, key: int, error: BaseException) -> None:
        """The same, with an error of our own."""
        self.end(key, pack_exception(error), failed=True)

    def add_item(self, key: int, payload: Payload) -> None:
        """A stream that a worker's call reads goes on."""
        home = self._homes.get(m.get_origin(key))
        if home is not None:
            home.items.append((key, payload))
            self._stirred[m.get_origin(key)] = home
            self._rouse(m.get_origin(key))

    def _rouse(self, number: int) -> None:
        worker = self._pool.workers.get(number)
        if worker is not None and worker.is_blocked:
            self._pool.ask_resume(worker)

    def deliver(self) -> float | None:
        """Let calls go on whose wait is over, and send what has come for workers that do not wait.

        Returns
        -------
        float or None
            Seconds after which to call again, for want of room in a socket.
        """
        for worker in self._pool.resume():
            home = self._get_home(worker.number)
            process = self._processes[worker.number]
            self._send_items(process, home)
            if self._send_outcomes(process, home, may_go_on=True):
                home.awaited = None
            else:  # there is no room in its socket, which it empties while it waits
                self._pool.block(worker)
                self._pool.ask_resume(worker)
        again = None
        for number, home in list(self._stirred.items()):
            while home.unsent and self._courier.send(self._processes[number], home.unsent[0]):
                del home.unsent[0]
            if home.unsent:
                again = _AGAIN_SECONDS
            if (home.ended or home.items) and home.awaited is None:
                process = self._processes[number]
                self._send_items(process, home)
                if home.ended and not self._send_outcomes(process, home, may_go_on=False):
                    again = _AGAIN_SECONDS
            if not (home.ended or home.items or home.unsent):
                del self._stirred[number]
        return again

    def post(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """Send a message, later if there is no room for it now."""
        home = self._get_home(process.number)
        if home.unsent or not self._courier.send(process, message):
            home.unsent.append(message)
            self._stirred[process.number] = home

    def _send_items(self, process: WorkerProcess, home: _Home) -> None:
        while home.items:
            key, payload = home.items[0]
            if not self._courier.send_payloads(process, [payload], partial(_make_items, key)):
                return
            del home.items[0]

    def _send_outcomes(self, process: WorkerProcess, home: _Home, *, may_go_on: bool) -> bool:
        """Send what there is; whether the worker has got all of it."""
        while True:
            chosen = _choose(home.ended)
            is_last = len(chosen) == len(home.ended)
            make = _OutcomesMaker(chosen, may_go_on=may_go_on and is_last)
            if not self._courier.send_payloads(process, [end[1] for end in chosen], make):
                return False
            del home.ended[: len(chosen)]
            if is_last:
                return True

    def grant(self, process: WorkerProcess, key: int, items: int) -> None:
        """More may come of a stream that runs in a worker, which waits for that perhaps."""
        self.post(process, (m.GRANT, key, items))
        worker = self._pool.workers.get(process.number)
        if worker is not None and worker.is_blocked and key in worker.inflight:
            self._pool.ask_resume(worker)

    def answer(self, process: WorkerProcess, number: int, ask: Callable[[], Any]) -> None:
        """Answer a worker's question."""
        try:
            message = (m.ANSWER, number, False, dumps(ask(), 5))
        except Exception as error:
            message = (m.ANSWER, number, True, pack_exception(error))
        self.post(process, message)

    def tell_cancelled(
        self, process: WorkerProcess, number: int, asked: Iterable[int], withdrawn: set[int]
    ) -> None:
        """Answer a worker that has cancelled calls: which of them will not come to it any more.

        That counts those in as well that nobody knows: the answer that told of them was lost to an interrupt.
        """
        home = self._get_home(process.number)
        home.ended = [end for end in home.ended if end[0] not in withdrawn]
        coming = {end[0] for end in home.ended}
        gone = [
            key
            for key in asked
            if key in withdrawn or (key not in coming and not self._pool.knows(key))
        ]
        self.post(process, (m.CANCELLED, number, gone))

    def list_made_by(self, number: int) -> set[int]:
        """Keys of the calls without an outcome that a worker's calls have made."""
        keys = {
            entry.key for entry in self._pool.list_queued() if m.get_origin(entry.key) == number
        }
        for worker in self._pool.workers.values():
            keys.update(key for key in worker.inflight if m.get_origin(key) == number)
        return keys

    def lose(self, number: int) -> None:
        """A worker has ended."""
        self._homes.pop(number, None)
        self._stirred.pop(number, None)

    def is_home(self, number: int) -> bool:
        """Whether calls of a worker have made calls that it still waits for."""
        home = self._homes.get(number)
        return home is not None and bool(home.ended or self.list_made_by(number))


def _rebuild_options(described: tuple[Any, ...]) -> CallOptions:
    """What a worker said of a call; whether it is tried again is the worker's affair."""
    timeout, priority, need, actor, window, name = described
    return CallOptions(
        timeout=timeout, priority=priority, need=need, actor=actor, window=window, name=name
    )


class _OutcomesMaker:
    """Makes the message of some outcomes."""

    def __init__(self, ended: list[tuple[int, Payload, bool]], *, may_go_on: bool) -> None:
        self._keys = [key for key, _, _ in ended]
        self._failed = [index for index, (_, _, failed) in enumerate(ended) if failed]
        self._may_go_on = may_go_on

    def __call__(self, payloads: list[Any], uses: Any, freed: Any) -> tuple[Any, ...]:
        return m.OUTCOMES, self._keys, payloads, self._failed, uses, freed, self._may_go_on


def _make_items(key: int, payloads: list[Any], uses: Any, freed: Any) -> tuple[Any, ...]:
    return m.ITEMS, key, payloads, uses, freed


def _choose(ended: list[tuple[int, Payload, bool]]) -> list[tuple[int, Payload, bool]]:
    size = 0
    for index, (_, payload, _) in enumerate(ended[:_OUTCOMES]):
        size += measure(payload)
        if size > _OUTCOME_BYTES and index:
            return ended[:index]
    return ended[:_OUTCOMES]
