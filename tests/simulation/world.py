"""A program, its session and engine, the template and the workers, in a world that chance moves.

All chance comes from one seed, so a seed is a history: it can be had again, step by step.
"""

from __future__ import annotations

import gc
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from manyhands.engines.local import messages as m
from tests.simulation.account import Account
from tests.simulation.copies import get_family
from tests.simulation.host import SimulatedHost
from tests.simulation.outside import here
from tests.simulation.processes import (
    SIGKILL,
    SimulatedDriver,
    SimulatedProcess,
    SimulatedTemplate,
)
from tests.simulation.program import Program
from tests.simulation.scripts import Plan, Script
from tests.simulation.violations import violate
from tests.simulation.worker import SimulatedWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.scripts import SimulatedActor

_INFINITY = float("inf")

_NAMES = {
    value: name
    for name, value in vars(m).items()
    if type(value) is int and name.isupper() and not name.endswith("_SIGNAL")
}

_QUIET_SECONDS = 25.0
"""Of nothing but looks at the clock, after which nothing will come any more."""

MOST_STEPS = 20_000
"""A history that takes more goes round in circles."""


class _PidSource:
    """What the file descriptor of a process tells: whether it has ended."""

    incoming = ()

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process

    @property
    def is_ended(self) -> bool:
        worker = self._process.worker
        return worker is not None and not worker.is_alive


