import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.engines.ray.places import Places


@pytest.fixture
def places() -> Places:
    """One place."""
    places = Places()
    places.set_total(1)
    return places


def test_those_that_have_waited_go_first(places: Places) -> None:
    assert places.ask("a", "p", has_waited=False)
    assert not places.ask("fresh", "p", has_waited=False)
    assert not places.ask("back", "p", has_waited=True)
    assert places.leave("a") == ["back"]
    assert places.leave("back") == ["fresh"]
    assert places.leave("fresh") == []


def test_who_waits_may_give_up(places: Places) -> None:
    assert places.ask("a", "p", has_waited=False)
    assert not places.ask("b", "p", has_waited=True)
    assert not places.ask("c", "p", has_waited=True)
    assert places.leave("b") == []
    assert places.count_waiting() == 1
    assert places.leave("a") == ["c"]


def test_a_process_that_is_gone_leaves_its_places(places: Places) -> None:
    places.set_total(2)
    assert places.ask("a", "gone", has_waited=False)
    assert places.ask("b", "here", has_waited=False)
    assert not places.ask("c", "here", has_waited=False)
    assert places.forget("gone") == ["c"]
    assert places.list_stations() == {"here"}
    assert places.leave("a") == []  # it is heard of after all


def test_more_places_let_more_in(places: Places) -> None:
    assert places.ask("a", "p", has_waited=False)
    assert not places.ask("b", "p", has_waited=False)
    assert places.set_total(2) == ["b"]


def test_what_has_begun_counts_though_it_had_not_asked(places: Places) -> None:
    places.add("a", "p")
    places.add("b", "p")
    assert not places.ask("c", "p", has_waited=True)
    assert places.leave("a") == []  # there was one too many
    assert places.leave("b") == ["c"]


@given(st.lists(st.tuples(st.sampled_from(["ask", "leave", "forget"]), st.integers(0, 9))))
def test_never_too_many_and_never_fewer_than_could(steps: list[tuple[str, int]]) -> None:
    places = Places()
    places.set_total(2)
    inside: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for step, number in steps:
        stay, station = f"stay-{number}", f"station-{number % 3}"
        if step == "ask":
            if stay in inside or stay in waiting:
                continue
            if places.ask(stay, station, has_waited=bool(number % 2)):
                inside[stay] = station
            else:
                waiting[stay] = station
            granted = []
        elif step == "leave":
            inside.pop(stay, None)
            waiting.pop(stay, None)
            granted = places.leave(stay)
        else:
            inside = {other: where for other, where in inside.items() if where != station}
            granted = places.forget(station)
        for other in granted:
            inside[other] = waiting.pop(other)
        assert len(inside) <= 2
        assert places.count_waiting() == len(waiting)
        assert not (waiting and len(inside) < 2)
