"""What becomes of actors."""

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.actors import ActorLife, ActorState, Troupe
from manyhands.errors import ActorDiedError, WorkerDiedError


def make_life(number: int = 1, name: str | None = None, restarts: int = 0) -> ActorLife:
    return ActorLife(number, "Counter", name, {}, restarts)


def test_the_normal_path() -> None:
    life = make_life()
    assert life.state is ActorState.STARTING
    life.note_made()
    assert life.state is ActorState.ALIVE
    life.stop()
    assert life.state is ActorState.DEAD
    assert life.error is None, "it was asked to"


def test_an_actor_whose_worker_dies_is_made_again_as_often_as_allowed() -> None:
    life = make_life(restarts=2)
    for left in (1, 0):
        life.note_made()
        assert life.end(WorkerDiedError("x"), is_final=False)
        assert (life.state, life.restarts) == (ActorState.RESTARTING, left)
    life.note_made()
    cause = WorkerDiedError("killed by SIGKILL\nand more")
    assert not life.end(cause, is_final=False)
    assert life.state is ActorState.DEAD
    error = life.error
    assert isinstance(error, ActorDiedError)
    assert error.__cause__ is cause
    assert error.actor == "Counter"
    assert "WorkerDiedError: killed by SIGKILL." in str(error) and "restarts=" in str(error)


def test_an_actor_that_cannot_be_made_is_not_tried_again() -> None:
    life = make_life(restarts=5)
    assert not life.end(ValueError("in __init__"), is_final=True)
    assert life.state is ActorState.DEAD
    assert life.restarts == 5
    assert "ValueError: in __init__" in str(life.error)


def test_a_dead_actor_stays_dead() -> None:
    life = make_life(restarts=5)
    life.stop()
    assert not life.end(WorkerDiedError("x"), is_final=False)
    life.note_made()
    assert (life.state, life.restarts) == (ActorState.DEAD, 5)


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("happening", ["note_made", "end"])
def test_an_actor_that_is_stopped_amid_anything_is_dead(happening: str, at: int) -> None:
    """Its session may stop it while a thread of the engine tells what became of it, at any line of that."""
    life = make_life(restarts=1)
    lines: list[int] = []

    def stop(frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and frame.f_code.co_name == happening:
            lines.append(frame.f_lineno)
            if len(lines) == at:
                life.stop()
        return stop

    outer = sys.gettrace()
    sys.settrace(stop)
    try:
        if happening == "end":
            life.end(WorkerDiedError("x"), is_final=False)
        else:
            life.note_made()
    finally:
        sys.settrace(outer)
    assert lines
    if len(lines) < at:
        life.stop()
    assert life.state is ActorState.DEAD


def test_an_actor_that_ends_while_it_stops_says_why_its_calls_have_no_answer() -> None:
    life = make_life(restarts=5)
    life.stop()
    assert life.error is None
    assert not life.end(ValueError("in __init__"), is_final=True)
    assert "ValueError: in __init__" in str(life.error)


@given(st.integers(0, 4), st.lists(st.sampled_from(["made", "death", "failure", "stop"])))
def test_an_actor_dies_once_and_has_no_more_lives_than_allowed(
    restarts: int, events: list[str]
) -> None:
    life = make_life(restarts=restarts)
    again = 0
    first_error: BaseException | None = None
    for event in events:
        was_dead = life.state is ActorState.DEAD
        if event == "made":
            life.note_made()
        elif event == "stop":
            life.stop()
        else:
            again += life.end(WorkerDiedError("x"), is_final=event == "failure")
        if was_dead:
            assert life.state is ActorState.DEAD
            assert first_error in (None, life.error)
        elif life.state is ActorState.DEAD:
            first_error = life.error
    assert again + life.restarts == restarts
    assert life.restarts >= 0


@pytest.mark.parametrize(("name", "words"), [(None, "Counter"), ("hits", "Counter 'hits'")])
def test_it_is_called_by_its_class_and_its_name(name: str | None, words: str) -> None:
    life = make_life(name=name)
    assert life.describe() == words
    life.end(ValueError("no."), is_final=True)
    error: Any = life.error
    assert error.actor == words
    assert str(error) == f"the actor {words} could not be made: ValueError: no"


def test_an_actor_that_died_too_often_is_said_to_be_dead_and_how_to_have_it_again() -> None:
    life = make_life()
    life.note_made()
    life.end(OSError("gone.\nsecond line"), is_final=False)
    assert str(life.error) == (
        "the actor Counter is dead, and is not made again: OSError: gone. To have it made again when its worker dies: "
        "restarts=…"
    )


def test_dead_actors_are_forgotten_one_day() -> None:
    troupe = Troupe()
    living = troupe.add(make_life(1), making=1)
    for number in range(2, 10_000):
        troupe.add(make_life(number), making=number).stop()
    numbers = [life.number for life in troupe]
    assert numbers[0] == living.number
    assert 1000 <= len(numbers) <= 3000
    assert numbers[1:] == list(range(10_001 - len(numbers), 10_000))
    assert troupe.find_made_by(2) is None and troupe.find_made_by(1) is living


def test_actors_are_found() -> None:
    troupe = Troupe()
    assert not troupe
    hits, nameless = make_life(1, "hits"), make_life(2)
    assert troupe.add(hits, making=10) is hits
    troupe.add(nameless, making=11)
    assert troupe
    assert list(troupe) == [hits, nameless]
    assert (troupe.get(1), troupe.get(2), troupe.get(3)) == (hits, nameless, None)
    assert (troupe.find_made_by(10), troupe.find_made_by(1)) == (hits, None)
    assert troupe.find("hits") is hits
    assert troupe.find("misses") is None


def test_a_dead_actor_is_not_found_by_its_name() -> None:
    troupe = Troupe()
    troupe.add(old := make_life(1, "hits"))
    old.stop()
    assert troupe.find("hits") is None
    new = troupe.add(make_life(2, "hits"))
    assert troupe.find("hits") is new
    assert troupe.get(1) is old, "but is still told of"
