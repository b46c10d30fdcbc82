"""Ctrl-C, SIGTERM and the sudden death of the parent."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.engines.local import messages as m
from manyhands.engines.local.process import WorkerProcess
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.work import Mark
from tests.local.processes import is_alive, list_family, start_script

# What the main thread waits in, and the work of which kind it waits for. A call that `result` waits for goes on
# after the interrupt, so there is one of it, and a worker free; a map is withdrawn whole.
WAITS = {
    "map": "s.map(work, range(50))",
    "map with results": "s.map(work_at_the_end, range(5000))",
    "starmap": "s.starmap(work, [(x,) for x in range(50)])",
    "imap": "list(s.imap(work, range(50)))",
    "imap_unordered": "list(s.imap_unordered(work, range(50)))",
    "result": "s.submit(work, 1).result()",
    "result with a limit": "s.submit(work, 1).result(timeout=60)",
    "exception": "s.submit(work, 1).exception()",
    "gather": "mh.gather([s.submit(work, 1)])",
    "wait": "mh.wait([s.submit(work, 1)])",
    "as_completed": "list(mh.as_completed([s.submit(work, 1)]))",
    "concurrent.futures.wait": "__import__('concurrent.futures').futures.wait([s.submit(work, 1)])",
}
WORK = {
    "sleep": "time.sleep(60)",
    "python": "while True: pass",
    "native": "sum(range(10**11))",
    "deaf": "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)",
}

INTERRUPTED = """
    import os, signal, sys, time
    import manyhands as mh

    def work(x):
        open(f"at-work-{{x}}", "w").close()
        {work}

    def work_at_the_end(x):
        return work(x) if x > 3000 else x

    with mh.Session("local", workers=2) as s:
        s.map(abs, range(100))
        caught = 0
        try:
            {wait}
        except KeyboardInterrupt:
            caught += 1
            print("interrupted", flush=True)
        try:
            assert s.map(abs, [-1, -2]) == [1, 2]
            assert s.submit(abs, -3).result(30) == 3
        except KeyboardInterrupt:
            caught += 1
        print("caught", caught, flush=True)
"""


def interrupt(folder: Path, wait: str, work: str, *, group: bool = False) -> None:
    code = INTERRUPTED.format(wait=WAITS[wait], work=WORK[work])
    with start_script(folder, code) as program:
        assert program.stdout is not None and program.stderr is not None
        wait_for(lambda: list(folder.glob("at-work-*")), "a worker is at work")
        begin = time.monotonic()
        if group:
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does it
        else:
            os.kill(program.pid, signal.SIGINT)
        assert program.stdout.readline() == "interrupted\n"
        assert time.monotonic() - begin < 1.0
        # Not `communicate`: it would not see what `readline` has buffered of the next line.
        out, err = program.stdout.read(), program.stderr.read()
        program.wait(30)
    assert (out, err, program.returncode) == ("caught 1\n", "", 0)


@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_ends_any_wait(wait: str, tmp_path: Path) -> None:
    interrupt(tmp_path, wait, "sleep", group=True)


@pytest.mark.parametrize("work", WORK)
def test_an_interrupt_ends_a_map_of_any_work(work: str, tmp_path: Path) -> None:
    interrupt(tmp_path, "map", work)


def test_interrupts_hit_at_random_moments_leave_the_session_whole(tmp_path: Path) -> None:
    """Many interrupts, at whatever the engine is at: each is raised once, and nothing is lost."""
    code = """
        import os, signal, threading, time
        import manyhands as mh

        with mh.Session("local", workers=2) as s:
            s.map(abs, range(100))
            sent = caught = 0
            for turn in range(60):
                timer = threading.Timer(0.0007 * (turn % 23), os.kill, (os.getpid(), signal.SIGINT))
                try:
                    timer.start()
                    while True:
                        s.submit(abs, -1).result(30)
                        s.map(abs, range(50))
                except KeyboardInterrupt:
                    caught += 1
                timer.join()
            assert s.map(abs, range(-1000, 0)) == list(range(1000, 0, -1))
            print("caught", caught)
    """
    with start_script(tmp_path, code) as program:
        out, err = program.communicate(timeout=40)
    assert (out, err, program.returncode) == ("caught 60\n", "", 0)


def test_an_uncaught_interrupt_ends_a_program_with_one_traceback(tmp_path: Path) -> None:
    code = """
        import time
        import manyhands as mh

        def work(x):
            open(f"at-work-{x}", "w").close()
            time.sleep(60)

        mh.map(work, range(10))
    """
    with start_script(tmp_path, code) as program:
        wait_for(lambda: list(tmp_path.glob("at-work-*")), "a worker is at work")
        family = list_family(program.pid)
        begin = time.monotonic()
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=30)
        assert time.monotonic() - begin < 2.0
    assert out == ""
    assert program.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1 and err.count("KeyboardInterrupt") == 1
    wait_for(lambda: not any(map(is_alive, family)), "no process is left", limit=2.0)


BUSY = """
    import os, signal, sys, time
    import manyhands as mh

    def work(x):
        open(f"at-work-{{x}}", "w").close()
        {work}

    with mh.Session("local", workers=2, start_method={start_method!r}) as s:
        s.map(abs, range(100))
        futures = [s.submit(work, x) for x in range(10)] if {busy} else []
        print("ready", flush=True)
        time.sleep(60) if {rest} else s.submit(time.sleep, 60).result()
