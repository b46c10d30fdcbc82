"""Calls that a cluster gets before their inputs have ended."""

from typing import Any

import pytest

import manyhands as mh
from manyhands.engines.cluster.engine import ClusterEngine
from manyhands.testing.checks import LIMIT, expect, wait_for
from tests.unit.engines.cluster.conftest import Open, get_cluster
from tests.unit.engines.cluster.fakes import FakeCluster, Near, Net
from tests.unit.engines.cluster.test_engine import begin, get_result, near
from tests.unit.engines.sinks import LONG, FakeSink, fail


def shout(text: str) -> str:
    return text.upper()


def wait_for_end(engine: ClusterEngine, key: int) -> None:
    """Wait until a call that was sent ahead has ended."""
    wait_for(lambda: engine._ahead[key].ended is not None, "it ends in the cluster")


def test_a_call_begins_when_its_input_ends(engine: ClusterEngine, net: Net, sink: FakeSink) -> None:
    net.size = 2
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    engine.anticipate(near(3, len, engine.foresee(2)))
    assert len(net.launched) == 3
    source.may_end.set()
    wait_for_end(engine, 3)
    assert list(sink.ends) == [1], "nobody hears of the others before they are submitted"
    for key in (2, 3):
        engine.submit(near(key, shout, "not this"))
    assert [get_result(engine, sink, key) for key in (1, 2, 3)] == ["done", "DONE", 4]
    assert len(net.launched) == 3
    assert engine._ahead == engine._flights == engine._keys == {}


def test_a_call_may_be_submitted_before_it_has_ended(
    engine: ClusterEngine, net: Net, sink: FakeSink
) -> None:
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    engine.submit(near(2, shout, "not this"))
    source.may_end.set()
    assert get_result(engine, sink, 2) == "DONE"
    assert len(net.launched) == 2


def test_its_own_failure_is_told(engine: ClusterEngine, net: Net, sink: FakeSink) -> None:
    source = begin(engine, 1)
    engine.anticipate(near(2, int, engine.foresee(1)))
    source.may_end.set()
    wait_for_end(engine, 2)
    engine.submit(near(2, shout, "not this"))
    assert isinstance(get_result(engine, sink, 2), ValueError)
    assert len(net.launched) == 2


def test_what_an_attempt_at_an_input_failed_with_is_no_failure(
    engine: ClusterEngine, net: Net, sink: FakeSink
) -> None:
    net.is_holding = True
    engine.submit(near(1, fail, OSError("once")))
    engine.anticipate(near(2, shout, engine.foresee(1)))
    net.release()
    wait_for_end(engine, 2)
    assert list(sink.ends) == [1]
    engine.submit(near(2, shout, "now"))  # the input was tried again, and went well
    assert get_result(engine, sink, 2) == "NOW"
    assert len(net.launched) == 3


def test_the_death_of_an_inputs_worker_is_none_of_its_own(
    engine: ClusterEngine, net: Net, sink: FakeSink
) -> None:
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    net.kill(net.list_alive()[0])
    wait_for_end(engine, 2)
    assert isinstance(get_result(engine, sink, 1), mh.WorkerDiedError)
    engine.submit(near(2, shout, "now"))
    assert get_result(engine, sink, 2) == "NOW"
    assert len(net.launched) == 3
    source.may_end.set()


def test_one_that_is_not_wanted_is_forgotten(
    engine: ClusterEngine, net: Net, sink: FakeSink
) -> None:
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    engine.forsake(2)
    engine.forsake(7)
    source.may_end.set()
    assert get_result(engine, sink, 1) == "done"
    engine.submit(near(2, shout, "new"))
    assert get_result(engine, sink, 2) == "NEW"
    assert len(net.launched) == 3


def test_nothing_stands_for_what_the_cluster_has_not(engine: ClusterEngine, net: Net) -> None:
    assert engine.foresee(1) is None
    source = begin(engine, 1)
    assert engine.foresee(1) is not None
    source.may_end.set()


@pytest.mark.parametrize("options", [{"timeout": 5.0}, {"window": 4}])
def test_calls_that_are_watched_wait_here(
    engine: ClusterEngine, net: Net, options: dict[str, Any]
) -> None:
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1), **options))
    assert len(net.launched) == 1
    source.may_end.set()


def test_calls_wait_here_where_not_all_workers_are_the_sessions(
    open_engine: Open, net: Net
) -> None:
    net.size = 3
    engine = open_engine(workers=2)
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    assert len(net.launched) == 1
    source.may_end.set()


def test_one_that_cannot_be_sent_leaves_nothing(engine: ClusterEngine, net: Net) -> None:
    source = begin(engine, 1)
    stand_in = engine.foresee(1)
    net.trouble = OSError("no way")
    with pytest.raises(OSError, match="no way"):
        engine.anticipate(near(2, shout, stand_in))
    assert engine._ahead == {}
    net.trouble = None
    source.may_end.set()


def test_they_end_with_the_session(open_engine: Open, net: Net) -> None:
    engine = open_engine()
    source = begin(engine, 1)
    engine.anticipate(near(2, shout, engine.foresee(1)))
    ahead = engine._ahead[2].native
    engine.close(LONG)
    assert get_cluster(engine).closed is not None
    assert ahead in get_cluster(engine).closed  # type: ignore[operator]
    source.may_end.set()


# With a session.


def count_up(source: Any) -> int:
    return int(source) + 1


def test_a_chain_of_a_session_is_sent_at_once(net: Net) -> None:
    net.is_holding = True
    with mh.Session(ClusterEngine(FakeCluster(net))) as session:
        future = session.submit(abs, -1)
        for _ in range(20):
            future = session.submit(Near(count_up), future)
        assert len(net.launched) == 21
        net.release()
        assert future.result(LIMIT) == 21
        assert len(net.launched) == 21


def test_a_chain_goes_on_when_a_link_was_tried_again(net: Net) -> None:
    attempts: list[int] = []

    def stumble(number: int) -> int:
        attempts.append(number)
        if len(attempts) == 1:
            raise OSError("once")
        return number

    net.is_holding = True
    with mh.Session(ClusterEngine(FakeCluster(net))) as session:
        first = mh.task(Near(stumble), retries=1, backoff=0).submit(1)
        last = session.submit(Near(count_up), session.submit(Near(count_up), first))
        net.release()
        assert last.result(LIMIT) == 3
    assert len(attempts) == 2


def test_the_chain_of_a_failed_or_cancelled_call_ends_with_it(net: Net) -> None:
    net.is_holding = True
    with mh.Session(ClusterEngine(FakeCluster(net))) as session:
        failed = session.submit(Near(count_up), session.submit(Near(fail), OSError("on purpose")))
        cancelled = session.submit(Near(count_up), held := session.submit(abs, -1))
        assert held.cancel()
        assert cancelled.cancelled()
        net.release()
        with expect(mh.DependencyError):
            failed.result(LIMIT)
        engine = session._engine
        assert isinstance(engine, ClusterEngine)
        assert engine._ahead == {}
