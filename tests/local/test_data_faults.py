"""Shared values when something goes wrong: deaths, broken objects, systems that lack what is usual."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, wait_for
from manyhands.testing.faults import Damage, PicklingFault, UnpicklingFault
from tests.local.processes import (
    LIMIT as PROGRAM_LIMIT,
)
from tests.local.processes import (
    is_alive,
    list_family,
    list_shared_names,
    run_script,
    start_script,
    write_script,
)

LARGE = 200_000

START_METHODS = ("fork", "spawn")


def kill_self(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until_empty(session: mh.Session) -> None:
    gc.collect()
    wait_for(lambda: not session.memory().values, "nothing is stored", 10)
    assert session.memory().used == session.memory().disk_used == 0


# Workers that die.


@pytest.mark.parametrize("start_method", START_METHODS)
def test_deaths_while_reading(start_method: str) -> None:
    """Other calls read the same value, before, beside and after; then all is free."""
    array = np.arange(float(LARGE))
    with mh.Session("local", workers=2, start_method=start_method) as session:
        ref = session.put(array)
        for _ in range(3):
            good = [session.submit(np.sum, ref) for _ in range(5)]
            bad = session.submit(kill_self, ref)
            good += [session.submit(np.sum, [ref, array][x % 2]) for x in range(5)]
            assert isinstance(bad.exception(LIMIT), mh.WorkerDiedError)
            assert mh.gather(good, timeout=LIMIT) == [array.sum()] * 10
        holders = {h for value in session.memory().values for h in value.holders}
        wait_for(
            lambda: (
                {h for v in session.memory().values for h in v.holders if "worker" in h}
                <= {"worker 4", "worker 5"}
            ),
            f"the dead hold nothing: {holders}",
        )
        del ref, array, good, bad
        wait_until_empty(session)


class DyingHalfway:
    """Its first part goes into shared memory, then its process dies; or raises."""

    def __init__(self, damage: Damage) -> None:
        self.damage = damage

    def __reduce__(self) -> Any:
        return tuple, ([np.ones(LARGE), Striking(self.damage)],)


class Striking:
    """Does the damage when the out-of-band buffers before it are taken already."""

    def __init__(self, damage: Damage) -> None:
        self.damage = damage

    def __reduce__(self) -> Any:
        PicklingFault(self.damage).__reduce__()
        raise AssertionError


@pytest.mark.parametrize("damage", [Damage.KILL, Damage.SEGFAULT, Damage.OS_EXIT, Damage.RAISE])
def test_deaths_while_writing_results(damage: Damage) -> None:
    with mh.Session("local", workers=2) as session:
        submit: Any = session.submit
        futures = [
            submit(DyingHalfway, damage) if x % 6 == 3 else submit(np.full, LARGE, float(x))
            for x in range(12)
        ]
        for x, future in enumerate(futures):
            if x % 6 == 3:
                kind = mh.UnpicklableError if damage is Damage.RAISE else mh.WorkerDiedError
                assert isinstance(future.exception(LIMIT), kind)
            else:
                array = future.result(LIMIT)
                assert array.min() == array.max() == x
        del array, future, futures
        wait_until_empty(session)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_results_outlive_their_maker(start_method: str) -> None:
    """Results, refs and arrays of a dead worker are read, changed, sent, and freed like any."""
    with mh.Session("local", workers=1, start_method=start_method) as session:
        submit: Any = session.submit
        results = [submit(np.full, LARGE, float(x)) for x in range(4)]
        read = results[0].result(LIMIT)
        refs = [
            submit(lambda x=x: mh.put(np.full(LARGE, float(x)))).result(LIMIT) for x in range(3)
        ]
        born = submit(lambda: mh.array(np.full(LARGE, 7.0))).result(LIMIT)
        assert isinstance(submit(kill_self).exception(LIMIT), mh.WorkerDiedError)
        assert session.report().deaths == 2  # of its two attempts
        read += 1
        born += 1
        assert read.sum() == LARGE and born.sum() == 8 * LARGE
        assert submit(np.sum, read).result(LIMIT) == LARGE
        assert submit(np.sum, born).result(LIMIT) == 8 * LARGE
        assert [submit(np.sum, one).result(LIMIT) for one in results[1:]] == [
            LARGE,
            2 * LARGE,
            3 * LARGE,
        ]
        assert [one.result(LIMIT)[-1] for one in results[1:]] == [1, 2, 3]
        assert [ref.get().sum() for ref in refs] == [0, LARGE, 2 * LARGE]
        assert submit(lambda c: [r.get()[0] for r in c.value], work.Carrier(refs)).result(
            LIMIT
        ) == [0, 1, 2]
        # Its followers' values take other places.
        for x in range(20):
            assert submit(np.full, LARGE, float(x)).result(LIMIT)[0] == x
        assert isinstance(submit(kill_self, refs[0]).exception(LIMIT), mh.WorkerDiedError)
        assert [ref.get().sum() for ref in refs] == [0, LARGE, 2 * LARGE]
        del read, born, results, refs
        wait_until_empty(session)


def test_many_deaths_at_any_moment() -> None:
    """Workers are killed from outside while values go back and forth: what comes is right, and all is freed."""

    def use(array: Any, x: int) -> Any:
        return array + x, mh.put(array * x)

    with mh.Session("local", workers=2) as session:
        source = np.ones(LARGE)
        ref = session.put(source)
        deaths = 0
        for turn in range(5):
            futures = [session.submit(use, [ref, source][x % 2], x) for x in range(16)]
            gc.collect()
            wait_for(futures[turn].done, "it has ended")
            for pid in session._engine.stats().pids[: 1 + turn % 2]:
                os.kill(pid, signal.SIGKILL)
                deaths += 1
            for x, future in enumerate(futures):
                error = future.exception(LIMIT)
                if error is None:
                    array, made = future.result(LIMIT)
                    assert array.min() == array.max() == 1 + x
                    assert made.get().min() == made.get().max() == x
                    assert session.submit(np.max, made).result(LIMIT) == x
                else:
                    assert isinstance(error, mh.WorkerDiedError)
            del array, made, future, futures, error
        wait_for(lambda: session.report().deaths == deaths, "all deaths are known")
        assert session.map(np.sum, [ref, source] * 4) == [LARGE] * 8
        del ref, source
        wait_until_empty(session)


def test_a_map_goes_on_after_deaths(tmp_path: Path) -> None:
    blocks = np.arange(40.0 * 5000).reshape(40, 5000)

    def act(folder: str, block: Any) -> Any:
        if block[0] in (3 * 5000, 20 * 5000) and work.Mark(folder).add(int(block[0])) == 1:
            kill_self()
        return block * 2

    from functools import partial

    with mh.Session("local", workers=2) as session:
        found = session.map(
            partial(act, str(tmp_path)), blocks, retries=2, retry_on=(mh.WorkerDiedError,)
        )
        assert np.array_equal(np.array(found), blocks * 2)
        assert session.report().deaths >= 2
        del found
        del blocks
        wait_until_empty(session)


def test_the_template_dies() -> None:
    with mh.Session("local", workers=2) as session:
        ref = session.put(np.ones(LARGE))
        results = [session.submit(np.full, LARGE, float(x)) for x in range(6)]
        assert session.map(np.sum, [ref] * 4) == [LARGE] * 4
        (template,) = {
            int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            for pid in session._engine.stats().pids
        }
        os.kill(template, signal.SIGKILL)
        wait_for(lambda: not is_alive(template), "it is dead")
        assert session.map(np.sum, [ref] * 8, batch=1) == [LARGE] * 8
        assert [one.result(LIMIT)[5] for one in results] == list(range(6))
        del ref, results
        wait_until_empty(session)


# The program dies.

KILLED = """
    import sys
    import numpy as np
    import manyhands as mh

    def put(x):
        return mh.put(np.full(100_000, float(x)))

    if __name__ == "__main__":
        session = mh.Session("local", workers=2, start_method={start_method!r})
        refs = [session.put(np.full(100_000, float(x))) for x in range(50)]
        refs += [session.put(x) for x in range(1000)]
        made = session.map(put, range(50))
        arrays = session.map(np.ones, [100_000] * 20)
        shared = mh.zeros(1000_000)
        busy = [session.submit({busy}, ref) for ref in refs[:4]]
        print("ready", flush=True)
        input()
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_killed_program_leaves_nothing(start_method: str, tmp_path: Path) -> None:
    names = list_shared_names()
    busy = "lambda a: [a.sum() for _ in range(10**9)]"
    with start_script(tmp_path, KILLED.format(start_method=start_method, busy=busy)) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        family = list_family(program.pid)
        assert len(family) >= 4
        program.kill()
        program.wait()
        wait_for(lambda: not any(map(is_alive, family)), "all processes have ended", 10)
    assert not [n for n in list_shared_names() - names if "sem." not in n]


