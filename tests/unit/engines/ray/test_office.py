"""The actor's class, without Ray: its methods are coroutines of one event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from manyhands.engines.cluster.task import Settings
from manyhands.engines.ray import office as office_module
from manyhands.engines.ray.office import Office
from tests.unit.engines.sinks import LONG

SETTINGS = Settings("session", 1)


def run(work: Callable[[Office], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine that is given an office."""

    async def begin() -> None:
        await asyncio.wait_for(work(Office(SETTINGS)), LONG)

    asyncio.run(begin())


async def answer(office: Office, station: str, value: Any) -> None:
    """Answer one question, as a process does."""
    questions = await office.take_questions(station)
    assert questions is not None
    for number, *_ in questions:
        await office.answer(number, station, value)


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_messages_wait_for_who_takes_them() -> None:
    async def work(office: Office) -> None:
        await office.open_topic("a")
        await office.post("a", [1, 2])
        await office.post("unknown", [3])
        assert await office.take("a") == [1, 2]
        taking = asyncio.ensure_future(office.take("a"))
        await settle()
        await office.post("a", [4])
        assert await taking == [4]
        await office.close_topic("a")
        assert await office.take("a") is None

    run(work)


def test_who_takes_messages_asks_again_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "TAKE_SECONDS", 0.001)

    async def work(office: Office) -> None:
        await office.open_topic("a")
        assert await office.take("a") == []

    run(work)


def test_all_processes_are_asked() -> None:
    async def work(office: Office) -> None:
        for station in ("p", "q", "r"):
            assert await office.join(station) == (SETTINGS, [], False)
        asking = asyncio.ensure_future(office.ask("list_running", (), {}))
        await settle()
        for station, value in (("p", ["call"]), ("q", []), ("r", None)):
            await answer(office, station, value)
        assert await asking == [["call"], []]  # one has nothing to say

    run(work)


def test_a_silent_process_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "_ANSWER_SECONDS", 0.001)

    async def work(office: Office) -> None:
        await office.join("silent")
        assert await office.ask("list_running", (), {}) == []
        monkeypatch.setattr(office_module, "_ANSWER_SECONDS", 10 * LONG)
        assert await office.ask("list_running", (), {}) == []
        # It comes back, hears of both, and counts again.
        questions = await office.take_questions("silent")
        assert questions is not None
        assert [method for _, method, _, _ in questions] == ["list_running"] * 2
        asking = asyncio.ensure_future(office.ask("list_running", (), {}))
        await settle()
        assert not asking.done()
        await answer(office, "silent", ["call"])
        assert await asking == [["call"]]

    run(work)


def test_processes_that_come_later_know_what_is_not_to_begin() -> None:
    async def work(office: Office) -> None:
        assert await office.ask("withdraw", (["call"],), {}) == []
        assert await office.join("p") == (SETTINGS, ["call"], False)

    run(work)


def test_a_call_that_waits_hears_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "_HEARING_SECONDS", 10 * LONG)

    async def work(office: Office) -> None:
        await office.join("p")
        hearing = asyncio.ensure_future(office.hear("p"))
        await settle()
        assert not hearing.done()
        asking = asyncio.ensure_future(office.ask("grant", ("call", 1), {}))
        await hearing
        await answer(office, "p", None)
        assert await asking == []

    run(work)


def test_the_end_of_the_session_is_heard() -> None:
    async def work(office: Office) -> None:
        await office.join("p")
        taking = asyncio.ensure_future(office.take_questions("p"))
        await settle()
        await office.close()
        assert await taking == []
        assert await office.take_questions("p") is None

    run(work)


def test_places_count_once_a_call_has_waited() -> None:
    async def work(office: Office) -> None:
        await office.set_places(1)
        await office.join("p")
        counting = asyncio.ensure_future(office.count())
        await settle()
        await answer(office, "p", ["stay"])
        await counting
        assert await office.join("q") == (SETTINGS, [], True)
        entering = asyncio.ensure_future(office.enter("other", "q", has_waited=True))
        await settle()
        assert not entering.done()
        questions = await office.take_questions("p")
        assert questions == [(0, "recall", (), {})]  # somebody waits
        await office.leave("stay")
        assert await entering is False  # and nobody else does

    run(work)


def test_who_enters_hears_whether_others_wait() -> None:
    async def work(office: Office) -> None:
        await office.set_places(1)
        await office.join("p")
        assert await office.enter("a", "p", has_waited=False) is False
        entries = [
            asyncio.ensure_future(office.enter(stay, "p", has_waited=False)) for stay in "bc"
        ]
        await settle()
        await office.leave("a")
        assert await entries[0] is True
        await office.leave("b")
        assert await entries[1] is False

    run(work)


def test_places_of_a_dead_process_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office_module, "_DEATH_SECONDS", 0.001)

    async def work(office: Office) -> None:
        await office.set_places(1)
        await office.count()
        await office.join("dead")
        assert await office.enter("a", "dead", has_waited=False) is False
        await office.join("here")
        entering = asyncio.ensure_future(office.enter("b", "here", has_waited=True))
        losing = asyncio.ensure_future(office.lose())
        await settle()
        await answer(office, "here", [])
        await losing
        assert await entering is False

    run(work)


def test_places_of_a_process_that_nobody_hears_of_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(office_module, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(office_module, "_RECALL_SECONDS", 0.001)

    async def work(office: Office) -> None:
        await office.set_places(1)
        await office.join("dead")
        assert await office.enter("a", "dead", has_waited=False) is False
        assert await office.enter("b", "here", has_waited=True) is False

    run(work)
