"""What a session ships to workers that have another disk, packed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nlargest
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from manyhands.core.sizes import format_size
from manyhands.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from manyhands.core.luggage import Luggage

MOST_BYTES = 512 * 2**20
"""Of all files together, unpacked: each worker gets a copy."""

MODULES, FILES = "modules", "files"
"""The folders that it is unpacked to."""

ARCHIVES = (".zip", ".whl", ".egg")
"""Files that Python imports from as they are."""

_SHOWN = 3
"""The largest files of what is too large."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules and files, in an archive.

    Attributes
    ----------
    digest
        Of the content.
    archive
        A zip of the folders `MODULES` and `FILES`.
    modules
        Names of the modules and packages that can be imported from it.
    paths
        Where to import from, below `MODULES`: that itself (``""``), and archives.
    """

    digest: str
    archive: bytes
    modules: tuple[str, ...]
    paths: tuple[str, ...]


def pack(luggage: Luggage) -> Bundle | None:
    """What a session ships; None where that is nothing.

    Of folders of modules, what begins with a dot, caches and virtual environments stay behind.

    Raises
    ------
    InvalidArgumentError
        It is too large, or two things have one name.
    """
    if not luggage.ship and not luggage.files:
        return None
    entries = dict(_list_entries(luggage))
    _check_size(entries)
    digest = blake2b(digest_size=16)
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(entries.items()):
            info = ZipInfo(name)  # of no date, so that equal content is equal
            info.compress_type = ZIP_DEFLATED
            info.external_attr = (os.stat(path).st_mode & 0o777 | 0o400) << 16
            with open(path, "rb") as file:
                content = file.read()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
            archive.writestr(info, content)
    modules = {name.split("/")[1] for name in entries if name.startswith(f"{MODULES}/")}
    archives = sorted(name for name in modules if name.endswith(ARCHIVES))
    names = sorted({name.partition(".")[0] for name in modules if not name.endswith(ARCHIVES)})
    return Bundle(digest.hexdigest(), buffer.getvalue(), tuple(names), ("", *archives))


def is_root(path: str) -> bool:
    """Whether a path is of a folder that modules are imported from, and none of a module or a package."""
    return os.path.isdir(path) and not os.path.exists(os.path.join(path, "__init__.py"))


def _list_entries(luggage: Luggage) -> Iterator[tuple[str, str]]:
    """Names in the archive, and the files that they are of."""
    seen: dict[str, str] = {}
    for path in luggage.ship:
        for relative, file in _walk(path, is_module=True):
            name = relative if is_root(path) else os.path.join(os.path.basename(path), relative)
            name = f"{MODULES}/{os.path.normpath(name)}"
            if seen.setdefault(name, file) != file:
                raise InvalidArgumentError(
                    f"ship: {seen[name]!r} and {file!r} would be one file to import, {name!r}"
                )
            yield name, file
    for known, path in luggage.files.items():
        for relative, file in _walk(path, is_module=False):
            yield f"{FILES}/{os.path.normpath(os.path.join(known, relative))}", file


def _walk(path: str, *, is_module: bool) -> Iterator[tuple[str, str]]:
    if not os.path.isdir(path):
        yield ".", path
        return
    for folder, folders, files in os.walk(path):
        if is_module:
            folders[:] = [name for name in folders if not _stays(os.path.join(folder, name))]
        folders.sort()
        for name in files:
            if not (is_module and name.startswith(".")):
                file = os.path.join(folder, name)
                if os.path.isfile(file):
                    yield os.path.relpath(file, path), file


def _stays(folder: str) -> bool:
    name = os.path.basename(folder)
    return (
        name.startswith(".")
        or name in ("__pycache__", "node_modules")
        or os.path.exists(os.path.join(folder, "pyvenv.cfg"))
    )


def _check_size(entries: dict[str, str]) -> None:
    sizes = {path: os.path.getsize(path) for path in entries.values()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = nlargest(_SHOWN, sizes, key=lambda path: sizes[path])
        shown = ", ".join(f"{path} ({format_size(sizes[path])})" for path in largest)
        raise InvalidArgumentError(
            f"ship= and files= name {format_size(total)} in {len(sizes)} files, and each worker would get a copy; at "
            f"most {format_size(MOST_BYTES)} go. The largest: {shown}. Put those where the workers find them"
        )
