"""For those who test programs that use manyhands, and those who write engines for it."""
