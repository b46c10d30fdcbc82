"""Actors' deaths: how they end, what their callers hear, and when they are made again."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from os import kill
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, open_folder, wait_for
from manyhands.testing.faults import Damage, strike

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT = 0.2
_KINDS: tuple[dict[str, Any], ...] = ({}, {"cpus": 0}, {"max_concurrency": 2})
"""Options of actors that run in different ways: alone, beside others, in threads."""


class _Fragile:
    """An actor that can be broken."""

    def __init__(self, folder: str, start: int = 0) -> None:
        self.folder = folder
        self.value = start
        self._lock = threading.Lock()  # of some, two calls run at once
        work.Mark(folder).add("made")

    def add(self, amount: int = 1) -> int:
        with self._lock:
            self.value += amount
            return self.value

    def get_pid(self) -> int:
        return work.get_pid()

    def enter(self, value: int = 0) -> int:
        return int(work.Gate(self.folder).enter(value))

    def note(self, x: int) -> int:
        return work.note(self.folder, x)

    def run(self, run: Any) -> None:
        run(self.folder)

    def die(self) -> None:
        strike(Damage.KILL)

    def die_once(self) -> str:
        if work.Mark(self.folder).add("deaths") == 1:
            strike(Damage.KILL)
        return "alive"

    def yield_and_die(self, items: int) -> Iterator[int]:
        yield from range(items)
        strike(Damage.KILL)

    def exit(self) -> None:
        raise SystemExit(4)


class _Saved(_Fragile):
    """One whose state outlives it."""

    def checkpoint(self) -> tuple[str, int]:
        work.Mark(self.folder).add("kept")
        return self.folder, self.value

    @classmethod
    def restore(cls, value: tuple[str, int]) -> _Saved:
        work.Mark(value[0]).add("restored")
        return cls(*value)


class _Unborn:
    """One that cannot be made."""

    def __init__(self, message: str) -> None:
        raise ValueError(message)

    def get(self) -> int:
        return 1


class _AsyncFragile:
    """One with ``async`` methods."""

    async def block(self, run: Any, folder: str) -> None:
        run(folder)

    async def echo(self, value: int) -> int:
        return value


def _check_dead(future: mh.Future[Any], what: str = "") -> Any:
    error = future.exception(LIMIT)
    check(isinstance(error, mh.ActorDiedError), f"{what}: found {error!r}")
    return error


class _Counted:
    """An actor that can be called itself."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        return self(1)

    def __call__(self, amount: int) -> int:
        self.value += amount
        return self.value


@case("actors")
def an_actor_that_cannot_be_made_says_why(open_session: OpenSession) -> None:
    """Where `__init__` raises, every call fails with ActorDiedError, which has that error as its cause."""
    with open_session(workers=2) as session:
        for options in _KINDS:
            unborn = mh.actor(_Unborn, restarts=2, **options).start("no start")
            futures = [unborn.get.submit() for _ in range(3)]
            for future in [*futures, unborn.get.submit()]:
                error = _check_dead(future)
                check_equal(str(error.__cause__), "no start")
                check_equal(type(error.__cause__), ValueError)
                check("Unborn" in str(error), f"does not name the actor: {error}")
        check_equal({fact.state for fact in session.actors()}, {"dead"})


@case("actors")
def a_stopped_actor_answers_before_it_ends(open_session: OpenSession) -> None:
    """`stop` ends an actor after the calls that it was given; later ones fail with ActorDiedError."""
    with open_session(workers=2), open_folder() as folder:
        for options in _KINDS:
            actor = mh.actor(_Fragile, restarts=1, **options).start(str(folder))
            futures = [actor.add.submit() for _ in range(50)]
            actor.stop()
            late = actor.add.submit()
            found = sorted(mh.gather(futures, timeout=LIMIT))
            check_equal(found, list(range(1, 51)))
            _check_dead(late, f"{options}, after stop")
            actor.stop()
            _check_dead(actor.add.submit(), f"{options}, after its end")
        check_equal(work.Mark(folder).count("made"), len(_KINDS))


