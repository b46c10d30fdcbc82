"""Dask's door: its collections on the workers of a session."""
