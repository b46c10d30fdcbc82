"""In a worker: the places that its calls compute in; see `manyhands.engines.ray.places.Places`."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from time import sleep

import ray
from ray.exceptions import RayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPARE_SECONDS = 0.1
"""How long a place is kept for a call to come; Ray ends idle processes after a second."""

_TURN_SECONDS = 0.05
"""How soon a call that waits for its place hears that it is to end."""


class Stays:
    """Asks for places once the session counts them.

    The place of a call that has ended is kept for the next one, which then need not ask, until somebody wants it.
    Coroutines have no places.

    Parameters
    ----------
    office
        The handle of the session's `Office`.
    station
        What that calls this process.
    """

    def __init__(self, office: Any, station: str) -> None:
        self._office = office
        self._station = station
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._is_counted = False
        self._is_over = False
        self._own: dict[int, str] = {}  # of calls that compute, by their threads
        self._spare: list[str] = []
        self._has_spare = threading.Event()
        self._owed: set[str] = set()  # places that others wait for

    # What the office asks.

    def count(self) -> list[str]:
        """From now on calls ask for places; the stays that have begun without having asked."""
        with self._lock:
            self._is_counted = True
            threading.Thread(target=self._return_spare, daemon=True).start()
            return list(self._own.values())

    def recall(self) -> None:
        """Somebody waits for a place."""
        with self._lock:
            self._owed.update(self._own.values())
            spare, self._spare = self._spare, []
        for stay in spare:
            self._office.leave.remote(stay)

    def close(self) -> None:
        """The session has ended."""
        self._is_over = True
        self._has_spare.set()

    def _return_spare(self) -> None:
        while self._has_spare.wait() and not self._is_over:
            before = list(self._spare)
            sleep(_SPARE_SECONDS)
            with self._lock:
                unused = [stay for stay in before if stay in self._spare]
                self._spare = [stay for stay in self._spare if stay not in unused]
                if not self._spare:
                    self._has_spare.clear()
            for stay in unused:
                self._office.leave.remote(stay)

    # A call, in its thread.

    def begin(self) -> None:
        """A call begins, when there is a place; it keeps its cpu while it waits for that."""
        stay = self._note()
        if stay is not None:
            entry = self._office.enter.remote(stay, self._station, False)
            with suppress(RayError):  # else the session is gone, and the call with it
                self._take_entry(stay, entry.future().result())

    def end(self) -> None:
        """A call has ended."""
        self._give_up(keeps=True)

    def leave(self) -> None:
        """A call waits, and others compute in its place."""
        if threading.get_ident() in self._own:
            if not self._is_counted:
                ray.get(self._office.count.remote())
            self._give_up(keeps=False)

    def enter(self, is_due: Callable[[], bool]) -> None:
        """A call has waited, and goes on when there is a place, or when it is to end."""
        stay = self._note()
        if stay is None:
            return
        entry = self._office.enter.remote(stay, self._station, True)
        while not ray.wait([entry], timeout=_TURN_SECONDS)[0]:
            if is_due():
                self._give_up(keeps=False)
                return
        self._take_entry(stay, ray.get(entry))

    def _note(self) -> str | None:
        """Note a stay of the call of this thread; its name, where one has to ask for it."""
        with self._lock:
            asks = self._is_counted and not self._spare
            stay = self._spare.pop() if self._spare else f"{self._station}-{next(self._numbers)}"
            self._own[threading.get_ident()] = stay
            return stay if asks else None

    def _take_entry(self, stay: str, is_owed: bool) -> None:
        if is_owed:
            with self._lock:
                self._owed.add(stay)

    def _give_up(self, *, keeps: bool) -> None:
        with self._lock:
            stay = self._own.pop(threading.get_ident(), None)
            if stay is None or not self._is_counted:
                return
            is_owed = stay in self._owed
            self._owed.discard(stay)
            if keeps and not is_owed:
                self._spare.append(stay)
                self._has_spare.set()
                return
        self._office.leave.remote(stay)
