"""The engine that runs every call at once, in the caller: the reference, and the debugger's friend."""

from manyhands.engines.inline.engine import InlineEngine

__all__ = ["InlineEngine"]