@case("actors", "isolates")
def a_stopped_actor_leaves_nothing(open_session: OpenSession) -> None:
    """The process of an actor ends when the actor is stopped or killed."""
    with open_session(workers=2) as session, open_folder() as folder:
        for way in ("stop", "kill"):
            actor = mh.actor(_Fragile).start(str(folder))
            pid = actor.get_pid()
            getattr(actor, way)()
            wait_for(lambda p=pid: not _lives(p), f"its process ended, {way}")  # type: ignore[misc]
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("actors", "concurrent")
def a_killed_actor_ends_at_once(open_session: OpenSession) -> None:
    """`kill` ends an actor amid a call: that one and all that wait fail with ActorDiedError, and none is made again."""
    with open_session(workers=2) as session:
        for options in _KINDS:
            with open_folder() as folder:
                actor = mh.actor(_Fragile, restarts=3, **options).start(str(folder))
                futures = [actor.enter.submit(x) for x in range(5)]
                gate = work.Gate(folder)
                wait_for(gate.count_entered, "the first call began")
                actor.kill()
                for future in [*futures, actor.add.submit()]:
                    _check_dead(future, str(options))
                gate.open()
                check_equal(work.Mark(folder).count("made"), 1)
        check_equal({fact.state for fact in session.actors()}, {"dead"})
        check_equal(session.submit(work.square, 3).result(LIMIT), 9)


@case("actors", "isolates")
def a_dead_actor_says_so(open_session: OpenSession) -> None:
    """When the worker of an actor without `restarts` dies, its calls, running, waiting and to come, get an answer."""
    with open_session(workers=2) as session:
        for options in _KINDS:
            with open_folder() as folder:
                actor = mh.actor(_Fragile, **options).start(str(folder))
                check_equal(actor.add(), 1)
                deadly = actor.die.submit()
                waiting = [actor.note.submit(x) for x in range(5)]
                error = deadly.exception(LIMIT)
                is_right = isinstance(error, (mh.WorkerDiedError, mh.ActorDiedError))
                check(is_right, f"{options}: found {error!r}")
                errors = mh.gather(waiting, on_error="return", timeout=LIMIT)
                is_answered = [isinstance(e, (int, mh.WorkerError)) for e in errors]
                check(all(is_answered), f"{options}: found {errors!r}")
                last = _check_dead(actor.add.submit(), str(options))
                check("Fragile" in str(last), f"does not name the actor: {last}")
                check(
                    isinstance(last.__cause__, mh.WorkerDiedError), f"caused by {last.__cause__!r}"
                )
        check_equal({fact.state for fact in session.actors()}, {"dead"})


@case("actors", "isolates")
def an_actor_is_made_again(open_session: OpenSession) -> None:
    """With `restarts` an actor whose worker died is made again of its arguments; calls that waited run, in order."""
    with open_session(workers=2) as session:
        for options in _KINDS:
            with open_folder() as folder:
                actor = mh.actor(_Fragile, restarts=2, **options).start(str(folder), 10)
                check_equal(actor.add(), 11)
                pid = actor.get_pid()
                deadly = actor.die.submit()
                waiting = [actor.add.submit() for _ in range(20)]
                error = deadly.exception(LIMIT)
                check(isinstance(error, mh.WorkerDiedError), f"{options}: found {error!r}")
                found: list[Any] = mh.gather(waiting, on_error="return", timeout=LIMIT)
                if not options:  # one at a time: none of them had begun
                    check_equal(found, list(range(11, 31)))
                check(actor.get_pid() != pid, f"{options}: it lives in the dead process")
                check_equal(work.Mark(folder).count("made"), 2)
                check_equal([f.state for f in session.actors()][-1], "alive")
                check_equal([f.restarts for f in session.actors()][-1], 1)