class World:
    """One history.

    Parameters
    ----------
    seed
    is_told
        Whether to keep the story.

    Attributes
    ----------
    now : float
        Seconds.
    steps : int
        Made so far.
    story : list of (int, int, str)
        What happened: at which step, to which call (0 for none), and what.
    room : int
        Messages that fit into the socket of a worker.
    """

    def __init__(self, seed: int, *, is_told: bool = False) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.random = self.rng.random
        self.now = 100.0
        self.steps = 0
        self.is_told = is_told
        self.story: list[tuple[int, int, str]] = []
        self.errors: list[BaseException] = []
        self.scripts: dict[int, Script] = {}
        self.keys: dict[int, Script] = {}
        self.functions: list[Any] = []
        self.actors: dict[int, SimulatedActor] = {}
        self.sources: dict[int, Any] = {}
        self.templates: list[SimulatedTemplate] = []
        self.workers: list[SimulatedWorker] = []
        self.hangs = 0
        self.is_closing = False
        self.driver: SimulatedDriver
        self.account = Account(self)
        self._function_numbers: dict[int, int] = {}
        self._fds = 10
        self._active_at = self.now
        self._timers: list[tuple[float, int, SimulatedWorker | None, Callable[[], object]]] = []
        self._timer_numbers = 0
        self._deaths_left = self.rng.choice((0, 1, 3, 6))
        self._draw_tempers()
        here.world = self
        here.worker = None
        self.program = Program(self)
        self.session = self.program.open_session()
        self._drive = self.driver.step
        self.engine = self.session._engine._engine
        self.pool = self.engine.pool
        self._watch_order()

    def _draw_tempers(self) -> None:
        """How this world is: who is slow, how long a step takes, how narrow sockets are."""
        draw = self.rng.choice
        self.room = draw((2, 4, 40, 40))
        self.eagerness = draw((0.0, 0.3, 1.0))
        self._tick = draw((1e-5, 1e-3, 0.02))
        self._haste = draw((0.05, 0.2, 0.6))
        self._slowness = draw((0.0, 0.0, 0.5, 0.9))  # of the driver
        self._leaps = draw((0.0, 0.01, 0.05))
        self._jostling = draw((0.0, 0.0, 0.1, 0.3))
        self._forgetting = draw((0.0, 0.0, 0.2))

    def _watch_order(self) -> None:
        """Look at every message of calls before it is sent."""
        courier = self.engine.courier
        send_calls = courier.send_calls

        def send(worker: Any, entries: list[Any]) -> bool:
            self.account.check_order(worker, entries)
            is_sent: bool = send_calls(worker, entries)
            if not is_sent:
                self.account.unsent_at = self.steps
            for entry in entries:
                if entry.key in self.keys:
                    self.keys[entry.key].sent_at = self.now
            return is_sent

        courier.send_calls = send

    # Chance.

    def toss(self, chance: float) -> bool:
        """True with that chance."""
        return self.random() < chance

    def pick(self, count: int) -> int:
        """A number below that."""
        return int(self.random() * count)

    def shuffle(self, items: list[Any]) -> None:
        """Put them in any order."""
        for index in range(len(items) - 1, 0, -1):
            other = int(self.random() * (index + 1))
            items[index], items[other] = items[other], items[index]

    def make_number(self) -> int:
        """Of an actor."""
        return 2 * (len(self.actors) + 1 << 20)

    def forgets(self) -> bool:
        """Whether a function has changed, so that it is pickled anew."""
        return bool(self._forgetting) and self.toss(self._forgetting)

    def is_greedy(self, key: int) -> bool:
        """Whether a call takes more memory than it may."""
        script = self.keys.get(key)
        return script is not None and script.plan.options.need.memory > 0 and not script.number % 3

    def may_die(self, script: Script) -> bool:
        """Whether a call that would end its worker does; not for ever, or nothing would come to an end."""
        return script.deaths < len(script.plan.runs) + 2

    # The story.

    def tell(self, script: Script | None, *what: object) -> None:
        """Something has happened."""
        if self.is_told:
            number = script.number if script is not None else 0
            text = " ".join(map(str, (script, *what) if script is not None else what))
            self.story.append((self.steps, number, text))

    def tell_message(self, where: object, message: tuple[Any, ...], *what: object) -> None:
        """A message was sent."""
        if message[0] == m.ORDERED:
            message = message[2]
        fields = " ".join(map(repr, message[1:]))
        self.tell(None, "   ", where, _NAMES.get(message[0], message[0]), fields[:120], *what)

    # What is there.

    def open_fd(self, source: Any) -> int:
        """A number for what can be waited for."""
        self._fds += 1
        if source is not None:
            self.sources[self._fds] = source
        return self._fds

    def open_pid(self, pid: int) -> int:
        """A number that tells of the end of a process."""
        for worker in self.workers:
            if worker.process.pid_there == pid and (worker.is_alive or self.toss(0.5)):
                return self.open_fd(_PidSource(worker.process))
        raise ProcessLookupError(pid)

    def number_function(self, fn: Any) -> int:
        """The pickle of a function."""
        number = self._function_numbers.get(id(fn))
        if number is None:
            number = self._function_numbers[id(fn)] = len(self.functions)
            self.functions.append(fn)
        return number

    def guess_seconds(self, payload: bytes) -> float | None:
        """How long a function takes, as far as is known."""
        seconds: float | None = getattr(self.functions[int(payload)], "seconds", None)
        return seconds

    def stage(self, plan: Plan, outer: Script | None = None) -> Script:
        """A call of this plan."""
        number = len(self.scripts) + 1
        script = self.scripts[number] = Script(number, plan, outer)
        if plan.actor is not None and plan.kind == "method":
            caller = outer.number if outer is not None else 0
            script.sequence = plan.actor.sequences[caller] = plan.actor.sequences.get(caller, 0) + 1
        self.tell(script, "is made by", outer or "the program")
        return script

    def note_key(self, script: Script, key: int) -> None:
        """A call has got its key."""
        if not script.key:
            script.key = key
            self.keys[key] = script
        elif script.key != key:
            violate(script, f"has two keys: {key:#x}")

    def note_actor(self, number: int, making: Script) -> None:
        """An actor has got its number."""
        actor = making.plan.actor
        assert actor is not None
        actor.number = number
        self.actors[number] = actor

    def open_call(self, fn: Any, payload: bytes) -> Script:
        """The call that a worker was sent."""
        if payload.startswith(b"k"):
            return self.actors[fn.number].making
        number, *values = payload.split()
        script = self.scripts[int(number)]
        for source, value in zip(script.inputs, values, strict=True):
            self.account.check_value(source, value.decode())
        script.taken_at = self.steps
        return script

    def note_read(self, keys: list[int]) -> None:
        """A worker has read calls."""
        for key in keys:
            if key in self.keys:
                self.keys[key].read_at = self.keys[key].read_at or self.steps

    def open_nested_session(self, worker: SimulatedWorker) -> Any:
        """A session for the calls of a worker's calls."""
        session = get_family().load("manyhands.session").Session(engine="nested", workers=2)
        take_failure = session.take_failure

        def note_failure(key: int, error: BaseException, attempt: Any) -> None:
            self.account.note_failure(key, error)
            take_failure(key, error, attempt)

        session.take_failure = note_failure
        session.cancel_children = worker.failed.append
        return session

    # Processes.

    def bear(self, process: SimulatedProcess) -> None:
        """The template has forked."""
        kind = SimulatedHost if process.settings["is_host"] else SimulatedWorker
        worker = process.worker = kind(self, process)
        self.workers.append(worker)
        self.tell(None, worker, "is born")

    def doom(self, process: SimulatedProcess) -> None:
        """A process was killed; it may make a few more steps."""
        worker = process.worker
        self.tell(None, f"worker {process.number} is killed")
        if worker is not None and worker.is_alive:
            worker.lingering = self.pick(4) if self.toss(0.2) else 0
            worker.until = 0.0
            self.account.note_doomed(worker)

    def bury(self, worker: SimulatedWorker) -> None:
        """A worker's process has ended."""
        self.tell(None, worker, "has ended")
        self.workers.remove(worker)
        self.account.note_dead(worker)
        if not worker.process.template.is_dead:
            worker.process.template.ends.append(worker.process)

    # Time.

    def call_later(self, seconds: float, fn: Callable[[], object]) -> None:
        """Call `fn` after so many seconds, if whoever asks for that still lives."""
        self._timer_numbers += 1
        heappush(self._timers, (self.now + seconds, self._timer_numbers, here.worker, fn))

    def _fire(self) -> None:
        _, _, worker, fn = heappop(self._timers)
        if worker is None:
            fn()
        elif worker.is_alive:
            here.worker = worker
            try:
                fn()
            finally:
                here.worker = None

    def _find_due(self) -> float:
        """When something happens by itself, but for the engine's looks at its clock."""
        due = self._timers[0][0] if self._timers else _INFINITY
        for worker in self.workers:
            due = min(due, worker.find_due())
        return due

    # Steps.

    def run(self) -> None:
        """From the first step to the last."""
        was_collecting = gc.isenabled()
        gc.disable()  # the time of a collection is chance that no seed rules
        try:
            self.settle()
            self.program.finish()
        finally:
            if was_collecting:
                gc.enable()
            for worker in self.workers:
                for stream in worker.streams:
                    stream._is_over = True
            self.program.let_go()
            get_family().load("manyhands.session")._open_sessions.clear()  # workers close none

    def settle(self) -> None:
        """Until nothing can happen any more."""
        self._active_at = self.now
        while self.go_on():
            pass

    def go_on(self, deadline: float | None = None) -> bool:
        """Make one step; False where nothing can happen any more."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            violate(None, f"no end after {MOST_STEPS} steps")
        self.now += self._tick * self.random()
        moves = self._list_moves()
        if moves and not (self._leaps and self.random() < self._leaps):
            move = moves[int(self.random() * len(moves))]
            if move is not self._drive:
                self._active_at = self.now
            move()
            return True
        return self._leap(deadline) or bool(moves)

    def _list_moves(self) -> list[Callable[[], object]]:
        moves: list[Callable[[], object]] = []
        if self.program.left and self.random() < self._haste:
            moves.append(self.program.act)
        now = self.now
        for worker in self.workers:
            if worker.until <= now or worker.is_enabled():  # the one says it all, mostly
                moves.append(worker.step)
        for template in self.templates:
            if (template.births or template.ends) and not template.is_dead:
                moves.append(template.step)
        if self._timers and self._timers[0][0] <= now:
            moves.append(self._fire)
        if moves and self._slowness and self.random() < self._slowness:
            return moves
        driver = self.driver
        if driver.is_enabled():
            moves.append(self._drive)
        elif not driver.is_closed and driver.rest_at is not None and driver.rest_at <= now:
            moves.append(driver.rest)
        return moves

    def _leap(self, deadline: float | None) -> bool:
        """Let time pass until something happens by itself; False where nothing would."""
        due = self._find_due()
        is_quiet = self.now - self._active_at > _QUIET_SECONDS and due == _INFINITY
        if is_quiet and not self.program.left:
            return False  # the engine looks at its clock, and nothing comes of it
        driver_due = None if self.driver.is_closed else self.driver.find_due()
        for other in (driver_due, deadline):
            if other is not None:
                due = min(due, other)
        if due < _INFINITY:
            beyond = 3 * self.random() if self.hangs or self.toss(0.05) else 1e-6
            self.now = max(self.now, due) + beyond
            return True
        if self.program.left:
            self.program.act()
            return True
        return False

    def jostle(self) -> None:
        """While the parent is at something, others go on: its other threads, and workers."""
        if not self._jostling or here.worker is not None or self.random() >= self._jostling:
            return
        enabled = [worker for worker in self.workers if worker.is_enabled()]
        if enabled:
            enabled[self.pick(len(enabled))].step()

    def strike(self) -> None:
        """Fate: a worker is killed, or the template."""
        if self._deaths_left <= 0 or not self.engine.statistics.starting:
            return
        self._deaths_left -= 1
        ready = [worker for worker in self.workers if worker.process.is_ready]
        if self.toss(0.15):
            template = self.engine.staff.template
            self.tell(None, "the template is killed")
            template.die()
        elif ready:
            worker = ready[self.pick(len(ready))]
            worker.process.status = SIGKILL
            self.tell(None, worker, "is struck")
            worker.end()

    # Proof.

    def check(self) -> None:
        """Raise unless the machines are consistent, and nothing is forgotten."""
        self.pool.validate()
        life = self.session._ledger._life
        if life is not None:
            life.validate()
        if self.is_closing or not self.account.outstanding:
            return
        forgotten = self.account.outstanding.difference(self.pool._queued)
        for worker in self.pool.workers.values():
            if not forgotten:
                return
            forgotten.difference_update(worker.inflight, worker.joined)
        forgotten.difference_update([key for key, _ in self.engine.results])
        forgotten.difference_update([key for key, _, _ in self.engine.errors])
        for key in forgotten:
            violate(self.keys.get(key), "was forgotten by the engine")
