"""The public name `manyhands.pandas`: what pandas asks for, and the way to pandarallel's names."""

from __future__ import annotations

from typing import Any

from manyhands.errors import DoorNotInstalledError, UnsupportedError


class PandasDoor:
    """pandas on the workers of a session: ``engine=mh.pandas``, ``df.mh``, or pandarallel's names.

    Results are those of pandas itself, in values, types, labels, names and order.

    Examples
    --------
    >>> import manyhands as mh
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"a": [1, 2, 3], "b": [10, 20, 30]})
    >>> frame.mh.apply(lambda row: row["a"] + row["b"], axis=1).tolist()
    [11, 22, 33]
    >>> frame.mh.groupby(frame["a"] > 1)["b"].apply(lambda group: group.max()).tolist()
    [10, 30]
    """

    @property
    def __pandas_udf__(self) -> type:
        """What pandas 3 calls where it is given ``engine=mh.pandas``."""
        pandas = _import_pandas()
        if int(pandas.__version__.split(".")[0]) < 3:
            raise UnsupportedError(
                f"engine=mh.pandas needs pandas 3, and this is pandas {pandas.__version__}: df.mh.apply and "
                f"series.mh.map do the same here"
            )
        from manyhands.frontends.pandas.engine import HandsEngine

        return HandsEngine

    def install(
        self,
        nb_workers: int | None = None,
        progress_bar: bool = False,
        verbose: int = 2,
        *,
        use_memory_fs: bool | None = None,
        shm_size_mb: int | None = None,
    ) -> None:
        """Give frames, series, group-bys and windows the methods that pandarallel's users know.

        These are ``parallel_apply``, and for frames and series ``parallel_map`` and ``parallel_applymap``. Again, it
        changes what was asked for before.

        Parameters
        ----------
        nb_workers
            How many workers; left out, those of the current session.
        progress_bar
            Whether to show how far it is.
        verbose, use_memory_fs, shm_size_mb
            Taken as pandarallel has them, and without a meaning here: nothing is said, and memory is shared without
            files.

        Raises
        ------
        InvalidArgumentError
        DoorNotInstalledError
            pandas is not installed.
        """
        del verbose, use_memory_fs, shm_size_mb
        _import_pandas()
        from manyhands.frontends.pandas.names import install

        install(nb_workers, progress_bar=progress_bar)

    def __repr__(self) -> str:
        return "<manyhands.pandas>"

    def __reduce__(self) -> str:
        return "pandas"


pandas = PandasDoor()


def _import_pandas() -> Any:
    try:
        import pandas as pd
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "pandas":
            raise  # it is installed, and something that it needs is not
        raise DoorNotInstalledError(
            "mh.pandas needs pandas, which is not installed here: pip install 'manyhands[pandas]'"
        ) from missing
    return pd
