"""The engine whose workers are those of a Dask cluster (`distributed`)."""

from manyhands.engines.dask.engine import DaskEngine as DaskEngine
