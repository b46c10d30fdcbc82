"""What calls do when they run: their plans; and what became of them so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.core.model import DEFAULT_OPTIONS

if TYPE_CHECKING:
    from manyhands.core.model import CallOptions
    from tests.simulation.worker import SimulatedWorker

Act = tuple[Any, ...]
"""A verb, and what belongs to it; `performance` has the verbs."""


class PlannedError(Exception):
    """What a call raises by its plan."""


class SimulatedTask:
    """A function, as far as anybody asks.

    Parameters
    ----------
    name
    seconds
        How long its calls are known to take; None for not yet.
    is_async
        Whether it runs on an event loop.
    """

    def __init__(self, name: str, seconds: float | None, *, is_async: bool = False) -> None:
        self.__qualname__ = name
        self.seconds = seconds
        self.is_async = is_async

    def __call__(self) -> None:
        """Nobody does."""


class Plan:
    """What a call is to do.

    Attributes
    ----------
    task
        Its function.
    kind : {"plain", "stream", "method", "making", "restoring"}
    runs : list of list of tuple
        The acts of each run; the last ones also of further runs.
    catches : bool
        Whether it goes on where a call that it waits for has failed.
    options : CallOptions
    actor : SimulatedActor or None
        Whose call it is.
    """

    __slots__ = ("actor", "catches", "kind", "options", "runs", "task")

    def __init__(
        self,
        task: SimulatedTask,
        runs: list[list[Act]],
        options: CallOptions = DEFAULT_OPTIONS,
        *,
        kind: str = "plain",
        catches: bool = False,
        actor: SimulatedActor | None = None,
    ) -> None:
        self.task = task
        self.kind = kind
        self.runs = runs
        self.catches = catches
        self.options = options
        self.actor = actor

    @property
    def most_runs(self) -> int:
        """How often it may run."""
        policy = self.options.policy
        return 1 + policy.retries + policy.worker_retries


class Script:
    """A call: its plan, and what happened to it.

    Attributes
    ----------
    number : int
        Stands among its arguments.
    plan
    outer : Script or None
        The call that made it.
    inputs : list of Script
        Calls whose results are arguments.
    key : int
        0 until it is known.
    future, maker
        Where it was made; and the worker that that was in, None for the program.
    begun, deaths, failures : int
        Runs so far, and how many of them ended with their worker, or with an error.
    tries : list of BaseException
        Errors of its attempts, as its session heard of them.
    running : SimulatedWorker or None
        Where it runs.
    holds, has_cpus : bool
        Whether what it needs counts as taken, but for cpus; and whether these do: not so while it waits.
    is_urgent : bool
        Whether it goes on though others have its cpus.
    values : set of str
        What its runs have returned.
    ends : set of str
        What may end it beside its own doing, and has happened: "cancelled", "timeout", "memory", "actor", "closed".
    items : int
        Of a stream, how many have come.
    outcome : str
        How it ended; empty until then.
    ended_look, ended_step
        When that was, in looks of the engine and steps.
    sent_at, started_at : float
        When it was sent to a worker last, and when it began there.
    read_at, taken_at : int
        The steps at which a worker read it, and took it to be run at once.
    """

    __slots__ = (
        "begun",
        "deaths",
        "ended_look",
        "ended_step",
        "ends",
        "failures",
        "future",
        "has_cpus",
        "holds",
        "inputs",
        "is_urgent",
        "items",
        "key",
        "maker",
        "number",
        "outcome",
        "outer",
        "plan",
        "read_at",
        "running",
        "sent_at",
        "sequence",
        "started_at",
        "taken_at",
        "tries",
        "values",
    )

    def __init__(self, number: int, plan: Plan, outer: Script | None = None) -> None:
        self.number = number
        self.plan = plan
        self.outer = outer
        self.inputs: list[Script] = []
        self.key = 0
        self.future: Any = None
        self.begun = 0
        self.deaths = 0
        self.failures = 0
        self.running: SimulatedWorker | None = None
        self.sent_at = 0.0
        self.started_at = 0.0
        self.ended_look = 0
        self.ended_step = 0
        self.read_at = 0
        self.taken_at = 0
        self.maker: Any = None
        self.holds = False
        self.has_cpus = False
        self.is_urgent = False
        self.tries: list[BaseException] = []
        self.values: set[str] = set()
        self.ends: set[str] = set()
        self.items = 0
        self.sequence = 0
        self.outcome = ""

    def __repr__(self) -> str:
        return f"call {self.number} ({self.plan.kind}, key {self.key:#x})"

    def get_acts(self) -> list[Act]:
        """What it does in the run that begins; that is counted already."""
        return self.plan.runs[min(self.begun, len(self.plan.runs)) - 1]


class SimulatedActor:
    """An actor.

    Attributes
    ----------
    number : int
        That its session has given it; 0 before.
    making : Script
        The call that makes it.
    restarts : int
        How often it may be made again.
    limit : int
        Calls that run at a time.
    is_light : bool
        Whether it shares a worker with others.
    births : int
        How often it was made.
    ends : int
        How many workers have ended that it was to live in.
    worker : SimulatedWorker or None
        Where it was made last.
    running : set of Script
    is_ending : bool
        Whether it was told to stop.
    killed_look : int or None
        When it was told to do so at once, in looks of the engine.
    kept : int
        The number of its last checkpoint.
    """

    __slots__ = (
        "__qualname__",
        "births",
        "ends",
        "is_ending",
        "is_light",
        "kept",
        "killed_look",
        "last_begun",
        "limit",
        "making",
        "need",
        "number",
        "restarts",
        "running",
        "sequences",
        "worker",
    )

    def __init__(
        self, making: Script, need: Any, restarts: int, limit: int, *, is_light: bool
    ) -> None:
        self.__qualname__ = f"Actor{making.number}"
        self.number = 0
        self.making = making
        self.need = need
        self.restarts = restarts
        self.limit = limit
        self.is_light = is_light
        self.births = 0
        self.ends = 0
        self.worker: SimulatedWorker | None = None
        self.running: set[Script] = set()
        self.is_ending = False
        self.killed_look: int | None = None
        self.kept = 0
        self.sequences: dict[int, int] = {}
        self.last_begun: dict[int, int] = {}