@case("actors")
def an_actor_that_exits_is_made_again(open_session: OpenSession) -> None:
    """A method that exits ends its actor, which is made again and listed as alive; calls after that go on."""
    with open_session(workers=1) as session, open_folder() as folder:
        actor = mh.actor(_Fragile, restarts=1).start(str(folder), 10)
        check_equal(actor.add(), 11)
        check(isinstance(actor.exit.submit().exception(LIMIT), mh.WorkerDiedError), "it goes on")
        check_equal(actor.add(), 11)
        check_equal([(f.state, f.restarts) for f in session.actors()], [("alive", 0)])


@case("actors")
def a_handle_belongs_to_its_session(open_session: OpenSession) -> None:
    """Inside another session's block a handle means its own actor; after its session's end it says so."""
    with open_session(workers=1):
        actor = mh.actor(_Counted).start()
        with open_session(workers=1):
            check_equal(actor.add(), 1)
            check_equal(actor(41), 42)
        check_equal(actor.add(), 43)
    with expect(mh.SessionClosedError):
        actor.add()
    with expect(mh.SessionClosedError):
        actor.stop()


@case("actors", "isolates")
def restarts_end(open_session: OpenSession) -> None:
    """An actor that dies once more often than it may be made again is dead for all."""
    with open_folder() as folder, open_session(workers=2) as session:
        actor = mh.actor(_Fragile, restarts=2).start(str(folder))
        for number in range(3):
            check_equal(actor.add(), 1)
            error = actor.die.submit().exception(LIMIT)
            check(isinstance(error, mh.WorkerDiedError), f"death {number}: found {error!r}")
        _check_dead(actor.add.submit())
        check_equal(work.Mark(folder).count("made"), 3)
        check_equal([(f.state, f.restarts) for f in session.actors()], [("dead", 0)])


@case("actors", "isolates")
def an_idle_actor_is_made_again(open_session: OpenSession) -> None:
    """An actor whose process is killed between two calls is made again for the next one, which has its result."""
    with open_folder() as folder, open_session(workers=2):
        actor = mh.actor(_Fragile, restarts=1).start(str(folder), 5)
        kill(actor.get_pid(), SIGKILL)
        check_equal(actor.add(), 6)
        kill(actor.get_pid(), SIGKILL)
        mark = work.Mark(folder)
        error = actor.add.submit().exception(LIMIT)
        check(isinstance(error, mh.WorkerError), f"found {error!r}")
        _check_dead(actor.add.submit())
        check_equal(mark.count("made"), 2)


@case("actors", "isolates")
def the_state_of_an_actor_is_restored(open_session: OpenSession) -> None:
    """With `checkpoint` and `restore` an actor that is made again has the state after its last call."""
    with open_session(workers=2):
        for options in _KINDS:
            with open_folder() as folder:
                actor = mh.actor(_Saved, restarts=5, **options).start(str(folder))
                for amount in (1, 2, 3):
                    actor.add(amount)
                for expected in (7, 8, 9):
                    error = actor.die.submit().exception(LIMIT)
                    check(isinstance(error, mh.WorkerDiedError), f"{options}: found {error!r}")
                    check_equal(actor.add(), expected)
                check_equal(work.Mark(folder).count("restored"), 3)


@case("actors", "isolates")
def checkpoints_follow_their_rate(open_session: OpenSession) -> None:
    """`checkpoint_every` says after how many calls the state is kept, and without `restarts` it never is."""
    with open_folder() as folder, open_session(workers=2):
        actor = mh.actor(_Saved, restarts=1, checkpoint_every=5).start(str(folder))
        check_equal([actor.add() for _ in range(13)], list(range(1, 14)))
        check_equal(work.Mark(folder).count("kept"), 2)
        actor.die.submit().exception(LIMIT)
        check_equal(actor.add(), 11)
    with open_folder() as folder, open_session(workers=2):
        plain = mh.actor(_Saved).start(str(folder))
        check_equal([plain.add() for _ in range(3)], [1, 2, 3])
        check_equal(work.Mark(folder).count("kept"), 0)


