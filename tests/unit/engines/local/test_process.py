"""What belongs to a process, without one: what it is told, and what it says."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.modules import needs_site
from manyhands.engines.local import messages as m
from manyhands.engines.local.channel import Channel, open_pair
from manyhands.engines.local.process import (
    LineReader,
    WorkerProcess,
    _list_flags,
    describe_program,
)
from manyhands.engines.local.shm import open_region, read_segment
from manyhands.errors import WorkerStartError

# What another interpreter is told.


def set_flags(monkeypatch: pytest.MonkeyPatch, **flags: Any) -> None:
    every = dict.fromkeys(
        ("optimize", "bytes_warning", "dont_write_bytecode", "ignore_environment", "no_user_site"),
        0,
    )
    monkeypatch.setattr(sys, "flags", SimpleNamespace(**every | flags))
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setattr(sys, "_xoptions", {})


def test_plain_python_needs_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    set_flags(monkeypatch)
    assert _list_flags() == []


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ({"optimize": 2}, ["-O", "-O"]),
        ({"bytes_warning": 1}, ["-b"]),
        ({"dont_write_bytecode": 1}, ["-B"]),
        ({"ignore_environment": 1}, ["-E"]),
        ({"no_user_site": 1}, ["-s"]),
    ],
)
def test_flags_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, int], options: list[str]
) -> None:
    set_flags(monkeypatch, **flags)
    assert _list_flags() == options


def test_warning_filters_and_modes_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    set_flags(monkeypatch)
    monkeypatch.setattr(sys, "warnoptions", ["error", "ignore::UserWarning"])
    monkeypatch.setattr(sys, "_xoptions", {"dev": True, "utf8": "1", "importtime": True})
    assert _list_flags() == ["-Werror", "-Wignore::UserWarning", "-X", "dev", "-X", "utf8=1"]


def test_a_program_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "relative", "/absolute"])
    monkeypatch.setenv("SOME_SETTING", "x")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings, environment = describe_program(workers=2, cpus=8, env={"LEVEL": "3"})
    here = os.getcwd()  # noqa: PTH109 - text is compared
    assert settings["path"] == [here, f"{here}/relative", "/absolute"]
    assert settings["argv"] == sys.argv
    assert settings["prefix"] == sys.prefix
    assert settings["site"] == needs_site()
    assert settings["interpreter"]["executable"] == sys.executable
    import manyhands

    package = os.path.dirname(manyhands.__file__)  # noqa: PTH120 - text is compared
    assert os.path.dirname(package) == settings["interpreter"]["root"]  # noqa: PTH120
    assert environment["SOME_SETTING"] == "x"
    assert environment["OMP_NUM_THREADS"] == "4"


def test_without_an_interpreter_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(WorkerStartError, match=r"sys\.executable"):
        describe_program(1, 1, {})


# A worker as the parent holds it; the template is a channel that nobody serves.


@pytest.fixture
def template() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, open_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def list_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is asked


def close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


SETTINGS: dict[str, Any] = {"initializer": None, "start_method": "fork"}


def test_a_worker_is_born_with_its_descriptors(template: tuple[Channel, Channel]) -> None:
    process = WorkerProcess(5, template[0], SETTINGS)
    received = template[1].receive()
    assert received is not None
    (kind, number, settings), fds = received
    assert (kind, number) == (m.START, 5)
    assert settings["start_method"] == "fork"
    assert len(fds) == len(m.WORKER_FDS)
    assert (process.pid, process.is_ready) == (None, False)
    _, life, region, stdout, stderr = fds

    process.channel.send((m.FORGET,))
    assert process.inbox.receive() == ((m.FORGET,), ()), "what is unread can be taken back"

    written: list[str] = []
    os.write(stdout, b"out\n")
    os.write(stderr, b"err\n")
    process.stdout.read(written.append)
    process.stderr.read(written.append)
    assert written == ["out\n", "err\n"]
    assert list(process.stderr.tail) == ["err"]

    assert process.get_current() == 0
    assert bytes(process.get_journal()) == b""
    with open_region(os.dup(region)) as shared, memoryview(shared) as view, view.cast("Q") as words:
        words[m.CURRENT] = 42
        view[m.JOURNAL_START : m.JOURNAL_START + 3] = b"abc"
        words[m.JOURNAL_END] = m.JOURNAL_START + 3
        assert process.get_current() == 42
        with process.get_journal() as journal:
            assert bytes(journal) == b"abc"
        words[m.JOURNAL_END] = 10**12  # a crash may leave anything there
        with process.get_journal() as journal:
            assert len(journal) == m.REGION_SIZE - m.JOURNAL_START

    os.set_blocking(life, False)
    with pytest.raises(BlockingIOError):
        os.read(life, 1)
    process.kill()
    process.kill()
    assert os.read(life, 1) == b"", "its life ends with the pipe"
    close_all(fds)
    process.close()


def test_a_signal_for_a_worker_that_is_not_known_yet_comes_later(
    template: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    process = WorkerProcess(5, template[0], SETTINGS)
    received = template[1].receive()
    assert received is not None
    process.interrupt(7)
    process.is_ready = True
    process.send_due()
    assert sent == []
    process.pid = 1234
    process.send_due()
    process.send_due()
    assert sent == [(1234, m.INTERRUPT_SIGNAL)]
    close_all(received[1])
    process.close()


def test_an_interrupt_that_was_not_heard_is_signalled_again(
    template: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    process = WorkerProcess(5, template[0], SETTINGS)
    received = template[1].receive()
    assert received is not None
    process.pid, process.is_ready = 1234, True
    process.interrupt(7)
    process.interrupt_again(7)
    assert sent == [(1234, m.INTERRUPT_SIGNAL)] * 2
    region = received[1][m.WORKER_FDS.index("region")]
    with open_region(os.dup(region)) as shared, memoryview(shared) as view, view.cast("Q") as words:
        words[m.INTERRUPT] = 0  # it has heard
    process.interrupt_again(7)
    assert len(sent) == 2
    close_all(received[1])
    process.close()


def test_an_initializer_travels_in_a_segment(template: tuple[Channel, Channel]) -> None:
    payload = os.urandom(300_000)
    process = WorkerProcess(5, template[0], SETTINGS | {"initializer": payload})
    received = template[1].receive()
    assert received is not None
    _, fds = received
    assert len(fds) == len(m.WORKER_FDS) + 1
    assert read_segment(fds[-1])[:] == payload
    close_all(fds[:-1])
    process.close()


def test_a_closed_worker_leaves_no_descriptor(template: tuple[Channel, Channel]) -> None:
    before = list_fds()
    process = WorkerProcess(5, template[0], SETTINGS)
    received = template[1].receive()
    assert received is not None
    close_all(received[1])
    process.close()
    assert list_fds() == before


def test_without_a_template_nothing_is_left_behind(template: tuple[Channel, Channel]) -> None:
    template[1].close()
    before = list_fds()
    with pytest.raises(OSError):
        WorkerProcess(5, template[0], SETTINGS | {"initializer": b"x"})
    assert list_fds() == before


# Lines.


class Pipe:
    """What a worker writes to, and its reader."""

    def __init__(self, keep: int = 0) -> None:
        reading, self.writing = os.pipe()
        self.reader = LineReader(reading, keep)
        self.written: list[str] = []

    def write(self, data: bytes) -> None:
        assert os.write(self.writing, data) == len(data)

    def read(self, *, last: bool = False) -> bool:
        return self.reader.read(self.written.append, last=last)

    def end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
        self.writing = -1

    def close(self) -> None:
        self.end()
        self.reader.close()


@pytest.fixture
def make_pipe() -> Iterator[Callable[..., Pipe]]:
    pipes: list[Pipe] = []

    def make(keep: int = 0) -> Pipe:
        pipes.append(Pipe(keep))
        return pipes[-1]

    yield make
    for pipe in pipes:
        pipe.close()


def test_only_whole_lines_are_handed_on(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe()
    assert pipe.read()
    pipe.write(b"one\ntw")
    assert pipe.read()
    assert pipe.written == ["one\n"]
    pipe.write(b"o\nthree")
    pipe.read()
    assert pipe.written == ["one\n", "two\n"]
    assert pipe.read(last=True)
    assert pipe.written == ["one\n", "two\n", "three\n"]


def test_the_end_of_a_pipe_is_told(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe()
    pipe.write(b"last words")
    pipe.end()
    pipe.read()
    assert pipe.written == []
    assert not pipe.read(last=True)
    assert pipe.written == ["last words\n"]
    assert not pipe.read(last=True)
    assert pipe.written == ["last words\n"]


def test_a_closed_reader_reads_nothing(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe()
    pipe.write(b"x\n")
    pipe.reader.close()
    pipe.reader.close()
    pipe.read()
    assert pipe.written == []


def test_the_last_lines_are_kept(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe(keep=3)
    for number in range(10):
        pipe.write(b"line %d\n" % number)
        pipe.read()
    assert list(pipe.reader.tail) == ["line 7", "line 8", "line 9"]
    silent = make_pipe()
    silent.write(b"x\n")
    silent.read()
    assert not silent.reader.tail


def test_the_last_look_reads_all_that_there_is(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe()
    text = "".join(f"line {number}\n" for number in range(30_000))
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    pipe.write(text.encode())
    pipe.end()
    pipe.read(last=True)
    assert "".join(pipe.written) == text


def test_what_is_no_text_is_shown_escaped(make_pipe: Callable[..., Pipe]) -> None:
    pipe = make_pipe()
    pipe.write(b"caf\xc3\xa9 \xff\n")
    pipe.read()
    assert pipe.written == ["café \\xff\n"]


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_however_it_is_cut_the_text_is_the_same(chunks: list[bytes]) -> None:
    pipe = Pipe(keep=1000)
    for chunk in chunks:
        pipe.write(chunk)
        pipe.read()
        assert all(text.endswith("\n") for text in pipe.written)
    pipe.end()
    pipe.read(last=True)
    whole = b"".join(chunks)
    if whole and not whole.endswith(b"\n"):
        whole += b"\n"
    text = whole.decode("utf-8", "backslashreplace")
    assert "".join(pipe.written) == text
    assert list(pipe.reader.tail) == text.split("\n")[:-1]
    pipe.close()
