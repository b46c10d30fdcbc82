import threading
from collections.abc import Callable
from typing import Any

import pytest
import ray

import manyhands as mh
from manyhands.engines.ray import connection as module
from manyhands.engines.ray.connection import Connection
from tests.unit.engines.ray.conftest import Ref
from tests.unit.engines.sinks import LONG


class FakeRay:
    """What of Ray a connection uses."""

    def __init__(self) -> None:
        self.is_there = False
        self.begun: list[Any] = []
        self.ended = 0
        self.threads: list[threading.Thread] = []
        self.ask: Callable[[], Any] = dict
        self.at_exit: list[Any] = []

    def init(self, address: str, **options: Any) -> None:
        if address == "ray://nowhere:1":
            raise ConnectionError("refused")
        self.threads.append(threading.current_thread())
        self.begun.append((address, options))
        self.is_there = True

    def answer(self) -> Any:
        return self.ask()

    def shutdown(self) -> None:
        self.ended += 1
        self.is_there = False


class FakeExit:
    """What is called at the program's exit."""

    def __init__(self, fake: FakeRay) -> None:
        self._fake = fake

    def register(self, do: Any, **options: Any) -> None:
        self._fake.at_exit.append(do)

    def unregister(self, do: Any) -> None:
        self._fake.at_exit = [other for other in self._fake.at_exit if other != do]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray, "is_initialized", lambda: fake.is_there)
    monkeypatch.setattr(ray, "init", fake.init)
    monkeypatch.setattr(ray, "shutdown", fake.shutdown)
    monkeypatch.setattr(ray, "cluster_resources", fake.answer)
    monkeypatch.setattr(module, "PULSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "atexit", FakeExit(fake))
    return fake


def test_sessions_share_it_and_the_last_one_ends_it(fake: FakeRay) -> None:
    connection = Connection()
    assert connection.open("host:1", 0) is connection.open("host:1", 0)
    assert [address for address, _ in fake.begun] == ["ray://host:1"]
    connection.close()
    assert fake.ended == 0
    connection.close()
    assert fake.ended == 1
    connection.open("local", 2)
    address, options = fake.begun[1]
    assert (address, options["num_cpus"], options["_node_ip_address"]) == ("local", 2, "127.0.0.1")
    connection.close()


def test_a_cluster_is_begun_in_a_thread_that_lives_as_long(fake: FakeRay) -> None:
    """Its processes end with that."""
    connection = Connection()
    connection.open("local", 1)
    (thread,) = fake.threads
    assert thread is not threading.current_thread()
    assert thread.is_alive()
    connection.close()
    assert not thread.is_alive()


def test_there_is_one_at_a_time(fake: FakeRay) -> None:
    connection = Connection()
    connection.open("host:1", 0)
    with pytest.raises(mh.WorkerStartError, match="'host:1' already, and Ray allows one"):
        connection.open("host:2", 0)
    connection.close()
    connection.open("host:2", 0)
    connection.close()
    assert len(fake.begun) == 2


def test_one_that_the_program_has_is_used_and_left(fake: FakeRay) -> None:
    fake.is_there = True
    connection = Connection()
    assert not connection.open("auto", 0).is_ours
    connection.close()
    assert (fake.begun, fake.ended) == ([], 0)


def test_nobody_there(fake: FakeRay) -> None:
    connection = Connection()
    with pytest.raises(
        mh.WorkerStartError, match=r"no Ray cluster answers at 'nowhere:1'.*refused"
    ):
        connection.open("nowhere:1", 0)
    connection.open("host:1", 0)
    connection.close()
    assert len(fake.begun) == 1


def lose(connection: Connection, fake: FakeRay) -> str:
    """Have the cluster go; what is said of it."""
    line = connection.open("host:1", 0)
    has_heard = threading.Event()
    told: list[str] = []
    line.listen(lambda loss: (told.append(loss), has_heard.set()))  # type: ignore[arg-type,return-value]
    assert not line.is_lost

    def refuse() -> None:
        raise ConnectionError("reset")

    fake.ask = refuse
    assert has_heard.wait(LONG)
    return told[0]


def test_a_cluster_that_is_gone_is_told_and_left(fake: FakeRay) -> None:
    connection = Connection()
    loss = lose(connection, fake)
    assert fake.at_exit == []  # the program's end waits for Ray no more
    assert "'host:1' any more" in loss
    assert "ConnectionError: reset" in loss
    line = connection.line
    assert line is not None
    told: list[str] = []
    line.listen(told.append)  # later
    assert told == [loss]
    with pytest.raises(mh.WorkerDiedError, match="'host:1' any more"):
        line.read(Ref())
    with pytest.raises(mh.WorkerStartError, match="close the sessions on it"):
        connection.open("host:1", 0)
    connection.close()
    assert fake.ended == 1
    connection.open("host:2", 0)
    assert fake.at_exit == [fake.shutdown]
    connection.close()


def test_a_cluster_that_does_not_answer_is_gone(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_TURN_SECONDS", 0.01)
    answer = threading.Event()
    fake.ask = lambda: answer.wait(LONG)
    connection = Connection()
    line = connection.open("host:1", 0)
    with pytest.raises(mh.WorkerDiedError, match=r"has not answered for 0\.05 s"):
        line.read(Ref())
    answer.set()
    connection.close()


def test_values_are_read_and_errors_raised(fake: FakeRay) -> None:
    connection = Connection()
    line = connection.open("host:1", 0)
    good, bad, slow = Ref(), Ref(), Ref()
    good.result.set_result(3)
    bad.result.set_exception(KeyError("x"))
    slow.result.set_exception(TimeoutError("its own"))
    assert line.read(good) == 3
    with pytest.raises(KeyError):
        line.read(bad)
    with pytest.raises(TimeoutError, match="its own"):
        line.read(slow)
    connection.close()
    assert fake.ended == 1


def test_what_ray_tells_of_its_own_accord_is_logged(
    fake: FakeRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(
        module.ray_worker, "print_to_stdstream", lambda *told, **_: shown.append(told)
    )
    monkeypatch.setattr(module, "connection", Connection())
    caplog.set_level("INFO", "manyhands.ray")
    module.connection.open("host:1", 0)
    module.ray_worker.print_to_stdstream({"pid": "raylet", "lines": ["A worker died"]})
    assert [record.message for record in caplog.records] == ["A worker died"]
    module.ray_worker.print_to_stdstream({"pid": 3, "lines": ["other"]})
    module.connection.close()
    module.ray_worker.print_to_stdstream({"pid": "raylet", "lines": ["not ours"]})
    assert [told[0]["lines"] for told in shown] == [["other"], ["not ours"]]
    assert fake.ended == 1
