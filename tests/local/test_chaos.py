"""Chaos: calls of all kinds on one session whose workers are killed at random; what comes of each is right.

`MANYHANDS_CHAOS_SEEDS=1000-1100 pytest tests/local/test_chaos.py` runs other seeds. A seed says what is done, and how
often workers are killed; what meets what differs from run to run.
"""

import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.engines.local.process import WorkerProcess
from manyhands.testing.checks import wait_for
from tests.local.chaos_clients import WEIGHTS, Client
from tests.local.chaos_rules import Witness
from tests.local.processes import is_alive

SEEDS_VARIABLE = "MANYHANDS_CHAOS_SEEDS"

CALLS = 10_000
"""Calls of one seed."""

CLIENTS = 3

SILENCE_SECONDS = 25.0
"""How long no operation may end before the run is said to hang."""

LIMIT_SECONDS = 100.0
"""Of one seed, on a slow and crowded machine."""


def read_seeds() -> list[int]:
    """The seeds to run: five, or those that the environment names."""
    seeds: list[int] = []
    for part in os.environ.get(SEEDS_VARIABLE, "1-5").split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


class Killer:
    """A thread that kills workers, or has them stand still for a moment.

    Parameters
    ----------
    witness
        Is told before anything is done.
    chance
    pause
        Seconds between two deeds, on the average.
    templates_share
        How many of the deeds are done to the template, from 0 to 1.
    """

    SIGNALS = (
        signal.SIGKILL,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGTERM,
        signal.SIGABRT,
        signal.SIGSTOP,
    )

    def __init__(
        self, witness: Witness, chance: random.Random, pause: float, templates_share: float
    ) -> None:
        self._witness = witness
        self._chance = chance
        self._pause = pause
        self._templates_share = templates_share
        self._known: dict[int, str] = {}  # workers of this session, and when they began
        self._is_over = threading.Event()
        self._newborn = 0  # the last one that was not ready when it was killed
        self.templates = 0
        self.thread = threading.Thread(target=self._run, name="killer", daemon=True)

    def stop(self) -> None:
        self._is_over.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            while self._wait():
                if self._chance.random() < self._templates_share:
                    self._strike_template()
                else:
                    self._strike_worker()
        except BaseException:
            self._witness.blame(f"the killer:\n{traceback.format_exc()}")

    def _wait(self) -> bool:
        """Let some time pass, and some work be done, however slow the machine is; False at the end."""
        goal = self._witness.delivered + self._chance.randrange(15)
        limit = time.monotonic() + 0.5
        while not self._is_over.wait(self._chance.expovariate(1 / self._pause)):
            if self._witness.delivered >= goal or time.monotonic() > limit:
                return True
        return False

    def _strike_worker(self) -> None:
        processes = [one for one in list(self._witness.engine.processes.values()) if one.pid]
        if not processes:
            return
        process = self._chance.choice(processes)
        if not process.is_ready:
            # Three in a row that die at birth mean that workers cannot start.
            if not any(one.is_ready and one.number > self._newborn for one in processes):
                return
            self._newborn = process.number
        pid = process.pid
        with open_process(pid) as fd:
            if fd is None or not self._is_worker(pid):
                return
            number = self._chance.choice(self.SIGNALS)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by now
                if number != signal.SIGSTOP:
                    self._witness.struck[pid].add(number)
                    signal.pidfd_send_signal(fd, number)
                    return
                signal.pidfd_send_signal(fd, number)
                try:
                    self._is_over.wait(self._chance.random() * 0.1)
                finally:
                    signal.pidfd_send_signal(fd, signal.SIGCONT)

    def _is_worker(self, pid: int) -> bool:
        """Whether the process is a worker of this session, and no other that got its number since."""
        parent, began = read_stat(pid)
        if parent == self._witness.engine.staff.template.pid:
            self._known[pid] = began
        return self._known.get(pid) == began

    def _strike_template(self) -> None:
        engine = self._witness.engine
        pid = engine.staff.template.pid
        if engine.staff._stillbirths or read_stat(pid)[0] != os.getpid():
            return
        self._witness.lost.update(one.pid for one in list(engine.processes.values()) if one.pid)
        self.templates += 1
        number = self._chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def open_process(pid: int) -> Iterator[int | None]:
    """A descriptor of a process, which means that one even where its number is another's by now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def read_stat(pid: int) -> tuple[int, str]:
    """A process's parent, and when it began."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, ""
    return int(fields[1]), fields[19]


class Warden:
    """A thread that has the leading thread validate the pool again and again."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._is_over = threading.Event()
        self.looks = 0
        self.thread = threading.Thread(target=self._run, name="warden", daemon=True)

    def stop(self) -> None:
        self._is_over.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(0.03):
            fault = self.look()
            if fault is not None:
                self._witness.blame(f"the pool is torn:\n{fault}")
                return

    def look(self) -> str | None:
        """What is wrong with the pool's state; a call that is being queued beside the leader is nothing."""
        fault = None
        for _ in range(5):
            try:
                self._witness.engine.driver.run(self._witness.engine.pool.validate)
            except AssertionError:
                fault = traceback.format_exc()
            else:
                self.looks += 1
                return None
        return fault


