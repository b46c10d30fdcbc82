"""One end of the connections between a program and its workers: a socket of ZeroMQ, and the thread that owns it."""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from contextlib import suppress
from math import ceil
from queue import SimpleQueue

import zmq
from zmq.utils.monitor import recv_monitor_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_BEAT_MS = 3_000
_SILENCE_MS = 20_000
"""How often ZeroMQ asks whether the other side is there, and how long that may be silent: its network was cut."""

_MOST_AT_ONCE = 200
"""Messages."""

_LINGER_MS = 1_000
"""How long what was sent last may take."""


def make_socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[Any]:
    """A socket that notices a dead connection."""
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.set_hwm(0)
    socket.linger = _LINGER_MS
    socket.heartbeat_ivl = _BEAT_MS
    socket.heartbeat_timeout = _SILENCE_MS
    return socket


class Wire(threading.Thread):
    """Sends and takes messages, which are tuples.

    Parameters
    ----------
    socket
        Bound or connected; the thread closes it.
    take
        Called in the thread with the identity of the sender, empty where there is but one, and its message.
    on_cut
        Called in the thread when a connection has ended; it may be that of anybody.
    on_failure
        Called in the thread with what ends it, where that is not `close`.
    on_unreachable
        Called in the thread with the identity of somebody who is not there any more.
    tick
        Called in the thread all the time, which says after how many seconds again.
    watched
        Descriptors, and what to call in the thread when there is something to read.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        take: Callable[[bytes, tuple[Any, ...]], None],
        *,
        on_cut: Callable[[], None],
        on_failure: Callable[[Exception], None],
        on_unreachable: Callable[[bytes], None] = lambda identity: None,  # noqa: ARG005
        tick: Callable[[], float] = lambda: 3600.0,
        watched: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        super().__init__(name="manyhands-parsl-wire", daemon=True)
        self._socket = socket
        self._is_router = socket.type == zmq.ROUTER
        self._take = take
        self._on_cut = on_cut
        self._on_failure = on_failure
        self._on_unreachable = on_unreachable
        self._tick = tick
        self._watched = dict(watched or {})
        self._due: deque[tuple[bytes, bytes]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_over = False
        self.taken = 0
        """Bytes that have come."""

    def send(self, message: tuple[Any, ...], identity: bytes = b"") -> None:
        """Send a message; from any thread, without waiting."""
        self._due.append((identity, pickle.dumps(message, 5)))
        self.ring()

    def ring(self) -> None:
        """Have the thread tick."""
        with suppress(OSError):  # it has ended
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Send what is due, and end."""
        self._is_over = True
        self.ring()
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        poller = zmq.Poller()
        for source in (self._socket, self._bell, monitor, *self._watched):
            poller.register(source, zmq.POLLIN)
        try:
            while not self._is_over:
                seconds = self._tick()
                ready = dict(poller.poll(ceil(1000 * seconds)))
                if self._bell in ready:
                    os.eventfd_read(self._bell)
                self._send_due()
                if self._socket in ready:
                    self._receive()
                if monitor in ready:
                    recv_monitor_message(monitor, zmq.NOBLOCK)
                    self._on_cut()
                for descriptor, call in self._watched.items():
                    if descriptor in ready:
                        call()
            self._send_due()
        except Exception as error:
            self._on_failure(error)
        finally:
            self._socket.disable_monitor()
            monitor.close()
            self._socket.close()
            bell, self._bell = self._bell, -1
            os.close(bell)

    def _send_due(self) -> None:
        while self._due:
            identity, content = self._due.popleft()
            try:
                if self._is_router:
                    self._socket.send_multipart([identity, content])
                else:
                    self._socket.send(content)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._on_unreachable(identity)

    def _receive(self) -> None:
        """Take what has come so far, but not so much that nothing is sent meanwhile."""
        with suppress(zmq.Again):
            for _ in range(_MOST_AT_ONCE):
                *rest, content = self._socket.recv_multipart(zmq.NOBLOCK)
                self.taken += len(content)
                self._take(rest[0] if rest else b"", pickle.loads(content))


class Hands:
    """Does one thing after the other in a thread of its own, for threads that must not wait."""

    def __init__(self) -> None:
        self._due: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="manyhands-parsl-hands", daemon=True).start()

    def do(self, call: Callable[[], None]) -> None:
        """Call it, after all that was given before."""
        self._due.put(call)

    def close(self) -> None:
        """Do what was given, and no more."""
        self._due.put(None)

    def _work(self) -> None:
        while (call := self._due.get()) is not None:
            call()
            del call  # what it holds goes now, and not with the next one
