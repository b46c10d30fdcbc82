"""The program's side of a session's office: messages, and the ends of calls, in an order that makes sense."""

from __future__ import annotations

import threading
from functools import partial
from queue import SimpleQueue

import ray

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Mail:
    """Takes the messages of a topic, in a thread of its own.

    Parameters
    ----------
    office
        The handle of the session's `Office`.
    topic
    take
        Called with the parts of each message, in the order in which their sender sent them.
    lose
        Called with an explanation where no more can come, and the session has not ended.
    """

    def __init__(
        self, office: Any, topic: str, take: Callable[..., None], lose: Callable[[str], None]
    ) -> None:
        self._office = office
        self._topic = topic
        self._take = take
        self._lose = lose
        self._due: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._arrived: dict[str, int] = {}
        self._early: dict[str, dict[int, tuple[Any, ...]]] = {}
        self._waiting: list[tuple[str, int, Callable[[], None]]] = []
        self._is_over = False
        self._is_stopped = False
        self._is_closed = False
        for work in (self._fetch, self._handle):
            threading.Thread(target=work, name="manyhands-ray-mail", daemon=True).start()

    def call(self, do: Callable[[], None]) -> None:
        """Call `do` in the thread of this; Ray's own must not wait for Ray."""
        self._due.put(do)

    def after(self, sender: str, number: int, do: Callable[[], None]) -> None:
        """In the thread of this: call `do` when that many messages of `sender` have come."""
        if self._arrived.get(sender, 0) < number and not self._is_over:
            self._waiting.append((sender, number, do))
        else:
            do()

    def stop(self) -> None:
        """No more messages can come."""
        self._is_stopped = True
        self._due.put(self._end)

    def close(self) -> None:
        """The session has ended."""
        self._is_closed = True
        self.stop()

    def _fetch(self) -> None:
        try:
            while not self._is_stopped:
                letters = ray.get(self._office.take.remote(self._topic))
                if letters is None:
                    break
                self._due.put(partial(self._take_all, letters))
        except Exception as error:  # whatever Ray has for a cluster that is left just now
            if not self._is_stopped:
                self._due.put(self._end)
                self._lose(
                    "no messages of the Ray cluster come any more, since the process that passes them on has ended: "
                    f"{error}. Open another session"
                )

    def _handle(self) -> None:
        while not (self._is_closed and self._due.empty()):
            self._due.get()()

    def _take_all(self, letters: list[tuple[str, int, tuple[Any, ...]]]) -> None:
        for sender, number, message in letters:
            # An actor's calls that may wait begin in any order.
            early = self._early.setdefault(sender, {})
            early[number] = message
            while (number := self._arrived.get(sender, 0) + 1) in early:
                self._arrived[sender] = number
                self._take(*early.pop(number))
        due, self._waiting = self._waiting, []
        for entry in due:
            self.after(*entry)

    def _end(self) -> None:
        """No more messages come: what waits for some goes on without them."""
        self._is_over = True
        due, self._waiting = self._waiting, []
        for _, _, do in due:
            do()
