"""The engine whose workers are those of a Ray cluster."""

from manyhands.engines.ray.engine import RayEngine as RayEngine
