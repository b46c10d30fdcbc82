"""The engine on Ray, against real clusters of two nodes, each case in a network and among processes of its own."""

import ast
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CASES = Path(__file__).with_name("ray_cases.py")

WAYS = ("near", "far")
"""How a program reaches a cluster, where that matters: as a process of one of its nodes, or by Ray's client server."""


ENDED_BY_RAY = {
    "test_a_lost_head_ends_all_waits",
    "test_a_cut_network_ends_all_waits",
    "test_a_silent_cluster_ends_all_waits",
}
"""Cases after which Ray may end the process that was connected, or crashes at its exit; they pass before that."""


def list_cases() -> list[tuple[str, str]]:
    """The names of cases, and ways."""
    found = []
    for node in ast.parse(CASES.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            has_way = any(argument.arg == "way" for argument in node.args.args)
            found += [(node.name, way) for way in (WAYS if has_way else WAYS[:1])]
    return found


@pytest.mark.parametrize(("name", "way"), list_cases())
def test_case(name: str, way: str) -> None:
    """It needs root, for the namespaces, and `ip`."""
    folder = Path(tempfile.mkdtemp(prefix="mh-", dir="/tmp"))  # Ray's sockets have short names
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        "MANYHANDS_WAY": way,
        "RAY_AUTH_MODE": "token",
        # Else processes that Ray's client server begins die amid their beginning, now and then: gRPC wakes up in them.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    pytest_ = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-q", "-rA"]
    # The shell is the first process there, and takes in what others leave.
    begin = 'ip link set lo up && "$@"; exit $?'
    inside = ["sh", "-c", begin, "sh", *pytest_, f"{CASES}::{name}"]
    try:
        found = subprocess.run(
            ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child", *inside],
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = found.stdout[-10_000:] + found.stderr[-5_000:]
    if way == "near" and name in ENDED_BY_RAY and found.returncode:
        assert found.stdout.startswith("."), told
    else:
        assert found.returncode == 0, told
