"""Every test of this folder leaves nothing behind: no process, no descriptor, no named segment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import manyhands as mh
from manyhands.testing.checks import wait_for
from tests.local.processes import (
    find_holders,
    list_children,
    list_descriptors,
    list_family,
    list_shared_names,
)

SETTLING_SECONDS = 10.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with check_nothing_is_left():
        yield


@contextmanager
def check_nothing_is_left() -> Iterator[None]:
    """Look that there is afterwards what there was before."""
    mh.shutdown()
    children = set(list_children(os.getpid()))
    descriptors = list_descriptors()
    names = list_shared_names()
    yield
    mh.shutdown()

    def list_new_children() -> set[int]:
        return set(list_children(os.getpid())) - children

    wait_for(lambda: not list_new_children(), "no child process is left", SETTLING_SECONDS)
    found = list_descriptors()
    assert {fd: name for fd, name in found.items() if fd not in descriptors} == {}
    # Other programs of this machine name segments too; theirs are held by processes that are not ours.
    ours = set(list_family(os.getpid()))
    grown = list_shared_names() - names
    assert {name for name in grown if not find_holders(name) - ours and _is_there(name)} == set()


def _is_there(name: str) -> bool:
    return name in list_shared_names()
