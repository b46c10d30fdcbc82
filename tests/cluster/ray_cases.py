"""Cases of the engine on Ray; `test_ray_engine.py` runs each in namespaces of its own, and leaves nothing of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

import manyhands as mh
from manyhands.engines.ray import connection
from manyhands.testing import work
from manyhands.testing.checks import open_folder, wait_for

import ray  # isort: skip

LIMIT = 60.0
"""Seconds within which anything has to come about."""

HOST = "127.0.0.1"

CLIENT_PORT = 10001

ADDRESSES = {"near": "ray://auto", "far": f"ray://{HOST}:{CLIENT_PORT}"}


KEEPER = """
import json, sys
from ray.cluster_utils import Cluster

host, port, nodes = sys.argv[1:]
cluster = Cluster()
head = cluster.add_node(
    num_cpus=0, node_ip_address=host, include_dashboard=False, ray_client_server_port=int(port) or None
)
others = [cluster.add_node(num_cpus=2, node_ip_address=host) for _ in range(int(nodes))]
pids = {kind: [entry.process.pid for entry in entries] for kind, entries in head.all_processes.items()}
print("@" + json.dumps(pids), flush=True)
for _ in sys.stdin:
    cluster.remove_node(others.pop(), allow_graceful=False)
    others.append(cluster.add_node(num_cpus=2, node_ip_address=host))
    print("@null", flush=True)
"""
"""Keeps a cluster, in a process of its own as clusters of others are; for each line it replaces a node."""


class Nodes:
    """A head without cpus, and nodes with two each."""

    def __init__(self, *, is_far: bool, nodes: int = 1) -> None:
        arguments = [HOST, str(CLIENT_PORT if is_far else 0), str(nodes)]
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pids = self._read()

    def _read(self) -> Any:
        assert self._keeper.stdout is not None
        for line in self._keeper.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise AssertionError("the cluster has not come up")

    def lose(self) -> None:
        """A node is gone, with all of its processes, and another one comes."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write("\n")
        self._keeper.stdin.flush()
        self._read()

    def signal_head(self, number: int, *kinds: str) -> None:
        """Send a signal to the head's processes of these kinds; of all kinds, if none is given."""
        for kind in kinds or list(self._pids):
            for pid in self._pids[kind]:
                os.kill(pid, number)

    def close(self) -> None:
        """What it has begun ends with it."""
        self._keeper.kill()
        self._keeper.communicate()


@pytest.fixture
def way() -> str:
    """How the program reaches the cluster: as a process of one of its nodes, or by the client server."""
    return os.environ["MANYHANDS_WAY"]


@pytest.fixture
def start(way: str) -> Iterator[Callable[..., Nodes]]:
    started = []

    def start(**options: Any) -> Nodes:
        started.append(Nodes(is_far=way == "far", **options))
        return started[-1]

    yield start
    for nodes in started:
        nodes.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PULSE_SECONDS", 0.5)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 5.0)


def list_processes() -> list[str]:
    """The names of those of this namespace that live."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                stat = (path / "stat").read_text()
                name, _, rest = stat.partition("(")[2].rpartition(")")
                if rest.split()[0] != "Z":
                    found.append(name)
    return found


def list_rays() -> list[str]:
    """The names of Ray's processes; its workers are named after it too."""
    kinds = ("gcs_server", "raylet", "ray::")
    return [name for name in list_processes() if name.startswith(kinds)]


