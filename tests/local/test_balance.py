"""No worker holds calls while another has none: they are taken back, or asked back."""

import threading
from functools import partial
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Gate, Mark


def enter_at(gate: Gate, slow: frozenset[int], x: int) -> int:
    """Wait at the gate for some x, be quick for others."""
    return gate.enter(x) if x in slow else x


def warm_up(session: mh.Session, gate: Gate) -> None:
    """Let the pool learn that the function is quick, so that many calls travel together."""
    mh.gather([session.submit(enter_at, gate, frozenset(), x) for x in range(3000)], timeout=LIMIT)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("place", [0, 7, 500, 1990])
def test_a_slow_call_in_the_midst_of_trivial_ones(
    place: int, start_method: str, tmp_path: Path
) -> None:
    """It shares a message with trivial calls that come after it: they are given back to the other worker."""
    gate = Gate(tmp_path)
    slow = frozenset({place})
    with mh.Session("local", workers=2, start_method=start_method) as session:
        warm_up(session, gate)
        futures = [session.submit(enter_at, gate, slow, x) for x in range(2000)]
        held = futures.pop(place)
        assert len(mh.wait(futures, timeout=LIMIT).done) == 1999
        assert not held.done()
        gate.open()
        assert held.result(LIMIT) == place


def test_all_workers_but_one_are_held(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    slow = frozenset({10, 11, 300})
    with mh.Session("local", workers=4) as session:
        warm_up(session, gate)
        futures = [session.submit(enter_at, gate, slow, x) for x in range(1000)]
        quick = [future for x, future in enumerate(futures) if x not in slow]
        assert len(mh.wait(quick, timeout=LIMIT).done) == 997
        gate.open()
        assert mh.gather(futures, timeout=LIMIT) == list(range(1000))


def test_calls_that_a_worker_has_not_read_are_taken_back(tmp_path: Path) -> None:
    """Calls of unknown duration, one sent behind each: the one behind the held call runs elsewhere."""
    gate = Gate(tmp_path)
    with mh.Session("local", workers=2) as session:
        futures = [session.submit(enter_at, gate, frozenset({0}), x) for x in range(4)]
        assert len(mh.wait(futures[1:], timeout=LIMIT).done) == 3
        assert not futures[0].done()
        gate.open()


def test_a_call_without_waiters_is_given_back_too(tmp_path: Path) -> None:
    """Nobody waits in the engine: the background thread evens out."""
    gate = Gate(tmp_path)
    done = threading.Semaphore(0)
    with mh.Session("local", workers=2) as session:
        warm_up(session, gate)
        futures = [session.submit(enter_at, gate, frozenset({50}), x) for x in range(500)]
        for future in futures:
            future.add_done_callback(lambda _: done.release())
        for number in range(499):
            assert done.acquire(timeout=LIMIT), f"{number} of 499 ended"
        assert not futures[50].done()
        gate.open()


def test_what_was_given_back_runs_once(tmp_path: Path) -> None:
    gate, mark = Gate(tmp_path, "gate"), Mark(tmp_path)

    def act(x: int) -> int:
        mark.add(x)
        return gate.enter(x) if x in (3, 70) else x

    with mh.Session("local", workers=3) as session:
        futures = [session.submit(act, x) for x in range(200)]
        quick = [future for x, future in enumerate(futures) if x not in (3, 70)]
        assert len(mh.wait(quick, timeout=LIMIT).done) == 198
        gate.open()
        mh.gather(futures, timeout=LIMIT)
    names = [entry.name.partition(".")[0] for entry in tmp_path.iterdir()]
    assert [names.count(str(x)) for x in range(200)] == [1] * 200


@pytest.mark.parametrize("place", [0, 1, 5000])
def test_a_slow_item_holds_up_its_own_batch_at_most(place: int, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    run = partial(enter_at, gate, frozenset({place}))
    found: list[int] = []
    with mh.Session("local", workers=2) as session:
        stream = session.imap_unordered(run, range(20_000))

        def read() -> None:
            found.extend(stream)

        reader = threading.Thread(target=read)
        reader.start()
        # A batch is 4 ms of work, some thousands of these; two may be caught behind the held one.
        wait_for(lambda: len(found) > 8_000, "the other worker goes on")
        gate.open()
        reader.join(LIMIT)
    assert sorted(found) == list(range(20_000))


def test_a_long_running_map_leaves_room_for_single_calls(tmp_path: Path) -> None:
    """A call that is submitted beside a map of long items does not wait for the map's end."""
    gate = Gate(tmp_path)
    with mh.Session("local", workers=2) as session:
        mapper = threading.Thread(
            target=lambda: session.map(partial(enter_at, gate, frozenset({0})), range(500))
        )
        mapper.start()
        wait_for(gate.count_entered, "the map has begun")
        for x in range(100):
            assert session.submit(abs, -x).result(LIMIT) == x
        gate.open()
        mapper.join(LIMIT)
        assert not mapper.is_alive()
