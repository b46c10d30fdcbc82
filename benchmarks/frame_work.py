"""Frames and functions of the rows of pandas; for any version of it, with nothing else of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd


def make_frame(rows: int) -> Any:
    """Numbers, texts and a key with ten rows to each."""
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "key": chance.integers(0, max(rows // 10, 1), rows),
            "price": chance.random(rows),
            "count": chance.integers(1, 9, rows),
            "name": [f"article {number}" for number in range(rows)],
        }
    )


def score(row: Any) -> float:
    return float(row["price"] * row["count"] + len(row["name"]))


def weigh(group: Any) -> float:
    return float((group["price"] * group["count"]).sum() / group["count"].sum())


CASES: dict[str, Callable[[Any, str], Any]] = {
    "pandas-rows": lambda frame, way: call(frame, way, score, axis=1),
    "pandas-groups": lambda frame, way: call(
        _group(frame, way)[["price", "count"]], "apply" if way == "mh" else way, weigh
    ),
    "pandas-small": lambda frame, way: call(frame, way, score, axis=1),
}
"""What is done, by the row's name; given the frame, and the way: "apply", "mh" or "parallel_apply"."""

SIZES = {"pandas-rows": 200_000, "pandas-groups": 200_000, "pandas-small": 20}


def call(owner: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    if way == "mh":
        owner, way = owner.mh, "apply"
    return getattr(owner, way)(*args, **kwargs)


def _group(frame: Any, way: str) -> Any:
    return (frame.mh if way == "mh" else frame).groupby("key")
