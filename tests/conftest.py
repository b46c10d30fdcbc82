"""For all tests."""

from hypothesis import settings

# Machines are slow at times, and how long an example takes says nothing about what it shows.
settings.register_profile("manyhands", deadline=None)
settings.load_profile("manyhands")
# For the second Python: the first one has tried the many examples.
settings.register_profile("brief", deadline=None, max_examples=20)