@case("actors", "isolates")
def large_states_are_restored(open_session: OpenSession) -> None:
    """What a checkpoint keeps may be megabytes."""
    with open_session(workers=2):
        actor = mh.actor(_Hoard, restarts=1).start()
        for _ in range(4):
            actor.grow(1_000_000)
        actor.die.submit().exception(LIMIT)
        check_equal(actor.measure(), 4_000_000)


@case("actors", "isolates")
def calls_of_actors_may_be_tried_again(open_session: OpenSession) -> None:
    """A call that was running when its actor died fails, unless its `worker_retries` say otherwise."""
    with open_folder() as folder, open_session(workers=2):
        actor = mh.actor(_Fragile, restarts=3).start(str(folder))
        error = actor.die_once.submit().exception(LIMIT)
        check(isinstance(error, mh.WorkerDiedError), f"found {error!r}")
        check_equal(work.Mark(folder).count("deaths"), 1)
    with open_folder() as folder, open_session(workers=2):
        actor = mh.actor(_Fragile, restarts=3).start(str(folder))
        again = actor.die_once.options(worker_retries=1)
        check_equal(again.submit().result(LIMIT), "alive")
        check_equal(work.Mark(folder).count("deaths"), 2)


@case("actors", "isolates")
def an_exit_ends_an_actor(open_session: OpenSession) -> None:
    """`sys.exit` in a method is the death of the actor's worker, and the error has the code."""
    with open_folder() as folder, open_session(workers=2):
        for options in _KINDS:
            actor = mh.actor(_Fragile, restarts=1, **options).start(str(folder))
            error: Any = actor.exit.submit().exception(LIMIT)
            check_equal((type(error), error.exit_code), (mh.WorkerDiedError, 4))
            check_equal(actor.add(), 1)


@case("actors", "concurrent")
def methods_have_timeouts(open_session: OpenSession) -> None:
    """A method past its `timeout` is interrupted, its call fails, and the actor goes on with its state."""
    with open_session(workers=2):
        for options in _KINDS:
            with open_folder() as folder:
                actor = mh.actor(_Fragile, **options).start(str(folder))
                check_equal(actor.add(), 1)
                error: Any = actor.run.options(timeout=_SHORT).submit(work.spin).exception(LIMIT)
                check(isinstance(error, mh.CallTimeoutError), f"{options}: found {error!r}")
                check(
                    "spin" in error.stack, f"{options}: the stack does not show it: {error.stack}"
                )
                check_equal(actor.add(), 2)
                check_equal(work.Mark(folder).count("made"), 1)


@case("actors", "interrupts")
def an_actor_that_hangs_is_made_again(open_session: OpenSession) -> None:
    """A method that does not yield at its `timeout` costs the actor its worker; others' calls are answered."""
    with open_session(workers=2):
        for options in _KINDS:
            for run in (work.defy, work.freeze):
                with open_folder() as folder:
                    name = f"{options}, {run.__name__}"
                    actor = mh.actor(_Fragile, restarts=1, **options).start(str(folder))
                    hanging = actor.run.options(timeout=_SHORT).submit(run)
                    mark, began = work.Mark(folder), f"{run.__name__}-began"
                    wait_for(lambda m=mark, b=began: m.count(b), name)  # type: ignore[misc]
                    waiting = [actor.note.submit(x) for x in range(5)]
                    error = hanging.exception(LIMIT)
                    check(isinstance(error, mh.CallTimeoutError), f"{name}: found {error!r}")
                    found = mh.gather(waiting, on_error="return", timeout=LIMIT)
                    is_answered = [isinstance(v, (int, mh.WorkerError)) for v in found]
                    check(all(is_answered), f"{name}: found {found!r}")
                    check_equal(actor.add(), 1)
                    check_equal(work.Mark(folder).count("made"), 2)
                    actor.kill()