def test_a_program_that_ends_with_refs_ends_well(tmp_path: Path) -> None:
    """Refs, arrays and futures in globals, no close, and a thread that still uses them."""
    code = """
        import threading
        import numpy as np
        import manyhands as mh

        refs = [mh.put(np.full(100_000, float(x))) for x in range(10)]
        arrays = mh.get(refs)
        shared = mh.array(np.ones(100_000))
        results = mh.map(np.negative, refs)
        pending = [mh.submit(np.sum, ref) for ref in refs]
        knot = [refs, arrays]; knot.append(knot)
        print(sum(float(r[0]) for r in results), mh.get(refs[3])[0])
    """
    assert run_script(tmp_path, code) == "-45.0 3.0\n"


def test_sessions_that_end_amid_traffic_say_nothing(tmp_path: Path) -> None:
    """A worker that sends when nobody listens any more ends without a word."""
    code = """
        import manyhands as mh

        for _ in range(12):
            with mh.Session("local", workers=2) as session:
                refs = [session.put(bytes(30_000)) for _ in range(10)]
                session.map(sum, refs)
                pending = [session.submit(sum, ref) for ref in refs * 20]
                pending[3].result()
    """
    assert run_script(tmp_path, code) == ""


# Systems that lack something.

PROGRAM = """
    import sys
    import numpy as np
    import manyhands as mh

    {before}

    def put(x):
        return mh.put(np.full(50_000, float(x)))

    def run(start_method):
        with mh.Session("local", workers=2, start_method=start_method {options}) as session:
            array = np.arange(100_000.0)
            ref = session.put(array)
            assert np.array_equal(ref.get(), array)
            assert session.map(np.sum, [ref, array] * 5) == [array.sum()] * 10
            found = session.map(np.full, [50_000] * 10, range(10))
            for x, one in enumerate(found):
                one += 1
                assert one.min() == one.max() == x + 1
            made = session.map(put, range(5))
            assert [float(r.get()[7]) for r in made] == list(range(5))
            assert session.map(np.max, made) == list(range(5))
            shared = mh.zeros(100_000)
            out = session.put(shared, writable=True)
            session.submit(lambda a: a.fill(5), out).result()
            assert shared.sum() == 500_000
            assert session.submit(bytes, 1_000_000).result() == bytes(1_000_000)
            chain = session.submit(np.ones, 100_000)
            for _ in range(5):
                chain = session.submit(np.negative, chain)
            assert chain.result().sum() == -100_000
        print(start_method, "well")

    if __name__ == "__main__":
        run({start_method!r})
"""
WELL = "fork well\n"