@contextlib.contextmanager
def see_ends(witness: Witness) -> Iterator[None]:
    """Let the witness know of workers that the engine itself kills."""
    kill, close = WorkerProcess.kill, WorkerProcess.close

    def see_kill(process: WorkerProcess) -> None:
        if process._life >= 0 and process.pid is not None:
            witness.ended.add(process.pid)
            witness.kills += not process.is_orphan
        kill(process)

    def see_close(process: WorkerProcess) -> None:
        if process._life >= 0:  # it has ended already, or nobody says how it will
            os.close(process._life)
            process._life = -1
        close(process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerProcess, "kill", see_kill)
        patch.setattr(WorkerProcess, "close", see_close)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("seed", read_seeds())
def test_every_call_ends_by_its_rule(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    workers = chance.randrange(2, 5)
    pause, templates_share = chance.choice([0.01, 0.03, 0.1]), chance.choice([0, 0.01, 0.05])
    weights = {name: weight * chance.choice([0, 0.3, 1, 1, 3]) for name, weight in WEIGHTS.items()}
    weights["map"] += 0.1
    options: dict[str, Any] = {}
    if chance.random() < 0.2:
        options["max_calls_per_worker"] = chance.choice([20, 300])
    if chance.random() < 0.2:
        options["min_workers"] = chance.randrange(workers)
    with mh.Session(
        "local", workers=workers, resources={"licence": 1, "seat": 2}, gpus=2, **options
    ) as session:
        session.map(abs, range(5))  # a template that ends before any worker is ready is an error
        witness = Witness(session, str(tmp_path))
        clients = [
            Client(witness, f"{seed}/{place}", CALLS // CLIENTS, weights, workers)
            for place in range(CLIENTS)
        ]
        killer, warden = Killer(witness, chance, pause, templates_share), Warden(witness)
        with see_ends(witness):
            try:
                watch(
                    witness, clients, killer, warden, f"seed {seed}, {workers} workers, {pause} s"
                )
            finally:  # their results are views of what the session stores
                witness.operations.clear()
                clients.clear()
        print(
            f"seed {seed}: {witness.calls} calls; {len(witness.struck)} workers and {killer.templates} templates "
            f"killed, {witness.kills}/{witness.excuses} by the engine, {warden.looks} looks, "
            f"{session.report().retried} retried, {dict(witness.ends)}"
        )


def watch(
    witness: Witness, clients: list[Client], killer: Killer, warden: Warden, what: str
) -> None:
    """Run the clients to their end, or to the first fault, and look whether all is as it must be then."""
    threads = [*clients, killer, warden]
    for one in threads:
        one.thread.start()
    begun = changed = time.monotonic()
    judged = 0
    while any(client.thread.is_alive() for client in clients) and not witness.faults:
        for client in clients:
            client.thread.join(0.05)
        now = time.monotonic()
        if witness.judged != judged:
            judged, changed = witness.judged, now
        if now - changed > SILENCE_SECONDS or now - begun > LIMIT_SECONDS:
            doing = [client.doing for client in clients if client.thread.is_alive()]
            witness.blame(f"it hangs, {now - begun:.0f} s after its begin, at {doing}")
    report = dump(witness) if witness.faults else ""
    killer.stop()
    if not witness.faults:
        warden.stop()
        report = check_end(witness)
    witness.is_over = True
    if witness.faults:
        faults = "\n\n".join(witness.faults[:10])
        pytest.fail(f"{what}: {len(witness.faults)} faults\n{faults}\n\n{report}", pytrace=False)


def check_end(witness: Witness) -> str:
    """Hold what is left against what may be left; the state as text where a fault was found."""
    session: Any = witness.session
    engine = witness.engine

    def is_still() -> bool:
        engine.driver.run(lambda: None)
        return not engine.pool.is_busy()

    for life in session._troupe:  # those of calls whose workers died
        session.stop_actor(life.number, kill=True)
    try:
        wait_for(is_still, "nothing runs any more", 15)
        assert session.map(abs, range(-1000, 0)) == list(range(1000, 0, -1))
        engine.driver.run(engine.pool.validate)
        wait_for(lambda: not list_remains(witness), "nothing is left over", 10)
    except (AssertionError, TimeoutError):
        witness.blame(f"{traceback.format_exc()}\n{list_remains(witness)}")
    if sum(one.heard == 0 for one in witness.operations if one.future and not one.numbers):
        witness.blame("some operations never told that they ended")
    if witness.kills > witness.excuses:
        witness.blame(f"{witness.kills} workers were killed, and {witness.excuses} had to be")
    log = witness.read_log()
    for one in witness.operations:
        if one.heard > 1:
            witness.blame(f"{one!r} told {one.heard} times that it had ended")
        witness.faults.extend(one.check_log(log))
    return dump(witness) if witness.faults else ""


def list_remains(witness: Witness) -> dict[str, Any]:
    """What the session and its engine still keep of calls that have ended."""
    session: Any = witness.session
    engine, ledger = witness.engine, session._ledger
    witness.operations = [one for one in witness.operations if one.future is None or one.what]
    gc.collect()
    found: dict[str, Any] = {}

    def look() -> None:
        engine.limits.check()
        pool, capacity = engine.pool, engine.pool.capacity
        found.update(
            futures=dict(session._futures),
            children=dict(session._children),
            kept=dict(ledger._kept),
            delayed=dict(ledger._delayed),
            inputs=dict(ledger._inputs),
            records=dict(ledger._life._records) if ledger._life else {},
            dependents=dict(ledger._life._dependents) if ledger._life else {},
            queued=dict(pool._queued),
            inflight={n: w.inflight for n, w in pool.workers.items() if w.inflight or w.joined},
            endings=dict(engine.limits.endings),
            timed=dict(engine.limits._timed),
            outcomes={n: home.ended for n, home in engine.nesting._homes.items() if home.ended},
            items={n: home.items for n, home in engine.nesting._homes.items() if home.items},
            homes=engine.nesting._homes.keys() - engine.processes.keys(),
            actors=dict(engine.stages._actors),
            cpus=capacity._cpu_shares - capacity._free_cpus,
            resources={
                name: shares
                for name, shares in capacity._named_shares.items()
                if capacity._free_named[name] != shares
            },
            blocked=[n for n, w in pool.workers.items() if w.is_blocked],
        )

    engine.driver.run(look)
    return {name: rest for name, rest in found.items() if rest}


def dump(witness: Witness) -> str:
    """All that is known of a session that hangs, without its leading thread, which may be what hangs."""
    engine = witness.engine
    pool = engine.pool
    lines = ["--- the pool"]
    names = ("queue", "_arrivals", "_orphans", "_resuming", "_is_short_of_workers")
    lines += [f"{name}: {getattr(pool, name)!r}"[:300] for name in names]
    lines.append(f"queued: {[(e.key, e.function.name) for e in pool.list_queued()][:50]}")
    lines += [f"lane {key}: {len(lane.entries)}" for key, lane in pool._lanes.items()]
    lines.append(f"free: {pool.capacity._free_cpus} {pool.capacity._free_named}")
    for stage in list(pool.stages.values()):
        fields = ("number", "inflight", "is_waiting", "is_light", "is_host", "holds", "limit")
        state = {field: getattr(stage, field) for field in fields}
        worker = stage.worker.number if stage.worker else None
        making = stage.making.key if stage.making else None
        lines.append(f"stage {state} lane={len(stage.lane)} worker={worker} making={making}")
    for name, left in (("endings", engine.limits.endings), ("timed", engine.limits._timed)):
        lines.append(f"{name}: {dict(left)}")
    for number, home in list(engine.nesting._homes.items()):
        lines.append(
            f"home {number}: awaited={home.awaited} ended={len(home.ended)} items={len(home.items)} "
            f"unsent={len(home.unsent)}"
        )
    staff = engine.staff
    lines.append(
        f"leaving: {list(staff.leaving)}, owed: {staff._owed}, stillbirths: {staff._stillbirths}, template "
        f"{staff.template.pid} alive: {is_alive(staff.template.pid)}, broken: {engine.broken!r}"
    )
    driver = engine.driver
    lines.append(
        f"driver: leader={driver._leader} followers={driver._followers} requests={len(driver._requests)} "
        f"again={driver._again} submits={driver._submits} parked={driver._is_parked}"
    )
    processes = dict(engine.processes)
    for process in processes.values():
        process.ask_stack()
    time.sleep(0.5)  # they write in their own time, or not at all
    for number, process in processes.items():
        state = pool.workers.get(number)
        fields = ("is_blocked", "is_host", "is_closing", "is_ready", "is_grouped", "calls")
        known = {field: getattr(state, field) for field in fields} if state else {}
        calls = {key: entry.function.name for key, entry in state.inflight.items()} if state else {}
        joined = list(state.joined) if state else []
        stages = state.stages if state else ()
        with contextlib.suppress(ValueError):  # it is closed by now
            lines.append(
                f"--- worker {number}, pid {process.pid}, alive {is_alive(process.pid or 0)}, {known}, at "
                f"{process.get_current()}, in flight {calls}, joined {joined}, stages {stages}\n"
                f"{process.read_stack()[-3000:]}"
            )
    lines.append("--- the threads of the program")
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        lines.append(f"{names.get(ident)} ({ident})\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(lines)
