"""An actor of Ray's that passes messages between a session and the processes that its calls run in.

Ray's tasks can be reached by nobody while they run, and have nobody to tell anything but by their results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from time import monotonic

from manyhands.engines.ray.places import Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.cluster.task import Settings

NAMESPACE = "manyhands"
"""Of Ray's names for actors."""

TAKE_SECONDS = 5.0
"""How long one asks for messages before one asks again."""

_SILENT_SECONDS = 3 * TAKE_SECONDS
"""After which a process that asks for nothing is taken for dead; if it is not, it comes back."""

_ANSWER_SECONDS = 1.0
"""How long processes have to answer: at once, unless native code keeps Python from running there at all."""

_HEARING_SECONDS = 0.05
"""How long a call waits at a time: what it waits for may have come just before."""

_DEATH_SECONDS = 5.0
"""The same where it is known that a process has died, and not which."""

_RECALL_SECONDS = 0.05
"""How often processes are told that somebody waits for a place."""

_WITHDRAWN = 100_000
"""Calls that are not to begin, for processes that come later."""


class _Box:
    """Messages for somebody who asks for them."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.has_come = asyncio.Event()
        self.news = asyncio.Event()
        self.asked_at = monotonic()
        self.is_silent = False

    def put(self, message: Any) -> None:
        self.messages.append(message)
        self.has_come.set()
        self.news.set()
        self.news = asyncio.Event()

    async def take(self, seconds: float) -> list[Any]:
        self.asked_at = monotonic()
        self.is_silent = False
        try:
            await asyncio.wait_for(self.has_come.wait(), seconds)
        except TimeoutError:
            pass
        self.asked_at = monotonic()
        messages, self.messages = self.messages, []
        self.has_come.clear()
        return messages


class Office:
    """One for each session of a program; see `manyhands.engines.ray.mail` for those who use it.

    Parameters
    ----------
    settings
        Of the session.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics: dict[str, _Box] = {}
        self._stations: dict[str, _Box] = {}
        self._numbers = count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._has_answered = asyncio.Condition()
        self._withdrawn: deque[str] = deque(maxlen=_WITHDRAWN)
        self._is_closed = False
        self._places = Places()
        self._granted: dict[str, asyncio.Event] = {}
        self._counting: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None

    async def open_topic(self, topic: str) -> None:
        """From now on keep messages of a topic."""
        self._topics[topic] = _Box()

    async def close_topic(self, topic: str) -> None:
        """Nobody takes them any more."""
        self._topics.pop(topic, None)

    async def post(self, topic: str, messages: list[Any]) -> None:
        """Messages for whoever takes those of a topic."""
        box = self._topics.get(topic)
        if box is not None:
            for message in messages:
                box.put(message)

    async def take(self, topic: str) -> list[Any] | None:
        """Messages of a topic, as soon as there are any; None where it was closed."""
        box = self._topics.get(topic)
        return None if box is None else await box.take(TAKE_SECONDS)

    # Processes that calls run in.

    async def join(self, station: str) -> tuple[Settings, list[str], bool]:
        """A process is there; the session's settings, the calls that are not to begin, and whether places count."""
        self._stations[station] = _Box()
        return self._settings, list(self._withdrawn), self._counting is not None

    async def take_questions(self, station: str) -> list[Any] | None:
        """What a process is asked, as soon as it is; None where the session has ended."""
        if self._is_closed:
            return None
        box = self._stations.get(station)
        if box is None:  # it was taken for dead
            box = self._stations[station] = _Box()
        return await box.take(TAKE_SECONDS)

    async def hear(self, station: str) -> None:
        """End when a process is asked something, or soon: for a call there that waits."""
        box = self._stations.get(station)
        if box is not None:
            try:
                await asyncio.wait_for(box.news.wait(), _HEARING_SECONDS)
            except TimeoutError:
                pass

    async def answer(self, number: int, station: str, answer: Any) -> None:
        """What a process answers."""
        if number in self._answers:
            self._answers[number][station] = answer
            async with self._has_answered:
                self._has_answered.notify_all()

    async def ask(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
        """Have the stations of all processes call a method; what those answer that do so soon.

        One that does not is asked all the same the next time, but not waited for: it is dead, or native code keeps
        Python from running there.
        """
        if method == "withdraw":
            self._withdrawn.extend(args[0])
        answers, _ = await self._ask(_ANSWER_SECONDS, method, *args, **options)
        return [answer for answer in answers.values() if answer is not None]

    async def _ask(
        self, seconds: float, method: str, *args: Any, **options: Any
    ) -> tuple[dict[str, Any], set[str]]:
        """What stations answer, and which of those did not that were expected to."""
        self._forget_silent()
        awaited = {name for name, box in self._stations.items() if not box.is_silent}
        number = next(self._numbers)
        answers = self._answers[number] = {}
        for box in self._stations.values():
            box.put((number, method, args, options))
        try:
            async with self._has_answered:
                await asyncio.wait_for(
                    self._has_answered.wait_for(lambda: answers.keys() >= awaited), seconds
                )
        except TimeoutError:
            pass
        finally:
            del self._answers[number]
        silent = awaited - answers.keys()
        for name in silent & self._stations.keys():
            self._stations[name].is_silent = True
        return answers, silent

    def _forget_silent(self) -> None:
        now = monotonic()
        for name, box in list(self._stations.items()):
            if now - box.asked_at > _SILENT_SECONDS:
                del self._stations[name]

    # Places: how many calls may compute at a time.

    async def set_places(self, places: int) -> None:
        """So many calls of the session may compute at a time."""
        self._grant(self._places.set_total(places))

    async def count(self) -> None:
        """A call is about to wait, and others run in its place: from now on, each that computes has a place here.

        Before that Ray's own account is right, and calls need not ask.
        """
        if self._counting is None:
            self._counting = asyncio.ensure_future(self._begin_counting())
        await asyncio.shield(self._counting)

    async def _begin_counting(self) -> None:
        answers, _ = await self._ask(_ANSWER_SECONDS, "count")
        for station, stays in answers.items():
            for stay in stays:
                self._places.add(stay, station)

    async def enter(self, stay: str, station: str, has_waited: bool) -> bool:
        """End when a call may compute; those that have waited for others go before those that have not begun.

        Returns
        -------
        bool
            Whether others wait for a place still.
        """
        if self._places.ask(stay, station, has_waited=has_waited):
            return False
        granted = self._granted[stay] = asyncio.Event()
        if self._recalling is None or self._recalling.done():
            self._recalling = asyncio.ensure_future(self._recall())
        await granted.wait()
        return self._places.count_waiting() > 0

    async def _recall(self) -> None:
        """While somebody waits, have places back that are kept for calls to come, or by processes that are gone."""
        while self._places.count_waiting():
            self._forget_silent()
            for station in self._places.list_stations():
                if station in self._stations:
                    self._stations[station].put((0, "recall", (), {}))
                else:
                    self._grant(self._places.forget(station))
            await asyncio.sleep(_RECALL_SECONDS)

    async def lose(self) -> None:
        """A process has died: have the places of those back that do not answer."""
        if self._counting is not None:
            _, silent = await self._ask(_DEATH_SECONDS, "list_running")
            for station in silent:
                self._grant(self._places.forget(station))

    async def leave(self, stay: str) -> None:
        """A call computes no more, or does not want to; unknown ones are ignored."""
        self._grant([*self._places.leave(stay), stay])

    def _grant(self, stays: list[str]) -> None:
        for stay in stays:
            granted = self._granted.pop(stay, None)
            if granted is not None:
                granted.set()

    async def close(self) -> None:
        """The session has ended."""
        self._is_closed = True
        for box in self._stations.values():
            box.has_come.set()
