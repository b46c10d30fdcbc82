"""Every test of this folder leaves nothing behind."""

from tests.local.conftest import nothing_is_left

__all__ = ["nothing_is_left"]
