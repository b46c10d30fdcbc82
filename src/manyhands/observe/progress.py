"""The progress bar of a map."""

from __future__ import annotations


class ProgressBar:
    """Shows how many items have ended, at what rate, how many failed, and the time left; also in notebooks.

    Parameters
    ----------
    name
        What stands before the bar.
    total
        Items in all, where that is known.
    """

    def __init__(self, name: str, total: int | None) -> None:
        from tqdm.auto import tqdm

        self._failed = 0
        self._bar = tqdm(total=total, desc=name, unit=" items", dynamic_ncols=True, smoothing=0.1)

    def advance(self, items: int, failed: int) -> None:
        """So many items more have ended, so many of them failed."""
        if failed:
            self._failed += failed
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(items)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
