"""Which modules a cluster's workers cannot be expected to have."""

from __future__ import annotations

import sys
import sysconfig

from manyhands.core.modules import ModuleSurvey


class TravelSurvey:
    """Answers, module by module, whether its classes and functions travel by value.

    So do those of the user's own modules: they are in no place that packages are installed to.

    Parameters
    ----------
    is_near
        Whether the workers are of this machine and find what this process finds.

    Examples
    --------
    >>> survey = TravelSurvey(is_near=False)
    >>> survey.travels_by_value("json"), survey.travels_by_value("__main__")
    (False, True)
    """

    def __init__(self, *, is_near: bool) -> None:
        self._is_near = is_near
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
        return file is not None and not file.startswith(self._installed)
