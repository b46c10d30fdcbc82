"""The engine of threads: for work that releases the interpreter's lock, and for Python without one."""

from manyhands.engines.threads.engine import ThreadsEngine

__all__ = ["ThreadsEngine"]
