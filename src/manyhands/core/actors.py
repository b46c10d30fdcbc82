"""Pure: what becomes of actors when they are made, when their workers end, and when they are stopped."""

from __future__ import annotations

from enum import Enum

from manyhands.errors import ActorDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_REMEMBERED = 1000
"""Dead actors that a session can still tell of, at least."""


class ActorState(Enum):
    """Where an actor is in its life. The normal path is STARTING, ALIVE, DEAD."""

    STARTING = "starting"
    """It has no worker yet, or is being made there."""
    ALIVE = "alive"
    """Its calls run."""
    RESTARTING = "restarting"
    """Its worker has ended, and it is made again in another; its calls wait."""
    DEAD = "dead"
    """It was stopped, could not be made, or died once too often; its calls fail."""


class ActorLife:
    """One actor, as its session sees it.

    Attributes
    ----------
    number : int
    class_name : str
    name : str or None
        By which it can be found.
    methods : dict of str to str
        The names of its class's methods, and the kind of each: "plain", "async" or "stream".
    restarts : int
        How often it may still be made again.
    error : BaseException or None
        Why it is dead.
    """

    __slots__ = (
        "_is_dead",
        "_state",
        "class_name",
        "error",
        "methods",
        "name",
        "number",
        "restarts",
    )

    def __init__(
        self,
        number: int,
        class_name: str,
        name: str | None,
        methods: dict[str, str],
        restarts: int,
    ) -> None:
        self.number = number
        self.class_name = class_name
        self.name = name
        self.methods = methods
        self.restarts = restarts
        # It may be stopped in one thread while another one says that it was made: two attributes, and each is set to
        # one value whatever the other is.
        self._state = ActorState.STARTING
        self._is_dead = False
        self.error: BaseException | None = None

    @property
    def state(self) -> ActorState:
        """Where it is."""
        return ActorState.DEAD if self._is_dead else self._state

    def describe(self) -> str:
        """Its class and its name."""
        return f"{self.class_name} {self.name!r}" if self.name else self.class_name

    def note_made(self) -> None:
        """It was made, for the first time or again."""
        self._state = ActorState.ALIVE

    def end(self, error: BaseException, *, is_final: bool) -> bool:
        """Its worker ended, or it could not be made; whether it is made again.

        Parameters
        ----------
        error
            What happened.
        is_final
            Whether another attempt would end the same way.
        """
        # Or was asked to end, and had calls to answer.
        if not self._is_dead and not is_final and self.restarts > 0:
            self.restarts -= 1
            self._state = ActorState.RESTARTING
            return True
        self._is_dead = True
        if self.error is not None:
            return False
        first = str(error).strip().partition("\n")[0].rstrip(".")
        advice = "" if is_final else ". To have it made again when its worker dies: restarts=…"
        end = "could not be made" if is_final else "is dead, and is not made again"
        self.error = ActorDiedError(
            f"the actor {self.describe()} {end}: {type(error).__name__}: {first}{advice}"
        )
        self.error.actor = self.describe()
        self.error.__cause__ = error
        return False

    def stop(self) -> None:
        """It was asked to end."""
        self._is_dead = True


class Troupe:
    """The actors of a session.

    Examples
    --------
    >>> troupe = Troupe()
    >>> life = troupe.add(ActorLife(1, "Counter", "hits", {}, restarts=0))
    >>> troupe.find("hits") is life, life.state.value
    (True, 'starting')
    """

    def __init__(self) -> None:
        self._lives: dict[int, ActorLife] = {}
        self._makings: dict[int, ActorLife] = {}
        self._forgets_at = 2 * _REMEMBERED

    def __bool__(self) -> bool:
        return bool(self._lives)

    def __iter__(self) -> Iterator[ActorLife]:
        return iter(list(self._lives.values()))

    def add(self, life: ActorLife, making: int = 0) -> ActorLife:
        """A new actor, and the key of the call that makes it; the actors that have been dead for long are forgotten."""
        self._lives[life.number] = life
        self._makings[making] = life
        if len(self._lives) > self._forgets_at:
            self._forget()
        return life

    def _forget(self) -> None:
        dead = [life.number for life in self if life.state is ActorState.DEAD]
        forgotten = set(dead[: max(0, len(dead) - _REMEMBERED)])
        for lives in (self._lives, self._makings):
            for key in [key for key, life in lives.items() if life.number in forgotten]:
                del lives[key]
        self._forgets_at = len(self._lives) + _REMEMBERED

    def get(self, number: int) -> ActorLife | None:
        """The actor with this number."""
        return self._lives.get(number)

    def find(self, name: str) -> ActorLife | None:
        """The actor of this name that is not dead."""
        for life in self:
            if life.name == name and life.state is not ActorState.DEAD:
                return life
        return None

    def find_made_by(self, key: int) -> ActorLife | None:
        """The actor that the call `key` makes."""
        return self._makings.get(key)
