"""The engine on Dask, against a real scheduler and real workers, each a process of its own."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from distributed import Client

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.checks import LIMIT, open_folder, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


class Cluster:
    """A scheduler and its workers, started as their users start them."""

    def __init__(self, folder: Path, workers: int = 2, **environment: str) -> None:
        self._folder = folder
        self._environment = {**os.environ, "DASK_DISTRIBUTED__DASHBOARD__LINK": "", **environment}
        self.processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        )
        wait_for(file.exists, "the scheduler is up")
        wait_for(lambda: file.read_bytes().endswith(b"}"), "its address is written")
        self.address = str(json.loads(file.read_text())["address"])
        self.workers = [self.add_worker() for _ in range(workers)]
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=LIMIT)

    def add_worker(self) -> subprocess.Popen[bytes]:
        """One more worker, of one thread, without anybody who restarts it."""
        return self._start(
            "worker",
            self.address,
            "--host",
            "127.0.0.1",
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            str(self._folder),
        )

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"log-{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    @property
    def url(self) -> str:
        return "dask://" + self.address.removeprefix("tcp://")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(LIMIT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One that a test may break."""
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def test_the_program_changes_one_line(shared: Cluster) -> None:
    with mh.Session(shared.url) as session:
        assert (session.engine, session.workers) == ("dask", 2)
        assert mh.map(work.square, range(1000)) == [x * x for x in range(1000)]
        assert mh.submit(sum, [mh.submit(work.square, x) for x in range(5)]).result(LIMIT) == 30
        ref = mh.put(np.arange(1e6))
        assert mh.submit(np.sum, ref).result(LIMIT) == 499999500000.0


