"""What stands for sockets, for the template process and for the parent's side of a worker."""

from __future__ import annotations

from collections import deque
from struct import pack
from typing import TYPE_CHECKING, Any

from manyhands.core.timeouts import GRACE_SECONDS
from manyhands.engines.local import messages as m
from tests.simulation.outside import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.worker import SimulatedWorker
    from tests.simulation.world import World

SIGKILL = 9


class ParentEnd:
    """The parent's end of a socket, and the way to what the other end has not read.

    Attributes
    ----------
    incoming, outgoing
        Messages under way, the oldest first.
    is_open
        Whether the parent has not closed it.
    is_ended
        Whether the other end is gone, so that after what has come there is nothing.
    """

    __slots__ = ("fd", "incoming", "is_ended", "is_open", "outgoing", "room", "world")

    def __init__(self, world: World, room: int) -> None:
        self.world = world
        self.room = room
        self.incoming: deque[tuple[Any, ...]] = deque()
        self.outgoing: deque[tuple[Any, ...]] = deque()
        self.is_open = True
        self.is_ended = False
        self.fd = world.open_fd(self)

    def fileno(self) -> int:
        """Its number."""
        return self.fd

    def has_message(self) -> bool:
        """Whether `receive` gives something, or the end."""
        return bool(self.incoming) or self.is_ended

    def send(self, message: tuple[Any, ...], _fds: object = (), *, wait: bool = True) -> bool:
        """Send a message; False where there is no room."""
        self.world.jostle()
        has_room = wait or len(self.outgoing) < self.room
        if self.world.is_told:
            self.world.tell_message(self.fd, message, "sent" if has_room else "NO ROOM")
        if has_room:
            self.outgoing.append(message)
        return has_room

    def receive(self, *, wait: bool = True) -> tuple[tuple[Any, ...], tuple[()]] | None:
        """The next message, None for none."""
        assert not wait
        self.world.jostle()
        if self.incoming:
            return self.incoming.popleft(), ()
        if self.is_ended or not self.is_open:
            raise EOFError
        return None

    def close(self) -> None:
        """The other end will see that."""
        self.is_open = False


class Inbox:
    """The worker's end, in the parent's hands: what it takes from there the worker does not get."""

    __slots__ = ("channel",)

    def __init__(self, channel: ParentEnd) -> None:
        self.channel = channel

    def receive(self, *, wait: bool = True) -> tuple[tuple[Any, ...], tuple[()]] | None:
        """The next message that the worker has not read."""
        assert not wait
        self.channel.world.jostle()
        unread = self.channel.outgoing
        return (unread.popleft(), ()) if unread else None

    def close(self) -> None:
        """Nobody looks."""


class Output:
    """Stands for a pipe that a worker writes to: nothing comes."""

    __slots__ = ("fd", "tail")

    def __init__(self, world: World) -> None:
        self.fd = world.open_fd(None)
        self.tail: list[str] = []

    def read(self, _write: object, *, last: bool = False) -> bool:
        """Nothing; it has not ended."""
        return True

    def close(self) -> None:
        """Nothing to close."""


class SimulatedTemplate:
    """Stands for `process.TemplateProcess`; its work is forking, and telling of ends.

    Attributes
    ----------
    births
        Workers that it was asked for and has not forked.
    ends
        Workers that have ended and that it has not told of.
    """

    def __init__(self, *_: object) -> None:
        world = here.world
        self.world = world
        self.channel = ParentEnd(world, 1 << 30)
        self.births: deque[SimulatedProcess] = deque()
        self.ends: deque[SimulatedProcess] = deque()
        world.templates.append(self)

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self.channel.is_ended

    def start_worker(self, number: int, settings: dict[str, Any]) -> SimulatedProcess:
        """Have a worker made, sooner or later."""
        process = SimulatedProcess(self, number, settings)
        self.births.append(process)
        return process

    def step(self) -> None:
        """Fork, or tell of an end, whichever comes."""
        say = self.channel.incoming.append
        if self.births and (not self.ends or self.world.toss(0.5)):
            process = self.births.popleft()
            process.pid_there = 1000 + process.number
            say((m.STARTED, process.number, process.pid_there))
            self.world.bear(process)
        else:
            process = self.ends.popleft()
            say((m.EXITED, process.number, process.pid_there, process.status))

    def die(self) -> None:
        """It is killed: nobody tells of its workers any more."""
        self.channel.is_ended = True

    def close(self) -> int:
        """Have it end, and its workers that are not up."""
        self.channel.is_ended = True
        self.channel.close()
        return SIGKILL


