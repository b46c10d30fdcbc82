"""`multiprocessing.Pool` with arrays in `multiprocessing.shared_memory`, by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from benchmarks.contenders.pool import PoolContender


class SegmentContender(PoolContender):
    """Arrays copied into `multiprocessing.shared_memory`, a new segment each time."""

    def start(self, workers: int) -> None:
        resource_tracker.ensure_running()  # else each worker starts one of its own
        super().start(workers)

    def prepare(self, value: Any) -> Any:
        return value

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        segment = SharedMemory(create=True, size=value.nbytes)
        try:
            return self._share_in(segment, function, value, arguments)
        finally:
            segment.close()
            segment.unlink()

    def _share_in(
        self,
        segment: SharedMemory,
        function: Callable[[Any, Any], Any],
        value: Any,
        arguments: Sequence[Any],
    ) -> list[Any]:
        np.copyto(np.ndarray(value.shape, value.dtype, segment.buf), value)
        place = (segment.name, value.shape, value.dtype.str)
        submit = self._pool.apply_async
        return self.gather(
            [submit(_call_on_segment, (place, function, argument)) for argument in arguments]
        )


class KeptSegmentContender(SegmentContender):
    """As before, but with one segment that stays: what is copied into it finds warm memory."""

    def start(self, workers: int) -> None:
        super().start(workers)
        self._segment: SharedMemory | None = None

    def share(
        self, function: Callable[[Any, Any], Any], value: Any, arguments: Sequence[Any]
    ) -> list[Any]:
        if self._segment is None or self._segment.size < value.nbytes:
            self._drop_segment()
            self._segment = SharedMemory(create=True, size=value.nbytes)
        return self._share_in(self._segment, function, value, arguments)

    def _drop_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment.unlink()

    def close(self) -> None:
        super().close()
        self._drop_segment()


_attached: dict[str, SharedMemory] = {}
"""The segment that this worker used last, by name: attaching anew would fault in every page again."""


def _call_on_segment(
    place: tuple[str, tuple[int, ...], str], function: Callable[[Any, Any], Any], argument: object
) -> Any:
    name, shape, dtype = place
    if name not in _attached:
        while _attached:
            _attached.popitem()[1].close()
        _attached[name] = SharedMemory(name)
    return function(np.ndarray(shape, np.dtype(dtype), _attached[name].buf), argument)
