"""xarray over Dask inside a session gives what it gives without Dask."""

from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import manyhands as mh
from manyhands.frontends.dask import schedule


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[mh.Session]:
    with mh.Session("local", workers=2) as session:
        yield session


@pytest.fixture(params=["threads", "workers"])
def computed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been computed, all of it in one place."""
    found: list[Any] = []
    compute = schedule.compute

    def note(expr: Any, keys: Any, **keywords: Any) -> Any:
        found.append(keys)
        return compute(expr, keys, **{"on": request.param, **keywords})

    monkeypatch.setattr(schedule, "compute", note)
    return found


def make_weather() -> xr.Dataset:
    """Four months of temperatures and rain at twelve places, some of them missing."""
    random = np.random.default_rng(0)
    temperature = random.normal(10, 8, (120, 4, 3))
    temperature[random.random(temperature.shape) < 0.02] = np.nan
    return xr.Dataset(
        {
            "temperature": (("time", "y", "x"), temperature),
            "rain": (("time", "y", "x"), random.exponential(2, (120, 4, 3))),
        },
        coords={"time": pd.date_range("2023-01-01", periods=120), "y": range(4), "x": [0.5, 1, 2]},
    )


WEATHER = make_weather()
CHUNKS = {"time": 40, "y": 2}


def spread(block: Any, axis: int) -> Any:
    return np.max(block, axis=axis) - np.min(block, axis=axis)


def join_times(weather: xr.Dataset) -> xr.DataArray:
    """The rain, with all times in one chunk where there are chunks."""
    return weather.rain.chunk(time=-1) if weather.chunks else weather.rain


def apply(weather: xr.Dataset) -> Any:
    return xr.apply_ufunc(
        spread,
        join_times(weather),
        input_core_dims=[["time"]],
        kwargs={"axis": -1},
        dask="parallelized",
        output_dtypes=[float],
    )


def scale(block: xr.Dataset, factor: float) -> xr.Dataset:
    scaled: xr.Dataset = block * factor
    return scaled


QUESTIONS: dict[str, Callable[[xr.Dataset], Any]] = {
    "mean of all": lambda weather: weather.mean(),
    "mean over one": lambda weather: weather.temperature.mean("time"),
    "median": lambda weather: join_times(weather).median("time"),
    "quantile": lambda weather: join_times(weather).quantile([0.1, 0.9], "time"),
    "groups": lambda weather: weather.groupby("time.month").mean(),
    "anomalies": lambda weather: (
        weather.rain.groupby("time.month") - weather.rain.groupby("time.month").mean()
    ),
    "groups in bins": lambda weather: weather.rain.groupby_bins("x", [0, 0.75, 3]).sum(...),
    "resampled": lambda weather: weather.resample(time="MS").max(),
    "rolling": lambda weather: weather.temperature.rolling(time=7, min_periods=3).mean(),
    "rolling in two": lambda weather: weather.rain.rolling(time=5, y=2, center=True).sum(),
    "coarse": lambda weather: weather.coarsen(time=10, boundary="trim").mean(),
    "weighted": lambda weather: weather.rain.weighted(weather.y + 1).mean(("y", "x")),
    "cumulated": lambda weather: weather.rain.cumsum("time"),
    "chosen": lambda weather: weather.sel(time="2023-02").where(weather.rain > 1).isel(x=[2, 0]),
    "interpolated": lambda weather: weather.rain.interp(x=[0.7, 1.5]),
    "joined": lambda weather: xr.concat([weather.isel(y=[3]), weather.isel(y=[0, 1])], "y"),
    "ufunc": apply,
    "blocks": lambda weather: weather.map_blocks(scale, kwargs={"factor": 2.0}),
    "correlation": lambda weather: xr.corr(weather.temperature, weather.rain, dim="time"),
    "histories": lambda weather: weather.stack(place=("y", "x")).rain.argmax("time"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_those_without_dask(question: str, computed: list[Any]) -> None:
    ask = QUESTIONS[question]
    lazy = ask(WEATHER.chunk(CHUNKS))
    assert dask.is_dask_collection(lazy)
    found = lazy.compute()
    assert computed
    xr.testing.assert_allclose(found, ask(WEATHER))


def test_load_computes_in_place(computed: list[Any]) -> None:
    weather = WEATHER.chunk(CHUNKS)
    assert weather.load() is weather
    assert not dask.is_dask_collection(weather)
    xr.testing.assert_identical(weather, WEATHER)
    assert len(computed) == 1


def test_what_is_persisted_is_computed_once(computed: list[Any]) -> None:
    ran = WEATHER.chunk(CHUNKS).map_blocks(scale, kwargs={"factor": 3.0})
    kept = ran.persist()
    assert dask.is_dask_collection(kept)
    assert len(computed) == 1
    assert len(dict(kept.__dask_graph__())) <= len(dict(ran.__dask_graph__()))
    xr.testing.assert_allclose(kept.compute(), WEATHER * 3.0)
    xr.testing.assert_allclose(kept.mean().compute(), (WEATHER * 3.0).mean())


def test_several_are_computed_together(computed: list[Any]) -> None:
    weather = WEATHER.chunk(CHUNKS)
    low, high = dask.compute(weather.min(), weather.max())
    xr.testing.assert_identical(low, WEATHER.min())
    xr.testing.assert_identical(high, WEATHER.max())
    assert len(computed) == 1
