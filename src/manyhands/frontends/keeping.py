"""Sessions that are kept between the calls of another library, which knows no session.

One is kept: that with the workers that were asked for last. Another takes its place when others are asked for, and it
is closed then, or when nobody uses it any more.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from manyhands.frontends.preparation import Preparation
from manyhands.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable


class Recipe:
    """What a kept session is asked for.

    Parameters
    ----------
    n_jobs
        How many workers it has.
    threads
        How many inner threads numeric libraries have in each; None for what the session says.
    initializer, initargs
        As of `Session`.
    variables
        What the environment says of inner threads.
    """

    def __init__(
        self,
        n_jobs: int,
        threads: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        variables: dict[str, str | None],
    ) -> None:
        self.n_jobs = n_jobs
        self.threads = threads
        self.initializer = initializer
        self.initargs = initargs
        self.variables = variables

    def open(self) -> Session:
        """A session of this kind."""
        is_limited = self.threads is not None
        limits = dict.fromkeys(self.variables, str(self.threads)) if is_limited else {}
        return Session(
            workers=self.n_jobs,
            initializer=Preparation(limits),
            initargs=(self.initializer, *self.initargs),
        )

    def is_like(self, other: Recipe) -> bool:
        """Whether a session of the one kind can serve for the other."""
        return (
            (self.n_jobs, self.threads, self.variables)
            == (other.n_jobs, other.threads, other.variables)
            and self.initializer == other.initializer
            and len(self.initargs) == len(other.initargs)
            and all(map(_is_same, self.initargs, other.initargs))
        )


def _is_same(one: object, other: object) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # arrays compare to arrays
        return False


class _Kept:
    """A session that is kept, and how many use it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.session = recipe.open()
        self.users = 0


class Claim:
    """The use of a session by one `Parallel`."""

    def __init__(self, session: Session, kept: _Kept | None = None) -> None:
        self.session = session
        self._kept = kept

    def give_back(self) -> None:
        """Close the session if it was kept, is so no longer, and this was the last use."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        with _lock:
            kept.users -= 1
            is_over = kept is not _kept and not kept.users
        if is_over:
            kept.session.close()

    def spoil(self) -> None:
        """The session is broken, so it is not kept for others."""
        if self._kept is not None:
            _replace(self._kept)


_lock = threading.RLock()  # letting go of a generator may come in while it is held
_kept: _Kept | None = None


def borrow(recipe: Recipe) -> Claim:
    """Use the kept session if it is like the one that is asked for; else keep another from now on."""
    global _kept
    with _lock:
        former = _kept
        if former is None or not former.recipe.is_like(recipe):
            _kept = _Kept(recipe)
        else:
            former = None
        assert _kept is not None
        _kept.users += 1
        claim = Claim(_kept.session, _kept)
        is_over = former is not None and not former.users
    if is_over and former is not None:
        former.session.close()
    return claim


def _replace(kept: _Kept | None) -> None:
    """Keep `kept` no longer."""
    global _kept
    with _lock:
        if kept is None or kept is not _kept:
            return
        _kept = None
        is_over = not kept.users
    if is_over:
        kept.session.close()


def shutdown() -> None:
    """End the workers that are kept between calls; the next call starts others.

    At the end of the program that is done by itself.

    Examples
    --------
    >>> from manyhands.frontends.joblib import shutdown
    >>> shutdown()
    """
    _replace(_kept)


def _forget() -> None:
    """In a forked child: the workers are its parent's, and the lock may be held by a thread that it has not."""
    global _kept, _lock
    _kept, _lock = None, threading.RLock()


os.register_at_fork(after_in_child=_forget)
