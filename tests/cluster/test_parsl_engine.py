"""The engine on Parsl, against real processes of Parsl's, on the loopback interface."""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import parsl
import psutil
import pytest

import manyhands as mh
from manyhands.engines.parsl.kernel import make_local_config
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, open_folder, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

LONG = 90.0
"""Seconds for what Parsl does in its own time."""

SITE = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="site",
            address="127.0.0.1",
            provider=LocalProvider(max_blocks=1),
            max_workers_per_node=2,
            cores_per_worker=0.1,
            heartbeat_period=1,
        )
    ],
    run_dir={folder!r},
    initialize_logging=False,
)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the program has loaded."""
    with parsl.load(make_local_config(2, str(tmp_path_factory.mktemp("parsl")))):
        yield "parsl://current"


@pytest.fixture
def own() -> Iterator[mh.Session]:
    """A session on workers of its own, which a test may break."""
    with mh.Session("parsl://local", workers=2) as session:
        yield session


def get_cluster(session: mh.Session) -> Any:
    return session._engine._cluster  # type: ignore[attr-defined]


def list_offspring() -> list[psutil.Process]:
    """Processes below this one, and those that Parsl has put elsewhere."""
    found = psutil.Process().children(recursive=True)
    return found + [process for process in psutil.process_iter() if _is_of_ours(process)]


def _is_of_ours(process: psutil.Process) -> bool:
    try:
        return str(os.getpid()) in process.cmdline() and "guard.py" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def find_managers(session: mh.Session) -> list[psutil.Process]:
    """Those of a session, as Parsl has started them."""
    folder = get_cluster(session)._kernel.run_dir
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if (
            "-m" in words[:3]
            and "process_worker_pool" in " ".join(words)
            and folder in " ".join(words)
        ):
            found.append(process)
    return found


def lives(process: psutil.Process | int) -> bool:
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_program_changes_one_line(shared: str) -> None:
    with mh.Session(shared) as session:
        assert (session.engine, session.workers) == ("parsl", 2)
        assert mh.map(work.square, range(1000)) == [x * x for x in range(1000)]
        assert mh.submit(sum, [mh.submit(work.square, x) for x in range(5)]).result(LIMIT) == 30
        ref = mh.put(np.arange(1e6))
        assert mh.submit(np.sum, ref).result(LIMIT) == 499999500000.0
    assert parsl.dfk().executors["manyhands"].interchange_proc.poll() is None  # it stays loaded


def test_parsls_own_apps_run_beside_a_session(shared: str) -> None:
    """A worker that a session does not need goes."""
    app = parsl.python_app(work.square)
    with mh.Session(shared) as session:
        assert session.map(work.square, range(100)) == [x * x for x in range(100)]
        assert app(7).result(LIMIT) == 49
        assert session.submit(work.square, 3).result(LIMIT) == 9


def test_modules_of_the_users_own_travel(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers' folders do not have them."""
    (tmp_path / "only_here.py").write_text("FACTOR = 7\n\ndef times(x):\n    return FACTOR * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = importlib.import_module("only_here")
    with mh.Session(shared) as session:
        assert session.map(module.times, range(5)) == [0, 7, 14, 21, 28]


def test_large_values_do_not_pass_through_the_program(shared: str) -> None:
    with mh.Session(shared) as session:
        cluster = get_cluster(session)
        session.submit(work.square, 3).result(LIMIT)
        before = cluster._wire.taken
        first = session.submit(np.ones, 10_000_000)
        second = session.submit(np.multiply, first, 2)
        assert session.submit(np.sum, second).result(LIMIT) == 20_000_000
        assert cluster._wire.taken - before < 100_000
        array = second.result(LIMIT)
        assert (array[-1], array.flags.writeable) == (2.0, False)
        assert cluster._wire.taken - before < 100_000


def test_files_go_with_what_refers_to_them(shared: str) -> None:
    with mh.Session(shared) as session:
        folder = get_cluster(session)._vault._folder

        def count() -> int:
            return sum(path.name != "probe" for path in folder.iterdir())

        for _ in range(20):
            assert len(session.submit(bytes, 1_000_000).result(LIMIT)) == 1_000_000
        ref = session.put(bytes(1_000_000))
        assert session.submit(len, ref).result(LIMIT) == 1_000_000
        inner = session.submit(_put_in_call, 1_000_000).result(LIMIT)
        wait_for(lambda: count() == 2, "those of two refs are left")
        assert session.submit(_measure_ref, inner).result(LIMIT) == 1_000_000
        del ref, inner
        wait_for(lambda: count() == 0, "none is left")
    assert not folder.exists()


def test_without_a_shared_folder_values_travel_all_the_same(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.engines.parsl.engine._PROBE", "../probe-of-another-folder")
    monkeypatch.setattr(Path, "touch", lambda self: None)
    with mh.Session(shared) as session:
        array = session.submit(np.ones, 1_000_000).result(LIMIT)
        assert session.submit(np.sum, array).result(LIMIT) == 1_000_000
        ref = session.put(array)
        assert session.submit(np.sum, ref).result(LIMIT) == 1_000_000
        kernel = get_cluster(session)._kernel
        assert not (Path(kernel.run_dir) / session._engine._settings.session).exists()  # type: ignore[attr-defined]


def test_other_versions_are_told_at_once(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.engines.cluster import versions

    here = versions.tell_versions()
    monkeypatch.setattr(versions, "tell_versions", lambda: {**here, "cloudpickle": "0.1"})
    with pytest.raises(mh.WorkerStartError, match="cloudpickle"):
        mh.Session(shared)


def test_nobody_without_the_keys_is_heard(shared: str) -> None:
    import zmq

    with mh.Session(shared) as session:
        door = get_cluster(session)._visits._door
        for keys in (zmq.curve_keypair(), None):
            context = zmq.Context()
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 0
            if keys is not None:
                dealer.curve_serverkey = door.server
                dealer.curve_publickey, dealer.curve_secretkey = keys
            monitor = dealer.get_monitor_socket()
            dealer.connect(f"tcp://127.0.0.1:{door.port}")
            seen = set()
            while not seen & {
                zmq.EVENT_DISCONNECTED,
                zmq.EVENT_HANDSHAKE_FAILED_AUTH,
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
                zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            }:
                assert monitor.poll(1000 * LIMIT)
                seen.add(int(zmq.utils.monitor.recv_monitor_message(monitor)["event"]))
            assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in seen
            dealer.disable_monitor()
            monitor.close()
            dealer.close()
            context.term()
        assert session.submit(work.square, 3).result(LIMIT) == 9


def test_workers_of_its_own_go_with_the_session() -> None:
    before = list_offspring()  # of the cluster that tests share
    with mh.Session("parsl://local", workers=2) as session:
        assert session.workers == 2
        pids = set(session.map(lambda _: os.getpid(), range(8), batch=1))
        assert os.getpid() not in pids
        folder = Path(get_cluster(session)._kernel.run_dir).parent
        port = get_cluster(session)._visits._door.port
        there = [process for process in list_offspring() if process not in before]
        listening = {
            connection.laddr
            for process in [psutil.Process(), *there]
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        assert port in {address.port for address in listening}
    wait_for(lambda: not any(map(lives, [*pids, *there])), "its processes have ended")
    assert not folder.exists()
    ports = {
        connection.laddr.port
        for connection in psutil.Process().net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert port not in ports


@pytest.mark.parametrize("kind", ["module", "file"])
def test_a_profile(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started for the session, as often as there are some, and ended with it."""
    path = tmp_path / "site_of_a_test.py"
    path.write_text(SITE.format(folder=str(tmp_path / "runs")))
    # Parsl starts its scripts by their names.
    bin_folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_folder, os.environ["PATH"]]))
    monkeypatch.syspath_prepend(tmp_path)
    address = "site_of_a_test" if kind == "module" else str(path)
    for _ in range(2):
        with mh.Session(f"parsl://{address}") as session:
            pids = set(session.map(lambda _: os.getpid(), range(8), batch=1))
            assert session.workers == 2
        wait_for(lambda pids=pids: not any(map(lives, pids)), "its workers have ended", LONG)


def test_a_wrong_profile_is_told() -> None:
    with pytest.raises(mh.InvalidArgumentError, match="no_such_site"):
        mh.Session("parsl://no_such_site")


def test_a_killed_worker_costs_its_own_call_one_attempt(own: mh.Session) -> None:
    with open_folder() as folder:
        gate = work.Gate(folder)
        running = own.submit(_tell_and_enter, str(folder))
        wait_for(gate.count_entered, "the call has begun")
        others = [mh.task(work.square, worker_retries=0).submit(x) for x in range(50)]
        os.kill(int(work.Diary(folder).read()[0]), signal.SIGKILL)
        gate.open()
        assert running.result(LIMIT) == "through"
        assert mh.gather(others, timeout=LIMIT) == [x * x for x in range(50)]
        assert own.report().deaths == 1
        assert len(work.Diary(folder).read()) == 2


def test_a_killed_manager_is_replaced(own: mh.Session) -> None:
    """It takes all its workers with it, and nothing of it stays."""
    with open_folder() as folder:
        gate = work.Gate(folder)
        running = own.submit(_tell_and_enter, str(folder))
        wait_for(gate.count_entered, "the call has begun")
        managers = find_managers(own)
        below = [child for manager in managers for child in manager.children(recursive=True)]
        assert managers
        assert below
        for manager in managers:
            manager.kill()
        gate.open()
        wait_for(lambda: not any(map(lives, below)), "what it had started has ended", LONG)
        assert running.result(LONG) == "through"
        assert own.map(work.square, range(50)) == [x * x for x in range(50)]


def test_a_killed_interchange_ends_all_waits(own: mh.Session) -> None:
    with open_folder() as folder:
        gate = work.Gate(folder)
        futures = [own.submit(gate.enter, x) for x in range(10)]
        wait_for(gate.count_entered, "a call has begun")
        get_cluster(own)._kernel.executor.interchange_proc.kill()
        for future in futures:
            error = future.exception(LIMIT)
            assert isinstance(error, mh.WorkerDiedError)
            assert "interchange" in str(error)
        with pytest.raises(mh.WorkerDiedError, match="interchange"):
            own.submit(work.square, 3).result(LIMIT)


def test_no_block_of_workers_ends_all_waits(
    own: mh.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.engines.parsl.visits.PATIENCE_SECONDS", 1.0)
    kernel = get_cluster(own)._kernel
    kernel.executor.provider.max_blocks = 0  # Parsl asks for no other one
    with open_folder() as folder:
        gate = work.Gate(folder)
        future = own.submit(gate.enter)
        wait_for(gate.count_entered, "the call has begun")
        kernel.executor.scale_in_facade(1)
        error = future.exception(LONG)
        assert isinstance(error, mh.WorkerDiedError)
        assert "no block of workers for 1 s" in str(error)


def test_a_killed_program_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, manyhands as mh\n"
        "from manyhands.testing import work\n"
        "session = mh.Session('parsl://local', workers=2)\n"
        "print(session._engine._cluster._kernel.run_dir, flush=True)\n"
        "print(session._engine._settings.session, flush=True)\n"
        "session.submit(work.spin, sys.argv[1]).result()\n"
    )
    with open_folder() as folder:
        program = subprocess.Popen(
            [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        run_dir, name = (program.stdout.readline().strip() for _ in range(2))
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-began"), "the call has begun", LONG)

        def list_left() -> list[int]:
            return [
                process.pid
                for process in psutil.process_iter(["cmdline", "environ"])
                if Path(run_dir).parent.name in " ".join(process.info["cmdline"] or [])
                or (process.info["environ"] or {}).get("JOBNAME", "") in scripts
            ]

        scripts = {path.stem for path in Path(run_dir).rglob("parsl.*.sh")}
        assert len(list_left()) >= 4  # a guard, a manager and two workers at least
        program.kill()
        program.wait(LIMIT)
        program.stdout.close()
        wait_for(lambda: not any(map(lives, list_left())), "its processes have ended", LIMIT)
        wait_for(lambda: not Path(run_dir).parent.exists(), "its files are gone", LIMIT)
        assert mark.count("spin-ended")  # the call was interrupted before
        assert list(Path(tempfile.gettempdir()).glob(f"{name}*")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"pin": True},
        {"min_workers": 1},
        {"max_calls_per_worker": 5},
        {"resources": {"seat": 1}},
        {"gpus": 1},
        {"memory": "1GB"},
        {"store": "1GB"},
    ],
)
def test_what_it_cannot_do_is_refused(shared: str, options: dict[str, Any]) -> None:
    with pytest.raises(mh.UnsupportedError, match=r"'parsl'.*'local'|'local'"):
        mh.Session(shared, **options)


def _put_in_call(size: int) -> Any:
    return mh.put(bytes(size))


def _measure_ref(ref: Any) -> int:
    return len(ref)


def _tell_and_enter(folder: str) -> str:
    work.Diary(folder).write(os.getpid())
    return str(work.Gate(folder).enter("through"))
