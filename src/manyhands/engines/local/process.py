"""The parent's side of the template process and of each worker: starting them, and what belongs to them."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import deque

from manyhands.core.modules import needs_site
from manyhands.engines.local import messages as m
from manyhands.engines.local.channel import Channel, open_pair
from manyhands.engines.local.cpus import limit_threads
from manyhands.engines.local.launch import start_interpreter
from manyhands.engines.local.shm import create_region, create_segment
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STDERR_LINES = 20
"""Lines of a worker's standard error that the error of its death shows."""


def describe_program(
    workers: int, cpus: int, env: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What makes up this Python program for another interpreter: settings for the template, and its environment.

    Parameters
    ----------
    workers, cpus
        How many workers there will be, and on how many cores.
    env
        Variables of the environment that they have beside this program's.
    """
    if not sys.executable:
        raise WorkerStartError("sys.executable is empty, so no Python is known to run workers with")
    settings = {
        "path": [_anchor(entry) if isinstance(entry, str) else entry for entry in sys.path],
        "argv": list(getattr(sys, "argv", [""])),
        "prefix": sys.prefix,
        "exec_prefix": sys.exec_prefix,
        "site": needs_site(),
        "interpreter": {
            "executable": sys.executable,
            "flags": _list_flags(),
            "root": os.path.dirname(
                os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            ),
        },
    }
    inherited = {**os.environ, **env}
    return settings, {**inherited, **limit_threads(workers, cpus, inherited)}


def _anchor(entry: str) -> str:
    """An entry of the search path made absolute; a relative one stays where it was when it was first used."""
    finder = sys.path_importer_cache.get(entry)
    return getattr(finder, "path", None) or os.path.abspath(entry)


def _list_flags() -> list[str]:
    """Command-line flags that give another interpreter this one's ways."""
    flags = ["-O"] * sys.flags.optimize + ["-b"] * sys.flags.bytes_warning
    for name, flag in (
        ("dont_write_bytecode", "-B"),
        ("ignore_environment", "-E"),
        ("no_user_site", "-s"),
    ):
        if getattr(sys.flags, name):
            flags.append(flag)
    flags += [f"-W{option}" for option in sys.warnoptions]
    for name in ("dev", "utf8"):
        if name in sys._xoptions:
            flags += ["-X", f"{name}={sys._xoptions[name]}" if name == "utf8" else name]
    return flags


_END_SECONDS = 2.0
"""How long the template has to end, before it is killed."""


class TemplateProcess:
    """The template, from the parent.

    Parameters
    ----------
    workers, cpus, env
        See `describe_program`.
    """

    def __init__(self, workers: int, cpus: int, env: dict[str, str]) -> None:
        settings, environment = describe_program(workers, cpus, env)
        ours, theirs = open_pair()
        try:
            code = "from manyhands.engines.local.template import main; main()"
            self.pid = start_interpreter(
                code, theirs.fileno(), settings["interpreter"], environment
            )
        except OSError as error:
            ours.close()
            raise WorkerStartError(f"cannot start {sys.executable} for workers: {error}") from error
        finally:
            theirs.close()
        self.channel = Channel(ours)
        self.channel.send((m.CONFIGURE, settings))

    def start_worker(self, number: int, settings: dict[str, Any]) -> WorkerProcess:
        """Have a worker made; it can be sent calls at once, and takes them when it is up.

        Raises
        ------
        OSError
            The template is gone.
        """
        return WorkerProcess(number, self.channel, settings)

    def close(self) -> int:
        """Have the template end, and its workers with it, and wait for that; the exit status."""
        self.channel.close()
        try:
            if not _ends_within(self.pid, _END_SECONDS):
                os.kill(self.pid, signal.SIGKILL)  # stopped, or stuck
            return os.waitpid(self.pid, 0)[1]
        except (ChildProcessError, ProcessLookupError):  # somebody else waits for all children here
            return 0


def _ends_within(pid: int, seconds: float) -> bool:
    """Whether a child ends within so many seconds."""
    fd = os.pidfd_open(pid)
    try:
        return has_ended(fd, seconds)
    finally:
        os.close(fd)


def has_ended(fd: int, seconds: float = 0.0) -> bool:
    """Whether the process that `fd` stands for has ended, or does within so many seconds."""
    waiter = select.poll()
    waiter.register(fd, select.POLLIN)
    return bool(waiter.poll(seconds * 1000))


class WorkerProcess:
    """One worker, from the parent: what goes to it, comes from it and is shared with it.

    Attributes
    ----------
    pid : int or None
        None until the template has said it.
    is_ready : bool
        Whether its initializer has run.
    is_orphan : bool
        Whether its template has ended, so that nobody will report its end.
    notices : list of str
        What is known of its end beside the status.
    ordered : int
        Numbered messages that it was sent; see `messages.IN_ORDER`.
    refusal : str
        Why there was no room for the result that it asked room for last.
    end_fd : int
        Of an orphan: becomes readable when it ends; -1 for none.
    """

    def __init__(self, number: int, template: Channel, settings: dict[str, Any]) -> None:
        self.number = number
        self.pid: int | None = None
        self.is_ready = False
        self.is_orphan = False
        self.refusal = ""
        self.ordered = 0
        self.end_fd = -1
        self._due: set[int] = (
            set()
        )  # signals, until its process id is known and it is ready for them
        ours, theirs = open_pair()
        self.channel = Channel(ours)
        # The worker's own end, kept: what the worker has not read can be read here, and is then not read there.
        self.inbox = Channel(theirs)
        region_fd, self._region = create_region(m.REGION_SIZE + m.STACK_SIZE)
        self.region = memoryview(self._region)
        self._words = self.region.cast("Q")
        life, self._life = os.pipe()
        stdout, stdout_end = os.pipe()
        stderr, stderr_end = os.pipe()
        self.stdout = LineReader(stdout)
        self.stderr = LineReader(stderr, keep=STDERR_LINES)
        fds: tuple[int, ...] = (theirs.fileno(), life, region_fd, stdout_end, stderr_end)
        if settings["initializer"] is not None:  # its arguments may be of any size
            fds = (*fds, create_segment(settings["initializer"]))
        try:
            described = settings | {"initializer": None, "number": number}
            template.send((m.START, number, described), fds)
        except OSError:
            self.close()
            raise
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def get_current(self) -> int:
        """The key of the call that it is at; 0 for none."""
        return int(self._words[m.CURRENT])

    def get_started(self) -> float:
        """When the call that it is at began, in seconds of the monotonic clock; of calls with a time-out alone."""
        return int(self._words[m.STARTED]) / 1e9

    def interrupt(self, key: int) -> None:
        """Raise `CallInterrupted` in the call `key` if it is at that."""
        self._words[m.INTERRUPT] = key
        self._signal(m.INTERRUPT_SIGNAL)

    def interrupt_again(self, key: int) -> None:
        """Signal once more where it has not heard of the interrupt: Python looks for signals before it enters a wait.

        One that comes between the look and the wait is heard of when the wait is over, which may be never.
        """
        if self._words[m.INTERRUPT] == key:
            self._signal(m.INTERRUPT_SIGNAL)

    def forbid(self, key: int) -> None:
        """Keep it from beginning the call `key`, where there is room for one more; an interrupt ends what has begun."""
        words = self._words
        for place in m.CANCELLED_KEYS:
            if not words[place]:
                words[place] = key
                words[m.CANCELS] += 1
                return

    def allow(self, key: int) -> None:
        """The call `key` has ended, or is not in its hands any more."""
        words = self._words
        for place in m.CANCELLED_KEYS if words[m.CANCELS] else ():
            if words[place] == key:
                words[place] = 0
                words[m.CANCELS] -= 1

    def ask_stack(self) -> None:
        """Have it write its Python stack, whatever it is at; `read_stack` has it a moment later."""
        self._signal(m.STACK_SIGNAL)

    def read_stack(self) -> str:
        """The stack that it was asked for, the innermost frame first; empty where it has not come."""
        raw = bytes(self.region[m.REGION_SIZE :]).partition(b"\0")[0]
        return raw.decode("utf-8", "backslashreplace").strip()

    def get_journal(self) -> memoryview:
        """Results that had ended but were not sent when it died."""
        end = min(int(self._words[m.JOURNAL_END]), m.REGION_SIZE)
        return self.region[m.JOURNAL_START : max(end, m.JOURNAL_START)]

    def set_room(self, size: int, warm_limit: int, heap_size: int) -> None:
        """How many bytes it may add to the store without asking, and how it lays out what it makes."""
        words = self._words
        words[m.WARM_LIMIT], words[m.HEAP_SIZE], words[m.ROOM] = warm_limit, heap_size, size

    def answer_room(self, *, is_there: bool) -> None:
        """Answer its `NEED_ROOM`."""
        self._words[m.ROOM_ANSWER] = m.IS_ROOM if is_there else m.NO_ROOM

    def ask_back(self) -> None:
        """Ask it for the results that it holds, and for the calls of its message that it has not begun."""
        self._signal(m.GIVE_BACK_SIGNAL)

    def send_due(self) -> None:
        """More is known of it: send the signals that it was to get before it could get any."""
        due, self._due = self._due, set()
        for number in due:
            self._signal(number)

    def _signal(self, number: int) -> None:
        if self.pid is None or not self.is_ready:
            self._due.add(number)
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return  # it has ended; the template's word of it is on its way

    def kill(self) -> None:
        """End it at once, whatever it is at: the kernel kills it when its pipe closes."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def close(self) -> None:
        """Kill it, if it lives, and give back all that belongs to it."""
        self.kill()
        self.channel.close()
        self.inbox.close()
        self.stdout.close()
        self.stderr.close()
        if self.end_fd >= 0:
            os.close(self.end_fd)
            self.end_fd = -1
        self._words.release()
        self.region.release()
        self._region.close()


class LineReader:
    """Cuts what comes from a pipe into whole lines.

    Parameters
    ----------
    fd
        Reading end; owned from now on.
    keep
        How many of the last lines to remember.
    """

    def __init__(self, fd: int, keep: int = 0) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.tail: deque[str] = deque(maxlen=keep)
        self._rest = b""

    def read(self, write: Callable[[str], object], *, last: bool = False) -> bool:
        """Hand all whole lines that have come to `write`, and with `last` also an unfinished one.

        Returns
        -------
        bool
            False where the pipe has ended.
        """
        is_open = True
        while self.fd >= 0:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            if not data:
                is_open = False
                break
            self._rest += data
            self._cut(write)
            if len(data) < 65536:
                break
        if last and self._rest:
            self._rest += b"\n"
            self._cut(write)
        return is_open

    def _cut(self, write: Callable[[str], object]) -> None:
        whole, newline, self._rest = self._rest.rpartition(b"\n")
        if newline:
            text = whole.decode("utf-8", "backslashreplace")
            if self.tail.maxlen:
                self.tail.extend(text.split("\n"))
            write(text + "\n")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
