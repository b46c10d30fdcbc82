"""The process that workers are forked from: clean, single-threaded, small.

The parent starts it with ``-S`` and sends it all that makes up a Python program (search path, arguments,
prefixes). It forks a worker in about a millisecond, tells the parent when one ends, and when the parent is gone
it kills what is left and ends. With the start method "spawn" it starts a fresh interpreter for each worker
instead: this module is the one place that knows the difference.
"""

from __future__ import annotations

import _signal
import _socket
import builtins
import gc
import os
import select
import sys

from manyhands.engines.local import messages as m
from manyhands.engines.local import stdio, worker
from manyhands.engines.local.channel import Channel
from manyhands.engines.local.launch import PARENT_FD, start_interpreter
from manyhands.engines.local.shm import read_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Serve the parent: the entry point of the process."""
    os.closerange(
        PARENT_FD + 1, os.sysconf("SC_OPEN_MAX")
    )  # what the parent made inheritable for others
    channel = Channel(_socket.socket(fileno=PARENT_FD))
    received = channel.receive()
    assert received is not None
    (_, settings), _ = received
    apply_settings(settings)
    Template(channel, settings).serve()


def spawn_main() -> None:
    """Serve as one worker: the entry point of a process that was not forked but started."""
    channel = Channel(_socket.socket(fileno=PARENT_FD))
    received = channel.receive()
    assert received is not None
    (_, settings, worker_settings), fds = received
    channel.close()
    apply_settings(settings)
    run_worker(fds, worker_settings)


def apply_settings(settings: dict[str, Any]) -> None:
    """Make this interpreter see what the parent's sees."""
    if settings["site"]:
        import site

        site.main()
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["argv"]
    sys.prefix, sys.exec_prefix = settings["prefix"], settings["exec_prefix"]
    _add_builtins()


def _add_builtins() -> None:
    """What ``site`` would have put there: users' functions call ``exit()``."""
    from _sitebuiltins import Quitter, _Helper

    vars(builtins).setdefault("exit", Quitter("exit", "Ctrl-D (i.e. EOF)"))
    vars(builtins).setdefault("quit", Quitter("quit", "Ctrl-D (i.e. EOF)"))
    vars(builtins).setdefault("help", _Helper())


def run_worker(fds: tuple[int, ...], settings: dict[str, Any]) -> None:
    """Be a worker until the parent needs it no more; does not return."""
    code = 1
    try:
        sock, life, region, stdout, stderr, *initializer = fds
        stdio.redirect(stdout, stderr)
        if initializer:
            settings = settings | {"initializer": read_segment(initializer[0])}
        worker.serve(Channel(_socket.socket(fileno=sock)), life, region, settings)
        code = 0
    except (BrokenPipeError, ConnectionResetError):  # the latter if it had not read all
        code = 0  # the parent is gone
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        worker.leave(code)


def _preload() -> None:
    """Load what calls need that make calls, once for all workers to come."""
    from importlib import import_module

    for name in (
        "manyhands.api.calls",
        "manyhands.core.actors",
        "manyhands.core.future",
        "manyhands.core.ledger",
        "manyhands.core.mapping",
        "manyhands.engines.local.nested",
        "cloudpickle",
    ):
        import_module(name)
    gc.collect()
    gc.freeze()


class Template:
    """Starts workers and buries them.

    Parameters
    ----------
    channel
        To the parent.
    settings
        What the parent sent first; a spawned worker gets them too.
    """

    def __init__(self, channel: Channel, settings: dict[str, Any]) -> None:
        self._channel = channel
        self._settings = settings
        self._workers: dict[int, int] = {}  # pid -> worker
        self._wakeup, wake = _socket.socketpair()
        self._wakeup.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        _signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        gc.collect()
        gc.freeze()  # so that no worker's collector touches, and thereby copies, the shared pages

    def serve(self) -> None:
        """Until the parent closes the channel or dies; then nothing of ours is left."""
        waiter = select.poll()
        waiter.register(self._channel.fileno(), select.POLLIN)
        waiter.register(self._wakeup.fileno(), select.POLLIN)
        try:
            while True:
                ready = dict(waiter.poll())
                if self._wakeup.fileno() in ready:
                    self._wakeup.recv(4096)
                    self._bury()
                if self._channel.fileno() in ready:
                    received = self._channel.receive()
                    assert received is not None
                    message, fds = received
                    if message[0] == m.START:
                        self._start(message[1], message[2], fds)
                    else:
                        _preload()
        except (EOFError, OSError):
            self._end()

    def _start(self, number: int, settings: dict[str, Any], fds: tuple[int, ...]) -> None:
        pid = (
            self._fork(settings, fds)
            if settings["start_method"] == "fork"
            else self._spawn(settings, fds)
        )
        for fd in fds:
            os.close(fd)
        self._workers[pid] = number
        self._channel.send((m.STARTED, number, pid))

    def _fork(self, settings: dict[str, Any], fds: tuple[int, ...]) -> int:
        pid = os.fork()
        if pid:
            return pid
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        self._wake.close()
        self._wakeup.close()
        self._channel.close()
        run_worker(fds, settings)
        raise AssertionError("a worker never comes back")

    def _spawn(self, settings: dict[str, Any], fds: tuple[int, ...]) -> int:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        code = "from manyhands.engines.local.template import spawn_main as main; main()"
        try:
            pid = start_interpreter(
                code, theirs.fileno(), self._settings["interpreter"], dict(os.environ)
            )
            Channel(ours).send((m.START, self._settings, settings), fds)
        finally:
            ours.close()
            theirs.close()
        return pid

    def _bury(self) -> None:
        """Report every worker that has ended."""
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._workers.pop(pid, None)
            if number is not None:
                self._channel.send((m.EXITED, number, pid, status))

    def _end(self) -> None:
        """Leave no worker behind: those that were told to end have a moment left by their own pipes."""
        for pid in self._workers:
            os.kill(pid, _signal.SIGKILL)
        for pid in self._workers:
            os.waitpid(pid, 0)
        os._exit(0)
