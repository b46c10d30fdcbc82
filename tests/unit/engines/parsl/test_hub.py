"""What goes on between a session and its workers, without any."""

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

import manyhands as mh
from manyhands.engines.cluster.packed import Packed
from manyhands.engines.cluster.task import Settings, Task
from manyhands.engines.cluster.versions import tell_versions
from manyhands.engines.parsl.handle import Ending, Hello
from manyhands.engines.parsl.hub import Hub
from tests.unit.engines.sinks import LONG


class FakeWire:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...]]] = []

    def send(self, message: tuple[Any, ...], identity: bytes = b"") -> None:
        self.sent.append((identity.decode(), message))

    def close(self) -> None:
        """Nothing is open."""


class FakeVisits:
    """Has nobody come."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.is_near = False
        self.trouble = ""

    def want(self, calls: int) -> None:
        self.wanted.append(calls)

    def are_near(self) -> bool:
        return self.is_near

    def take_arrival(self, number: int, worker: str) -> None:
        """It is not asked for."""

    def take_loss(self, worker: str) -> None:
        """The same."""

    def find_trouble(self, calls: int) -> str:
        return self.trouble if calls else ""


class Scene:
    """A hub, and those around it."""

    def __init__(self) -> None:
        self.wire = FakeWire()
        self.visits = FakeVisits()
        self.messages: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.ends: SimpleQueue[tuple[str, Ending]] = SimpleQueue()
        self.hub = Hub(
            Settings("session", 2),
            self.visits,  # type: ignore[arg-type]
            lambda *message: self.messages.put(message),
            idle_seconds=0.0,
        )
        self.hub.open(self.wire)  # type: ignore[arg-type]

    def come(self, name: str, *, sees: bool = True, **versions: str) -> None:
        """A worker comes, and visits."""
        self.say(name, "hello", Hello(name, {**tell_versions(), **versions}, sees))
        self.say(name, "visit", 1)

    def say(self, name: str, *message: Any) -> None:
        """A worker says something."""
        self.hub.take_message(name.encode(), message)

    def launch(self, name: str, priority: int = 0) -> None:
        """The program launches a call."""
        self.hub.launch(make_task(name), [], priority, lambda ending: self.ends.put((name, ending)))

    def take(self, name: str) -> list[tuple[Any, ...]]:
        """What a worker was sent since it was asked for last."""
        found = [message for other, message in self.wire.sent if other == name]
        self.wire.sent = [entry for entry in self.wire.sent if entry[0] != name]
        return [message for message in found if message[0] != "ping"]

    def list_calls(self, name: str) -> list[str]:
        """The calls that a worker was given since."""
        return [message[1].id for message in self.take(name) if message[0] == "call"]

    def get_end(self) -> tuple[str, Ending]:
        return self.ends.get(timeout=LONG)


def make_task(name: str) -> Task:
    return Task("session", name, "session", 1, name, ("table", 1, Packed(b"")), Packed(b""))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.hub.end()


def test_a_worker_is_welcome(scene: Scene) -> None:
    scene.come("w", sees=True)
    assert scene.take("w") == [("welcome", Settings("session", 2), True)]
    assert scene.hub.has_first.is_set()
    assert scene.hub.sees_folder


def test_a_worker_of_other_versions_is_not(scene: Scene) -> None:
    scene.come("w", cloudpickle="0.1")
    assert scene.take("w") == [("refused",)]
    assert "cloudpickle 0.1" in scene.hub.trouble
    with pytest.raises(mh.WorkerDiedError, match="cloudpickle"):
        scene.launch("a")


def test_a_later_worker_that_does_not_fit_fails_what_waits(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.launch("b")
    scene.come("v", sees=False)
    assert scene.take("v") == [("refused",)]
    name, ending = scene.get_end()
    assert name == "b"
    assert "does not see the folder" in str(ending.trouble)
    scene.launch("c")  # others may come
    scene.say("w", "ended", "a", Ending())
    assert scene.get_end()[0] == "a"
    assert scene.list_calls("w") == ["a", "c"]


def test_calls_go_to_workers_and_their_ends_to_who_made_them(scene: Scene) -> None:
    scene.launch("a")
    scene.launch("b", priority=1)
    assert scene.visits.wanted == [1, 2]
    scene.come("w")
    assert scene.list_calls("w") == ["b"]
    value = Packed(b"3")
    scene.say("w", "ended", "b", Ending(value=value))
    assert scene.get_end() == ("b", Ending(value=value))
    assert scene.list_calls("w") == ["a"]


def test_nothing_begins_beside_what_waits_if_another_worker_is_near(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.say("w", "left", "a")
    scene.visits.is_near = True
    scene.launch("b")
    assert scene.list_calls("w") == ["a"]
    scene.visits.is_near = False  # it did not come
    scene.hub.deal()
    assert scene.list_calls("w") == ["b"]
    scene.say("w", "enter", "a")
    assert scene.take("w") == []
    scene.say("w", "ended", "b", Ending())
    assert scene.take("w") == [("place", "a")]


def test_a_lost_worker_takes_its_calls_with_it(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.say("w", "left", "a")
    scene.launch("b")
    scene.launch("c")
    scene.hub.take_unreachable(b"w")
    ends = dict(scene.get_end() for _ in range(2))
    assert {name: ending.worker for name, ending in ends.items()} == {"a": "w", "b": "w"}
    scene.say("w", "ended", "a", Ending())  # nobody listens
    scene.come("v")
    assert scene.list_calls("v") == ["c"]


def test_messages_come_before_the_end(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.say("w", "post", "session", ("print", "stdout", "text"))
    scene.say("w", "post", "nobody's", ("print", "stdout", "text"))
    scene.say("w", "ended", "a", Ending())
    scene.get_end()
    assert scene.messages.get_nowait() == ("print", "stdout", "text")
    assert scene.messages.empty()


def test_a_call_of_a_call_is_told_where_it_was_made(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.say("w", "open", "inner")
    scene.say("w", "launch", make_task("b"), [], 0)
    scene.say("w", "left", "a")
    scene.take("w")
    scene.say("w", "post", "inner", ("item", "b", 1))
    scene.say("w", "ended", "b", Ending())
    assert scene.take("w") == [("post", "inner", ("item", "b", 1)), ("ended", "b", Ending())]


def test_others_may_follow_a_call_until_it_is_forgotten(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.say("w", "launch", make_task("b"), [], 0)
    scene.say("w", "ended", "a", Ending(joined="b"))
    scene.hub.follow("b", lambda ending: scene.ends.put(("early", ending)))
    scene.say("w", "ended", "b", Ending(failure=b"1"))
    scene.hub.follow("b", lambda ending: scene.ends.put(("late", ending)))
    found = [scene.get_end()[0] for _ in range(3)]
    assert found == ["a", "early", "late"]
    scene.say("w", "forget", "b")
    scene.hub.follow("b", lambda ending: scene.ends.put(("never", ending)))
    assert scene.get_end()[1].loss is not None


def test_calls_of_a_lost_worker_are_given_up_unless_somebody_follows_them(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    for name in "bcd":
        scene.say("w", "launch", make_task(name), [], 0)
    scene.come("v")
    scene.come("x")
    assert (scene.list_calls("v"), scene.list_calls("x")) == (["b"], ["c"])
    scene.hub.follow("c", lambda ending: scene.ends.put(("c", ending)))
    scene.hub.lose("w", "killed")
    assert scene.take("v") == [("question", 0, "interrupt", (["b"],), {})]
    assert scene.take("x") == []
    assert scene.get_end()[0] == "a"
    scene.say("v", "ended", "b", Ending())
    assert scene.list_calls("v") == []  # what had not begun does not
    scene.say("x", "ended", "c", Ending())
    assert scene.get_end()[0] == "c"


def test_what_had_not_begun_is_withdrawn_here(scene: Scene) -> None:
    scene.launch("a")
    assert scene.hub.ask("withdraw", (["a"],), {}) == []
    scene.come("w")
    assert scene.list_calls("w") == []


def test_those_are_asked_that_are_at_the_calls(scene: Scene) -> None:
    scene.come("w")
    scene.come("v")
    scene.launch("a")
    (busy,) = (name for name in ("v", "w") if scene.list_calls(name))
    answers: list[Any] = []
    scene.hub.ask_for("withdraw", (["a"],), {}, answers.append)
    ((_, number, method, args, _),) = scene.take(busy)
    assert (method, args) == ("withdraw", (["a"],))
    scene.say(busy, "answer", number, {"a"})
    assert answers == [[{"a"}]]


def test_who_is_lost_is_not_waited_for(scene: Scene) -> None:
    scene.come("w")
    scene.come("v")
    answers: list[Any] = []
    scene.hub.ask_for("list_running", (), {}, answers.append)
    number = scene.take("w")[-1][1]
    scene.say("w", "answer", number, ["a"])
    assert answers == []
    scene.hub.lose("v", "killed")
    assert answers == [[["a"]]]


def test_if_nothing_can_be_run_all_calls_fail(scene: Scene) -> None:
    scene.come("w")
    scene.launch("a")
    scene.launch("b")
    scene.visits.trouble = "the interchange has ended"
    scene.hub.tick()
    found = dict(scene.get_end() for _ in range(2))
    assert {ending.trouble for ending in found.values()} == {"the interchange has ended"}
    with pytest.raises(mh.WorkerDiedError, match="interchange"):
        scene.launch("c")


def test_a_worker_without_calls_goes(scene: Scene) -> None:
    scene.come("w")
    scene.come("v")
    scene.launch("a")
    scene.hub.tick()
    found = {name: [message[0] for message in scene.take(name)] for name in ("v", "w")}
    assert sorted(found.values()) == [["welcome", "call"], ["welcome", "home"]]


def test_at_the_end_all_are_sent_away(scene: Scene) -> None:
    scene.come("w")
    scene.hub.close()
    scene.come("v")
    assert scene.take("w")[-1] == ("over",)
    assert ("over",) in scene.take("v")
