"""What sessions have shipped, in a worker's process."""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
from io import BytesIO
from pathlib import Path
from time import time
from zipfile import ZipFile

from manyhands.engines.cluster.bundle import FILES, MODULES
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from manyhands.engines.cluster.bundle import Bundle

_PREFIX = "manyhands-bundle-"

_NEW_SECONDS = 60.0

_lock = threading.RLock()

_unpacked: dict[str, Unpacked] = {}
"""Of this process, by their digests; sessions of one program, and of the next, share those that are equal."""


class Unpacked:
    """The modules and files of a bundle, where this process finds them.

    Parameters
    ----------
    bundle
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.users = 0
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # who is dead has none any more
        with ZipFile(BytesIO(bundle.archive)) as archive:
            for info in archive.infolist():
                path = archive.extract(info, self.folder)
                os.chmod(path, info.external_attr >> 16)
        self.paths = [str(self.folder / MODULES / path) for path in bundle.paths]
        _forget_modules(bundle.modules)  # the worker's own, of the same names
        sys.path[:0] = self.paths
        importlib.invalidate_caches()

    def list_files(self) -> dict[str, str]:
        """The shipped files, by their names."""
        folder = self.folder / FILES
        return {entry.name: str(entry) for entry in folder.iterdir()} if folder.is_dir() else {}

    def remove(self) -> None:
        """Nobody here needs it any more."""
        for path in self.paths:
            if path in sys.path:
                sys.path.remove(path)
        _forget_modules(self.bundle.modules)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def unpack(bundle: Bundle) -> Unpacked:
    """Have modules and files of a bundle here; `discard` follows.

    Raises
    ------
    WorkerStartError
        Another session has shipped other modules of the same names to this process and is not over, or the worker has
        installed ones of these names in use.
    """
    with _lock:
        found = _unpacked.get(bundle.digest)
        if found is None:
            _refuse_clash(bundle)
            _refuse_shadows(bundle)
            found = _unpacked[bundle.digest] = Unpacked(bundle)
        found.users += 1
        return found


def discard(unpacked: Unpacked) -> None:
    """A session has ended."""
    with _lock:
        unpacked.users -= 1
        if not unpacked.users:
            del _unpacked[unpacked.bundle.digest]
            unpacked.remove()


def list_roots(bundle: Bundle | None) -> list[str]:
    """Where this process imports from what was shipped."""
    found = None if bundle is None else _unpacked.get(bundle.digest)
    return [] if found is None else found.paths


def set_variables(env: Mapping[str, str]) -> dict[str, str | None]:
    """Set variables of this process's environment; what they were."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    return before


def reset_variables(env: Mapping[str, str], before: Mapping[str, str | None]) -> None:
    """Set back those that nobody has set otherwise since."""
    for name, value in before.items():
        if os.environ.get(name) == env[name]:
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _refuse_clash(bundle: Bundle) -> None:
    for other in _unpacked.values():
        clash = sorted(set(other.bundle.modules) & set(bundle.modules))
        if clash:
            raise WorkerStartError(
                f"another session has shipped another {clash[0]!r} to this worker's process, {os.getpid()}, and one "
                f"process can have one; close that session first, or give this one workers of its own"
            )


def _refuse_shadows(bundle: Bundle) -> None:
    installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    for name in bundle.modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and file.startswith(installed):
            raise WorkerStartError(
                f"the session ships {name!r}, and this worker's process has one in use already, {file}; ship what has "
                f"other names, or install the other version there"
            )


def _forget_modules(names: tuple[str, ...]) -> None:
    for loaded in list(sys.modules):
        top = loaded.partition(".")[0]
        if top in names and top not in sys.stdlib_module_names:
            del sys.modules[loaded]


def _sweep() -> None:
    """Remove what processes of this host have left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if time() - folder.stat().st_mtime < _NEW_SECONDS:
                continue  # its owner may not have locked it yet
            lock = os.open(folder, os.O_RDONLY)
        except OSError:  # of another user, or gone meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody lives there
            pass
        finally:
            os.close(lock)
