"""A program that forks: the child has no session of its parent's, and does not hang."""

from pathlib import Path

from tests.local.processes import run_script

# The child has 12 seconds for what it does; then it is ended, and the program says with what.
FRAME = """
    import os, signal, sys, time
    import concurrent.futures
    import manyhands as mh
    import warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons dislike a fork beside threads

    def expect(kind, action):
        try:
            found = action()
        except kind:
            return
        raise AssertionError(f"expected {{kind}}, found {{found!r}}")

    def fork(action):
        pid = os.fork()
        if pid == 0:
            signal.alarm(12)
            try:
                action()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
                code = 1
            os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    {body}
"""


def run(folder: Path, body: str) -> str:
    indented = body.strip("\n").replace("\n", "\n    ")
    return run_script(folder, FRAME.format(body=indented))


def test_a_session_is_its_makers(tmp_path: Path) -> None:
    body = """
with mh.Session("local", workers=2) as session:
    ended = session.submit(abs, -1)
    ended.result()
    def act():
        expect(mh.SessionClosedError, lambda: session.submit(abs, -1))
        expect(mh.SessionClosedError, lambda: session.map(abs, [-1]))
        assert ended.result() == 1
        session.close()
    print(fork(act))
    print(session.map(abs, range(-3, 0)), session.submit(abs, -5).result(30))
"""
    assert run(tmp_path, body) == "0\n[3, 2, 1] 5\n"


def test_a_future_of_the_parent_does_not_hang_in_the_child(tmp_path: Path) -> None:
    body = """
with mh.Session("local", workers=1) as session:
    pending = session.submit(time.sleep, 1)
    def act():
        for ask in (pending.result, pending.exception, lambda: mh.gather([pending]), lambda: pending.result(5)):
            expect((mh.SessionClosedError, concurrent.futures.CancelledError), ask)
        assert not pending.cancel() or pending.cancelled()
        repr(pending), pending.running()
    print(fork(act))
    print(pending.result(30))
"""
    assert run(tmp_path, body) == "0\nNone\n"


def test_waits_for_several_do_not_hang_in_the_child(tmp_path: Path) -> None:
    body = """
with mh.Session("local", workers=1) as session:
    pending = [session.submit(time.sleep, 1) for _ in range(2)]
    def act():
        ended = (mh.SessionClosedError, concurrent.futures.CancelledError, TimeoutError)
        for ask in (
            lambda: [f.result() for f in mh.as_completed(pending)],
            lambda: [f.result() for f in mh.wait(pending).done],
        ):
            expect(ended, ask)
    print(fork(act))
    mh.gather(pending)
"""
    assert run(tmp_path, body) == "0\n"


def test_a_stream_of_the_parent_does_not_hang_in_the_child(tmp_path: Path) -> None:
    body = """
with mh.Session("local", workers=1) as session:
    stream = session.imap(abs, range(1000), batch=1)
    next(stream)
    def act():
        expect((mh.SessionClosedError, concurrent.futures.CancelledError), lambda: list(stream))
    print(fork(act))
    print(len(list(stream)))
"""
    assert run(tmp_path, body) == "0\n999\n"


def test_the_child_has_a_default_session_of_its_own(tmp_path: Path) -> None:
    body = """
print(mh.map(abs, [-1]))
def act():
    assert mh.map(abs, range(-3, 0)) == [3, 2, 1]
    assert mh.submit(lambda: os.getppid()).result(30) != os.getppid()
    mh.shutdown()
print(fork(act))
print(mh.map(abs, [-2]), mh.submit(abs, -7).result(30))
"""
    assert run(tmp_path, body) == "[1]\n0\n[2] 7\n"


def test_a_with_block_of_the_parent_is_not_the_childs(tmp_path: Path) -> None:
    """Inside a block the child may be told so, or use a session of its own."""
    body = """
with mh.Session("local", workers=1) as session:
    mh.map(abs, [-1])
    def act():
        try:
            assert mh.map(abs, [-1, -2]) == [1, 2]
        except mh.SessionClosedError:
            pass
        mh.shutdown()
    print(fork(act))
    print(mh.map(abs, [-2]))
"""
    assert run(tmp_path, body) == "0\n[2]\n"


def test_the_childs_end_does_not_end_the_parents_workers(tmp_path: Path) -> None:
    """Also where the child ends as a program does, with all that runs then."""
    body = """
with mh.Session("local", workers=2) as session:
    pids = set(session.map(lambda x: os.getpid(), range(100)))
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert set(session.map(lambda x: os.getpid(), range(100))) | pids == pids or len(pids) < 2
    print(session.report().deaths)
"""
    assert run(tmp_path, body) == "0\n0\n"


def test_multiprocessing_children_are_children_too(tmp_path: Path) -> None:
    body = """
import multiprocessing
def act(x):
    signal.alarm(12)
    try:
        return mh.map(abs, [-x, x])
    finally:
        mh.shutdown()
mh.map(abs, [-1])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(act, [1, 2]))
print(mh.map(abs, [-3]))
"""
    assert run(tmp_path, body) == "[[1, 1], [2, 2]]\n[3]\n"
