"""What a session stores, in plain words."""

import json
from typing import Any

import pytest

from manyhands.core.model import MemoryFacts, ValueFact
from manyhands.observe.memory import MemoryReport, MemoryValue

MIB = 1 << 20


def make_report(*values: ValueFact, **changes: Any) -> MemoryReport:
    facts = {"limit": 100 * MIB, "used": 30 * MIB, "disk_limit": 1 << 40, "disk_used": MIB}
    return MemoryReport.make(
        "local", MemoryFacts(**facts | {"spilled": 2 * MIB, "values": values} | changes)
    )


def make_value(number: int, size: int, *holders: str) -> ValueFact:
    return ValueFact(number, f"thing {number}", size, "memory", holders)


def test_the_largest_comes_first() -> None:
    report = make_report(make_value(1, 5), make_value(2, 50, "me"), make_value(3, 7))
    assert [value.id for value in report.values] == [2, 3, 1]
    assert report.values[0] == MemoryValue(2, "thing 2", 50, "memory", ("me",))


def test_all_is_data() -> None:
    report = make_report(make_value(1, 5, "me", "you"))
    data = json.loads(json.dumps(report.to_dict()))
    assert data == {
        "engine": "local",
        "limit": 100 * MIB,
        "used": 30 * MIB,
        "disk_limit": 1 << 40,
        "disk_used": MIB,
        "spilled": 2 * MIB,
        "values": [
            {
                "id": 1,
                "kind": "thing 1",
                "nbytes": 5,
                "place": "memory",
                "holders": ["me", "you"],
            }
        ],
    }


def test_it_does_not_change() -> None:
    with pytest.raises(AttributeError):
        make_report().used = 3  # type: ignore[misc]


def test_it_reads_as_plain_words() -> None:
    lines = str(make_report(make_value(1, 5 * MIB, "me", "you"), make_value(2, 10))).splitlines()
    assert lines[0].startswith(
        "30.0 MiB of 100.0 MiB in memory, 1.0 MiB of 1.0 TiB on disk; 2 values"
    )
    assert lines[1].split() == ["5.0", "MiB", "memory", "thing", "1", "(me,", "you)"]
    assert "10 B" in lines[2]
    assert len(lines) == 3


def test_many_values_are_summed_up() -> None:
    lines = str(make_report(*(make_value(n, 1000 + n) for n in range(50)))).splitlines()
    assert len(lines) == 22
    assert lines[-1].split() == ["29.7", "KiB", "in", "30", "more"]


def test_an_engine_without_a_store_says_so() -> None:
    text = str(MemoryReport.make("threads", MemoryFacts()))
    assert text == "The engine 'threads' stores nothing: its workers use the program's own objects."


def test_a_store_without_memory_is_one_all_the_same() -> None:
    text = str(make_report(make_value(1, 5), limit=1, used=0))
    assert "on disk" in text and "thing 1" in text