def list_listeners() -> set[str]:
    """The addresses that sockets of this network listen at."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == "0A":
                found.add(local.partition(":")[0])
    return found


def make(size: int, value: float) -> Any:
    return np.full(size, value)


def count_to(end: int) -> Iterator[int]:
    yield from range(end)


def find_node(_: int) -> str:
    return str(ray.get_runtime_context().get_node_id())


def test_the_program_changes_one_line(way: str, start: Callable[..., Nodes]) -> None:
    start(nodes=2)
    with mh.Session(ADDRESSES[way]) as session:
        assert (session.engine, session.workers) == ("ray", 4)
        assert mh.map(work.square, range(1000)) == [x * x for x in range(1000)]
        assert mh.submit(sum, [mh.submit(work.square, x) for x in range(5)]).result(LIMIT) == 30
        ref = mh.put(np.arange(1e6))
        assert mh.submit(np.sum, ref).result(LIMIT) == 499999500000.0
        assert list(mh.task(count_to).stream(3)) == [0, 1, 2]
        wait_for(
            lambda: len(set(mh.map(find_node, range(40), batch=1))) == 2, "both nodes have calls"
        )


def test_a_lost_worker_costs_one_attempt(way: str, start: Callable[..., Nodes]) -> None:
    start()
    with mh.Session(ADDRESSES[way]) as session, open_folder() as folder:
        gate, diary = work.Gate(folder), work.Diary(folder)
        running = [session.submit(enter_and_tell, gate, diary, x) for x in range(2)]
        waiting = [mh.task(work.square, worker_retries=0).submit(x) for x in range(50)]
        wait_for(lambda: gate.count_entered() >= 2, "both workers are at a call")
        os.kill(int(diary.read()[0]), signal.SIGKILL)
        wait_for(lambda: gate.count_entered() >= 3, "the call that was lost runs again", LIMIT)
        gate.open()
        assert mh.gather(running, timeout=LIMIT) == [0, 1]
        assert mh.gather(waiting, timeout=LIMIT) == [x * x for x in range(50)]
        assert session.report().deaths == 1


def enter_and_tell(gate: work.Gate, diary: work.Diary, value: int) -> int:
    diary.write(work.get_pid())
    gate.enter(value)
    return value


def test_what_was_on_a_lost_node_is_made_again(way: str, start: Callable[..., Nodes]) -> None:
    """Results that the program asks for, and those that are inputs; what runs there is tried again."""
    nodes = start()
    with mh.Session(ADDRESSES[way]) as session, open_folder() as folder:
        stored = session.put(np.ones(50_000))
        made = [session.submit(make, 50_000, float(x)) for x in range(4)]
        further = [session.submit(np.negative, future) for future in made]
        mh.wait(made + further, timeout=LIMIT)
        gate = work.Gate(folder)
        running = session.submit(gate.enter, 5)
        wait_for(gate.count_entered, "a call has begun")
        nodes.lose()
        gate.open()
        assert session.submit(np.add, further[0], further[3]).result(LIMIT)[0] == -3
        assert [float(future.result()[0]) for future in made] == [0, 1, 2, 3]
        assert [float(future.result()[0]) for future in further] == [0, -1, -2, -3]
        assert session.submit(np.sum, stored).result(LIMIT) == 50_000
        assert running.result(LIMIT) == 5


def check_that_all_ends(session: mh.Session, futures: list[Any], made: Any) -> None:
    begin = monotonic()
    for future in futures:
        error = future.exception(LIMIT)
        assert isinstance(error, mh.WorkerDiedError)
        assert "the Ray cluster at" in str(error)
    with pytest.raises(mh.WorkerDiedError, match="the Ray cluster at"):
        session.submit(work.square, 3).result(LIMIT)
    with pytest.raises(mh.WorkerDiedError, match="the Ray cluster at"):
        made.result(LIMIT)
    with pytest.raises(mh.WorkerDiedError, match="the Ray cluster at"):
        session.put(np.ones(100_000))
    session.close()
    assert monotonic() - begin < LIMIT


def submit_some(session: mh.Session, folder: Path) -> tuple[list[Any], Any]:
    made = session.submit(make, 50_000, 1.0)
    mh.wait([made], timeout=LIMIT)
    gate = work.Gate(folder)
    futures = [session.submit(gate.enter, x) for x in range(5)]
    wait_for(gate.count_entered, "a call has begun")
    return futures, made


def test_a_lost_head_ends_all_waits(way: str, start: Callable[..., Nodes]) -> None:
    nodes = start()
    with mh.Session(ADDRESSES[way]) as session, open_folder() as folder:
        futures, made = submit_some(session, folder)
        nodes.signal_head(signal.SIGKILL, "gcs_server")
        check_that_all_ends(session, futures, made)


@pytest.mark.usefixtures("impatient")
def test_a_silent_cluster_ends_all_waits(way: str, start: Callable[..., Nodes]) -> None:
    nodes = start()
    with mh.Session(ADDRESSES[way]) as session, open_folder() as folder:
        futures, made = submit_some(session, folder)
        nodes.signal_head(signal.SIGSTOP)
        try:
            check_that_all_ends(session, futures, made)
        finally:
            nodes.signal_head(signal.SIGCONT)


@pytest.mark.usefixtures("impatient")
def test_a_cut_network_ends_all_waits(way: str, start: Callable[..., Nodes]) -> None:
    start()
    with mh.Session(ADDRESSES[way]) as session, open_folder() as folder:
        futures, made = submit_some(session, folder)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        try:
            check_that_all_ends(session, futures, made)
        finally:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def test_nobody_there() -> None:
    with pytest.raises(mh.WorkerStartError, match="no Ray cluster answers at 'auto'"):
        mh.Session("ray://auto")


def test_a_cluster_of_its_own_listens_here_alone_and_goes_with_the_session() -> None:
    with mh.Session("ray://local", workers=2) as session:
        assert session.workers == 2
        assert session.map(work.square, range(10)) == [x * x for x in range(10)]
        found = list_listeners()
        assert found
        assert found <= {"0100007F", "00000000000000000000000001000000", IPV4_IN_IPV6}, found
    wait_for(lambda: not list_rays(), "its processes ended", LIMIT)
    assert not list_listeners()


IPV4_IN_IPV6 = "0000000000000000FFFF00000100007F"
"""The loopback interface's address, as a socket of both protocols has it."""


PROGRAM = """
import os, sys, threading
import manyhands as mh
from manyhands.testing import work

def work_on():
    global session
    session = mh.Session("ray://local", workers=2)

thread = threading.Thread(target=work_on)
thread.start()
thread.join()
print(session.submit(os._exit, 3).exception(60).__class__.__name__, flush=True)
print(session.submit(work.square, 3).result(60), flush=True)
sys.stdin.readline()
"""
"""Opens its session in a thread that ends; a worker dies meanwhile."""


def start_program() -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert [program.stdout.readline() for _ in range(2)] == ["WorkerDiedError\n", "9\n"]
    return program


def test_what_ray_prints_of_deaths_is_not_shown() -> None:
    program = start_program()
    assert program.communicate("\n", timeout=LIMIT) == ("", "")
    assert program.returncode == 0
    wait_for(lambda: not list_rays(), "its processes ended", LIMIT)


def test_a_dead_program_leaves_no_process() -> None:
    program = start_program()
    assert list_rays()
    program.kill()
    program.communicate(timeout=LIMIT)
    # Two of Ray's own processes wait for the head for a minute.
    wait_for(lambda: not list_rays(), "its processes ended", 2 * LIMIT)
