"""Chance makes plans: what calls there are, and what each of them does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.core.model import DEFAULT_OPTIONS, CallOptions, RetryPolicy
from manyhands.core.resources import ONE_CPU, make_need
from tests.simulation.scripts import Act, Plan, SimulatedTask

if TYPE_CHECKING:
    from random import Random

    from manyhands.core.resources import Need
    from tests.simulation.scripts import SimulatedActor

DEPTH = 6
"""Calls inside calls inside calls: so deep."""

TASKS = (
    SimulatedTask("quick", 1e-6),
    SimulatedTask("brief", 2e-4),
    SimulatedTask("long", 0.3),
    SimulatedTask("new", None),
)

ASYNC_TASK = SimulatedTask("coroutine", None, is_async=True)

_CPU_NEEDS = (ONE_CPU, ONE_CPU, make_need(cpus=0), make_need(cpus=0.5), make_need(cpus=2))
_NEEDS = (
    *_CPU_NEEDS,
    make_need(gpus=1),
    make_need(gpus=0.5),
    make_need(gpus=2, cpus=0),
    make_need(memory="1GB"),
    make_need(memory="600MB", cpus=0.5),
    make_need(resources={"licence": 1}),
    make_need(resources={"licence": 1}, cpus=0, gpus=0.5),
)

_POLICIES = (
    RetryPolicy(),
    RetryPolicy(1, backoff=0.1),
    RetryPolicy(2, backoff=0.0),
    RetryPolicy(1, worker_retries=0),
    RetryPolicy(0, worker_retries=0),
    RetryPolicy(1, worker_retries=2, backoff=2.0),
)

_SECONDS = (0.0, 1e-4, 0.01, 0.4)
_TIMEOUTS = (0.05, 0.5, 1.5)
_WINDOW = 4


class Planner:
    """Makes plans.

    Parameters
    ----------
    rng
    actors
        Those that there are, which calls may call.
    """

    def __init__(self, rng: Random, actors: list[SimulatedActor]) -> None:
        self._rng = rng
        self._random = rng.random
        self._actors = actors
        self._left = 0
        self._danger = rng.choice((0.0, 0.1, 0.35))
        self._nesting = rng.choice((0.0, 0.15, 0.5))
        self._wishes = rng.choice((0.0, 0.3, 0.8))

    def _pick(self, items: Any) -> Any:
        return items[int(self._random() * len(items))]

    def make_call(self) -> Plan:
        """A call of the program's, and all that it makes."""
        self._left = 8
        if self._random() < 0.05:
            return Plan(ASYNC_TASK, self._make_runs(DEPTH))
        return self._make_plan(0, len(self._actors))

    def make_quick(self) -> Plan:
        """A call of which many come."""
        return Plan(TASKS[0], [[]])

    def make_stream(self, depth: int = 0) -> Plan:
        """A generator."""
        acts: list[Act] = [("emit", int(self._random() * 9))]
        acts += self._make_doing()
        options = CallOptions(window=_WINDOW, timeout=self._pick((None, None, 0.5)))
        del depth
        return Plan(TASKS[3], [acts], options, kind="stream", catches=True)

    def make_method(self, actor: SimulatedActor, depth: int = 0) -> Plan:
        """A call of an actor."""
        if self._left <= 0:
            self._left = 3
        policy = self._pick(
            (RetryPolicy(worker_retries=0), RetryPolicy(worker_retries=0), RetryPolicy(1))
        )
        timeout = self._pick((None, None, None, 0.5))
        options = CallOptions(policy, timeout=timeout, actor=actor.number)
        below = self._actors.index(actor)
        if actor.need.gpu_shares:
            depth = (
                DEPTH  # or its call might wait for one that needs the device which it holds itself
            )
        runs = self._make_runs(depth + 1, below)
        return Plan(
            TASKS[3], runs, options, kind="method", catches=self._random() < 0.5, actor=actor
        )

    def _make_plan(self, depth: int, below: int) -> Plan:
        runs = self._make_runs(depth, below)
        makes_calls = any(act[0] == "spawn" for acts in runs for act in acts)
        options = self._make_options(_CPU_NEEDS if makes_calls else _NEEDS)
        return Plan(self._pick(TASKS), runs, options, catches=self._random() < 0.5)

    def _make_options(self, needs: tuple[Need, ...]) -> CallOptions:
        if self._random() >= self._wishes:
            return DEFAULT_OPTIONS
        return CallOptions(
            self._pick(_POLICIES),
            timeout=self._pick(_TIMEOUTS) if self._random() < 0.25 else None,
            priority=self._pick((0, 0, 0, 1, -1, 5)),
            need=self._pick(needs) if self._random() < 0.5 else ONE_CPU,
        )

    def _make_runs(self, depth: int, below: int = 0) -> list[list[Act]]:
        if depth < DEPTH and self._left > 0 and self._random() < self._nesting:
            return [self._make_tree(depth, below)]
        if self._random() >= self._danger:
            return [[("work", self._pick(_SECONDS))]]
        return [self._make_doing(), self._make_doing(), [("work", 0.0)]]

    def _make_doing(self) -> list[Act]:
        """What a call does that may be a bad one."""
        draw = self._random()
        if draw < 0.5:
            return [("work", self._pick(_SECONDS))]
        if draw < 0.7:
            return [("raise",)]
        if draw < 0.82:
            return [("work", self._pick(_SECONDS)), ("die",)]
        if draw < 0.86:
            return [("exit",)]
        if draw < 0.95:
            return [("hang", self._pick((0, 0, 1, 9)))]
        return [("deafen",)]

    def _make_tree(self, depth: int, below: int) -> list[Act]:
        """Makes calls and waits for them."""
        acts: list[Act] = []
        count = 1 + int(self._random() * 3)
        for index in range(count):
            self._left -= 1
            child = self._make_child(depth + 1, below)
            acts.append(("spawn", child, (index - 1,) if self._may_be_input(acts) else ()))
            if self._random() < 0.3:
                acts.append(("work", self._pick(_SECONDS)))
        acts += self._make_waits(count)
        draw = self._random()
        if draw < 0.2:
            acts.append(("join", int(self._random() * count)))
        elif draw < 0.2 + self._danger / 3:
            acts += self._make_doing()
        return acts

    def _may_be_input(self, acts: list[Act]) -> bool:
        """Whether the call made last is to be an argument: not a stream, which ends only when it has been read."""
        made = [act[1].kind for act in acts if act[0] == "spawn"]
        return bool(made) and made[-1] != "stream" and self._random() < 0.2

    def _make_child(self, depth: int, below: int) -> Plan:
        draw = self._random()
        if draw < 0.1:
            return self.make_stream(depth)
        if draw < 0.25 and below:
            return self.make_method(self._actors[int(self._random() * below)], depth)
        return self._make_plan(depth, below)

    def _make_waits(self, count: int) -> list[Act]:
        acts: list[Act] = []
        if self._random() < 0.1:
            acts.append(("cancel", int(self._random() * count), self._random() < 0.5))
        draw = self._random()
        if draw < 0.2:
            acts.append(("wait", -1, None))
        elif draw < 0.5:
            timeout = self._pick(_TIMEOUTS) if self._random() < 0.3 else None
            acts.append(("wait", -2, timeout))
        elif draw < 0.9:
            acts += [("wait", index, None) for index in range(count)]
        acts += [("drain", index, int(self._random() * 12)) for index in range(count)]
        return acts