def test_the_environment_may_name_it(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_ENGINE", shared.url)
    with mh.Session() as session:
        assert session.engine == "dask"
        assert session.submit(work.square, 3).result(LIMIT) == 9


def test_a_session_may_use_fewer_workers(shared: Cluster) -> None:
    with mh.Session(shared.url, workers=1) as session, open_folder() as folder:
        diary = work.Diary(folder)
        session.map(diary.stay, [0.02] * 10, range(10), batch=1)
        assert diary.count_most() == 1


def test_modules_of_the_users_own_travel(
    shared: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers' folders do not have them."""
    (tmp_path / "only_here.py").write_text("FACTOR = 7\n\ndef times(x):\n    return FACTOR * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = importlib.import_module("only_here")
    with mh.Session(shared.url) as session:
        assert session.map(module.times, range(5)) == [0, 7, 14, 21, 28]


def test_a_result_stays_where_it_was_made(shared: Cluster) -> None:
    """A value that goes from call to call does not pass through the program."""

    def make(size: int) -> Any:
        return np.ones(size)

    with mh.Session(shared.url) as session:
        future = session.submit(make, 1_000_000)
        for _ in range(5):
            future = session.submit(np.negative, future)
        total = session.submit(np.sum, future)
        assert total.result(LIMIT) == -1_000_000
        assert future._value.packed is None  # the program has not got it


def test_a_lost_worker_costs_one_attempt(cluster: Cluster) -> None:
    """Those that had not begun are not charged for it, and what it had made is made again."""
    with mh.Session(cluster.url) as session, open_folder() as folder:
        early = [session.submit(np.full, 50_000, float(x)) for x in range(20)]
        mh.wait(early, timeout=LIMIT)
        gate = work.Gate(folder)
        running = [session.submit(gate.enter, x) for x in range(2)]
        waiting = [mh.task(work.square, worker_retries=0).submit(x) for x in range(50)]
        wait_for(lambda: gate.count_entered() >= 2, "both workers are at a call")
        cluster.workers[0].kill()
        cluster.add_worker()
        wait_for(lambda: gate.count_entered() >= 3, "the call that was lost runs again")
        gate.open()
        assert mh.gather(running, timeout=LIMIT) == [0, 1]
        assert mh.gather(waiting, timeout=LIMIT) == [x * x for x in range(50)]
        assert [float(x.result(LIMIT)[0]) for x in early] == [float(x) for x in range(20)]
        assert session.report().deaths >= 1


def test_a_lost_scheduler_ends_all_waits(cluster: Cluster) -> None:
    with mh.Session(cluster.url) as session, open_folder() as folder:
        gate = work.Gate(folder)
        futures = [session.submit(gate.enter, x) for x in range(10)]
        wait_for(gate.count_entered, "a call has begun")
        cluster.scheduler.send_signal(signal.SIGKILL)
        begin = monotonic()
        for future in futures:
            assert isinstance(future.exception(60), mh.WorkerDiedError)
        assert monotonic() - begin < 60
        with pytest.raises(mh.WorkerDiedError, match="scheduler"):
            session.submit(work.square, 3).result(60)


def test_a_cluster_without_workers_ends_all_waits(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.engines.dask.engine.PATIENCE_SECONDS", 1.0)
    with mh.Session(cluster.url) as session, open_folder() as folder:
        gate = work.Gate(folder)
        futures = [session.submit(gate.enter, x) for x in range(10)]
        wait_for(gate.count_entered, "a call has begun")
        for worker in cluster.workers:
            worker.kill()
        for future in futures:
            assert isinstance(future.exception(LIMIT), mh.WorkerError)
        with pytest.raises(mh.WorkerStartError, match="no worker for 1 s"):
            session.submit(work.square, 3).result(LIMIT)
        cluster.add_worker()
        wait_for(lambda: not session.submit(work.square, 3).exception(LIMIT), "it works again")


def test_the_scheduler_keeps_no_messages(shared: Cluster) -> None:
    with mh.Session(shared.url) as session, Client(shared.address, set_as_default=False) as client:
        session.map(work.square, range(50), batch=1)
        kept = client.run_on_scheduler(
            lambda dask_scheduler: {
                topic: len(events)
                for topic, events in dask_scheduler.get_events().items()
                if str(topic).startswith("manyhands-")
            }
        )
        assert kept == {}


def test_a_dead_program_leaves_no_call_behind(cluster: Cluster, tmp_path: Path) -> None:
    """Calls of a program that was killed are interrupted, and the workers are free again."""
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, manyhands as mh\n"
        "from manyhands.testing import work\n"
        "session = mh.Session(sys.argv[1])\n"
        "session.submit(work.spin, sys.argv[2]).result()\n"
    )
    with open_folder() as folder:
        program = subprocess.Popen([sys.executable, str(script), cluster.url, str(folder)])
        mark = work.Mark(folder)
        wait_for(lambda: mark.count("spin-began"), "the call has begun")
        program.kill()
        program.wait(LIMIT)
        wait_for(lambda: mark.count("spin-ended"), "it was interrupted")
        with mh.Session(cluster.url) as session:
            assert session.map(work.square, range(10)) == [x * x for x in range(10)]


def test_nobody_there() -> None:
    with pytest.raises(mh.WorkerStartError, match=r"no Dask scheduler answers at '127\.0\.0\.1:1'"):
        mh.Session("dask://127.0.0.1:1")


def test_other_versions_are_told_at_once(shared: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.engines.cluster import versions

    here = versions.tell_versions()
    monkeypatch.setattr(versions, "tell_versions", lambda: {**here, "cloudpickle": "0.1"})
    with pytest.raises(mh.WorkerStartError, match="cloudpickle"):
        mh.Session(shared.url)


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
def test_what_it_cannot_do_is_refused(shared: Cluster, options: dict[str, Any]) -> None:
    with pytest.raises(mh.UnsupportedError, match=r"'dask'.*'local'|'local'"):
        mh.Session(shared.url, **options)


def test_calls_ask_for_no_more_than_it_has(shared: Cluster) -> None:
    with mh.Session(shared.url) as session:
        error = mh.task(work.square, cpus=2).submit(3).exception(LIMIT)
        assert isinstance(error, mh.UnsupportedError)
        assert "'local' and 'threads'" in str(error)
        with pytest.raises(mh.UnsupportedError, match="share no memory"):
            session.put([1], writable=True)
        with pytest.raises(mh.UnsupportedError, match="actors"):
            mh.actor(work.Diary).start("folder")
        with pytest.raises(mh.UnsupportedError, match="are the cluster's"):
            session.restart_workers()


def test_a_cluster_of_its_own_goes_with_the_session() -> None:
    with mh.Session("dask://local", workers=2) as session:
        assert session.workers == 2
        pids = set(session.map(lambda _: os.getpid(), range(8), batch=1))
        assert os.getpid() not in pids
    wait_for(lambda: not any(_lives(pid) for pid in pids), "its processes ended")


def test_a_cluster_of_its_own_gets_its_workers_back() -> None:
    """Also one whose process dies as it starts, which Dask gives up."""
    with mh.Session("dask://local", workers=1) as session:
        ours: Any = session._engine._cluster._local  # type: ignore[attr-defined]
        last = monotonic()

        def kill() -> bool:
            nonlocal last
            for pid in _list_children(ours._process.pid):
                last = monotonic()
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return monotonic() - last > 1

        wait_for(kill, "Dask has given it up", 60)
        assert session.submit(work.square, 3).result(60) == 9


def test_a_cluster_of_its_own_needs_no_guard_and_ends_with_a_killed_program(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import os, signal, sys\n"
        "import manyhands as mh\n"
        "print('begun', flush=True)\n"
        "with mh.Session('dask://local', workers=2) as session:\n"
        "    pids = set(session.map(lambda _: os.getpid(), range(8), batch=1))\n"
        "    print(*pids, session._engine._cluster._local._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    begun, pids = done.stdout.splitlines()
    assert begun == "begun"
    wait_for(lambda: not any(_lives(int(pid)) for pid in pids.split()), "its processes ended", 30)


def _list_children(pid: int) -> list[int]:
    """Worker processes of a cluster's own; `multiprocessing` keeps one more, which tracks resources."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for file in children for child in file.read_text().split()]
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
