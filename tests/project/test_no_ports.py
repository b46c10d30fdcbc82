"""While a map runs, no socket of ours listens and nothing of ours is named in /dev/shm."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it on Linux alone")

SHM = Path("/dev/shm")

# The first answer shows that workers run; "ready" is said while the map is under way.
PROGRAM = """
import sys, time
import manyhands as mh

def work(n):
    time.sleep(0.1)
    return bytes(2_000_000)

with mh.Session("local", workers=2) as session:
    results = session.imap(work, range(60))
    next(results)
    print("ready", flush=True)
    sys.stdin.readline()
    results.close() if hasattr(results, "close") else None
"""


def children_of(pid: int) -> list[int]:
    """`pid` and all below it, by the kernel's own lists."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += children_of(int(child))
    return found


def links(pid: int) -> Iterator[str]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield str(path.readlink())
        except FileNotFoundError:  # closed since it was listed
            continue


def listening_inodes() -> set[str]:
    """Inodes of the sockets that wait for connections or datagrams of anybody."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN
                inodes.add(fields[9])
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            inodes.add(line.split()[9])
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & 0x10000:  # __SO_ACCEPTCON: it listens
            inodes.add(fields[6])
    return inodes


def mapped_names(pid: int) -> set[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(r"(/dev/shm/.*)$", maps, re.MULTILINE))


@pytest.fixture
def busy_program(tmp_path: Path) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin and program.stdout and program.stderr
        try:
            said = program.stdout.readline()
            assert said == "ready\n", said + program.stderr.read()
            yield program.pid
            _, stderr = program.communicate("\n", timeout=60)
            assert (program.returncode, stderr) == (0, "")
        finally:
            program.kill()


def test_the_checks_see_a_listener_and_a_named_segment(tmp_path: Path) -> None:
    """Without this, a test that finds nothing would prove nothing."""
    import socket

    name = SHM / f"manyhands-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, name.open("wb") as segment:
        try:
            inode = os.fstat(server.fileno()).st_ino
            assert str(inode) in listening_inodes()
            assert f"socket:[{inode}]" in set(links(os.getpid()))
            assert str(name) in set(links(os.getpid()))
            assert segment.name == str(name)
        finally:
            name.unlink()


def test_no_socket_listens_and_nothing_is_named(busy_program: int) -> None:
    family = children_of(busy_program)
    assert len(family) >= 3, "expected at least the program and its two workers"
    before = {path.name for path in SHM.iterdir()}
    for _ in range(5):  # some hundred milliseconds of the map
        listening = {f"socket:[{inode}]" for inode in listening_inodes()}
        opened = {link for pid in family for link in links(pid)}
        assert listening & opened == set()
        # By handle and by mapping, so that other programs' segments do not matter.
        assert {link for link in opened if link.startswith(f"{SHM}/")} == set()
        assert {name for pid in family for name in mapped_names(pid)} == set()
        time.sleep(0.05)
    grown = {path.name for path in SHM.iterdir()} - before
    assert {name for name in grown if "manyhands" in name or "mh-" in name} == set()
