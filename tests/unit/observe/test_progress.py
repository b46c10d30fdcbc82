"""The progress bar of a map."""

import io
from typing import Any

import pytest
import tqdm.auto

from manyhands.observe.progress import ProgressBar


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal would show."""
    stream = io.StringIO()
    real = tqdm.auto.tqdm

    def make(**options: Any) -> Any:
        # As in a terminal, drawn at every change: no clock has a say.
        return real(file=stream, mininterval=0, miniters=1, **options | {"dynamic_ncols": False})

    monkeypatch.setattr(tqdm.auto, "tqdm", make)
    return stream


def get_last_line(screen: io.StringIO) -> str:
    return screen.getvalue().rstrip("\n").rpartition("\r")[2]


def test_it_shows_how_far_a_map_is(screen: io.StringIO) -> None:
    bar = ProgressBar("square", 200)
    bar.advance(50, 0)
    bar.advance(50, 0)
    bar.close()
    line = get_last_line(screen)
    assert line.startswith("square:  50%")
    assert "100/200" in line
    assert "items" in line
    assert "failed" not in line


def test_failures_are_added_up(screen: io.StringIO) -> None:
    bar = ProgressBar("square", 10)
    bar.advance(4, 1)
    bar.advance(4, 0)
    bar.advance(2, 2)
    bar.close()
    line = get_last_line(screen)
    assert "10/10" in line
    assert "failed=3" in line


def test_an_input_of_unknown_length_is_counted(screen: io.StringIO) -> None:
    bar = ProgressBar("square", None)
    bar.advance(7, 0)
    bar.close()
    assert get_last_line(screen).startswith("square: 7 items")


def test_a_map_that_stops_early_leaves_its_bar_as_it_is(screen: io.StringIO) -> None:
    bar = ProgressBar("square", 10)
    bar.advance(3, 0)
    bar.close()
    bar.close()
    assert "3/10" in get_last_line(screen)
    assert screen.getvalue().endswith("\n")