"""


def start_family(program: "subprocess.Popen[str]", folder: Path, busy: bool) -> list[int]:
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    if busy:
        wait_for(lambda: len(list(folder.glob("at-work-*"))) >= 2, "both workers are at work")
    family = list_family(program.pid)
    assert len(family) == 4
    return family


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize(
    ("work", "start_method"),
    [("idle", "fork"), *((work, "fork") for work in WORK), ("idle", "spawn"), ("native", "spawn")],
)
def test_nothing_outlives_the_parent(
    number: signal.Signals, work: str, start_method: str, tmp_path: Path
) -> None:
    busy = work != "idle"
    code = BUSY.format(
        work=WORK.get(work, "pass"), start_method=start_method, busy=busy, rest=not busy
    )
    with start_script(tmp_path, code) as program:
        family = start_family(program, tmp_path, busy)
        os.kill(program.pid, number)
        program.wait(10)
        wait_for(lambda: not any(map(is_alive, family)), "no process is left", limit=2.0)
        assert program.stderr is not None
        assert program.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("work", ["idle", *WORK])
def test_nothing_outlives_the_parent_without_a_template(
    number: signal.Signals, work: str, tmp_path: Path
) -> None:
    busy = work != "idle"
    code = BUSY.format(work=WORK.get(work, "pass"), start_method="fork", busy=busy, rest=True)
    with start_script(tmp_path, code) as program:
        family = start_family(program, tmp_path, busy)
        os.kill(program.pid, signal.SIGSTOP)  # so that it cannot heal meanwhile
        os.kill(family[1], signal.SIGKILL)  # the template comes first, its workers after it
        wait_for(lambda: not is_alive(family[1]), "the template is dead")
        os.kill(program.pid, number)
        os.kill(program.pid, signal.SIGCONT)
        program.wait(10)
        wait_for(lambda: not any(map(is_alive, family)), "no process is left", limit=2.0)


def test_the_end_of_a_program_ends_its_workers(tmp_path: Path) -> None:
    """Without any close: the default session, with calls under way."""
    code = """
        import time
        import manyhands as mh

        mh.map(abs, range(5))
        futures = [mh.submit(time.sleep, 60) for _ in range(10)]
        print("ready", flush=True)
        input()
    """
    with start_script(tmp_path, code) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        family = list_family(program.pid)
        out, err = program.communicate("\n", timeout=10)
        assert (out, err, program.returncode) == ("", "", 0)
        wait_for(lambda: not any(map(is_alive, family)), "no process is left", limit=2.0)


def yield_and_mark(folder: Path) -> Iterator[int]:
    mark = Mark(folder)
    try:
        for number in itertools.count():
            mark.add("made")
            yield number
    finally:
        mark.add("ended")


def sleep_and_mark(folder: Path) -> None:
    mark = Mark(folder)
    try:
        mark.add("made")
        time.sleep(10 * LIMIT)
    finally:
        mark.add("ended")


@pytest.fixture
def lost_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal of each interrupt is lost, as if it had come just before its worker entered a wait."""

    def interrupt(self: WorkerProcess, key: int) -> None:
        self._words[m.INTERRUPT] = key

    monkeypatch.setattr(WorkerProcess, "interrupt", interrupt)


@pytest.mark.usefixtures("lost_signals")
def test_a_stream_ends_whose_worker_did_not_hear_of_it(tmp_path: Path) -> None:
    mark = Mark(tmp_path)
    with mh.Session("local", workers=1) as session:
        with mh.task(yield_and_mark).stream(tmp_path) as stream:
            next(stream)
            # The one cpu is free again when the generator waits for its consumer.
            assert session.submit(abs, -3).result(LIMIT) == 3
        wait_for(lambda: mark.count("ended"), "the generator's finally")


@pytest.mark.usefixtures("lost_signals")
def test_a_sleeping_call_ends_that_did_not_hear_of_it(tmp_path: Path) -> None:
    mark = Mark(tmp_path)
    with mh.Session("local", workers=1) as session:
        worker = session.submit(os.getpid).result(LIMIT)
        call = session.submit(sleep_and_mark, tmp_path)
        wait_for(lambda: mark.count("made"), "the call has begun")
        call.cancel(running=True)
        wait_for(lambda: mark.count("ended"), "the call's finally")
        assert session.submit(os.getpid).result(LIMIT) == worker
