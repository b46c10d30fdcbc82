"""A Parsl worker's side: a station for each session, and the visits during which it is given calls."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing import parent_process
from pathlib import Path

import zmq

from manyhands.core.exceptions import pack_exception
from manyhands.engines.cluster.output import share_output
from manyhands.engines.cluster.station import (
    GRACE_SECONDS,
    CallFailedError,
    CallJoinedError,
    Station,
)
from manyhands.engines.cluster.versions import tell_versions
from manyhands.engines.parsl.files import Vault
from manyhands.engines.parsl.handle import Ending, Handle, Hello
from manyhands.engines.parsl.wire import Hands, Wire, make_socket
from manyhands.errors import StoreFullError, UnloadableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from manyhands.engines.cluster.packed import Packed
    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.parsl.files import Token
    from manyhands.engines.parsl.handle import Door

MOST_CALLS = 10_000
"""Of a session in a process, at a time: one runs, coroutines and those that wait are others."""

_DIAL_SECONDS = 3.0
_HELLO_SECONDS = 20.0
"""How long the program has to be there at an address, and to answer."""

_ANSWERS_SECONDS = 3.0
"""How long it has to ask others."""

_LAST_SECONDS = 1.0
"""How long a process that ends waits until what it has sent is there."""


_UNREACHABLE = 3
"""What a process exits with that has not found the program."""

_PR_SET_PDEATHSIG = 1


def visit(door: Door, number: int) -> None:
    """Be there for calls of a session until it sends this worker away; Parsl calls this in a worker's main thread.

    Calls run in a process that is forked from Parsl's, which has all loaded. If a call kills it, another one is there
    in no time, and Parsl, which would need seconds, has lost nothing.

    Raises
    ------
    ConnectionError
        The program cannot be reached.
    """
    while _run_process(door, number):
        parent = parent_process()
        if parent is not None and not parent.is_alive():
            return


def _run_process(door: Door, number: int) -> bool:
    """Fork a process, and wait until it has ended; whether that was against its will."""
    news, teller = os.pipe()
    own = os.getpid()
    child = os.fork()
    if not child:
        code = 1
        try:
            # Parsl ends its own process, and knows nothing of this one.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            code = _serve(door, number, teller) if os.getppid() == own else 1
        finally:
            os._exit(code)
    os.close(teller)
    _, status = os.waitpid(child, 0)
    was_welcome = bool(os.read(news, 1))
    os.close(news)
    if not status:
        return False
    if was_welcome:
        return True
    code = os.waitstatus_to_exitcode(status)
    raise ConnectionError(
        f"the program cannot be reached from {socket.gethostname()}, at port {door.port} of {', '.join(door.addresses)}"
        if code == _UNREACHABLE
        else f"a process that was to run calls has ended at once, with {code}, on {socket.gethostname()}"
    )


def _serve(door: Door, number: int, teller: int) -> int:
    """In the forked process: run calls; the code to exit with."""
    for address in door.addresses:
        try:
            socket.create_connection((address, door.port), _DIAL_SECONDS).close()
        except OSError:
            continue
        guest = Guest(door, address, number)
        if guest.enter():
            os.write(teller, b"1")
            os.close(teller)
            guest.stay()
            return 0
    return _UNREACHABLE


class Guest:
    """This process, as a worker of a session.

    Parameters
    ----------
    door
    address
        Where the program is.
    number
        Of the visit.
    """

    def __init__(self, door: Door, address: str, number: int) -> None:
        self._door = door
        self._number = number
        self.name = f"{os.uname().nodename}-{os.getpid()}-{number}"
        self._is_over = False
        self._is_welcome = threading.Event()
        self._may_go = threading.Event()
        self._station: Station | None = None
        self._settings: Settings | None = None
        context = zmq.Context[zmq.Socket[bytes]]()
        dealer = make_socket(context, zmq.DEALER)
        dealer.identity = self.name.encode()
        dealer.curve_serverkey = door.server
        dealer.curve_publickey, dealer.curve_secretkey = door.public, door.secret
        dealer.connect(f"tcp://{address}:{door.port}")
        parent = parent_process()
        watched = {parent.sentinel: partial(os._exit, 1)} if parent is not None else {}
        self._wire = Wire(
            dealer,
            lambda _, message: self._take(*message),
            on_cut=self._leave,
            on_failure=lambda error: os._exit(1),  # noqa: ARG005 - it is the program's to say
            watched=watched,
        )
        self._link = ParslLink(self._wire)

    def enter(self) -> bool:
        """Say hello; whether this worker is welcome.

        False where somebody else listens there.
        """
        door = self._door
        sees = door.folder is not None and (Path(door.folder) / door.probe).exists()
        self._wire.start()
        self._wire.send(("hello", Hello(self.name, tell_versions(), sees)))
        if not self._is_welcome.wait(_HELLO_SECONDS):
            self._wire.close()
            return False
        return True

    def stay(self) -> None:
        """Be there for calls until sent away."""
        self._wire.send(("visit", self._number))
        self._may_go.wait()

    def _take(self, kind: str, *fields: Any) -> None:
        """In the thread of the wire: what the program says."""
        if kind == "welcome":
            self._open(*fields)
            self._is_welcome.set()
        elif kind == "call":
            self._link.threads.submit(self._perform, *fields)
        elif kind == "question":
            self._answer(*fields)
        elif kind in ("home", "over", "refused"):
            self._leave()
            self._is_welcome.set()
        elif kind != "ping":
            self._link.take(kind, *fields)

    def _open(self, settings: Settings, sees_folder: bool) -> None:
        share_output(settings.log_levels)
        door = self._door
        wire = self._wire
        self._link.vault = Vault(
            door.session,
            door.folder if sees_folder else None,
            is_near=door.host == name_host(),
            on_first=lambda token: wire.send(("keep", token)),
            on_last=lambda name: wire.send(("release", name)),
        )
        self._station = Station(settings, self._link, self.name)

    def _perform(self, task: Task, values: list[Packed | Token]) -> None:
        """Run a call, in a thread of its own."""
        link = self._link
        assert self._station is not None
        link.begin(task.id)
        value = failure = joined = None
        stubs: tuple[Any, ...] = ()
        try:
            inputs = [link.fetch(item) for item in values]
            table, number, function = task.function
            task = replace(
                task,
                function=(table, number, link.fetch(function)),
                arguments=link.fetch(task.arguments),
            )
        except OSError as error:
            lost = UnloadableError(f"the arguments of {task.name} cannot be read: {error}")
            failure = pack_exception(lost)
        else:
            try:
                packed = self._station.perform(task, inputs)
                stubs = packed.stubs
                value = link.vault.keep(packed)
            except CallJoinedError as error:
                joined = error.native.id
            except CallFailedError as error:
                failure = error.packed
            except OSError as error:
                full = StoreFullError(f"the result of {task.name} cannot be stored: {error}")
                failure = pack_exception(full)
        ending = Ending(value, stubs, link.ends.pop(task.id, None), failure, joined)
        self._wire.send(("ended", task.id, ending))
        link.finish(task.id)

    def _answer(self, number: int, method: str, args: Any, options: Any) -> None:
        answer = getattr(self._station, method)(*args, **options)
        if number:
            self._wire.send(("answer", number, answer))

    def _leave(self) -> None:
        """Sent away, or the program is gone: what runs here is interrupted."""
        if self._is_over:
            return
        self._is_over = True
        self._link.end()
        self._wire.close()
        if self._station is not None:
            self._station.close()
            self._link.vault.close()
            self._link.settle()
        self._may_go.set()


class ParslLink:
    """See `manyhands.engines.cluster.cluster.Link`.

    Attributes
    ----------
    threads
        That calls run in.
    ends
        The last messages of calls; they go with their results.
    """

    waits = False

    def __init__(self, wire: Wire) -> None:
        self.threads = ThreadPoolExecutor(MOST_CALLS, "manyhands-call")
        self._calls: set[str] = set()
        self._has_settled = threading.Condition()
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.vault: Vault
        self._wire = wire
        self._here = threading.local()
        self._places: dict[str, threading.Event] = {}
        self._answers: dict[int, tuple[threading.Event, list[Any]]] = {}
        self._numbers = count(1)
        self._takers: dict[str, Callable[..., None]] = {}
        self._followers: dict[str, list[Callable[[Ending], None]]] = {}
        self._hands: Hands | None = None
        self._is_over = False

    def begin(self, call: str) -> None:
        """This thread is at a call from now on."""
        self._here.call = call
        with self._has_settled:
            self._calls.add(call)

    def finish(self, call: str) -> None:
        """It is not any more."""
        with self._has_settled:
            self._calls.discard(call)
            self._has_settled.notify_all()

    def settle(self) -> None:
        """Wait until calls that were interrupted have cleaned up, if they do so soon."""
        with self._has_settled:
            self._has_settled.wait_for(lambda: not self._calls, GRACE_SECONDS)

    def send(self, topic: str, message: tuple[Any, ...]) -> None:
        if message[0] == "end":
            self.ends[message[1]] = message[1:]
        else:
            self._wire.send(("post", topic, message))

    def fetch(self, native: Any) -> Packed:
        return self.vault.read(native.get_value() if isinstance(native, Handle) else native)

    def hold(self, native: Any) -> Any:
        return native

    def publish(self, native: Any) -> None:
        """The program hears of a call before it hears of the end of the one that made it: by one connection."""

    def doze(self) -> None:
        """Calls leave their places to others however they wait."""

    def leave(self) -> None:
        self._wire.send(("left", self._here.call))

    def enter(self) -> None:
        call = self._here.call
        place = self._places[call] = threading.Event()
        if not self._is_over:
            self._wire.send(("enter", call))
            place.wait()
        self._places.pop(call, None)

    def make_engine(self, settings: Settings) -> Any:
        from manyhands.engines.parsl.nested import make_engine

        return make_engine(settings, self)

    def die(self) -> None:
        self._ask("sync")
        os._exit(1)

    # For sessions of calls that calls make: what `Hub` is to the program's.

    def open_topic(self, topic: str, take: Callable[..., None]) -> None:
        """Have messages of a topic given to `take`."""
        if self._hands is None:
            self._hands = Hands()
        self._takers[topic] = take
        self._wire.send(("open", topic))

    def close_topic(self, topic: str) -> None:
        """Nobody takes them any more."""
        self._takers.pop(topic, None)
        self._wire.send(("shut", topic))

    def launch(
        self, task: Task, values: list[Any], priority: int, follower: Callable[[Ending], None]
    ) -> None:
        """See `manyhands.engines.parsl.hub.Hub`; so for the others."""
        self._followers[task.id] = [follower]
        self._wire.send(("launch", task, values, priority))

    def follow(self, name: str, follower: Callable[[Ending], None]) -> None:
        self._followers.setdefault(name, []).append(follower)
        self._wire.send(("follow", name))

    def forget(self, name: str) -> None:
        """Nobody here asks for a call any more that was launched here."""
        self._wire.send(("forget", name))

    def drop(self, names: list[str]) -> None:
        for name in names:
            self._followers.pop(name, None)
        self._wire.send(("drop", names))

    def ask(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
        found: list[Any] = self._ask("ask", method, args, options)
        return found

    def _ask(self, kind: str, *fields: Any) -> list[Any]:
        number = next(self._numbers)
        done, found = self._answers[number] = threading.Event(), []
        self._wire.send((kind, number, *fields))
        done.wait(_LAST_SECONDS if kind == "sync" else _ANSWERS_SECONDS)
        self._answers.pop(number, None)
        return found

    def take(self, kind: str, *fields: Any) -> None:
        """In the thread of the wire: what the program says to calls."""
        if kind == "place":
            place = self._places.get(fields[0])
            if place is not None:
                place.set()
        elif kind in ("answers", "synced"):
            number, *rest = fields
            waiting = self._answers.get(number)
            if waiting is not None:
                waiting[1].extend(*rest)
                waiting[0].set()
        elif kind == "post":
            topic, message = fields
            take = self._takers.get(topic)
            if take is not None and self._hands is not None:
                self._hands.do(partial(take, *message))
        elif kind == "ended":
            name, ending = fields
            for follower in self._followers.pop(name, []):
                if self._hands is not None:
                    self._hands.do(partial(follower, ending))

    def end(self) -> None:
        """The session has ended: nobody waits for a place any more."""
        self._is_over = True
        for place in list(self._places.values()):
            place.set()
        for done, _ in list(self._answers.values()):
            done.set()
        if self._hands is not None:
            self._hands.close()
        self.threads.shutdown(wait=False)


def name_host() -> str:
    """Names this machine, as it runs now."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + socket.gethostname()
    except OSError:
        return socket.gethostname()
