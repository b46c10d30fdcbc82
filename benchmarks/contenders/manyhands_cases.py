"""Ray's own cases, and a tree of calls, as users of manyhands write them.

Where the case has a client that is an actor or a task, it is one here too: a process of its own
or a call in a worker, which calls on with the functions of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import manyhands as mh
from benchmarks.case_work import AsyncServer, Server, small_value
from benchmarks.contenders.contender import Scale, Step


class Client:
    """An actor that calls."""

    def __init__(self, servers: Sequence[mh.ActorHandle] = ()) -> None:
        self._servers = servers

    def call_tasks(self, calls: int) -> int:
        return mh.gather([mh.submit(small_value) for _ in range(calls)]).count(b"ok")

    def call_servers(self, calls: int) -> int:
        futures = [server.small_value.submit() for server in self._servers for _ in range(calls)]
        return mh.gather(futures).count(b"ok")

    def call_servers_with_ref(self, calls: int) -> int:
        value = mh.put(0)
        futures = [
            server.small_value_arg.submit(value) for server in self._servers for _ in range(calls)
        ]
        return mh.gather(futures).count(b"ok")


def call_in_turn(servers: Sequence[mh.ActorHandle], calls: int) -> int:
    """A task that calls actors, one after the other."""
    futures = [servers[i % len(servers)].small_value.submit() for i in range(calls)]
    return mh.gather(futures).count(b"ok")


def put_each(calls: int) -> int:
    for _ in range(calls):
        mh.put(0)
    return calls


def put_arrays(arrays: int, elements: int) -> int:
    for _ in range(arrays):
        mh.put(np.zeros(elements, dtype=np.int64))
    return arrays


def put_refs(count: int) -> mh.Ref[list[mh.Ref[int]]]:
    return mh.put([mh.put(1) for _ in range(count)])


def fibonacci(number: int) -> int:
    """A call for each node of the tree; each waits for its two."""
    if number < 2:
        return number
    left = mh.submit(fibonacci, number - 1)
    right = mh.submit(fibonacci, number - 2)
    return left.result() + right.result()


def _get_small(_: Scale) -> Step:
    ref = mh.put(0)
    return lambda: mh.get(ref)


def _put_small(_: Scale) -> Step:
    return lambda: mh.put(0)


def _put_small_multi(scale: Scale) -> Step:
    return lambda: mh.gather([mh.submit(put_each, scale.calls // 10) for _ in range(10)])


def _put_large(scale: Scale) -> Step:
    array = np.zeros(scale.elements, dtype=np.int64)
    return lambda: mh.put(array)


def _put_large_multi(scale: Scale) -> Step:
    elements = scale.elements // 10
    return lambda: mh.gather([mh.submit(put_arrays, 10, elements) for _ in range(10)])


def _get_refs(scale: Scale) -> Step:
    # A future keeps the result that it has loaded; what was put is loaded by each `get`, as Ray's is.
    ref = mh.submit(put_refs, scale.refs).result()
    return lambda: len(mh.get(ref))


def _wait(scale: Scale) -> Step:
    def wait_for_each() -> int:
        waiting: Any = [mh.submit(small_value) for _ in range(scale.calls)]
        found = 0
        while waiting:
            done, waiting = mh.wait(waiting, return_when="FIRST_COMPLETED")
            found += len(done)
        return found

    return wait_for_each


def _tasks_sync(_: Scale) -> Step:
    return lambda: mh.submit(small_value).result()


def _tasks_async(scale: Scale) -> Step:
    return lambda: mh.gather([mh.submit(small_value) for _ in range(scale.calls)])


def _tasks_multi(scale: Scale) -> Step:
    clients = _start(Client, scale.clients)
    return lambda: mh.gather([client.call_tasks.submit(scale.many) for client in clients])


def _actor_sync(_: Scale, kind: type = Server) -> Step:
    actor = mh.actor(kind).start()
    return lambda: actor.small_value()  # noqa: PLW0108  users look the method up each time


def _actor_async(scale: Scale, kind: type = Server, **options: Any) -> Step:
    actor = mh.actor(kind, **options).start()
    return lambda: mh.gather([actor.small_value.submit() for _ in range(scale.calls)])


def _actor_concurrent(scale: Scale) -> Step:
    return _actor_async(scale, max_concurrency=16)


def _actor_one_to_n(scale: Scale, kind: type = Server) -> Step:
    client = mh.actor(Client).start(_start(kind, scale.clients))
    return lambda: client.call_servers(scale.many // 2)


def _actor_n_to_n(scale: Scale, kind: type = Server) -> Step:
    servers = _start(kind, scale.clients)
    calls = scale.many // 2
    return lambda: mh.gather(
        [mh.submit(call_in_turn, servers, calls) for _ in range(scale.clients)]
    )


def _actor_n_to_n_with_args(scale: Scale) -> Step:
    clients = [mh.actor(Client).start([server]) for server in _start(Server, scale.clients)]
    return lambda: mh.gather(
        [client.call_servers_with_ref.submit(scale.calls) for client in clients]
    )


def _async_actor_with_args(scale: Scale) -> Step:
    actor = mh.actor(AsyncServer).start()
    return lambda: mh.gather([actor.small_value_arg.submit(i) for i in range(scale.calls)])


def _nested(scale: Scale) -> Step:
    return lambda: mh.submit(fibonacci, scale.depth).result(scale.patience)


def _start(kind: type, count: int) -> list[mh.ActorHandle]:
    return [mh.actor(kind).start() for _ in range(count)]


CASES: dict[str, Callable[[Scale], Step]] = {
    "get-small": _get_small,
    "put-small": _put_small,
    "put-small-multi": _put_small_multi,
    "put-large": _put_large,
    "put-large-multi": _put_large_multi,
    "get-10k-refs": _get_refs,
    "wait-1k": _wait,
    "tasks-sync": _tasks_sync,
    "tasks-async": _tasks_async,
    "tasks-batch": _tasks_async,
    "tasks-multi": _tasks_multi,
    "actor-sync": _actor_sync,
    "actor-async": _actor_async,
    "actor-concurrent": _actor_concurrent,
    "actor-1n": _actor_one_to_n,
    "actor-nn": _actor_n_to_n,
    "actor-nn-args": _actor_n_to_n_with_args,
    "async-actor-sync": lambda scale: _actor_sync(scale, AsyncServer),
    "async-actor-async": lambda scale: _actor_async(scale, AsyncServer),
    "async-actor-args": _async_actor_with_args,
    "async-actor-1n": lambda scale: _actor_one_to_n(scale, AsyncServer),
    "async-actor-nn": lambda scale: _actor_n_to_n(scale, AsyncServer),
    "nested": _nested,
}
"""By row: what sets the case up and gives one round of it."""
