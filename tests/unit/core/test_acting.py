"""What makes an actor in a worker, and what calls its methods there."""

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import pytest

from manyhands.core import acting, place
from manyhands.core.acting import ActorMaker, ActorMethod, ActorRestorer, remove_actor
from manyhands.errors import ActorDiedError


class Counter:
    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        self.value = start
        self.step = step

    def add(self, times: int = 1) -> int:
        self.value += times * self.step
        return self.value

    async def add_late(self) -> int:
        await asyncio.sleep(0)
        return self.add()

    def count(self) -> Iterator[int]:
        while True:
            yield self.add()

    async def count_late(self) -> AsyncIterator[int]:
        yield self.add()

    def fail(self) -> None:
        self.value = -1
        raise ValueError("x")

    def checkpoint(self) -> int:
        return self.value

    @classmethod
    def restore(cls, value: int) -> Self:
        return cls(value, step=100)


class FakePost:
    """Remembers what was sent."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, Any]] = []

    def emit(self, item: Any) -> None:
        pytest.fail("no stream runs")

    def keep(self, actor: int, state: Any) -> None:
        self.kept.append((actor, state))


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    stages: dict[int, Any] = {}
    monkeypatch.setattr(acting, "_stages", stages)
    return stages


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> FakePost:
    post = FakePost()
    monkeypatch.setattr(place, "post", post)
    return post


def get(number: int, method: str) -> ActorMethod:
    return ActorMethod(number, method, f"Counter.{method}")


def test_an_actor_is_made_and_called() -> None:
    maker = ActorMaker(7, Counter, 0)
    assert maker.__qualname__ == "Counter"
    assert maker(10, step=2) is None
    add = get(7, "add")
    assert (add(), add(3)) == (12, 18)
    assert add.__qualname__ == "Counter.add"


def test_actors_are_apart() -> None:
    ActorMaker(7, Counter, 0)(10)
    ActorMaker(8, Counter, 0)(20)
    assert (get(7, "add")(), get(8, "add")()) == (11, 21)


def test_an_actor_that_is_not_here_says_so(stages: dict[int, Any]) -> None:
    ActorMaker(7, Counter, 0)()
    remove_actor(7)
    remove_actor(7)
    assert stages == {}
    with pytest.raises(ActorDiedError, match=r"Counter\.add: the actor is not in this worker"):
        get(7, "add")()


def test_what_a_class_raises_is_its_makers_error(stages: dict[int, Any]) -> None:
    with pytest.raises(TypeError):
        ActorMaker(7, Counter, 0)(wrong=1)
    assert stages == {}


def test_makers_and_methods_travel() -> None:
    pickle.loads(pickle.dumps(ActorMaker(7, Counter, 2)))(10)
    assert pickle.loads(pickle.dumps(get(7, "add")))() == 11


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    maker = ActorMaker(7, Counter, 0)
    maker()
    get(7, "add")()  # and there is no post that it could be sent through
    assert maker.make_restorer() is None


def test_state_is_kept_after_so_many_calls(post: FakePost) -> None:
    ActorMaker(7, Counter, 3)()
    add = get(7, "add")
    for _ in range(7):
        add()
    assert post.kept == [(7, 3), (7, 6)]


def test_an_actor_is_made_again_of_what_was_kept(post: FakePost) -> None:
    restorer = ActorMaker(7, Counter, 1).make_restorer()
    assert isinstance(restorer, ActorRestorer)
    assert restorer.__qualname__ == "Counter"
    restorer(41)
    assert get(7, "add")() == 141
    assert post.kept == [(7, 141)]


def test_a_call_that_fails_keeps_nothing(post: FakePost) -> None:
    ActorMaker(7, Counter, 1)()
    with pytest.raises(ValueError, match="x"):
        get(7, "fail")()
    assert post.kept == []


def test_an_async_method_keeps_when_it_has_ended(post: FakePost) -> None:
    ActorMaker(7, Counter, 1)()
    coroutine = get(7, "add_late")()
    assert inspect.iscoroutine(coroutine)
    assert post.kept == []
    assert asyncio.run(coroutine) == 1
    assert post.kept == [(7, 1)]


@pytest.mark.parametrize("method", ["count", "count_late"])
def test_a_generator_method_keeps_nothing_by_itself(post: FakePost, method: str) -> None:
    ActorMaker(7, Counter, 1)()
    items = get(7, method)()
    assert hasattr(items, "__next__") or hasattr(items, "__anext__")
    assert post.kept == []
    get(7, "add")()
    assert len(post.kept) == 1
