"""Ray's place is taken: what its references give is set by the test."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tests.unit.engines.sinks import LONG


class Ref:
    """A reference whose value comes when the test says so."""

    def __init__(self) -> None:
        self.result: Future[Any] = Future()

    def future(self) -> "Future[Any]":
        return self.result


class Method:
    """A method of an actor: keeps what it was called with, and the references that it gave."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refs: list[Ref] = []
        self.value: Any = None
        self.is_held = False
        self._change = threading.Condition()

    def remote(self, *args: Any) -> Ref:
        ref = Ref()
        if not self.is_held:
            ref.result.set_result(self.value)
        with self._change:
            self.calls.append(args)
            self.refs.append(ref)
            self._change.notify_all()
        return ref

    def wait_for_calls(self, number: int) -> None:
        with self._change:
            assert self._change.wait_for(lambda: len(self.calls) >= number, LONG)


class FakeOffice:
    """An actor's handle."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    def __getattr__(self, name: str) -> Method:
        return self._methods.setdefault(name, Method())


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> FakeOffice:
    """With Ray's functions for its references."""
    import ray

    def wait(refs: list[Ref], timeout: float) -> Any:
        try:
            refs[0].result.exception(timeout)
        except TimeoutError:
            return [], refs
        return refs, []

    monkeypatch.setattr(ray, "get", lambda ref: ref.result.result(LONG))
    monkeypatch.setattr(ray, "wait", wait)
    return FakeOffice()
