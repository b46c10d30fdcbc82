"""What a worker does of a call, and what the program hears; the station behind it is a fake."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from manyhands.core.exceptions import pack_exception, unpack_exception
from manyhands.engines.cluster.station import CallFailedError, CallJoinedError
from manyhands.engines.cluster.task import Task
from manyhands.engines.ray import worker
from manyhands.engines.ray.handle import Handle
from manyhands.engines.ray.worker import RayLink, perform
from manyhands.errors import WorkerDiedError
from tests.unit.engines.cluster.fakes import pack
from tests.unit.engines.ray.conftest import FakeOffice


class FakeStation:
    """Performs calls as the test says."""

    def __init__(self, link: RayLink) -> None:
        self.link = link
        self.outcome: Any = pack(9)

    def perform(self, task: Task, inputs: Any) -> Any:
        self.link.send(task.topic, ("print", "stdout", "hello"))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        self.link.send(task.topic, ("end", task.id, 0.5, self.outcome))
        return self.outcome


TASK = Task("session", "call-1", "topic", 1, "work", ("table", 1, pack(abs)), pack(3))


@pytest.fixture
def station(office: FakeOffice, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStation]:
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: office)
    link = RayLink("session")
    station = FakeStation(link)
    monkeypatch.setitem(worker._stations, "session", (station, link))  # type: ignore[arg-type]
    yield station
    link.stays.close()


def test_a_result_and_its_news(station: FakeStation, office: FakeOffice) -> None:
    status, packed = perform("session", TASK)
    assert packed is station.outcome
    assert (status.call, status.failure, status.joined) == ("call-1", None, None)
    assert status.end == ("call-1", 0.5, station.outcome)
    assert status.nbytes == station.outcome.nbytes
    # What it has printed comes first.
    (posted,) = office.post.calls
    assert posted == ("topic", [(status.sender, status.sent, ("print", "stdout", "hello"))])


def test_messages_are_numbered_for_each_session(station: FakeStation) -> None:
    perform("session", TASK)
    status, _ = perform("session", TASK)
    assert status.sent == 2
    assert station.link.count_sent("topic") == 2
    assert station.link.count_sent("other") == 0


def test_a_failure_is_told_and_is_no_error_to_ray(station: FakeStation) -> None:
    station.outcome = CallFailedError(pack_exception(KeyError("x")), "call-1")
    status, packed = perform("session", TASK)
    assert (status.end, packed) == (None, None)
    assert status.failure is not None
    assert isinstance(unpack_exception(status.failure), KeyError)


def test_a_call_that_goes_on_as_another(station: FakeStation) -> None:
    handle = Handle(None)
    station.outcome = CallJoinedError(handle, "call-1")
    status, packed = perform("session", TASK)
    assert (status.joined, status.failure, packed) == (handle, None, None)


def test_an_input_that_has_failed_is_not_the_calls_own_failure(
    station: FakeStation, office: FakeOffice
) -> None:
    status, packed = perform("session", TASK, pack(1), None)  # type: ignore[arg-type]
    assert (status.call, status.end, packed) == ("", None, None)
    assert status.failure is not None
    assert isinstance(unpack_exception(status.failure), WorkerDiedError)
    assert office.post.calls == []  # it has not begun


@pytest.mark.parametrize("outcome", [pack(9), CallFailedError(b"", "call-1")])
def test_a_call_has_a_place_while_it_runs(
    station: FakeStation, office: FakeOffice, outcome: Any
) -> None:
    station.link.stays.count()
    office.enter.value = True  # others wait
    station.outcome = outcome
    perform("session", TASK)
    ((stay, _, has_waited),) = office.enter.calls
    assert not has_waited
    assert office.leave.calls == [(stay,)]


def test_a_process_waits_until_its_last_message_is_there(
    station: FakeStation, office: FakeOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: steps.append(refs))
    monkeypatch.setattr("os._exit", steps.append)
    station.link.die()
    station.link.send("topic", ("late",))
    station.link.die()
    assert steps == [1, office.post.refs, 1]
