"""What an executor or a pool has submitted to its session and has not ended: its own end has to wait for that."""

from __future__ import annotations

import threading

from manyhands.errors import SessionClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from manyhands.core.roles import Host
    from manyhands.core.unattended import Feed, UnattendedMap

_LEAST_CHECKED = 1000
"""Keys that are kept before those of calls that have ended are looked for."""


class Outstanding:
    """Calls and maps of one user of a session.

    Parameters
    ----------
    session
        They run on it.
    is_own
        Whether the session ends with them.

    Attributes
    ----------
    is_shut : bool
        Whether nothing more is let in.
    tickets : list
        One for each submission under way. Who submits adds one, then looks whether it is shut, and takes one off when
        the submission is noted: so either sees the other, without a lock for each call.
    """

    def __init__(self, session: Host, *, is_own: bool) -> None:
        self.session = session
        self.is_own = is_own
        self.is_shut = False
        self.tickets: list[None] = []
        self._keys: list[int] = []
        self._checked = _LEAST_CHECKED  # so many keys, and it is time to look for ended ones
        self._maps: dict[UnattendedMap, Feed | None] = {}
        self._lock = threading.Lock()

    def note(self, key: int) -> None:
        """A call was submitted."""
        self._keys.append(key)
        if len(self._keys) > self._checked:
            with self._lock:
                self._drop_ended()

    def _drop_ended(self) -> None:
        is_outstanding = self.session.is_outstanding
        looked_at = len(self._keys)  # what other threads add meanwhile stands behind these
        self._keys[:looked_at] = filter(is_outstanding, self._keys[:looked_at])
        self._checked = max(_LEAST_CHECKED, 2 * len(self._keys))

    def leave(self) -> None:
        """Take one ticket off; who waits for the end looks again."""
        self.tickets.pop()
        if self.is_shut:
            self.session.rouse()

    def add_map(self, unattended: UnattendedMap, feed: Feed | None = None) -> None:
        """A map begins; `feed` is what its items come from if they come as its results are taken."""
        with self._lock:
            self._maps[unattended] = feed

    def drop_map(self, unattended: UnattendedMap) -> None:
        """A map is over."""
        with self._lock:
            self._maps.pop(unattended, None)

    def shut(self) -> bool:
        """Let nothing more in; False where that was so before."""
        with self._lock:
            was_open, self.is_shut = not self.is_shut, True
            fed = [
                (unattended, feed) for unattended, feed in self._maps.items() if feed is not None
            ]
        for unattended, feed in fed:  # nobody may be there to take their results
            feed.end()
            unattended.advance()
        return was_open

    def cancel(self, *, running: bool, but: int = 0) -> None:
        """Withdraw what has not started, with `running` also what has; leave the `but` oldest calls alone."""
        with self._lock:
            maps = list(self._maps)
            keys = sorted(key for key in self._keys if self.session.is_outstanding(key))[but:]
        for unattended in maps:
            unattended.cancel(running=running)
        self.session.cancel_keys(keys, running=running)

    def wait(self) -> None:
        """Wait until all has ended."""
        try:
            self.session.wait_until(self._has_ended, None)
        except SessionClosedError:
            pass  # in a forked child: nothing of it runs here

    def finish(self) -> None:
        """Wait until all has ended, then end the session, where it is ours."""
        self.wait()
        if self.is_own:
            self.session.close()

    def abort(self) -> None:
        """Let nothing more in, and end what there is at once."""
        self.shut()
        self.cancel(running=True)
        if self.is_own:
            self.session.close(grace=0)

    def retire(self) -> None:
        """Let nothing more in, and `finish`."""
        self.shut()
        self.finish()

    def _has_ended(self) -> bool:
        if self.tickets or self._maps:
            return False
        with self._lock:
            keys = self._keys
            while keys and not self.session.is_outstanding(keys[-1]):
                keys.pop()
            return not keys


def run_when_dropped(fn: Callable[[], object]) -> None:
    """Have `fn` run in a thread of its own.

    For finalizers, which may come amid anything: a thread of `threading` takes locks when it starts, and this one none.
    """
    from _thread import start_new_thread

    start_new_thread(fn, ())
