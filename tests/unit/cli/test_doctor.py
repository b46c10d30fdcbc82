"""The doctor's try of the store."""

from collections.abc import Iterator

import pytest

import manyhands as mh
from manyhands.cli.doctor import SHARED_BYTES, share_value, try_store


@pytest.fixture(scope="module")
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=1, store="64 MiB", spill="32 MiB") as session:
        yield session


def test_a_store_that_works(session: mh.Session) -> None:
    found = try_store(session)
    assert (found.limit, found.disk_limit, found.problem) == (64 << 20, 32 << 20, None)
    assert session.memory().values == ()


def test_a_value_that_is_not_freed(session: mh.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    put = session.put

    def keep(value: bytes) -> mh.Ref[bytes]:
        assert len(value) == SHARED_BYTES
        kept.append(put(value))
        return kept[-1]

    monkeypatch.setattr(session, "put", keep)
    assert share_value(session) == "a value that nobody needs was not freed"
    kept.clear()


def test_a_value_that_arrives_as_another(
    session: mh.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = session.put
    monkeypatch.setattr(session, "put", lambda value: put(value[:-1]))
    assert share_value(session) == "a worker read another value than was stored"


def test_a_store_that_fails(session: mh.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(value: object) -> None:
        raise mh.StoreFullError("no room")

    monkeypatch.setattr(session, "put", refuse)
    assert try_store(session).problem == "StoreFullError: no room"
