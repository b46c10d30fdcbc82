"""Doors for other libraries: what they offer to be plugged into, with our workers behind it."""
