"""The process engine: workers of this machine, forked from a clean template."""
