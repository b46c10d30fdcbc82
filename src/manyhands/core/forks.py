"""What has to be put right in a forked child before it can do anything: imports that it will never see the end of."""

from __future__ import annotations

import sys
from importlib import _bootstrap
from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def abandon_imports() -> None:
    """In a forked child: forget the modules that other threads of its parent were importing.

    Each such module has a lock that its importer holds, and the importer does not exist here: whoever imports the
    module waits for ever. So the lock goes, and the half-made module with it; the next import begins anew. Where Python
    keeps its locks in another way, nothing is done.
    """
    locks: dict[str, Any] = getattr(_bootstrap, "_module_locks", {})
    for name, reference in list(locks.items()):
        lock = reference()
        owner = getattr(lock, "owner", None)
        if owner is None or owner == get_ident():
            continue
        locks.pop(name, None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            sys.modules.pop(name, None)
