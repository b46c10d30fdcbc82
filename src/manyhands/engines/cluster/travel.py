"""Which modules a cluster's workers cannot be expected to have."""

from __future__ import annotations

import os
import sys
import sysconfig

from manyhands.core.modules import ModuleSurvey
from manyhands.engines.cluster.bundle import ARCHIVES, is_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class TravelSurvey:
    """Answers, module by module, whether its classes and functions travel by value.

    So do those of the user's own modules: they are in no place that packages are installed to.

    Parameters
    ----------
    is_near
        Whether the workers are of this machine and find what this process finds.
    shipped
        Paths of modules, packages, archives and folders of them that workers have as this process has them.

    Examples
    --------
    >>> survey = TravelSurvey(is_near=False)
    >>> survey.travels_by_value("json"), survey.travels_by_value("__main__")
    (False, True)
    """

    def __init__(self, *, is_near: bool, shipped: Iterable[str] = ()) -> None:
        self._is_near = is_near
        self._shipped = tuple(map(os.path.realpath, shipped))
        self._survey = ModuleSurvey()
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        self._installed = tuple({sysconfig.get_path(name) for name in names})

    def travels_by_value(self, name: str) -> bool:
        """Whether what the module of this name defines travels by value."""
        if self._survey.travels_by_value(name):
            return True
        if self._is_near or name.partition(".")[0] == "manyhands":
            return False
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or file.startswith(self._installed):
            return False
        return not self._is_shipped(name, os.path.realpath(file))

    def _is_shipped(self, name: str, file: str) -> bool:
        """Whether workers can import a module by its name from what was shipped."""
        stem = os.path.join(*name.split("."))
        homes = (f"{stem}.", os.path.join(stem, "__init__."))
        for path in self._shipped:
            root = os.path.dirname(path)
            if path.endswith(ARCHIVES) or is_root(path):
                root = path
            elif file != path and not file.startswith(path + os.sep):
                continue
            if any(file.startswith(os.path.join(root, home)) for home in homes):
                return True
        return False
