"""Ray's own cases, and a tree of calls, as Ray's `ray_perf` and its users write them.

An actor takes no CPU and a task takes one, as there; the servers with async methods have Ray's
default, which is the same once they are up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from benchmarks.case_work import AsyncServer, Server, small_value
from benchmarks.contenders.contender import Scale, Step


class Client:
    """An actor that calls."""

    def __init__(self, servers: Sequence[Any] = ()) -> None:
        self._servers = servers

    def call_tasks(self, calls: int) -> int:
        return _count(ray.get([_small_value.remote() for _ in range(calls)]))

    def call_servers(self, calls: int) -> int:
        refs = [server.small_value.remote() for server in self._servers for _ in range(calls)]
        return _count(ray.get(refs))

    def call_servers_with_ref(self, calls: int) -> int:
        value = ray.put(0)
        refs = [
            server.small_value_arg.remote(value) for server in self._servers for _ in range(calls)
        ]
        return _count(ray.get(refs))


def call_in_turn(servers: Sequence[Any], calls: int) -> int:
    """A task that calls actors, one after the other."""
    return _count(ray.get([servers[i % len(servers)].small_value.remote() for i in range(calls)]))


def put_each(calls: int) -> int:
    for _ in range(calls):
        ray.put(0)
    return calls


def put_arrays(arrays: int, elements: int) -> int:
    for _ in range(arrays):
        ray.put(np.zeros(elements, dtype=np.int64))
    return arrays


def put_refs(count: int) -> list[Any]:
    return [ray.put(1) for _ in range(count)]


def fibonacci(number: int) -> int:
    """A call for each node of the tree; each waits for its two, and Ray lends its CPU out meanwhile."""
    if number < 2:
        return number
    return sum(ray.get([_fibonacci.remote(number - 1), _fibonacci.remote(number - 2)]))


_small_value: Any = ray.remote(small_value)
_call_in_turn: Any = ray.remote(call_in_turn)
_put_each: Any = ray.remote(put_each)
_put_arrays: Any = ray.remote(put_arrays)
_put_refs: Any = ray.remote(put_refs)
_fibonacci: Any = ray.remote(fibonacci)
_Client: Any = ray.remote(num_cpus=0)(Client)
_Server: Any = ray.remote(num_cpus=0)(Server)
_AsyncServer: Any = ray.remote(AsyncServer)


def _count(values: list[bytes]) -> int:
    return values.count(b"ok")


def _get_small(_: Scale) -> Step:
    ref = ray.put(0)
    return lambda: ray.get(ref)


def _put_small(_: Scale) -> Step:
    return lambda: ray.put(0)


def _put_small_multi(scale: Scale) -> Step:
    return lambda: ray.get([_put_each.remote(scale.calls // 10) for _ in range(10)])


def _put_large(scale: Scale) -> Step:
    array = np.zeros(scale.elements, dtype=np.int64)
    return lambda: ray.put(array)


def _put_large_multi(scale: Scale) -> Step:
    elements = scale.elements // 10
    return lambda: ray.get([_put_arrays.remote(10, elements) for _ in range(10)])


def _get_refs(scale: Scale) -> Step:
    ref = _put_refs.remote(scale.refs)
    return lambda: len(ray.get(ref))


def _wait(scale: Scale) -> Step:
    def wait_for_each() -> int:
        waiting = [_small_value.remote() for _ in range(scale.calls)]
        found = 0
        while waiting:
            # Asked for once, all values come; asking again costs Ray more (its issue 30375).
            done, waiting = ray.wait(waiting, fetch_local=not found)
            found += len(done)
        return found

    return wait_for_each


def _tasks_sync(_: Scale) -> Step:
    return lambda: ray.get(_small_value.remote())


def _tasks_async(scale: Scale) -> Step:
    return lambda: ray.get([_small_value.remote() for _ in range(scale.calls)])


def _tasks_multi(scale: Scale) -> Step:
    clients = _start(_Client, scale.clients)
    return lambda: ray.get([client.call_tasks.remote(scale.many) for client in clients])


def _actor_sync(_: Scale, kind: Any = _Server) -> Step:
    actor = kind.remote()
    return lambda: ray.get(actor.small_value.remote())


def _actor_async(scale: Scale, kind: Any = _Server) -> Step:
    actor = kind.remote()
    return lambda: ray.get([actor.small_value.remote() for _ in range(scale.calls)])


def _actor_concurrent(scale: Scale) -> Step:
    return _actor_async(scale, _Server.options(max_concurrency=16))


def _actor_one_to_n(scale: Scale, kind: Any = _Server) -> Step:
    client = _Client.remote(_start(kind, scale.clients))
    return lambda: ray.get(client.call_servers.remote(scale.many // 2))


def _actor_n_to_n(scale: Scale, kind: Any = _Server) -> Step:
    servers = _start(kind, scale.clients)
    calls = scale.many // 2
    return lambda: ray.get([_call_in_turn.remote(servers, calls) for _ in range(scale.clients)])


def _actor_n_to_n_with_args(scale: Scale) -> Step:
    clients = [_Client.remote([server]) for server in _start(_Server, scale.clients)]
    return lambda: ray.get([client.call_servers_with_ref.remote(scale.calls) for client in clients])


def _async_actor_with_args(scale: Scale) -> Step:
    actor = _AsyncServer.remote()
    return lambda: ray.get([actor.small_value_arg.remote(i) for i in range(scale.calls)])


def _nested(scale: Scale) -> Step:
    return lambda: ray.get(_fibonacci.remote(scale.depth), timeout=scale.patience)


def _start(kind: Any, count: int) -> list[Any]:
    return [kind.remote() for _ in range(count)]


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
    "async-actor-sync": lambda scale: _actor_sync(scale, _AsyncServer),
    "async-actor-async": lambda scale: _actor_async(scale, _AsyncServer),
    "async-actor-args": _async_actor_with_args,
    "async-actor-1n": lambda scale: _actor_one_to_n(scale, _AsyncServer),
    "async-actor-nn": lambda scale: _actor_n_to_n(scale, _AsyncServer),
    "nested": _nested,
}
"""By row: what sets the case up and gives one round of it."""
