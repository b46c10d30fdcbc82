"""pandarallel's turn in a row of pandas: a program for an interpreter of its own, as it needs a pandas below 3.

python -m benchmarks.pandarallel_turn ROW SIZE WORKERS SECONDS
"""

from __future__ import annotations

import importlib
import json
import sys
import time

from benchmarks.frame_work import CASES, make_frame


def main(row: str, size: int, workers: int, seconds: float) -> None:
    """Print the walls of as many rounds as begin within `seconds`, and the result's sum."""
    frame = make_frame(size)
    pandarallel = importlib.import_module("pandarallel").pandarallel
    pandarallel.initialize(nb_workers=workers, progress_bar=False, verbose=0)
    walls: list[float] = []
    result = CASES[row](frame, "parallel_apply")
    end = time.perf_counter() + seconds
    while not walls or time.perf_counter() < end:
        begin = time.perf_counter()
        result = CASES[row](frame, "parallel_apply")
        walls.append(time.perf_counter() - begin)
    print(json.dumps({"walls": walls, "sum": float(result.sum())}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
