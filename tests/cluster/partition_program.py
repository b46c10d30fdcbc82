"""A program on a Dask cluster of three hosts, one of which is cut off for a while; see `test_partition.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, sleep

import manyhands as mh
from manyhands.testing.checks import wait_for
from tests.cluster.hosts import HUB, make_hosts

CALLS = 5_000
CUT_SECONDS = 30.0


def work(number: int) -> int:
    """A call of 10 ms."""
    sleep(0.01)
    return number * number


def main(folder: Path) -> None:
    hosts = make_hosts(3, folder)
    dask = [sys.executable, "-m", "dask"]
    file = folder / "scheduler.json"
    with (folder / "scheduler.log").open("wb") as log:
        options = ["--host", HUB, "--port", "8786", "--no-dashboard", "--scheduler-file", str(file)]
        subprocess.Popen([*dask, "scheduler", *options], stdout=log, stderr=log)
    wait_for(file.exists, "the scheduler is up")
    for host in hosts:
        worker = f"worker tcp://{HUB}:8786 --host {host.address} --nthreads 1 --no-dashboard"
        host.start(f"{' '.join(dask)} {worker}", f"{folder}/worker-{host.address}.log")
    wait_for(lambda: _count_workers() == 3, "the workers are there", 60)
    with mh.Session(f"dask://{HUB}:8786") as session:
        futures = [session.submit(work, number) for number in range(CALLS)]
        wait_for(lambda: sum(map(mh.Future.done, futures)) > CALLS // 10, "calls have ended", 120)
        before = sum(map(mh.Future.done, futures))
        hosts[0].cut()
        healed: list[float] = []

        def heal() -> None:
            hosts[0].heal()
            healed.append(monotonic())

        timer = threading.Timer(CUT_SECONDS, heal)
        timer.start()
        results = mh.gather(futures, timeout=CUT_SECONDS + 300)
        ended = monotonic()
        timer.join()
        after = ended - healed[0]
        report = session.report()
    right = results == [number * number for number in range(CALLS)]
    found = {"right": right, "before": before, "seconds_after_heal": after, "deaths": report.deaths}
    print(json.dumps({**found, "retried": report.retried}))


def _count_workers() -> int:
    from distributed import Client

    with Client(f"tcp://{HUB}:8786", set_as_default=False) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
