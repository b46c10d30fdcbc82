"""Where the time went, in plain words."""

import json
from typing import Any

import pytest

from manyhands.observe.report import Report

BASE: dict[str, Any] = {
    "engine": "local",
    "workers": 2,
    "calls": 1234,
    "failed": 0,
    "retried": 0,
    "deaths": 0,
    "wall_seconds": 10.0,
    "starting_seconds": 0.5,
    "computing_seconds": 12.0,
    "moving_seconds": 1.0,
    "waiting_seconds": 6.0,
}


def make_report(**changes: Any) -> Report:
    return Report(**BASE | changes)


def test_all_is_data() -> None:
    assert make_report().to_dict() == {**BASE, "hints": []}
    found = make_report(hints=("do less",)).to_dict()
    assert json.loads(json.dumps(found)) == found == {**BASE, "hints": ["do less"]}


def test_hints_come_last() -> None:
    lines = str(make_report(hints=("do less", "do it once"))).splitlines()
    assert lines[-2:] == ["Hint: do less.", "Hint: do it once."]


def test_a_report_does_not_change() -> None:
    with pytest.raises(AttributeError):
        make_report().calls = 3  # type: ignore[misc]


def test_it_reads_as_plain_words() -> None:
    lines = str(make_report()).splitlines()
    assert lines[0] == "1,234 calls on 2 workers (local) in 10.00 s: none failed."
    shares = {line.rsplit(maxsplit=3)[0].strip(): line.split()[-1] for line in lines[2:6]}
    assert shares == {
        "computing": "60.0%",
        "moving data": "5.0%",
        "waiting": "30.0%",
        "starting": "5.0%",
    }


def test_the_shares_of_a_whole_are_a_hundred() -> None:
    lines = str(make_report()).splitlines()[2:6]
    assert sum(float(line.split()[-1].rstrip("%")) for line in lines) == pytest.approx(100)


def test_what_went_wrong_is_told() -> None:
    first = str(make_report(failed=2, retried=1005, deaths=3)).splitlines()[0]
    assert first.endswith(
        ": 2 failed, 1,005 tries were repeated, 3 workers died and were replaced."
    )


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"calls": 0, "computing_seconds": 0.0}, "Nothing has run yet"),
        ({"moving_seconds": 13.0, "waiting_seconds": 0.0}, "moving data than"),
        ({"computing_seconds": 18.0, "waiting_seconds": 0.0}, "only more cores"),
        ({"starting_seconds": 9.0, "computing_seconds": 1.0, "moving_seconds": 0.1}, "keep the"),
        ({"computing_seconds": 4.0, "waiting_seconds": 14.0}, "mostly waited"),
        ({}, "Computing took the largest share"),
    ],
)
def test_it_says_what_to_do(changes: dict[str, Any], advice: str) -> None:
    assert advice in str(make_report(**changes)).splitlines()[-1]


def test_a_session_that_has_just_opened_has_a_report() -> None:
    zero = {name: 0.0 for name in BASE if name.endswith("seconds")}
    assert "0 calls" in str(make_report(calls=0, **zero))
