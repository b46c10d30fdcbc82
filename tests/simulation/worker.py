"""A worker as `engines.local.worker` and `engines.local.waits` have it, in steps that the world makes it take.

Its code is a generator: between two of its steps anything may happen, also its death. What its calls use of sessions
is the package's own `nested` and `session`.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from manyhands.engines.local import messages as m
from manyhands.errors import CallInterrupted
from tests.simulation.outside import pack_error
from tests.simulation.performance import DeathError, Scene, perform
from tests.simulation.turns import INFINITY, Guard, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from tests.simulation.processes import SimulatedProcess
    from tests.simulation.scripts import Script
    from tests.simulation.world import World

    Steps = Generator[None, None, Any]

_FLUSH_SECONDS = 0.001
_JOURNAL_ENTRIES = 6


class _Shelf:
    """Stands for `shelf.Shelf`: nothing is shared."""

    def free(self, _ids: object) -> None:
        """Nothing to free."""

    def end_message(self, _uses: object) -> tuple[()]:
        """Nothing was dropped."""
        return ()


class SimulatedWorker(Turns):
    """Runs one call at a time.

    Attributes
    ----------
    running : dict of int to Script
        Calls that run here, by their numbers.
    stages : dict of int to SimulatedActor
        Actors that live here.
    failed : list of int
        Keys of calls that came to nothing, so that those that they made here are not wanted any more.
    visible : str or None
        Devices that its process has seen.
    """

    def __init__(self, world: World, process: SimulatedProcess) -> None:
        super().__init__(world, process)
        self.visible: str | None = None
        self.functions: dict[int, Any] = {}
        self.stages: dict[int, Any] = {}
        self.running: dict[int, Script] = {}
        self.failed: list[int] = []
        self._may_go_on = False
        self._credits: dict[int, int] = {}
        self._joined: dict[int, Any] = {}
        self._held: deque[tuple[Any, ...]] = deque()
        self._early: dict[int, tuple[Any, ...]] = {}
        self._turn = 0  # the number of the next of the messages that keep their order
        self._results: list[tuple[int, bytes, float, bool]] = []
        self._is_journaled = False
        self._sent_at = 0.0
        # What the package's `nested` uses of a worker.
        self.nested: Any = None
        self.sessions = 0
        self.session: Any = None
        self.channel = self
        self.waits = self
        self.words = self
        self.shelf = _Shelf()
        self.lock = nullcontext()

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message to the parent."""
        self.world.account.note_said(self, message)
        if self.world.is_told:
            self.world.tell_message(self, message)
        self.say(message)

    def guard(self) -> nullcontext[None]:
        """Within a step no signal is seen to."""
        return nullcontext()

    def __getitem__(self, word: int) -> int:
        assert word == m.CURRENT
        return self.current

    def is_main_in_call(self) -> bool:
        """Of no account: nobody waits by that way here."""
        return False

    def note_outstanding(self, key: int, change: int) -> None:
        """Of account for coroutines that hold cpus, of which there are none here."""

    # Messages.

    def serve(self) -> Steps:
        """All that the process does."""
        yield
        self.send((m.READY, None))
        while True:
            while self._held:
                yield from self.take(self._held.popleft())
            while not self.unread:
                if not self.process.channel.is_open:
                    return
                self.sleep(for_message=True)
                yield
            yield from self.take(self.unread.popleft())

    def take(self, message: tuple[Any, ...]) -> Steps:
        """Do what a message asks for."""
        kind = message[0]
        if kind == m.ORDERED:
            self._early[message[1]] = message[2]
            yield from self._take_early()
        elif kind == m.CALLS:
            _, keys, functions, payloads, _, _, extras = message
            self.world.note_read(keys)
            yield from self.run(keys, functions, payloads, extras or {})
        elif kind == m.FUNCTION:
            self.functions[message[1]] = self.world.functions[int(message[3])]
        elif kind == m.FORGET:
            for key in message[1]:
                self.functions.pop(key, None)
        elif kind == m.GRANT:
            if message[1] in self._credits:
                self._credits[message[1]] += message[2]
        elif kind == m.DISMISS:
            self.remove_actor(message[1])
        elif kind == m.STOP:
            yield from self.stop(message[1])
        elif kind in (m.FREE, m.REST):
            pass
        else:
            if self.nested is not None:
                self.nested.take(message)
                yield from self._cancel_children()
            if kind == m.OUTCOMES and message[6]:
                self._may_go_on = True
                self.world.account.note_going_on(self)

    def _take_early(self) -> Steps:
        """Take in those of the numbered messages whose turn it is; calls come after all that they may wait for."""
        while self._turn in self._early:
            self._turn += 1
            inner = self._early.pop(self._turn - 1)
            if inner[0] == m.CALLS:
                self.world.note_read(inner[1])
                self._held.append(inner)
            else:
                yield from self.take(inner)

    def take_beside(self, message: tuple[Any, ...]) -> Steps:
        """The same while a call waits: others cannot begin here."""
        if message[0] == m.CALLS and self._keeps_calls:
            self.world.note_read(message[1])
            self._held.append(message)
        elif message[0] == m.CALLS:
            self.send((m.GIVE_BACK, message[1], [], []))
        else:
            yield from self.take(message)

    def take_in(self) -> Steps:
        """All messages that are there."""
        while self.unread:
            yield from self.take_beside(self.unread.popleft())

    def remove_actor(self, number: int) -> None:
        """Let go of an actor that lives here."""
        actor = self.stages.pop(number, None)
        if actor is not None:
            self.world.account.end_actor(actor, self)

    def stop(self, key: int) -> Steps:
        """A call is not wanted any more whose result is another's."""
        future = self._joined.pop(key, None)
        if future is not None:
            yield from self.cancel([future], running=True)

    # Calls.

    def run(
        self, keys: list[int], functions: list[int], payloads: list[bytes], extras: dict[int, Any]
    ) -> Steps:
        """The calls of a message."""
        waiting = self._waiting
        waiting.extend(zip(keys, functions, payloads, strict=True))
        self._is_journaled = len(keys) > 1
        self._sent_at = self.world.now
        while waiting:
            key, function, payload = waiting.popleft()
            if function not in self.functions:
                self.send((m.GIVE_BACK, [key], [function], []))
                continue
            fn = self.functions[function]
            script = self.world.open_call(fn, payload)
            if len(keys) > 1:
                yield
            if extras:
                self.started = 0.0  # what stands there is another call's
            self.current = key
            yield
            yield from self._run_one(script, fn, payload, key, extras.get(key))
            if waiting and self.world.now - self._sent_at > _FLUSH_SECONDS:
                self.flush()
        yield
        self.flush()
        self.current = 0

    def _run_one(self, script: Script, fn: Any, payload: bytes, key: int, extra: Any) -> Steps:
        failed = False
        self.script = script
        scene = Scene(self, script)
        try:
            timeout, environment, window = extra or (None, None, 0)
            if window:
                self._credits = {key: window}
            if timeout is not None:
                self.started = self.world.now
            if key in self.process.forbidden:
                raise CallInterrupted("the call was cancelled")
            self.world.account.begin(self, key, script, environment)
            self._is_in_call = True
            value = yield from perform(scene, fn, payload)
            self._is_in_call = False
            yield from self.drop_streams(scene)
            self.world.account.end_run(self, script, value)
            if self.nested is not None and self.nested.join(key, value):
                return
            result = value.encode()
        except AssertionError:
            raise
        except (Exception, CallInterrupted) as error:
            self._is_in_call = False
            scene.forget_streams()
            self.world.account.end_run(self, script, error)
            failed = True
            result = pack_error(error)
            yield from self.end_badly(key)
        self.script = None
        self._add(key, result, fn, failed=failed)

    def _add(self, key: int, result: bytes, fn: Any, *, failed: bool) -> None:
        entry = key, result, getattr(fn, "seconds", None) or 0.001, failed
        self._results.append(entry)
        if self._is_journaled:
            self.journal.append(entry)
            if len(self.journal) >= _JOURNAL_ENTRIES:
                self.flush()

    def flush(self) -> None:
        """Send what has ended."""
        results, self._results = self._results, []
        if not results:
            return
        keys, payloads, seconds, has_failed = map(list, zip(*results, strict=True))
        failed = [index for index, one in enumerate(has_failed) if one]
        self.send((m.RESULTS, keys, payloads, seconds, failed, sum(seconds), False, [], []))
        self._sent_at = self.world.now
        if self._is_journaled and self.world.toss(0.3):
            self._is_journal_stale = True  # it may die between the two
        else:
            self.journal.clear()

    def list_unsent(self) -> list[int]:
        """Keys of calls that have run, and whose results are lost if it ends now."""
        written = {entry[0] for entry in self.journal}
        return [entry[0] for entry in self._results if entry[0] not in written]

    def join(self, key: int, future: Any) -> None:
        """A call's result will be that of `future`."""
        self._joined[key] = future
        future.notify(lambda ended: self._end_joined(key, ended))

    def _end_joined(self, key: int, future: Any) -> None:
        if self._joined.pop(key, None) is None:
            return
        failed = False
        try:
            result = future.result().encode()
        except Exception as error:
            failed = True
            result = pack_error(error)
        self._is_journaled = False
        self._add(key, result, None, failed=failed)
        self.flush()

    # What calls use.

    def get_session(self) -> Any:
        """The session of calls inside calls."""
        if self.session is None:
            self.session = self.world.open_nested_session(self)
        return self.session

    def emit(self, item: bytes) -> Steps:
        """Send one item of a stream, and wait while there are enough."""
        key = self.current
        self.send((m.YIELD, key, item, []))
        self._credits[key] -= 1
        if self._credits[key] <= 0:
            yield from self.wait(lambda: self._credits[key] > 0, None)
        yield

    def wait(self, is_done: Callable[[], bool], timeout: float | None, key: int = 0) -> Steps:
        """Wait until `is_done`; False where time is over first."""
        with Guard(self):
            yield from self.take_in()
            found = is_done()
            if not found:
                deadline = INFINITY if timeout is None else self.world.now + timeout
                found = yield from self._wait(is_done, deadline, key)
        return found

    def _wait(self, is_done: Callable[[], bool], deadline: float, key: int) -> Steps:
        self.flush()
        while True:
            self._may_go_on = False
            self.send((m.BLOCKED, self.give_up_waiting(), key))
            is_awake = False
            while not self._may_go_on:
                is_over = self.is_interrupted or self.world.now >= deadline or is_done()
                if is_over and not is_awake:
                    is_awake = True
                    self.send((m.WAKE, self.is_interrupted or self.world.now >= deadline))
                self.sleep(INFINITY if is_awake else deadline, for_message=True)
                yield
                self._check_open()
                yield from self.take_in()
            if is_done():
                return True
            if self.is_interrupted or self.world.now >= deadline:
                return False

    def await_answer(self, is_there: Callable[[], bool], change: Any = None) -> Steps:
        """Wait for an answer of the parent."""
        while not is_there():
            with Guard(self):
                while not self.unread:
                    self._check_open()
                    self.sleep(for_message=True)
                    yield
                yield from self.take_beside(self.unread.popleft())

    def _check_open(self) -> None:
        """End where nothing can come any more; a wait in `Waits` ends with EOFError then, and so does all else."""
        if not self.unread and not self.process.channel.is_open:
            raise DeathError(0)

    def ask(self, kind: int, *fields: Any) -> Steps:
        """`NestedEngine._ask`, in steps."""
        engine = self.nested
        engine._questions += 1
        number = engine._questions
        self.send((kind, number, *fields))
        yield from self.await_answer(lambda: number in engine._answers)
        return engine._answers.pop(number)

    def cancel(self, futures: Iterable[Any], *, running: bool) -> Steps:
        """`Session.cancel_calls`, in steps: what the engine is asked there is known when it is called."""
        engine = self.nested
        unsent = self.session._ledger.withdraw_unsent({future.key for future in futures})
        wanted = engine.begin_cancelling(
            [future.key for future in futures if future.key not in unsent]
        )
        withdrawn: set[int] = set()
        if wanted:
            try:
                answer = yield from self.ask(m.CANCEL, wanted, running)
            except CallInterrupted:
                engine.end_cancelling(wanted, withdrawn)
                raise
            withdrawn.update(answer[0])
            engine.end_cancelling(wanted, withdrawn)
        engine.cancel = lambda keys, *, running: withdrawn & set(keys)
        try:
            self.world.account.note_cancelled(self, futures, running=running)
            self.session.cancel_calls(futures, running=running)
        finally:
            del engine.cancel
        yield from self._cancel_children()

    def drop_streams(self, scene: Scene) -> Steps:
        """A call has ended that did not read its streams to their ends; `Stream.__del__`, in steps."""
        for _, stream in scene.made:
            if hasattr(stream, "_is_over") and not stream._is_over:
                stream._is_over = True
                if not stream._future.done():
                    yield from self.cancel([stream._future], running=True)

    def end_badly(self, key: int) -> Steps:
        """`NestedEngine.end_badly`, in steps."""
        if self.session is not None:
            self.failed.append(key)
            yield from self._cancel_children()

    def _cancel_children(self) -> Steps:
        """`Session.cancel_children`, in steps."""
        while self.failed:
            children = self.session._children.pop(self.failed.pop(), None)
            if children:
                known = self.session._futures
                futures = [known[child] for child in children if child in known]
                yield from self.cancel(futures, running=True)