@case("actors", "interrupts")
def an_async_actor_that_hangs_is_made_again(open_session: OpenSession) -> None:
    """The same for a coroutine method that blocks the loop."""
    with open_session(workers=2):
        for run in (work.defy, work.freeze):
            with open_folder() as folder:
                actor = mh.actor(_AsyncFragile, restarts=1).start()
                hanging = actor.block.options(timeout=_SHORT).submit(run, str(folder))
                error = hanging.exception(LIMIT)
                check(isinstance(error, mh.CallTimeoutError), f"{run.__name__}: found {error!r}")
                check_equal(actor.echo(5), 5)


@case("actors", "concurrent")
def calls_of_actors_can_be_cancelled(open_session: OpenSession) -> None:
    """A call that waits for its turn is withdrawn and never runs; one that runs is interrupted; the actor goes on."""
    with open_session(workers=2):
        for options in _KINDS[:2]:
            with open_folder() as folder:
                actor = mh.actor(_Fragile, **options).start(str(folder))
                running = actor.run.submit(work.spin)
                mark = work.Mark(folder)
                wait_for(lambda m=mark: m.count("spin-began"), "the call began")  # type: ignore[misc]
                if (
                    not options
                ):  # others run beside each other, or in one process with those that do
                    waiting = [actor.note.submit(x) for x in range(10)]
                    check(all(future.cancel() for future in waiting[::2]), "not all were cancelled")
                check(running.cancel(running=True), f"could not be cancelled: {running!r}")
                with expect(CancelledError):
                    running.result(LIMIT)
                check_equal(actor.add(), 1)
                if not options:
                    check_equal([mark.count(x) for x in range(10)], [0, 1] * 5)
                check_equal(mark.count("made"), 1)


@case("actors", "isolates")
def a_stream_of_a_dead_actor_ends(open_session: OpenSession) -> None:
    """When an actor dies amid a stream, what it had yielded comes first, then the error."""
    with open_folder() as folder, open_session(workers=2):
        actor = mh.actor(_Fragile, restarts=1).start(str(folder))
        stream = actor.yield_and_die.stream(3)
        check_equal([next(stream) for _ in range(3)], [0, 1, 2])
        with expect(mh.WorkerDiedError):
            next(stream)
        check_equal(actor.add(), 1)


@case("actors", "isolates")
def callers_of_a_dead_actor_go_on(open_session: OpenSession) -> None:
    """Calls and other actors that wait for an actor that dies get its error, and may catch it."""
    with open_folder() as folder, open_session(workers=2) as session:
        actor = mh.actor(_Fragile).start(str(folder))
        found = session.submit(_call_and_catch, actor, "die").result(LIMIT)
        check(found in ("WorkerDiedError", "ActorDiedError"), f"found {found}")
        check_equal(session.submit(_call_and_catch, actor, "add").result(LIMIT), "ActorDiedError")
        other = mh.actor(_Fragile).start(str(folder))
        threads = [threading.Thread(target=other.die.submit), threading.Thread(target=other.kill)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        _check_dead(other.add.submit())


class _Hoard:
    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def grow(self, size: int) -> int:
        self.content += bytes(size)
        return len(self.content)

    def measure(self) -> int:
        return len(self.content)

    def die(self) -> None:
        strike(Damage.KILL)

    def checkpoint(self) -> bytes:
        return self.content

    @classmethod
    def restore(cls, value: bytes) -> _Hoard:
        return cls(value)


def _call_and_catch(actor: Any, method: str) -> str:
    try:
        getattr(actor, method)()
    except mh.WorkerError as error:
        return type(error).__name__
    return "nothing"


def _lives(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - as short
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
