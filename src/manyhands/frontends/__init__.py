"""Doors for other libraries' programs: each module offers one library's interface over a session."""
