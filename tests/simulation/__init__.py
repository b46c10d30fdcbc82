"""Sessions in a simulated world: workers, messages, clock and chance are made up, and one seed is one history."""
