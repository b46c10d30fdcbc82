"""What a session tells of its actors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActorFact:
    """One actor.

    Attributes
    ----------
    class_name : str
    name : str or None
        By which `manyhands.find_actor` finds it.
    state : {"starting", "alive", "restarting", "dead"}
    restarts : int
        How often it may still be made again.

    Examples
    --------
    >>> import manyhands as mh
    >>> with mh.Session(workers=1) as session:
    ...     numbers = mh.actor(list).start([3, 1])
    ...     _ = numbers.sort()
    ...     session.actors()
    [ActorFact(class_name='list', name=None, state='alive', restarts=0)]
    """

    class_name: str
    name: str | None
    state: str
    restarts: int
