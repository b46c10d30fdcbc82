"""What calls print in processes that belong to others."""

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from manyhands.engines.cluster.output import share_output
from tests.unit.engines.cluster.desk import Desk
from tests.unit.engines.cluster.fakes import FakeLink
from tests.unit.engines.sinks import LONG


class Original(io.TextIOWrapper):
    """A stream of the process's own, which counts its flushes."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="latin-1", errors="replace", write_through=True)
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1
        super().flush()

    def fileno(self) -> int:
        return 77

    def isatty(self) -> bool:
        return True

    @property
    def content(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode("latin-1")


Originals = tuple[Original, Original]
Share = Callable[[], Originals]


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Share:
    """Shares the output of a process; a test begins with it, since pytest has streams of its own for each step."""

    def begin() -> Originals:
        found = Original(), Original()
        monkeypatch.setattr(sys, "stdout", found[0])
        monkeypatch.setattr(sys, "stderr", found[1])
        share_output(None)
        return found

    return begin


def list_printed(link: FakeLink) -> list[tuple[Any, ...]]:
    assert {topic for topic, message in link.sent if message[0] == "print"} <= {"session"}
    return link.list_sent("print")


def test_what_calls_print_goes_to_their_session(share: Share, desk: Desk, link: FakeLink) -> None:
    originals = share()

    def work() -> None:
        print("out")
        print("error", file=sys.stderr)
        sys.stdout.writelines(["1\n", "2\n"])

    desk.perform(work)
    assert list_printed(link) == [
        ("stdout", "out\n"),
        ("stderr", "error\n"),
        ("stdout", "1\n"),
        ("stdout", "2\n"),
    ]
    assert [original.content for original in originals] == ["", ""]


def test_it_comes_line_by_line(share: Share, desk: Desk, link: FakeLink) -> None:
    share()
    seen: list[Any] = []

    def work() -> int:
        print("a", end="", flush=True)
        seen.append(list_printed(link))
        print("b\nc\nd", end="")
        seen.append(list_printed(link))
        return sys.stdout.write("e\n")

    assert desk.perform(work) == 2
    assert seen == [[], [("stdout", "ab\nc\n")]]
    assert list_printed(link)[1:] == [("stdout", "de\n")]


def test_the_rest_comes_at_the_end(share: Share, desk: Desk, link: FakeLink) -> None:
    share()

    def work() -> None:
        print("out", end="")
        print("error", end="", file=sys.stderr)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        desk.perform(work)
    assert list_printed(link) == [("stdout", "out"), ("stderr", "error")]


def test_it_comes_before_the_end_of_the_call(share: Share, desk: Desk, link: FakeLink) -> None:
    share()
    desk.perform(lambda: print("x", end=""))
    assert [message[0] for _, message in link.sent] == ["print", "end"]


def test_calls_that_print_at_once_do_not_mix(share: Share, desk: Desk, link: FakeLink) -> None:
    share()
    barrier = threading.Barrier(2)

    def work(letter: str) -> None:
        for _ in range(3):
            print(letter, end="")
            barrier.wait(LONG)
        print()

    for started in [desk.start(work, "a"), desk.start(work, "b")]:
        started.finish()
    assert sorted(list_printed(link)) == [("stdout", "aaa\n"), ("stdout", "bbb\n")]


def test_coroutines_print_too(share: Share, desk: Desk, link: FakeLink) -> None:
    share()

    async def work() -> None:
        print("from the loop")

    desk.perform(work)
    assert list_printed(link) == [("stdout", "from the loop\n")]


def test_what_others_print_goes_where_it_went(share: Share, desk: Desk, link: FakeLink) -> None:
    originals = share()
    desk.perform(print, "x")
    link.sent.clear()
    print("out")
    print("error", file=sys.stderr)
    assert [original.content for original in originals] == ["out\n", "error\n"]
    assert link.sent == []


def test_what_others_print_is_flushed_as_they_say(share: Share) -> None:
    originals = share()
    before = originals[0].flushes
    sys.stdout.flush()
    assert originals[0].flushes == before + 1


def test_to_share_it_again_does_nothing(share: Share) -> None:
    share()
    streams = sys.stdout, sys.stderr
    share_output(None)
    assert (sys.stdout, sys.stderr) == streams


def test_the_streams_are_what_they_were_to_those_who_ask(share: Share) -> None:
    originals = share()
    for stream, original in zip((sys.stdout, sys.stderr), originals, strict=True):
        assert stream.writable()
        assert stream.buffer is original.buffer
        assert stream.encoding == "latin-1"
        assert stream.errors == "replace"
        assert stream.fileno() == 77
        assert stream.isatty()
