"""Hosts of one's own, reached by SSH: network namespaces of this machine, behind one bridge.

What uses them runs in namespaces of its own, see `run_apart`; with those goes all that was begun there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from manyhands.testing.checks import wait_for

NETWORK = "10.99.0"
"""The first three numbers of all addresses."""

HUB = f"{NETWORK}.254"
"""The address of the bridge, where the program is."""

_TOOLS = ("unshare", "ip", "ssh", "ssh-keygen", "/usr/sbin/sshd", "mount")


def run_apart(script: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a Python script as root of network, process, mount and host name namespaces of its own."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    assert not missing, f"install {missing} (iproute2, openssh-server) to run this test, as root"
    own = [
        "unshare",
        "--net",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]
    command = [*own, sys.executable, str(script), *arguments]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, f"{root}/src"])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


class Host:
    """One of them.

    Parameters
    ----------
    number
        From 1 on; the last part of its address.
    folder
        For keys, configurations and logs.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.address = f"{NETWORK}.{number}"
        self._name = f"host{number}"
        self._folder = folder
        _run("ip", "netns", "add", self._name)
        inner = ["ip", "netns", "exec", self._name]
        _run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "eth0", "netns", self._name)
        _run("ip", "link", "set", f"v{number}", "master", "hub", "up")
        _run(*inner, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        _run(*inner, "ip", "link", "set", "lo", "up")
        _run(*inner, "ip", "link", "set", "eth0", "up")
        self._cable = f"v{number}"
        server = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
        boot = f"hostname {self._name}; exec {' '.join(server)} -o ListenAddress={self.address}"
        with (folder / f"{self._name}.log").open("wb") as log:
            subprocess.Popen([*inner, "unshare", "--uts", "sh", "-c", boot], stderr=log)

    def start(self, command: str, log: str) -> None:
        """Have a command run there by SSH, in the background."""
        line = f"nohup env PYTHONPATH={os.environ['PYTHONPATH']} {command} >{log} 2>&1 </dev/null &"
        options = ["-i", str(self._folder / "key"), "-o", "BatchMode=yes"]
        known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        ssh = ["ssh", *options, *known, f"root@{self.address}", line]
        wait_for(
            lambda: subprocess.run(ssh, capture_output=True, check=False).returncode == 0, "ssh"
        )

    def cut(self) -> None:
        """Pull its cable."""
        _run("ip", "link", "set", self._cable, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", self._cable, "up")


def make_hosts(count: int, folder: Path) -> list[Host]:
    """So many hosts, all behind the bridge at `HUB`; call it once, in a script that `run_apart` runs."""
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/sshd").mkdir(mode=0o755)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "hub", "type", "bridge")
    _run("ip", "address", "add", f"{HUB}/24", "dev", "hub")
    _run("ip", "link", "set", "hub", "up")
    for key in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPidFile none\n"
    )
    return [Host(number, folder) for number in range(1, count + 1)]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
