import threading
from collections.abc import Iterator

import pytest

from manyhands.engines.ray import stays as stays_module
from manyhands.engines.ray.stays import Stays
from tests.unit.engines.ray.conftest import FakeOffice


@pytest.fixture
def stays(office: FakeOffice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stays]:
    monkeypatch.setattr(stays_module, "_SPARE_SECONDS", 0.01)
    stays = Stays(office, "p")
    yield stays
    stays.close()


def test_nobody_asks_before_a_call_has_waited(stays: Stays, office: FakeOffice) -> None:
    stays.begin()
    stays.end()
    assert office.enter.calls == office.leave.calls == office.count.calls == []


def test_the_first_that_waits_has_all_count(stays: Stays, office: FakeOffice) -> None:
    stays.begin()
    stays.leave()
    assert len(office.count.calls) == 1


def test_what_computes_is_told_when_counting_begins(stays: Stays, office: FakeOffice) -> None:
    stays.begin()
    (stay,) = stays.count()
    stays.leave()
    assert office.leave.calls == [(stay,)]
    office.enter.value = False
    stays.enter(lambda: False)
    ((other, station, has_waited),) = office.enter.calls
    assert (other != stay, station, has_waited) == (True, "p", True)


def test_a_place_is_kept_for_the_next_call_and_not_for_long(
    stays: Stays, office: FakeOffice
) -> None:
    assert stays.count() == []
    office.enter.value = False
    stays.begin()
    stays.end()
    stays.begin()
    stays.end()
    assert len(office.enter.calls) == 1
    office.leave.wait_for_calls(1)
    assert office.leave.calls == [(office.enter.calls[0][0],)]
    stays.begin()
    assert len(office.enter.calls) == 2


def test_a_place_that_others_wait_for_is_given_up(stays: Stays, office: FakeOffice) -> None:
    stays.count()
    office.enter.value = True  # others wait
    stays.begin()
    stays.end()
    assert len(office.leave.calls) == 1
    office.enter.value = False
    stays.begin()
    stays.recall()
    assert len(office.leave.calls) == 1
    stays.end()
    assert len(office.leave.calls) == 2


def test_a_call_that_waits_for_its_place_can_be_interrupted(
    stays: Stays, office: FakeOffice
) -> None:
    stays.count()
    office.enter.is_held = True
    is_due = threading.Event()
    waiting = threading.Thread(target=stays.enter, args=(is_due.is_set,))
    waiting.start()
    office.enter.wait_for_calls(1)
    is_due.set()
    waiting.join()
    assert office.leave.calls == [(office.enter.calls[0][0],)]


def test_a_thread_that_is_at_no_call_has_no_place(stays: Stays, office: FakeOffice) -> None:
    stays.leave()
    stays.end()
    assert office.count.calls == office.leave.calls == []
