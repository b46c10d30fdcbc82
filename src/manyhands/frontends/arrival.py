"""What is done once joblib or pandas has been imported: joblib learns the name of our backend, frames get their ``mh``.

joblib has no entry points: it knows the backends that somebody has entered into its table. Whoever imports manyhands
shall be able to name ours, before or after importing joblib, and so shall every worker, in which calls may make
parallel calls themselves. The same goes for pandas and its accessors.
"""

from __future__ import annotations

from manyhands.core.arrivals import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "manyhands"
"""What joblib calls our backend."""


def await_joblib() -> None:
    """Enter our backend into joblib's table: now, if joblib is loaded, else when it is."""
    when_imported("joblib.parallel", _enter)


def _enter(table: Any) -> None:
    from manyhands.core import place

    table.register_parallel_backend(NAME, _make_backend)
    if place.in_worker:
        # Processes that a worker starts are too many, and find none of the libraries that it found.
        for name in ("loky", "multiprocessing"):
            table.register_parallel_backend(name, _make_backend)


def _make_backend(**options: Any) -> Any:
    from manyhands.frontends.joblib import ManyhandsBackend

    return ManyhandsBackend(**options)


ACCESSOR = "mh"
"""What frames and series have of ours."""


def await_pandas() -> None:
    """Give frames and series their accessor: now, if pandas is loaded, else when it is."""
    when_imported("pandas", _give_accessors)


def _give_accessors(pandas: Any) -> None:
    pandas.api.extensions.register_dataframe_accessor(ACCESSOR)(_open_frame)
    pandas.api.extensions.register_series_accessor(ACCESSOR)(_open_series)


def _open_frame(frame: Any) -> Any:
    from manyhands.frontends.pandas.accessor import FrameHands

    return FrameHands(frame)


def _open_series(series: Any) -> Any:
    from manyhands.frontends.pandas.accessor import SeriesHands

    return SeriesHands(series)
