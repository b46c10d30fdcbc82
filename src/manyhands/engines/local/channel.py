"""Whole messages, with open files beside them, over a Unix socket pair.

Both the parent and its child processes use this module, so it imports C modules alone: a child that
imported :mod:`socket` would start 10 ms later.
"""

from __future__ import annotations

import _socket
import select
from _pickle import dumps, loads
from array import array
from os import sched_yield
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = tuple[Any, ...]

MAX_FRAME = 192 * 1024
"""Bytes of the largest message; what is larger goes through a segment. The kernel's default for a socket's
buffer is 208 KiB, and a message on a packet socket has to fit in it."""

LONGEST_SECONDS = 86_400.0
"""Of a wait at a time, since `poll` takes no more than 24 days."""

_MAX_FDS = 64
_ANCILLARY = _socket.CMSG_SPACE(_MAX_FDS * 4)


def open_pair() -> tuple[_socket.socket, _socket.socket]:
    """Two connected sockets that keep message boundaries. Neither is inherited by a program that is exec'd."""
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return ends[0], ends[1]


class Channel:
    """One end of a packet socket that carries pickled tuples.

    A message is received whole or not at all, so either of two readers of one end may take it, and none sees
    half of it: this is what lets the parent take back what a worker has not read yet.

    Parameters
    ----------
    sock
        Owned by the channel from now on.
    """

    __slots__ = ("_buffer", "_poll", "_sock", "_view")

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._buffer = bytearray(MAX_FRAME)
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, fds: tuple[int, ...] = (), *, wait: bool = True) -> bool:
        """Send one message.

        Parameters
        ----------
        message
            A tuple of plain values; its pickle has to stay under `MAX_FRAME`.
        fds
            Descriptors to hand over; the caller keeps its own.
        wait
            Whether to wait for room in the socket.

        Returns
        -------
        bool
            False where there was no room and `wait` is false.

        Raises
        ------
        OSError
            The other end is gone.
        """
        flags = 0 if wait else _socket.MSG_DONTWAIT
        frame = dumps(message, 5)
        try:
            if fds:
                rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))
                self._sock.sendmsg([frame], [rights], flags)
            else:
                self._sock.send(frame, flags)
        except BlockingIOError:
            return False
        return True

    def receive(self, *, wait: bool = True) -> tuple[Message, tuple[int, ...]] | None:
        """The next message and the descriptors that came with it, or None.

        Returns
        -------
        tuple or None
            None where nothing waits and `wait` is false. The caller owns the descriptors.

        Raises
        ------
        EOFError
            The other end is closed and nothing is left to read.
        """
        try:
            size, ancillary, _, _ = self._sock.recvmsg_into(
                [self._buffer], _ANCILLARY, 0 if wait else _socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise EOFError from None
        if not size:
            raise EOFError
        message = loads(self._view[:size])
        if not ancillary:
            return message, ()
        fds = array("i")
        for _, _, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return message, tuple(fds)

    def has_message(self) -> bool:
        """Whether something waits to be read, or the other end is closed."""
        return bool(self._poll.poll(0))

    def wait(self, seconds: float) -> bool:
        """Sleep until something is there to be read, at most so long; whether it is."""
        return bool(self._poll.poll(min(seconds, LONGEST_SECONDS) * 1000))

    def watch(self, seconds: float) -> None:
        """Look for a message without sleeping, for at most `seconds`, and let whoever wants this core have it.

        A process that sleeps is woken 10 to 100 µs late, the more so the idler the machine is.
        """
        poll = self._poll.poll
        end = perf_counter() + seconds
        while not poll(0) and perf_counter() < end:
            sched_yield()

    def close(self) -> None:
        self._sock.close()
