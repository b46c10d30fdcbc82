"""Large values in a folder."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhands.core.serialize import dump_result
from manyhands.engines.cluster.packed import LOOSE, Packed
from manyhands.engines.parsl.files import (
    KEEP_BYTES,
    Token,
    Vault,
    read_value,
    write_value,
)

LARGE = bytes(range(256)) * (KEEP_BYTES // 256)


def pack(value: object) -> Packed:
    return Packed.of(dump_result(value, LOOSE))


def load(packed: Packed) -> Any:
    return packed.load(lambda stub: stub)  # type: ignore[arg-type, return-value]


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault("session", str(tmp_path), is_near=True)
    yield vault
    vault.close()


@pytest.mark.parametrize("is_mapped", [True, False])
def test_what_is_written_is_read(tmp_path: Path, is_mapped: bool) -> None:
    arrays = [np.arange(100_000.0), np.ones((300, 100), dtype=np.int8)]
    packed = pack({"arrays": arrays, "text": "ä" * 50_000})
    assert len(packed.buffers) == 2
    write_value(tmp_path / "value", packed)
    found = read_value(tmp_path / "value", is_mapped=is_mapped)
    assert (found.stubs, found.is_private) == (packed.stubs, False)
    value = load(found)
    assert value["text"] == "ä" * 50_000
    for array, original in zip(value["arrays"], arrays, strict=True):
        assert np.array_equal(array, original)
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0 or not is_mapped


def test_what_each_reader_may_change_is_a_copy(tmp_path: Path) -> None:
    packed = Packed.of(dump_result(np.zeros(50_000), LOOSE), is_private=True)
    write_value(tmp_path / "value", packed)
    for _ in range(2):
        value = load(read_value(tmp_path / "value", is_mapped=True))
        assert value[0] == 0
        value[0] = 1


def test_a_mapped_value_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    write_value(path, pack(np.arange(100_000.0)))
    array = load(read_value(path, is_mapped=True))
    path.unlink()
    assert array[-1] == 99_999


def test_small_values_travel_themselves(vault: Vault, tmp_path: Path) -> None:
    packed = pack("small")
    assert vault.keep(packed) is packed
    assert vault.read(packed) is packed
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_all_do() -> None:
    vault = Vault("without", None, is_near=True)
    packed = pack(LARGE)
    assert vault.keep(packed) is packed
    vault.clear()
    vault.close()


def test_a_file_goes_with_its_last_token(vault: Vault, tmp_path: Path) -> None:
    token = vault.keep(pack(LARGE))
    assert isinstance(token, Token)
    other = pickle.loads(pickle.dumps(token))
    assert other is not token
    assert len(list(tmp_path.iterdir())) == 1
    del token
    assert load(vault.read(other)) == LARGE
    del other
    assert list(tmp_path.iterdir()) == []


def test_a_worker_tells_of_the_first_and_the_last(tmp_path: Path) -> None:
    told: list[str] = []
    vault = Vault(
        "worker",
        str(tmp_path),
        is_near=False,
        on_first=lambda token: told.append(f"first {token.name}"),
        on_last=lambda name: told.append(f"last {name}"),
    )
    token: Any = vault.keep(pack(LARGE))
    name = token.name
    tokens = [pickle.loads(pickle.dumps(token)) for _ in range(3)]
    assert told == [f"first {name}"]
    del token
    tokens.clear()
    assert told == [f"first {name}", f"last {name}"]
    assert len(list(tmp_path.iterdir())) == 1  # the program removes it
    vault.close()


def test_a_token_of_another_session_can_be_read(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Vault("other", str(folder), is_near=True)
    token: Any = other.keep(pack(LARGE))
    packed = pickle.dumps(token)
    other.close()
    assert load(vault.read(pickle.loads(packed))) == LARGE


def test_a_file_that_is_gone_is_an_error(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        vault.read(Token("session", tmp_path, "gone"))


def test_the_folder_is_removed_with_all_that_is_in_it(vault: Vault, tmp_path: Path) -> None:
    token = vault.keep(pack(LARGE))
    vault.clear()
    assert not tmp_path.exists()
    del token  # its file is gone already
