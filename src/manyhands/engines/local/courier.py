"""What goes to workers: calls, and before them what they need, sent once; and what comes back unread."""

from __future__ import annotations

import os
import threading

from manyhands.core.model import DEFAULT_OPTIONS
from manyhands.engines.local import messages as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from manyhands.core.functions import Function, FunctionTable
    from manyhands.engines.local.pool_parts import Entry, WorkerState
    from manyhands.engines.local.pool_state import PoolState
    from manyhands.engines.local.process import WorkerProcess
    from manyhands.engines.local.store import Load, Store

_FUNCTIONS_PER_WORKER = 512
"""Functions that a worker keeps; then it is told to forget them all."""


class LateStore:
    """The store, made when the first large value is there: most sessions never need one.

    Parameters
    ----------
    make
        Makes it.

    Attributes
    ----------
    current : Store or None
    """

    def __init__(self, make: Callable[[], Store]) -> None:
        self.current: Store | None = None
        self._make = make
        self._lock = threading.Lock()

    def get(self) -> Store:
        """The store, from now on there."""
        if self.current is None:
            with self._lock:
                if self.current is None:
                    self.current = self._make()
        return self.current


class Courier:
    """Sends to workers, for the leading thread.

    Parameters
    ----------
    pool
        Gets back what cannot be sent.
    processes
        The workers, by number.
    functions
        Of the session.
    store
        Of the session.
    """

    def __init__(
        self,
        pool: PoolState,
        processes: dict[int, WorkerProcess],
        functions: FunctionTable,
        store: LateStore,
    ) -> None:
        self._pool = pool
        self._processes = processes
        self._functions = functions
        self._store = store
        self._device_kind: list[
            str | None
        ] = []  # once it is known; None where no device can be seen

    def send_calls(self, worker: WorkerState, entries: list[Entry]) -> bool:
        """Send one message of calls; False where there is no room in the socket."""
        process = self._processes[worker.number]
        for function in {entry.function.key: entry.function for entry in entries}.values():
            if function.key not in worker.known and not self._send_function(worker, function):
                return False
        keys = [entry.key for entry in entries]
        functions = [entry.function.key for entry in entries]
        extras = self._describe_extras(worker, entries)
        return self.send_payloads(
            process,
            [entry.payload for entry in entries],
            lambda payloads, uses, freed: (
                m.CALLS,
                keys,
                functions,
                payloads,
                uses,
                freed,
                extras,
            ),
        )

    def _describe_extras(
        self, worker: WorkerState, entries: list[Entry]
    ) -> dict[int, tuple[float | None, dict[str, str] | None, int]] | None:
        """What a worker has to know of calls beside what they run; None for nearly all."""
        extras = {}
        for entry in entries:
            options = entry.options
            devices = worker.devices
            if entry.stage and self._pool.stages[entry.stage].devices:
                devices = self._pool.stages[entry.stage].devices
            has_seen_others = worker.visible is not None and not entry.stage
            is_plain = options is DEFAULT_OPTIONS or not (
                options.timeout or options.window or devices
            )
            if is_plain and not has_seen_others:
                continue
            environment = None
            if devices:
                environment = self._show(devices)
            elif has_seen_others:
                environment = {}  # as it was before it was shown any
            extras[entry.key] = (options.timeout, environment, options.window)
        return extras or None

    def _show(self, devices: tuple[str, ...]) -> dict[str, str]:
        """Variables that show devices to a call."""
        from manyhands.core.devices import detect_gpus, make_environment

        if not self._device_kind:
            self._device_kind = [detect_gpus(os.environ)[0]]
        return make_environment(devices, self._device_kind[0])

    def send_payloads(
        self,
        process: WorkerProcess,
        payloads: list[Any],
        make: Callable[[list[Any], Any, Any], tuple[Any, ...]],
    ) -> bool:
        """Send a message with payloads; False where there is no room in the socket.

        Parameters
        ----------
        process
        payloads
        make
            Makes the message of the payloads as the worker gets them, the ids of what is shared in them, and the ids
            of the worker's values that nobody needs.
        """
        if self._store.current is None and all(type(payload) is bytes for payload in payloads):
            return self.send(process, make(payloads, (), ()))
        store = self._store.get()
        load = self._pack(process.number, payloads)
        freed = store.take_freed(process.number)
        if load.uses or freed:
            self.tell_room(process)
        if self._send_heaps(process, load) and self.send(process, make(payloads, load.uses, freed)):
            return True
        store.take_back(process.number, load.uses)
        store.put_back_freed(process.number, freed)
        return False

    def _send_function(self, worker: WorkerState, function: Function) -> bool:
        process = self._processes[worker.number]
        if len(worker.known) >= _FUNCTIONS_PER_WORKER:
            if not self.send(process, (m.FORGET, list(worker.known))):
                return False
            worker.known.clear()
        payloads = [function.payload]
        load = self._pack(worker.number, payloads)
        message = (m.FUNCTION, function.key, function.name, payloads[0], load.uses)
        if self._send_heaps(process, load) and self.send(process, message):
            worker.known.add(function.key)
            return True
        if self._store.current is not None:
            self._store.current.take_back(worker.number, load.uses)
        return False

    def _pack(self, worker: int, payloads: list[Any]) -> Load:
        """Put payloads into the form in which the worker gets them, and count what they need as held by it."""
        from manyhands.engines.local.store import Load

        load = Load(worker)
        for place, payload in enumerate(payloads):
            if type(payload) is not bytes:
                payloads[place] = self._store.get().pack(payload, load)
        return load

    def _send_heaps(self, process: WorkerProcess, load: Load) -> bool:
        """Tell a worker of heaps that it does not know."""
        for number in load.missing:
            store = self._store.get()
            heap = store.get_heap(number)
            if not self.send(process, (m.HEAP, number, heap.size), (heap.fd,)):
                return False
            store.know_heap(process.number, number, known=True)
        return True

    def send(
        self, process: WorkerProcess, message: tuple[Any, ...], fds: tuple[int, ...] = ()
    ) -> bool:
        """Send a message; False where there is no room for it now."""
        is_ordered = message[0] in m.IN_ORDER or (
            message[0] in (m.CALLS, m.FUNCTION) and self._keeps_order(process)
        )
        if is_ordered:
            message = (m.ORDERED, process.ordered, message)
        if not self._post(process, message, fds):
            return False
        process.ordered += is_ordered
        return True

    def _keeps_order(self, process: WorkerProcess) -> bool:
        """Whether a worker runs the calls of an actor, which keep their order, one by one."""
        worker = self._pool.workers.get(process.number)
        return worker is not None and bool(worker.stages) and not worker.is_host

    def _post(self, process: WorkerProcess, message: tuple[Any, ...], fds: tuple[int, ...]) -> bool:
        try:
            return process.channel.send(message, fds, wait=False)
        except (BrokenPipeError, ConnectionResetError):
            return False  # it has died; the template's word of it is on its way

    def forget_functions(self) -> None:
        """Have workers let go of functions that are gone here."""
        keys = set()
        while self._functions.departed:
            keys.add(self._functions.departed.popleft())
        for worker in self._pool.workers.values():
            known = worker.known & keys
            if not known:
                continue
            if self.send(self._processes[worker.number], (m.FORGET, list(known))):
                worker.known -= known
            else:
                self._functions.departed.extend(known)

    def tell_room(self, process: WorkerProcess) -> None:
        """Tell a worker how much it may add to the store."""
        room = self._store.get().room
        process.set_room(room.measure_free(), room.warm_limit, room.heap_size)

    def tell_freed(self) -> None:
        """Tell workers of room in their heaps, where no calls go to them that could."""
        for number, process in self._processes.items():
            freed = self._store.get().take_freed(number)
            if freed and not self.send(process, (m.FREE, freed)):
                self._store.get().put_back_freed(number, freed)

    def take_back(
        self, process: WorkerProcess, worker: WorkerState, wanted: Container[int] | None = None
    ) -> bool:
        """Read what the worker has not read yet and queue its calls again; whether there was any.

        It reads on meanwhile, and may get a later message than the one that is taken from it here. So calls that keep
        their order come back only if they are `wanted`, or all are; the others are sent again under their numbers.
        """
        keys: list[int] = []
        kept: list[tuple[tuple[Any, ...], tuple[int, ...]]] = []
        while True:
            try:
                received = process.inbox.receive(wait=False)
            except (EOFError, OSError):
                break
            if received is None:
                break
            message, fds = received
            if message[0] == m.CALLS:
                keys += message[1]
            if message[0] == m.ORDERED:
                kept.append((_leave_out(message, wanted, keys), fds))
            else:
                self._undo(worker, message)
        for message, fds in kept:  # there is room, which they had before
            self._post(process, message, fds)
            for fd in fds:
                os.close(fd)
        self._pool.give_back(worker, keys)
        return bool(keys)

    def _undo(self, worker: WorkerState, message: tuple[Any, ...]) -> None:
        """A worker has not got a message, and will not."""
        kind, store = message[0], self._store.current
        if kind == m.FUNCTION:
            worker.known.discard(message[1])
        elif kind == m.FORGET:
            worker.known.update(message[1])
            self._functions.departed.extend(message[1])
        if store is None:
            return
        if kind in (m.CALLS, m.FUNCTION):
            store.take_back(worker.number, message[4])
        if kind in (m.CALLS, m.FREE):
            store.put_back_freed(worker.number, message[5 if kind == m.CALLS else 1])


def _leave_out(
    message: tuple[Any, ...], wanted: Container[int] | None, keys: list[int]
) -> tuple[Any, ...]:
    """A numbered message without the calls that are `wanted`, or without any; `keys` gets those of these calls."""
    kind, number, inner = message
    if inner[0] != m.CALLS:
        return message
    taken = [key for key in inner[1] if wanted is None or key in wanted]
    if not taken:
        return message
    keys += taken
    left = [index for index, key in enumerate(inner[1]) if key not in taken]
    columns = [[column[index] for index in left] for column in inner[1:4]]
    return kind, number, (m.CALLS, *columns, *inner[4:])
