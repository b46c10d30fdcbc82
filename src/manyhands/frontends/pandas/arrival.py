"""What is done once pandas has been imported: frames and series get their ``mh``."""

from __future__ import annotations

from manyhands.core.arrivals import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "mh"
"""The name of the accessor."""


def await_pandas() -> None:
    """Give frames and series their accessor: now, if pandas is loaded, else when it is."""
    when_imported("pandas", _register)


def _register(pandas: Any) -> None:
    extensions = pandas.api.extensions
    extensions.register_dataframe_accessor(NAME)(_open_frame)
    extensions.register_series_accessor(NAME)(_open_series)


def _open_frame(frame: Any) -> Any:
    from manyhands.frontends.pandas.accessor import FrameHands

    return FrameHands(frame)


def _open_series(series: Any) -> Any:
    from manyhands.frontends.pandas.accessor import SeriesHands

    return SeriesHands(series)
