"""How a call's plan is carried out in a worker."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from manyhands.engines.local import messages as m
from manyhands.errors import CallInterrupted
from tests.simulation.scripts import PlannedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.simulation.scripts import Plan, Script
    from tests.simulation.worker import SimulatedWorker

    Steps = Generator[None, None, Any]


HANG_SECONDS = 12.0
"""How long a call is at it that hangs."""


class DeathError(BaseException):
    """Ends a worker's process.

    Attributes
    ----------
    status : int
        As `os.waitpid` would give it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Scene:
    """A run of a call.

    Attributes
    ----------
    made : list of (Script, Any)
        Calls that it has made, and their futures or streams.
    """

    __slots__ = ("made", "script", "worker")

    def __init__(self, worker: SimulatedWorker, script: Script) -> None:
        self.worker = worker
        self.script = script
        self.made: list[tuple[Script, Any]] = []

    def forget_streams(self) -> None:
        """The run has failed, and what it has made is cancelled."""
        for _, made in self.made:
            if hasattr(made, "_is_over"):
                made._is_over = True


def perform(scene: Scene, fn: Any, payload: bytes) -> Steps:
    """Carry a run out; gives what the call returns."""
    worker, script = scene.worker, scene.script
    world = worker.world
    if script.plan.kind == "making":
        yield from _make_actor(worker, script, fn, payload)
    elif script.plan.actor is not None and not world.account.enter_actor(worker, script):
        yield
        raise world.account.make_absence_error(script)
    for act in script.get_acts():
        if act[0] == "work":
            worker.sleep(world.now + act[1])
            yield
            continue
        value = yield from _VERBS[act[0]](scene, *act[1:])
        if value is not None:
            return value
    if script.plan.kind == "method":
        worker.world.account.keep_actor(worker, script)
    return f"r{script.number}"


def _make_actor(worker: SimulatedWorker, script: Script, fn: Any, payload: bytes) -> Steps:
    worker.world.account.make_actor(worker, script, fn, payload)
    yield


def _spawn(scene: Scene, plan: Plan, inputs: tuple[int, ...]) -> Steps:
    """Make a call."""
    worker, world = scene.worker, scene.worker.world
    session = worker.get_session()
    child = world.stage(plan, scene.script)
    sources = [scene.made[index] for index in inputs]
    child.inputs = [source for source, _ in sources]
    arguments = (child.number, *(getattr(made, "_future", made) for _, made in sources))
    if plan.kind == "stream":
        made = session.start_stream(plan.task, arguments, {}, plan.options)
        worker.streams.append(made)
        future = made._future
    else:
        made = future = session.start_call(plan.task, arguments, {}, plan.options)
    world.account.note_made(child, future, worker)
    scene.made.append((child, made))
    yield


def _wait(scene: Scene, which: int, timeout: float | None) -> Steps:
    """Wait for one call, for any (-1) or for all (-2)."""
    made = [(child, future) for child, future in scene.made if child.plan.kind != "stream"]
    if which >= 0:
        made = [
            (child, future) for child, future in (scene.made[which],) if child.plan.kind != "stream"
        ]
    if not made:
        return
    futures = [future for _, future in made]
    key = futures[0].key if which >= 0 else 0
    is_enough = any if which == -1 else all
    yield from scene.worker.wait(
        lambda: is_enough(future.done() for future in futures), timeout, key
    )
    for child, future in made:
        if future.done():
            _look_at(scene, child, future)


def _look_at(scene: Scene, child: Script, future: Any) -> None:
    """Take the result of a call that has ended."""
    try:
        value = future.result()
    except (Exception, CancelledError):
        if scene.script.plan.catches:
            return
        raise
    scene.worker.world.account.check_value(child, value)


def _drain(scene: Scene, which: int, most: int) -> Steps:
    """Take items of a stream, then close it."""
    child, stream = scene.made[which]
    if child.plan.kind != "stream":
        return
    for _ in range(most):
        yield from scene.worker.wait(stream._is_ready, None)
        try:
            item = next(stream)
        except StopIteration:
            return
        except (Exception, CancelledError):
            if scene.script.plan.catches:
                return
            raise
        scene.worker.world.account.check_item(child, item)
    if not stream._future.done():
        stream._is_over = True
        yield from scene.worker.cancel([stream._future], running=True)


def _cancel(scene: Scene, which: int, running: bool) -> Steps:
    _, made = scene.made[which]
    future = getattr(made, "_future", made)
    if not future.done():
        yield from scene.worker.cancel([future], running=running)


def _join(scene: Scene, which: int) -> Steps:
    """Return a future."""
    yield
    child, future = scene.made[which]
    return None if child.plan.kind == "stream" else future


def _emit(scene: Scene, count: int) -> Steps:
    for index in range(count):
        yield from scene.worker.emit(b"%d.%d" % (scene.script.number, index))


def _hang(scene: Scene, swallowed: int) -> Steps:
    """Run on and on; that many interrupts do not help."""
    for left in range(swallowed, -1, -1):
        try:
            yield from _run_on(scene)
        except CallInterrupted:
            if not left:
                raise


def _go_deaf(scene: Scene) -> Steps:
    """The same in native code."""
    scene.worker.set_deaf(True)
    try:
        yield from _run_on(scene)
    finally:
        scene.worker.set_deaf(False)


def _run_on(scene: Scene) -> Steps:
    world = scene.worker.world
    end = world.now + HANG_SECONDS
    world.hangs += 1
    try:
        while world.now < end:
            scene.worker.sleep(end)
            yield
    finally:
        world.hangs -= 1
    world.account.check_hang(scene.script)


def _die(scene: Scene) -> Steps:
    yield
    if scene.worker.world.may_die(scene.script):
        raise DeathError(9)


def _exit(scene: Scene) -> Steps:
    yield
    if scene.worker.world.may_die(scene.script):
        scene.worker.flush()
        raise DeathError(3 << 8)


def _raise(scene: Scene) -> Steps:
    yield
    raise PlannedError(scene.script.number)


def _ask(scene: Scene, question: str, get_arguments: Callable[[], tuple[Any, ...]]) -> Steps:
    worker = scene.worker
    worker.get_session()
    failed, content = yield from worker.ask(m.ASK, question, get_arguments())
    assert not failed, content


_VERBS: dict[str, Callable[..., Steps]] = {
    "spawn": _spawn,
    "wait": _wait,
    "drain": _drain,
    "cancel": _cancel,
    "join": _join,
    "emit": _emit,
    "hang": _hang,
    "deafen": _go_deaf,
    "die": _die,
    "exit": _exit,
    "raise": _raise,
    "ask": _ask,
}
