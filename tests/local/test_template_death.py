"""The template process is killed: the pool heals or says so, and never hangs."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Gate, Mark, note
from tests.local.processes import is_alive, list_children, list_family


def find_template(session: mh.Session | None = None) -> int:
    """The one child of this process that has come since the test began: nothing else starts any."""
    found: list[int] = []

    def look() -> bool:  # it has its own command line only once it has been exec'd
        if (
            session is not None
        ):  # an idle session learns of its template's death when it is used again
            assert session.submit(abs, -1).result(LIMIT) == 1
        found[:] = [pid for pid in list_children(os.getpid()) if is_template(pid)]
        return bool(found)

    wait_for(look, "the template runs")
    (template,) = found
    return template


def is_template(pid: int) -> bool:
    try:
        return b"manyhands.engines.local.template" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_an_idle_pool_heals(start_method: str) -> None:
    with mh.Session("local", workers=2, start_method=start_method) as session:
        for _ in range(3):
            assert session.map(abs, range(-3, 0)) == [3, 2, 1]
            kill(find_template(session))
        assert session.map(abs, range(-3, 0)) == [3, 2, 1]
        assert session.submit(abs, -1).result(LIMIT) == 1


def test_running_calls_end_and_waiting_ones_run(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with mh.Session("local", workers=2) as session:
        running = [session.submit(gate.enter, x) for x in range(2)]
        wait_for(lambda: gate.count_entered() == 2, "both workers are at a call")
        waiting = [session.submit(note, str(tmp_path), x) for x in range(50)]
        kill(find_template())
        assert mh.gather(waiting, timeout=LIMIT) == list(range(50))
        gate.open()
        for future in running:
            error = future.exception(LIMIT)
            assert error is None or isinstance(error, mh.WorkerError)
        assert session.map(abs, [-1]) == [1]
    assert [Mark(tmp_path).count(x) for x in range(50)] == [1] * 50


def test_a_map_goes_on(tmp_path: Path) -> None:
    """What was at work with the template may be lost; everything else has its result."""

    def act(x: int) -> int:
        Mark(tmp_path).add("ran")
        return x

    with mh.Session("local", workers=2) as session:
        stream = session.imap(act, range(3000), batch=1, on_error="return")
        found: list[Any] = [next(stream)]
        kill(find_template())
        found += stream
        assert len(found) == 3000
        wrong = [value for x, value in enumerate(found) if value != x]
        assert len(wrong) <= 2 and all(isinstance(value, mh.WorkerError) for value in wrong)


def test_the_whole_family_is_killed() -> None:
    with mh.Session("local", workers=2) as session:
        session.map(abs, range(5))
        template = find_template()
        family = list_family(template)
        assert len(family) == 3
        for pid in family:
            kill(pid)
        assert session.map(abs, range(-3, 0)) == [3, 2, 1]


def test_old_workers_do_not_outlive_their_template() -> None:
    with mh.Session("local", workers=2) as session:
        session.map(abs, range(5))
        family = list_family(find_template())
        kill(family[0])

        def work_and_look() -> bool:
            session.submit(abs, -1).exception(LIMIT)
            return not any(map(is_alive, family))

        wait_for(work_and_look, "the old workers are gone")
        assert session.map(abs, [-1]) == [1]


@pytest.mark.parametrize(
    "moment", ["before the first call", "after the first call", "at the close"]
)
def test_a_death_at_any_time_never_hangs(moment: str) -> None:
    session = mh.Session("local", workers=2)
    try:
        if moment == "before the first call":
            kill(find_template())
        future = session.submit(abs, -1)
        if moment == "after the first call":
            kill(find_template())
        try:
            assert future.result(LIMIT) == 1
        except mh.WorkerError:
            pass  # it says so
        if moment == "at the close":
            kill(find_template())
    finally:
        session.close()


def test_a_stopped_template_does_not_stop_the_close() -> None:
    """A template that does not answer, as on a machine that swaps, is not waited for without end."""
    session = mh.Session("local", workers=1)
    session.map(abs, range(5))
    template = find_template()
    os.kill(template, signal.SIGSTOP)
    try:
        import threading

        closing = threading.Thread(target=session.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive(), "close() waits for a template that is stopped"
    finally:
        os.kill(template, signal.SIGCONT) if is_alive(template) else None
        closing.join(LIMIT)
