"""What a session's calls need beside their functions: modules, files, variables of the environment."""

from __future__ import annotations

import os

from manyhands.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Luggage:
    """What goes with a session to wherever its calls run.

    Attributes
    ----------
    ship
        Absolute paths of modules, packages, archives of these, and folders of them.
    files
        Absolute paths of files and folders, by the names that `manyhands.find_file` knows.
    env
        Variables of the environment.

    Examples
    --------
    >>> bool(Luggage()), bool(Luggage(env={"LEVEL": "3"}))
    (False, True)
    """

    __slots__ = ("env", "files", "ship")

    def __init__(
        self,
        ship: Iterable[str] = (),
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.ship = tuple(ship)
        self.files = dict(files or {})
        self.env = dict(env or {})

    def __bool__(self) -> bool:
        return bool(self.ship or self.files or self.env)


def make_luggage(
    ship: Iterable[str | os.PathLike[str]],
    files: Iterable[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]],
    env: Mapping[str, str] | None,
) -> Luggage:
    """The options of `manyhands.Session`, checked.

    Raises
    ------
    InvalidArgumentError
    """
    for option, given in (("ship", ship), ("files", files)):
        if isinstance(given, (str, os.PathLike)):
            raise InvalidArgumentError(f"{option}={given!r}: it is a list of paths, [{given!r}]")
    named = files if isinstance(files, dict) else _name_files(files)
    return Luggage(
        [_find("ship", path) for path in ship],
        {_check_name(name): _find("files", path) for name, path in named.items()},
        _check_variables(env or {}),
    )


def find_among(files: Mapping[str, str], name: str | os.PathLike[str]) -> Path:
    """The file of a name, or in a folder of that name.

    Raises
    ------
    FileNotFoundError
    """
    from pathlib import Path  # few need it

    first, *rest = Path(name).parts or ("",)
    if first not in files:
        known = ", ".join(sorted(files)) or "it has none"
        raise FileNotFoundError(
            f"{os.fspath(name)!r} is none of the session's files: {known}. Name it in mh.Session(files=[…])"
        )
    return Path(files[first], *rest)


def _name_files(files: Iterable[str | os.PathLike[str]]) -> dict[str, str | os.PathLike[str]]:
    named: dict[str, str | os.PathLike[str]] = {}
    for path in files:
        name = os.path.basename(os.path.abspath(path))
        if name in named and os.path.abspath(named[name]) != os.path.abspath(path):
            raise InvalidArgumentError(
                f"files: {os.fspath(named[name])!r} and {os.fspath(path)!r} have one name, {name!r}; give "
                f"names of your own, files={{'a': …, 'b': …}}"
            )
        named[name] = path
    return named


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidArgumentError(f"files: {name!r} is no name of a file; it has no slash in it")
    return name


def _find(option: str, path: str | os.PathLike[str]) -> str:
    try:
        found = os.path.abspath(path)
    except TypeError:
        raise InvalidArgumentError(f"{option}: {path!r} is no path") from None
    if not os.path.exists(found):
        raise InvalidArgumentError(f"{option}: there is no file or folder {found!r}")
    if not os.access(found, os.R_OK):
        raise InvalidArgumentError(f"{option}: {found!r} may not be read")
    return found


def _check_variables(env: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"env: {name!r}: {value!r} — names and values are texts")
        if not name or "=" in name or "\0" in name + value:
            raise InvalidArgumentError(f"env: {name!r} cannot name a variable of the environment")
    return env
