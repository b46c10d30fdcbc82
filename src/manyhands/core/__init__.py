"""The shared language of every layer: the standard library and cloudpickle alone."""
