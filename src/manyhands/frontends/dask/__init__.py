"""The door for Dask: its collections are computed by a session."""