NO_MEMFD = """
import os
if hasattr(os, "memfd_create"):
    del os.memfd_create
"""


def make_program(before: str = "", options: str = "", start_method: str = "fork") -> str:
    before = before.strip().replace("\n", "\n    ")
    return PROGRAM.format(before=before, options=options, start_method=start_method)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_program_itself(start_method: str, tmp_path: Path) -> None:
    code = make_program(start_method=start_method)
    assert run_script(tmp_path, code) == f"{start_method} well\n"


def test_the_program_has_no_memfd_create(tmp_path: Path) -> None:
    assert run_script(tmp_path, make_program(NO_MEMFD)) == WELL


def test_workers_have_no_memfd_create(tmp_path: Path) -> None:
    """Nor has the program. An initializer runs before a worker makes its heap."""
    before = f"""
{NO_MEMFD}
def take_away():
    import os
    if hasattr(os, "memfd_create"):
        del os.memfd_create
"""
    names = list_shared_names()
    assert run_script(tmp_path, make_program(before, ", initializer=take_away")) == WELL
    assert not [n for n in list_shared_names() - names if "sem." not in n]


def run_apart(folder: Path, mounts: str, code: str) -> "subprocess.CompletedProcess[str]":
    """A program in a mount namespace of its own, after shell commands that mount."""
    script = write_script(folder, code)
    return subprocess.run(
        [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            f"{mounts}\nexec {sys.executable} {script}",
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROGRAM_LIMIT,
    )


SMALL_SHM = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
NO_SHM = """
mkdir dev
touch dev/null dev/zero dev/urandom
for name in null zero urandom; do mount --bind /dev/$name dev/$name; done
mount --rbind dev /dev
"""


def test_a_small_shm(tmp_path: Path) -> None:
    """As in a container: memory without a name does not count for it."""
    code = make_program("import os; assert os.statvfs('/dev/shm').f_blocks * 4096 <= 64 << 20")
    done = run_apart(tmp_path, SMALL_SHM, code)
    assert (done.stdout, done.stderr) == (WELL, "")


def test_no_shm(tmp_path: Path) -> None:
    code = make_program("import os; assert not os.path.exists('/dev/shm')")
    done = run_apart(tmp_path, NO_SHM, code)
    assert (done.stdout, done.stderr) == (WELL, "")


def test_a_small_shm_without_memfd_create(tmp_path: Path) -> None:
    """Memory is shared by names then; what does not fit is refused, and nobody is killed by it."""
    code = """
        import os, warnings
        warnings.simplefilter("ignore")
        del os.memfd_create
        import numpy as np
        import manyhands as mh
        with mh.Session("local", workers=1, store="200MiB", spill=0) as session:
            kept = [session.put(np.full(10 << 20, x, "u1")) for x in range(5)]
            assert session.map(np.max, kept) == list(range(5))
            try:
                while len(kept) < 20:
                    kept.append(session.put(np.full(10 << 20, len(kept), "u1")))
            except mh.StoreFullError as error:
                print("full at", len(kept))
            assert session.map(np.max, kept) == list(range(len(kept)))
            error = session.submit(np.ones, 8 << 20).exception()
            print(type(error).__name__)
    """
    done = run_apart(tmp_path, SMALL_SHM, code)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first in ("full at 5", "full at 6")
    assert second in ("StoreFullError", "NoneType")


@pytest.mark.parametrize("gigabytes", [2, 8])
def test_a_limit_of_addresses(gigabytes: int, tmp_path: Path) -> None:
    """As `ulimit -v` sets: less than the store would like to have."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({gigabytes} << 30,) * 2)"
    limits = {"OPENBLAS_NUM_THREADS": "1"}
    assert run_script(tmp_path, make_program(before), **limits) == WELL


def test_a_limit_of_descriptors(tmp_path: Path) -> None:
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))"
    assert run_script(tmp_path, make_program(before)) == WELL


def test_workers_without_numpy_until_it_comes(tmp_path: Path) -> None:
    """Bytes are shared where no library is loaded that could tell addresses."""
    code = """
        import sys
        import manyhands as mh
        block = bytes(range(256)) * 1000
        def look(value):
            return len(value), "numpy" in sys.modules
        if __name__ == "__main__":
            with mh.Session("local", workers=2) as session:
                ref = session.put(block)
                print(set(session.map(look, [ref, block, bytearray(block)] * 5)))
                assert session.submit(bytes.lower, ref).result() == block.lower()
                assert session.map(bytes.lower, [block] * 5) == [block.lower()] * 5
                print("numpy" in sys.modules)
    """
    assert run_script(tmp_path, code) == "{(256000, False)}\nFalse\n"


# Programs that fork.


def test_a_forked_child_leaves_refs_alone(tmp_path: Path) -> None:
    """It cannot use the session; its copies of refs and arrays may go without harm to the parent's."""
    code = """
        import gc, os, signal, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import numpy as np
        import manyhands as mh

        with mh.Session("local", workers=2) as session:
            ref = session.put(np.full(100_000, 3.0))
            others = [session.put(np.full(100_000, float(x))) for x in range(5)]
            array, result = ref.get(), session.submit(np.ones, 100_000).result()
            shared = mh.array(np.ones(100_000))
            pid = os.fork()
            if pid == 0:
                signal.alarm(12)
                code = 1
                try:
                    assert array.sum() == 300_000 and result.sum() == 100_000
                    for use in (ref.get, lambda: session.put(1), lambda: session.submit(np.sum, ref)):
                        try:
                            use()
                        except mh.SessionClosedError:
                            pass
                        else:
                            raise AssertionError(use)
                    repr(ref), ref.place, session.memory()
                    del ref, others, array, result, shared
                    gc.collect()
                    session.close()
                    with mh.Session("local", workers=1) as own:
                        assert own.submit(np.sum, own.put(np.ones(100_000))).result(10) == 100_000
                    code = 0
                except BaseException:
                    import traceback
                    traceback.print_exc()
                finally:
                    os._exit(code)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            assert ref.get().sum() == 300_000 == array.sum()
            assert session.map(np.max, others) == list(range(5))
            result += 1
            shared += 1
            assert session.submit(np.sum, shared).result() == 200_000 == result.sum()
            assert [o.get()[0] for o in others] == list(range(5))
            print(session.report().deaths)
    """
    assert run_script(tmp_path, code) == "0\n0\n"


def test_calls_that_fork_leave_values_alone() -> None:
    """A child of a worker ends, in whatever way, and the worker's values are as they were."""

    def fork_and_end(array: Any) -> float:
        made = mh.put(array * 2)
        pid = os.fork()
        if pid == 0:
            del made
            gc.collect()
            os._exit(0)
        os.waitpid(pid, 0)
        return float(made.get().sum())

    with mh.Session("local", workers=1) as session:
        ref = session.put(np.ones(LARGE))
        for _ in range(5):
            assert session.submit(fork_and_end, ref).result(LIMIT) == 2 * LARGE
        del ref
        wait_until_empty(session)


# Objects that go wrong.


class Broken:
    """Holds a large array, and fails where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.array = np.ones(LARGE)

    def __getstate__(self) -> Any:
        if self.where == "pickling":
            raise RuntimeError("cannot be taken apart")
        return self.__dict__

    def __setstate__(self, state: Any) -> None:
        if state["where"] == "unpickling":
            raise RuntimeError("cannot be put together")
        self.__dict__.update(state)


def test_what_cannot_be_pickled_holds_nothing() -> None:
    with mh.Session("local", workers=1) as session:
        for value in (Broken("pickling"), [np.ones(LARGE), PicklingFault(Damage.RAISE)]):
            with pytest.raises(mh.UnpicklableError):
                session.put(value)
            error = session.submit(work.echo, value).exception(LIMIT)
            assert isinstance(error, mh.UnpicklableError), error
            wait_until_empty(session)
        for make in (
            lambda: Broken("pickling"),
            lambda: [np.ones(LARGE), PicklingFault(Damage.RAISE)],
        ):
            assert isinstance(session.submit(make).exception(LIMIT), mh.UnpicklableError)

            def put(make: Any = make) -> Any:
                return mh.put(make())

            assert isinstance(session.submit(put).exception(LIMIT), mh.UnpicklableError)
        del value, error
        wait_until_empty(session)
        assert session.report().deaths == 0


def test_what_cannot_be_unpickled_holds_nothing() -> None:
    with mh.Session("local", workers=1) as session:
        ref = session.put(Broken("unpickling"))
        for argument in (
            Broken("unpickling"),
            ref,
            [np.ones(LARGE), UnpicklingFault(Damage.RAISE)],
        ):
            error = session.submit(len, argument).exception(LIMIT)
            assert isinstance(error, mh.UnloadableError), error
        with pytest.raises(RuntimeError, match="put together"):
            ref.get()
        future = session.submit(Broken, "unpickling")
        error = future.exception(LIMIT)
        assert isinstance(error, mh.UnloadableError)
        assert "put together" in str(error)
        feeds = session.submit(Broken, "unpickling")
        assert isinstance(session.submit(work.echo, feeds).exception(LIMIT), Exception)
        del ref, argument, error, future, feeds
        wait_until_empty(session)
        assert session.submit(np.sum, np.ones(LARGE)).result(LIMIT) == LARGE


def test_errors_with_large_values() -> None:
    def fail(array: Any) -> None:
        raise ValueError(array)

    with mh.Session("local", workers=1) as session:
        ref = session.put(np.ones(LARGE))
        error = session.submit(fail, ref).exception(LIMIT)
        assert isinstance(error, ValueError) and error.args[0].sum() == LARGE
        found = session.map(fail, [ref] * 3, on_error="return")
        assert [type(one) for one in found] == [ValueError] * 3
        del ref, error, found
        wait_until_empty(session)


def test_a_buffer_that_was_released() -> None:
    with mh.Session("local", workers=1) as session:
        view = memoryview(bytearray(LARGE))
        view.release()
        with pytest.raises(mh.UnpicklableError, match="released"):
            session.put(view)
        error = session.submit(len, view).exception(LIMIT)
        assert isinstance(error, mh.UnpicklableError) and "released" in str(error)
        content = bytearray(LARGE)
        part = memoryview(content)
        future = session.submit(len, part)
        part.release()
        content.clear()  # possible only if nobody holds its buffer
        assert future.result(LIMIT) == LARGE
        assert session.map(len, [bytes(LARGE)] * 3) == [LARGE] * 3
        wait_until_empty(session)


def test_a_value_that_is_too_large_for_any_store() -> None:
    """Nothing is touched of what cannot be stored: the array here has addresses and no memory."""
    with mh.Session("local", workers=1, store="10MB", spill="10MB") as session:
        giant = np.broadcast_to(np.zeros(1), (1 << 28,))[: 1 << 22]
        large = np.zeros(1 << 31, "u1")
        for use in (lambda: session.put(large), lambda: mh.empty(1 << 40, "u1")):
            with pytest.raises(mh.StoreFullError):
                use()
        error = session.submit(np.sum, large).exception(LIMIT)
        assert isinstance(error, mh.StoreFullError)
        assert "2.0 GiB" in str(error)
        error = session.submit(lambda: np.zeros(1 << 31, "u1")).exception(LIMIT)
        assert isinstance(error, mh.StoreFullError)
        error = session.submit(lambda: mh.empty(1 << 40, "u1")).exception(LIMIT)
        assert isinstance(error, mh.StoreFullError)
        assert isinstance(session.submit(np.sum, giant).exception(LIMIT), mh.StoreFullError)
        assert session.submit(np.sum, np.ones(1000)).result(LIMIT) == 1000
        assert session.report().deaths == 0
        del error
        wait_until_empty(session)


def test_a_session_closed_under_what_is_in_flight(tmp_path: Path) -> None:
    for _ in range(5):
        session = mh.Session("local", workers=2)
        refs = [session.put(np.full(LARGE, float(x))) for x in range(5)]
        futures = [session.submit(np.negative, ref) for ref in refs * 4]
        array = futures[0].result(LIMIT)
        session.close(grace=0)
        assert array.sum() == 0
        assert all(future.done() or future.cancelled() for future in futures)
        assert refs[0].place == "gone"
        array += 1
        del array, refs, futures, session