class SimulatedProcess:
    """Stands for `process.WorkerProcess`.

    Attributes
    ----------
    worker
        The child, once it was forked.
    pid_there
        Its process id, whether the parent knows it or not.
    """

    def __init__(self, template: SimulatedTemplate, number: int, settings: dict[str, Any]) -> None:
        world = template.world
        self.world = world
        self.template = template
        self.number = number
        self.settings = settings | {"number": number}
        self.pid: int | None = None
        self.pid_there = 0
        self.status = SIGKILL
        self.is_ready = False
        self._is_orphan = False
        self.refusal = ""
        self.ordered = 0
        self.forbidden: list[int] = []
        self.end_fd = -1
        self._due: set[str] = set()
        self.channel = ParentEnd(world, world.room)
        self.inbox = Inbox(self.channel)
        self.stdout = Output(world)
        self.stderr = Output(world)
        self.is_killed = False
        self.worker: SimulatedWorker | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether its template has ended."""
        return self._is_orphan

    @is_orphan.setter
    def is_orphan(self, value: bool) -> None:
        self._is_orphan = value
        if self.worker is not None:
            self.world.account.holdings.note_orphan(self.worker)

    def get_current(self) -> int:
        """The key of the call that it is at; 0 for none."""
        return self.worker.current if self.worker is not None else 0

    def get_started(self) -> float:
        """When that began."""
        return self.worker.started if self.worker is not None else 0.0

    def interrupt(self, key: int) -> None:
        """Interrupt a call, if it is at that."""
        if self.worker is not None:
            self.worker.interrupt_key = key
        self._signal("interrupt")

    def interrupt_again(self, key: int) -> None:
        """Once more, if it has not heard of it."""
        if self.worker is not None and self.worker.interrupt_key == key:
            self._signal("interrupt")

    def forbid(self, key: int) -> None:
        """Keep it from beginning a call, where there is room for one more."""
        if len(self.forbidden) < len(m.CANCELLED_KEYS):
            self.forbidden.append(key)

    def allow(self, key: int) -> None:
        """The call has ended, or is not in its hands."""
        self.forbidden = [one for one in self.forbidden if one != key]

    def ask_stack(self) -> None:
        """Have it write its stack."""
        self._signal("stack")

    def ask_back(self) -> None:
        """Ask for results, and calls that have not begun."""
        self._signal("back")

    def _signal(self, name: str) -> None:
        if self.pid is None or not self.is_ready:
            self._due.add(name)
        elif self.worker is not None:
            self.worker.signals.add(name)

    def send_due(self) -> None:
        """Signals that it was to get before it was known, and ready."""
        due, self._due = self._due, set()
        for name in sorted(due):
            self._signal(name)

    def read_stack(self) -> str:
        """Where it stood."""
        return "somewhere"

    def get_journal(self) -> bytes:
        """Results that had ended and were not sent."""
        if self.worker is None:
            return b""
        return b"".join(
            pack(m.JOURNAL_ENTRY, key, seconds, m.FAILED if failed else m.ENDED, len(payload))
            + payload
            for key, payload, seconds, failed in self.worker.journal
        )

    def kill(self) -> None:
        """End it, whatever it is at; that takes a moment."""
        if not self.is_killed:
            self.is_killed = True
            self.world.doom(self)

    def close(self) -> None:
        """Kill it, if it lives."""
        self.kill()
        self.channel.close()


def has_ended(fd: int, seconds: float = 0.0) -> bool:
    """Stands for `process.has_ended`."""
    return fd in here.world.sources and bool(here.world.sources[fd].is_ended)


class SimulatedDriver:
    """Stands for `driver.Driver`: steps are made when the world says so, by whoever it may be.

    Attributes
    ----------
    looks : int
        How often it has had the engine look at its clock, counting those that are so far apart that a call which was
        to end may be ended by force.
    """

    def __init__(self, steps: Any) -> None:
        self.world = here.world
        self.steps = steps
        self.handlers: dict[int, Callable[[], None]] = {}
        self._sources: dict[int, Any] = {}  # of all that is watched
        self.again_at: float | None = None
        self.rest_at: float | None = None
        self.is_stepping = False
        self.is_nudged = True
        self.is_closed = False
        self.looks = 0
        self._looked_at = 0.0
        self._rests = 0
        self.world.driver = self

    def watch(self, fd: int, handle: Callable[[], None]) -> None:
        """Call `handle` when something has come."""
        if fd in self.world.sources:
            self.handlers[fd] = handle
            self._sources[fd] = self.world.sources[fd]

    def unwatch(self, fd: int) -> None:
        """Forget it."""
        self.handlers.pop(fd, None)
        self._sources.pop(fd, None)

    def nudge(self) -> None:
        """There is something to send: now, or in a moment."""
        self.is_nudged = True
        if not self.is_stepping and self.world.toss(self.world.eagerness):
            self.step()

    def rouse(self) -> None:
        """Something has ended outside of the steps."""

    attend = rouse
    abandon = rouse

    def close(self) -> None:
        """No more steps."""
        self.is_closed = True
        self.handlers.clear()
        self._sources.clear()

    def run(self, action: Callable[[], None]) -> None:
        """Do what only the leader may do."""
        if self.is_stepping:
            action()
            return
        self.is_stepping = True
        try:
            action()
        finally:
            self.is_stepping = False

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Let the world go on until `is_done`."""
        deadline = None if timeout is None else self.world.now + timeout
        while not is_done():
            if deadline is not None and self.world.now >= deadline:
                return is_done()
            self.world.go_on(deadline)
        return True

    def is_enabled(self) -> bool:
        """Whether a step would do anything."""
        if self.is_closed:
            return False
        if self.is_nudged or (self.again_at is not None and self.again_at <= self.world.now):
            return True
        for source in self._sources.values():
            if source.incoming or source.is_ended:
                return True
        return False

    def find_due(self) -> float | None:
        """When to look though nothing has come."""
        return self.again_at if self.again_at is not None else self.rest_at

    def step(self) -> None:
        """Send, take in what has come, send, pass on."""
        self.is_stepping = True
        try:
            if self.is_nudged:
                self._dispatch()
            for fd in self._list_ready():
                handle = self.handlers.get(fd)
                if handle is not None:
                    handle()
            self._dispatch()
        finally:
            self.is_stepping = False
        self.world.check()
        self.is_stepping = True  # what delivery runs is inside of the step, and may come back
        try:
            self.steps.deliver()
        finally:
            self.is_stepping = False
        self._plan_rest()

    def _list_ready(self) -> list[int]:
        ready = [fd for fd, one in self._sources.items() if one.incoming or one.is_ended]
        if len(ready) > 1:
            self.world.shuffle(ready)
        return ready

    def _dispatch(self) -> None:
        self.is_nudged = False
        if self.world.now - self._looked_at > GRACE_SECONDS:
            self._looked_at = self.world.now
            self.looks += 1
        pause = self.steps.dispatch()
        self.again_at = None if pause is None else self.world.now + pause

    def _plan_rest(self) -> None:
        if self.steps.is_busy():
            self.rest_at = None
            self._rests = 0
        elif self.rest_at is None and not self._rests:
            self.rest_at = self.world.now + 0.2

    def rest(self) -> None:
        """The background thread has had nothing to do for a while."""
        if self.rest_at is None or self.world.now < self.rest_at or self.steps.is_busy():
            return
        self._rests += 1
        pause = self.steps.rest() if self._rests < 5 else None
        self.rest_at = None if pause is None else self.world.now + pause
