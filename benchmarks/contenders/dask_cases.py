"""Those of Ray's own cases, and a tree of calls, that Dask has a way for.

`pure=False` everywhere, so that equal calls all run; a task that calls does so by
`worker_client`, which lets another have its thread meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed import Client, wait, worker_client

from benchmarks.case_work import AsyncServer, Server, small_value
from benchmarks.contenders.contender import Scale, Step


def call_tasks(calls: int) -> int:
    """A task that calls tasks."""
    with worker_client() as client:
        return client.gather(_submit_each(client, calls)).count(b"ok")  # type: ignore[no-any-return]


def fibonacci(number: int) -> int:
    """A call for each node of the tree; each waits for its two."""
    if number < 2:
        return number
    with worker_client() as client:
        futures = [client.submit(fibonacci, number - less, pure=False) for less in (1, 2)]
        return sum(client.gather(futures))


def _submit_each(client: Client, calls: int) -> list[Any]:
    return [client.submit(small_value, pure=False) for _ in range(calls)]


def _get_small(client: Client, _: Scale) -> Step:
    future = client.scatter(0, hash=False)
    return lambda: client.gather(future)


def _put_small(client: Client, _: Scale) -> Step:
    return lambda: client.scatter(0, hash=False)


def _wait(client: Client, scale: Scale) -> Step:
    def wait_for_each() -> int:
        waiting: Any = _submit_each(client, scale.calls)
        found = 0
        while waiting:
            done, waiting = wait(waiting, return_when="FIRST_COMPLETED")
            found += len(done)
        return found

    return wait_for_each


def _tasks_sync(client: Client, _: Scale) -> Step:
    return lambda: client.submit(small_value, pure=False).result()


def _tasks_async(client: Client, scale: Scale) -> Step:
    return lambda: client.gather(_submit_each(client, scale.calls))


def _tasks_multi(client: Client, scale: Scale) -> Step:
    return lambda: client.gather(
        [client.submit(call_tasks, scale.many, pure=False) for _ in range(scale.clients)]
    )


def _actor_sync(client: Client, _: Scale, kind: type = Server) -> Step:
    actor = _start(client, kind)
    return lambda: actor.small_value().result()


def _actor_async(client: Client, scale: Scale, kind: type = Server) -> Step:
    actor = _start(client, kind)
    return lambda: _gather([actor.small_value() for _ in range(scale.calls)])


def _async_actor_with_args(client: Client, scale: Scale) -> Step:
    actor = _start(client, AsyncServer)
    return lambda: _gather([actor.small_value_arg(i) for i in range(scale.calls)])


def _nested(client: Client, scale: Scale) -> Step:
    return lambda: client.submit(fibonacci, scale.depth, pure=False).result(scale.patience)


def _start(client: Client, kind: type) -> Any:
    return client.submit(kind, actor=True).result()


def _gather(futures: list[Any]) -> list[Any]:
    return [future.result() for future in futures]


CASES: dict[str, Callable[[Client, Scale], Step]] = {
    "get-small": _get_small,
    "put-small": _put_small,
    "wait-1k": _wait,
    "tasks-sync": _tasks_sync,
    "tasks-async": _tasks_async,
    "tasks-batch": _tasks_async,
    "tasks-multi": _tasks_multi,
    "actor-sync": _actor_sync,
    "actor-async": _actor_async,
    "async-actor-sync": lambda client, scale: _actor_sync(client, scale, AsyncServer),
    "async-actor-async": lambda client, scale: _actor_async(client, scale, AsyncServer),
    "async-actor-args": _async_actor_with_args,
    "nested": _nested,
}
"""By row: what sets the case up and gives one round of it."""
